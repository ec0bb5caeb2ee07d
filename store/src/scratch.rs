//! Temporary directories for other parts of box, on the store's file system.

use std::path::Path;

use crate::error::Result;
use crate::store::Store;
use crate::trash::TempDir;

/// A directory that is removed with the handle, or by a later command if this one is killed.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Store {
    /// An empty temporary directory.
    pub fn scratch(&self) -> Result<Scratch> {
        Ok(Scratch(self.parts().0.temp_dir()?))
    }
}
