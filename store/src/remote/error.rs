//! What can go wrong with a cache elsewhere. None of it makes a build fail: the caller tells it, and goes on without.

use std::path::{Path, PathBuf};

use crate::digest::{DiffId, Digest};
use crate::error::StoreError;
use crate::layer::apply::ApplyError;
use crate::registry::RegistryError;

/// Why something of a cache can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The cache's directory.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Bytes are not what their name promises.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// What.
        what: String,
        /// How.
        reason: String,
    },
    /// Something that is referred to is not there.
    #[error("pack {digest} is missing")]
    Missing {
        /// Which.
        digest: Digest,
    },
    /// Packs go away while they are used, again and again.
    #[error("others remove what is being written, again and again")]
    Unstable,
    /// A layer that can't be unpacked, or is another one.
    #[error("layer {diff_id}: {source}")]
    Layer {
        /// Which.
        diff_id: DiffId,
        /// Why not.
        source: Box<ApplyError>,
    },
    /// A server, as it says itself.
    #[error("{0}")]
    Server(String),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store here.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was given up.
    #[error("cancelled")]
    Cancelled,
}

impl RemoteError {
    pub(super) fn damaged(what: impl Into<String>, reason: impl Into<String>) -> RemoteError {
        RemoteError::Damaged {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// Adds what was tried, and on what.
pub(super) trait At<T> {
    fn tried(self, action: &'static str, path: &Path) -> Result<T, RemoteError>;
}

impl<T> At<T> for std::io::Result<T> {
    fn tried(self, action: &'static str, path: &Path) -> Result<T, RemoteError> {
        self.map_err(|source| RemoteError::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}
