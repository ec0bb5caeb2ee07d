//! `box save`: images to an archive.

use box_store::transfer::archive::save_oci;
use box_store::{Image, Reference};

use crate::app::App;
use crate::cli::SaveArgs;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};

use super::export;

/// Writes the archive; a file appears only when it is whole.
pub(super) fn run(app: &App, args: &SaveArgs) -> Result<u8, Failure> {
    let images: Result<Vec<_>, Failure> = args.images.iter().map(|text| named(app, text)).collect();
    let images = images?;
    export::to(args.output.as_deref(), |out| {
        save_oci(&app.store, &images, out).map_err(|e| Failure::of(EXIT_BOX, &e))
    })?;
    for (image, names) in &images {
        let name = names.first().map(Reference::familiar);
        app.note_image("save", &image.id, &name.unwrap_or_default());
    }
    Ok(0)
}

/// The image with the name it is saved under: the one that was asked for.
fn named(app: &App, text: &str) -> Result<(Image, Vec<Reference>), Failure> {
    let image = app.image(text, EXIT_INPUT)?;
    let asked = Reference::parse(text).ok();
    let names = app
        .names_of(&image)?
        .into_iter()
        .filter(|name| asked.as_ref() == Some(name))
        .collect();
    Ok((image, names))
}
