//! `box tag`: another name for an image.

use crate::app::App;
use crate::cli::TagArgs;
use crate::error::Failure;

/// Gives the image the name.
pub(super) fn run(app: &App, args: &TagArgs) -> Result<u8, Failure> {
    let image = app.image(&args.image, 1)?;
    app.tag(&args.name, &image.id)?;
    Ok(0)
}
