//! The few operations through which the store changes the disk.
//!
//! Everything that is published goes temp → verify → rename here. Nothing is synced file by file: [`Disk::sync_all`] is
//! one `syncfs`, called before success is reported; only names are synced on their own ([`Durability::Now`]).
//! All of it can be made to fail ([`Faults`]), so that tests see what the store does on a bad disk.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::RenameFlags;

use crate::error::{IoContext, Result, StoreError};
use crate::remove;

/// An operation that a test can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskOp {
    /// A file or directory is made.
    Create,
    /// Bytes are written.
    Write,
    /// Something is renamed to its published name.
    Rename,
    /// A file, a directory or the file system is synced.
    Sync,
    /// Something is removed.
    Remove,
}

/// Decides which operations fail; for tests.
pub trait Faults: Send + Sync {
    /// Called before the operation; an error is given to the caller as if the system had said it.
    fn check(&self, op: DiskOp, path: &Path) -> io::Result<()>;
}

/// When a written file must be on the platter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// With the next [`Disk::sync_all`].
    Later,
    /// Before the call returns: file and directory are synced.
    Now,
}

/// The disk, with the faults that a test wants.
#[derive(Clone, Default)]
pub struct Disk {
    faults: Option<Arc<dyn Faults>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("faults", &self.faults.is_some())
            .finish()
    }
}

impl Disk {
    /// A disk that asks `faults` before each operation.
    pub fn with_faults(faults: Arc<dyn Faults>) -> Disk {
        Disk { faults: Some(faults) }
    }

    fn check(&self, op: DiskOp, action: &'static str, path: &Path) -> Result<()> {
        match &self.faults {
            Some(faults) => faults.check(op, path).at(action, path),
            None => Ok(()),
        }
    }

    /// Makes a directory (mode 0700) and its missing parents; fine if it is there.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        self.check(DiskOp::Create, "make directory", path)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .at("make directory", path)
    }

    /// Opens a new file (mode 0600) for writing and reading; an error if it is there.
    pub fn create_file(&self, path: &Path) -> Result<File> {
        self.check(DiskOp::Create, "create", path)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .at("create", path)
    }

    /// Writes `bytes` to an open file; `path` is for the error.
    pub fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
        self.check(DiskOp::Write, "write", path)?;
        file.write_all(bytes).at("write", path)
    }

    /// Puts a file with these bytes in place of `dest`, by way of `temp` (a fresh name in the same file system).
    pub fn replace(&self, temp: &Path, dest: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
        let result = self
            .write_temp(temp, bytes, durability)
            .and_then(|()| self.rename_into(temp, dest));
        if result.is_err() {
            // Whatever is left of it is in tmp/, which is reaped.
            let _ = fs::remove_file(temp);
            return result;
        }
        if durability == Durability::Now {
            self.sync_parent(dest)?;
        }
        Ok(())
    }

    fn write_temp(&self, temp: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
        let mut file = self.create_file(temp)?;
        self.write(&mut file, temp, bytes)?;
        if durability == Durability::Now {
            self.sync_file(&file, temp)?;
        }
        Ok(())
    }

    /// Renames over `dest`; makes the directory of `dest` if that is missing.
    pub fn rename_into(&self, from: &Path, dest: &Path) -> Result<()> {
        self.check(DiskOp::Rename, "rename", dest)?;
        match fs::rename(from, dest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_parent(dest)?;
                fs::rename(from, dest).at("rename to", dest)
            }
            result => result.at("rename to", dest),
        }
    }

    /// Renames to `dest` unless something is there; says whether it did.
    pub fn rename_new(&self, from: &Path, dest: &Path) -> Result<bool> {
        self.check(DiskOp::Rename, "rename", dest)?;
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            from,
            rustix::fs::CWD,
            dest,
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => Ok(false),
            Err(rustix::io::Errno::NOENT) if dest.parent().is_some_and(|parent| !parent.exists()) => {
                self.make_parent(dest)?;
                self.rename_new(from, dest)
            }
            Err(error) => Err(error).at("rename to", dest),
        }
    }

    /// Exchanges two names in one step.
    pub fn exchange(&self, a: &Path, b: &Path) -> Result<()> {
        self.check(DiskOp::Rename, "rename", b)?;
        rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, RenameFlags::EXCHANGE)
            .at("rename to", b)
    }

    fn make_parent(&self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.make_dir(parent))
    }

    /// Syncs one file.
    pub fn sync_file(&self, file: &File, path: &Path) -> Result<()> {
        self.check(DiskOp::Sync, "sync", path)?;
        file.sync_all().at("sync", path)
    }

    /// Syncs the directory that holds `path`.
    pub fn sync_parent(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        self.check(DiskOp::Sync, "sync", parent)?;
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .at("sync", parent)
    }

    /// Syncs the whole file system that holds the open directory `dir`: data, then what refers to it. The directory should
    /// have been open since before the first write: the system tells an error of writing back once to each opening.
    pub fn sync_all(&self, dir: &File, path: &Path) -> Result<()> {
        self.check(DiskOp::Sync, "sync", path)?;
        rustix::fs::syncfs(dir).at("sync", path)
    }

    /// Removes a file; fine if it is gone. Says whether it was there.
    pub fn remove_file(&self, path: &Path) -> Result<bool> {
        self.check(DiskOp::Remove, "remove", path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.at("remove", path).map(|()| true),
        }
    }

    /// Removes a directory with all that is in it, following no links; fine if it is gone.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        self.check(DiskOp::Remove, "remove", path)?;
        match remove::tree(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => self.remove_file(path).map(drop),
            result => result.at("remove", path),
        }
    }

    /// Reads a whole file; none if it is not there, an error if it has more than `limit` bytes.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.at("open", path)?,
        };
        // Room for all of it, so that it is read at once.
        let length = file.metadata().at("read", path)?.len().min(limit);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
        file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge {
                what: path.display().to_string(),
                limit,
            });
        }
        Ok(Some(bytes))
    }
}
