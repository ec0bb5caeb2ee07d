//! Directories of the context that others read.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::{Context, resolve};
use crate::files::{EntryKind, FilesError};

impl Context<'_> {
    /// Opens a directory in it, following links inside it; none if there is none. The ignore file has no say.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open_directory(&self, path: &Path) -> Result<Option<OwnedFd>, FilesError> {
        let found = resolve(self, path)?.filter(|(_, meta)| meta.kind == EntryKind::Directory);
        match found {
            Some((path, _)) => self.open_at(&path, OFlags::PATH | OFlags::DIRECTORY),
            None => Ok(None),
        }
    }
}
