//! Files of one source whose places in the layer are ready: they are read and written on all processors.

use std::path::{Path, PathBuf};

use box_store::side_by_side;
use box_store::snapshot::Reserved;

use crate::error::StepError;
use crate::exec::CancelToken;
use crate::files::{Content, Entry, FileTree, FilesError};

/// The most that wait, and the most directories that are kept open for them.
const FILES: usize = 4096;
const DIRECTORIES: usize = 64;

/// A file that is to be written.
struct Pending<'a> {
    from: PathBuf,
    entry: &'a Entry,
    place: Reserved,
}

/// Files that are to be written.
pub(super) struct Batch<'a> {
    source: &'a dyn FileTree,
    cancel: &'a CancelToken,
    pending: Vec<Pending<'a>>,
    directories: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(source: &'a dyn FileTree, cancel: &'a CancelToken) -> Batch<'a> {
        Batch {
            source,
            cancel,
            pending: Vec::new(),
            directories: 0,
        }
    }

    /// Takes a file; writes all when that is enough.
    pub(super) fn push(&mut self, from: &Path, entry: &'a Entry, place: Reserved) -> Result<(), StepError> {
        let last = self.pending.last();
        let is_same = last.is_some_and(|last| last.place.is_beside(&place));
        self.directories += usize::from(!is_same);
        self.pending.push(Pending {
            from: from.to_owned(),
            entry,
            place,
        });
        match self.pending.len() >= FILES || self.directories >= DIRECTORIES {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Writes them all.
    ///
    /// # Errors
    /// When something can't be read, has changed since it was hashed, or can't be written.
    pub(super) fn write(&mut self) -> Result<(), StepError> {
        let pending = std::mem::take(&mut self.pending);
        self.directories = 0;
        side_by_side::each(pending.len(), side_by_side::FILES, |at| {
            self.write_one(&pending[at])
        })
        .map(drop)
    }

    fn write_one(&self, pending: &Pending<'_>) -> Result<(), StepError> {
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        let mut file = self.source.open(&pending.from, &pending.entry.meta)?;
        let digest = pending.place.write(&mut file)?;
        match Content::File(digest) == pending.entry.content {
            true => Ok(()),
            false => Err(FilesError::Changed {
                path: pending.from.clone(),
                tree: self.source.describe(),
            }
            .into()),
        }
    }
}
