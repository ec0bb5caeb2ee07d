//! What can go wrong with a volume.

use std::path::PathBuf;

use crate::error::StoreError;
use crate::layer::apply::ApplyError;

/// An error of a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// A text that can name no volume.
    #[error(
        "{name:?} can't name a volume: a name is 2 to 255 letters, digits, '_', '.' and '-', the first a letter or digit; a directory of the host is given as a path that begins with / or ."
    )]
    BadName {
        /// The text.
        name: String,
    },
    /// There is no such volume.
    #[error("there is no volume {name}")]
    Missing {
        /// What was asked for.
        name: String,
    },
    /// A running container uses it.
    #[error("the volume {name} is in use by a running container; stop that first")]
    InUse {
        /// Which volume.
        name: String,
    },
    /// Containers that don't run need it.
    #[error("the volume {name} belongs to {}; remove them first (box rm)", containers.join(", "))]
    Referenced {
        /// Which volume.
        name: String,
        /// What the containers are called.
        containers: Vec<String>,
    },
    /// It could not be filled from the image.
    #[error("cannot fill the volume {name} with the image's {}: {source}; `nocopy` leaves it empty", path.display())]
    Fill {
        /// Which volume.
        name: String,
        /// The directory in the image.
        path: PathBuf,
        /// Why.
        source: Box<ApplyError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
