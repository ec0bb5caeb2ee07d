//! `box rmi`: names and images away.

use box_store::{Image, Reference, StoreError};

use crate::app::App;
use crate::cli::RmiArgs;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Removes each; goes on after one that fails, and fails in the end.
pub(super) fn run(app: &App, args: &RmiArgs) -> Result<u8, Failure> {
    let mut code = 0;
    for name in &args.images {
        if let Err(failure) = remove(app, name, args.force) {
            ui::error(&failure);
            code = failure.code;
        }
    }
    Ok(code)
}

/// A name loses the image; the last name, or an id, takes the image itself away.
fn remove(app: &App, text: &str, force: bool) -> Result<(), Failure> {
    let image = app.image(text, EXIT_INPUT)?;
    let names = app.names_of(&image)?;
    let given = Reference::parse(text).ok().filter(|name| names.contains(name));
    let is_by_name = given.is_some();
    match given {
        Some(name) => {
            untag(app, &name, &image)?;
            if names.len() > 1 {
                return Ok(());
            }
        }
        None if names.len() > 1 && !force => return Err(several(&image, &names)),
        None => names.iter().try_for_each(|name| untag(app, name, &image))?,
    }
    match app.store.remove_image(&image.id) {
        // Somebody has given it another one meanwhile, a pull for example.
        Err(StoreError::SeveralNames { .. }) if is_by_name => return Ok(()),
        removed => removed.map_err(|e| Failure::of(EXIT_BOX, &e))?,
    };
    app.note_image("delete", &image.id, text);
    ui::result(&format!(
        "Deleted: {} (box gc removes its layers, but for those of the build cache)\n",
        image.id
    ))
}

fn untag(app: &App, name: &Reference, image: &Image) -> Result<(), Failure> {
    app.store.untag(name).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    app.note_image("untag", &image.id, &name.familiar());
    ui::result(&format!("Untagged: {}\n", name.familiar()))
}

fn several(image: &Image, names: &[Reference]) -> Failure {
    let names: Vec<String> = names.iter().map(Reference::familiar).collect();
    Failure::input(format!(
        "image {} has several names: {}",
        image.id,
        names.join(", ")
    ))
    .hint("remove them one by one, or all with --force")
}
