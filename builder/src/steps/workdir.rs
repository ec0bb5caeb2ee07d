//! WORKDIR: the directory, made if it is missing.

use std::path::Path;

use box_store::beneath::Kind;
use box_store::tree::Tree;

use crate::error::{PlaceError, StepError};
use crate::plan::WorkdirStep;

use super::place::{Placer, Target};
use super::{At, Made, Tools, users};

/// Makes the directory and what is missing above it, owned by the user of that moment.
///
/// # Errors
/// When something else is there; when the user is not known.
pub(crate) fn run(tools: &Tools<'_>, at: At<'_>, step: &WorkdirStep) -> Result<Made, StepError> {
    let tree = Tree::new(at.layers);
    let found = tree.resolve(Path::new(&step.path), true)?;
    match found.entry.map(|entry| entry.metadata.kind) {
        Some(Kind::Directory) => {
            return Ok(Made {
                laid: None,
                layer: None,
                usage: None,
            });
        }
        Some(_) => {
            return Err(PlaceError::NotADirectory {
                path: Path::new("/").join(found.path),
            }
            .into());
        }
        None => {}
    }
    let owner = match step.user.as_str() {
        "" => None,
        user => Some(users::owner(&tree, user)?),
    };
    let writer = tools.store.layer_writer(at.layers, &tools.options())?;
    let target = Target {
        destination: &step.path,
        owner,
        chmod: None,
        keeps_directories: false,
        cancel: tools.cancel,
    };
    let mut placer = Placer::new(&tree, writer, target)?;
    placer.make_dirs(&found.path)?;
    Ok(Made::of(placer.finish().commit()?, None))
}
