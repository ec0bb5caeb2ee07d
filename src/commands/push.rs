//! `box push`: an image to a registry.

use box_builder::exec::CancelToken;

use crate::app::{self, App};
use crate::cli::PushArgs;
use crate::error::{EXIT_INPUT, Failure};
use crate::registries::{self, Registries};
use crate::ui;

use super::build::cancel_on_signals;

/// Pushes the image, and prints its manifest's digest.
pub(super) fn run(app: &App, args: &PushArgs) -> Result<u8, Failure> {
    let image = app.image(&args.image, EXIT_INPUT)?;
    let name = app::reference(args.name.as_ref().unwrap_or(&args.image)).map_err(|failure| {
        match args.name.is_some() {
            true => failure,
            false => failure.hint("an image that is meant by its id needs a name: box push IMAGE NAME"),
        }
    })?;
    let registries = Registries::new(&args.registry)?;
    let cancel = CancelToken::new();
    cancel_on_signals(&cancel)?;
    let progress = ui::Transfers::new(args.progress, args.quiet, &cancel);
    let mut options = registries.options(None);
    options.packing = args.compression.unwrap_or(options.packing);
    let pushed = box_store::registry::push(&app.store, &image, &name, &options, &progress);
    let pushed = pushed.map_err(|error| registries::failure(&error, Some(&cancel)))?;
    app.store
        .sync()
        .map_err(|e| Failure::of(crate::error::EXIT_BOX, &e))?;
    app.note_image("push", &image.id, &name.familiar());
    if !args.quiet {
        let mounted = match pushed.mounted {
            0 => String::new(),
            count => format!(", {count} mounted from other repositories"),
        };
        ui::note(&format!("{name}: {} sent{mounted}", pushed.sent));
    }
    ui::result(&format!("{}\n", pushed.manifest))?;
    Ok(0)
}
