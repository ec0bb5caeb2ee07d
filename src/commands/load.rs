//! `box load`: images from an OCI archive.

use std::fs::File;
use std::io::Read;

use box_store::transfer::archive::{LoadOptions, load_oci};

use crate::app::App;
use crate::cli::LoadArgs;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Loads every image of the archive and says which.
pub(super) fn run(app: &App, args: &LoadArgs) -> Result<u8, Failure> {
    let mut source: Box<dyn Read> = match &args.input {
        Some(path) => Box::new(
            File::open(path)
                .map_err(|e| Failure::new(EXIT_INPUT, format!("cannot read {}: {e}", path.display())))?,
        ),
        None => Box::new(std::io::stdin().lock()),
    };
    let loaded = load_oci(&app.store, &mut source, &LoadOptions::default())
        .map_err(|e| Failure::of(EXIT_INPUT, &e))?;
    let mut lines = String::new();
    for image in &loaded {
        let name = image.names.first().map(|name| name.familiar());
        app.note_image("load", &image.image.id, &name.unwrap_or_default());
        if args.quiet || image.names.is_empty() {
            lines.push_str(&format!("{}\n", image.image.id));
        } else {
            image
                .names
                .iter()
                .for_each(|name| lines.push_str(&format!("Loaded image: {}\n", name.familiar())));
        }
    }
    app.store.sync().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    ui::result(&lines)?;
    Ok(0)
}
