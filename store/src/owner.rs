//! Owners: the processes that use the store, what they have in `tmp/`, and how it is known that one has died.
//!
//! `tmp/<owner>.lock` says that the owner of `tmp/<owner>/` lives. It exists before the directory and is removed after it. A reaper removes
//! the directory only while it holds that lock itself; an owner whose fresh lock file was reaped before it could lock it takes another id.
//!
//! It is a record lock (fcntl), not a `flock`: a child that has not executed its program yet has copies of all descriptors and would hold a
//! `flock` on, so that a process that was killed while it started another seemed to live. But a process loses a record lock when it
//! closes any descriptor of the file, and gets its own a second time: hence [`MINE`].

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::disk::Disk;
use crate::error::{IoContext, Result, StoreError};
use crate::lock::is_linked;

/// The lock files of this process' own owners: nobody here may open them. Held while any lock file is open for a moment.
static MINE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

const ALONE: FlockOperation = FlockOperation::NonBlockingLockExclusive;

fn mine() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    MINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The id of one process that uses the store: 16 hex digits, never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnerId(String);

impl OwnerId {
    /// The id as text; safe in file names and names of cgroups.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn fresh() -> Result<OwnerId> {
        let mut bytes = [0; 8];
        let source = Path::new("/dev/urandom");
        File::open(source)
            .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))
            .at("read", source)?;
        Ok(OwnerId(format!("{:016x}", u64::from_le_bytes(bytes))))
    }

    fn is_well_formed(text: &str) -> bool {
        text.len() == 16
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A living owner: its lock is held, its directory exists.
#[derive(Debug)]
pub(crate) struct Owner {
    id: OwnerId,
    dir: PathBuf,
    lock_path: PathBuf,
    /// Open for its lock.
    lock: Option<File>,
}

impl Owner {
    /// Makes a new owner in `tmp`.
    pub(crate) fn claim(disk: &Disk, tmp: &Path) -> Result<Owner> {
        loop {
            let id = OwnerId::fresh()?;
            let lock_path = tmp.join(format!("{id}.lock"));
            if let Some(lock) = Owner::try_lock(&lock_path)? {
                let dir = tmp.join(id.as_str());
                let owner = Owner {
                    id,
                    dir,
                    lock_path,
                    lock: Some(lock),
                };
                disk.make_dir(&owner.dir)?;
                return Ok(owner);
            }
        }
    }

    /// None if a reaper came first.
    fn try_lock(path: &Path) -> Result<Option<File>> {
        let mut mine = mine();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            result => result.at("create", path)?,
        };
        if !try_record_lock(&file, ALONE).at("lock", path)? || !is_linked(&file, path) {
            return Ok(None);
        }
        mine.insert(path.to_owned());
        Ok(Some(file))
    }

    pub(crate) fn id(&self) -> &OwnerId {
        &self.id
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // What can't be removed now is reaped later: the lock file must stay for that.
        if fs::remove_dir_all(&self.dir).is_ok() || !self.dir.exists() {
            let _ = fs::remove_file(&self.lock_path);
        }
        let mut mine = mine();
        drop(self.lock.take());
        mine.remove(&self.lock_path);
    }
}

/// Locks an open file for this process, without waiting; false if another one has it.
fn try_record_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match rustix::fs::fcntl_lock(file, operation) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the process with this owner id lives and uses the store at `tmp`.
pub(crate) fn is_alive(tmp: &Path, id: &str) -> bool {
    if !OwnerId::is_well_formed(id) {
        return false;
    }
    let path = tmp.join(format!("{id}.lock"));
    let mine = mine();
    if mine.contains(&path) {
        return true;
    }
    let Ok(file) = File::open(path) else {
        return false;
    };
    // Shared, so that two who ask at once don't see each other.
    matches!(
        try_record_lock(&file, FlockOperation::NonBlockingLockShared),
        Ok(false)
    )
}

/// Removes what dead owners left in `tmp`.
pub(crate) fn reap(disk: &Disk, tmp: &Path) -> Result<()> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(tmp).at("read", tmp)? {
        let name = entry.at("read", tmp)?.file_name();
        match name.to_str() {
            Some(name) if name.ends_with(".lock") => reap_owner(disk, tmp, name)?,
            _ => directories.push(tmp.join(name)),
        }
    }
    for directory in directories {
        // An owner's lock file is there before its directory, and after it: without one there is no owner.
        let mut lock = directory.clone().into_os_string();
        lock.push(".lock");
        if !Path::new(&lock).exists() && directory.exists() {
            remove_left(disk, &directory)?;
        }
    }
    Ok(())
}

/// Removes what a dead owner left; false if something is made in it all the time. Its containers' processes may be dying only now.
fn remove_left(disk: &Disk, directory: &Path) -> Result<bool> {
    for _ in 0..10 {
        match disk.remove_tree(directory) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.map(|()| true),
        }
    }
    Ok(false)
}

fn reap_owner(disk: &Disk, tmp: &Path, lock_name: &str) -> Result<()> {
    let path = tmp.join(lock_name);
    let mine = mine();
    if mine.contains(&path) {
        return Ok(());
    }
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.at("open lock", &path)?,
    };
    if !try_record_lock(&file, ALONE).at("lock", &path)? || !is_linked(&file, &path) {
        return Ok(());
    }
    // The lock file stays as long as the directory: a later command removes them.
    if remove_left(disk, &tmp.join(lock_name.trim_end_matches(".lock")))? {
        disk.remove_file(&path)?;
    }
    Ok(())
}
