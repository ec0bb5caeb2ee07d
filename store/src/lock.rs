//! Locks: `flock`s held by the living, so that no lock outlives its holder.
//!
//! - `locks/store` is held shared while the store is open (exclusive only by a sweep of the garbage collector, which holds `locks/turn`
//!   while it waits, so that newcomers do too). A running container holds `locks/use/<hex>` of what it lies on instead.
//! - `locks/<class>/<hex>` serialise the making of one thing. The file is unlinked by whoever holds it last; who gets the
//!   lock of an unlinked file tries again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{IoContext, Result, StoreError};

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct LockGuard {
    file: File,
    path: PathBuf,
    /// Whether the file goes with the lock.
    transient: bool,
}

impl LockGuard {
    /// What is locked.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.transient {
            // Still locked: whoever waits for this file finds it unlinked and makes a new one.
            let _ = fs::remove_file(&self.path);
        }
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Opens a lock file, which is made when it is missing.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Whether the open file is still the one at `path`.
pub(crate) fn is_linked(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        _ => false,
    }
}

fn flock(file: &File, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Takes the lock of `path` for this holder alone, waiting for others unless `try_only`; none if others hold it.
pub(crate) fn exclusive(path: &Path, try_only: bool) -> Result<Option<LockGuard>> {
    let operation = if try_only {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::LockExclusive
    };
    loop {
        let file = match open_lock(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(Path::new("."));
                fs::create_dir_all(parent).at("make directory", parent)?;
                open_lock(path)
            }
            result => result,
        }
        .at("open lock", path)?;
        match flock(&file, operation) {
            Ok(()) if is_linked(&file, path) => {
                return Ok(Some(LockGuard {
                    file,
                    path: path.to_owned(),
                    transient: true,
                }));
            }
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).at("lock", path),
        }
    }
}

/// Takes a lasting lock file shared; the file must exist (nothing is written).
pub(crate) fn shared(path: &Path) -> Result<LockGuard> {
    shared_of(File::open(path).at("open lock", path)?, path)
}

/// Takes an open lock file shared.
pub(crate) fn shared_of(file: File, path: &Path) -> Result<LockGuard> {
    flock(&file, FlockOperation::LockShared).at("lock", path)?;
    Ok(LockGuard {
        file,
        path: path.to_owned(),
        transient: false,
    })
}

/// Waits for whoever holds this lock; a missing one holds nobody up.
pub(crate) fn pass(path: &Path) -> Result<()> {
    match File::open(path) {
        Ok(file) => flock(&file, FlockOperation::LockShared).at("lock", path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("open lock", path),
    }
}

/// Takes an open file's lock for this holder alone, if nobody else has it. If somebody has, a shared lock that this holder had is lost.
pub(crate) fn try_exclusive(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes an open file's lock a shared one, waiting for others.
pub(crate) fn take_shared(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::LockShared)?)
}

/// Lets go of an open file's lock.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::Unlock)?)
}

/// Takes a directory for this holder alone, waiting for others.
pub(crate) fn directory(path: &Path) -> Result<LockGuard> {
    let file = File::open(path).at("open", path)?;
    flock(&file, FlockOperation::LockExclusive).at("lock", path)?;
    Ok(LockGuard {
        file,
        path: path.to_owned(),
        transient: false,
    })
}

/// Checks a word that becomes a directory's name.
pub(crate) fn check_kind(name: &str) -> Result<()> {
    let fine = (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fine {
        Ok(())
    } else {
        Err(StoreError::BadKind {
            name: name.to_owned(),
        })
    }
}
