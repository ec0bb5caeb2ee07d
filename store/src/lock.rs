//! Locks: `flock`s held by the living, so that no lock outlives its holder.
//!
//! - `locks/store` is held shared while the store is open (exclusive only by a sweep of the garbage collector, which holds `locks/turn`
//!   while it waits, so that newcomers do too). A running container holds `locks/use/<hex>` of what it lies on instead.
//! - `locks/<class>/<hex>` serialise the making of one thing. The file is unlinked by whoever holds it last; who gets the
//!   lock of an unlinked file tries again.
//! - `tmp/<owner>.lock` says that the owner of `tmp/<owner>/` lives. It exists before the directory and is removed after
//!   it. A reaper removes the directory only while it holds that lock itself; an owner whose fresh lock file was reaped
//!   before it could lock it takes another id.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::disk::Disk;
use crate::error::{IoContext, Result, StoreError};

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
fn is_linked(file: &File, path: &Path) -> bool {
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

/// A living owner: its lock is held, its directory exists.
#[derive(Debug)]
pub(crate) struct Owner {
    id: OwnerId,
    dir: PathBuf,
    /// Dropped last: whoever gets it may remove the directory.
    lock: Option<LockGuard>,
}

impl Owner {
    /// Makes a new owner in `tmp`.
    pub(crate) fn claim(disk: &Disk, tmp: &Path) -> Result<Owner> {
        loop {
            let id = OwnerId::fresh()?;
            let lock_path = tmp.join(format!("{id}.lock"));
            if let Some(lock) = Owner::try_lock(&lock_path)? {
                let dir = tmp.join(id.as_str());
                disk.make_dir(&dir)?;
                return Ok(Owner {
                    id,
                    dir,
                    lock: Some(lock),
                });
            }
        }
    }

    /// None if a reaper came first.
    fn try_lock(path: &Path) -> Result<Option<LockGuard>> {
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
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_linked(&file, path) => Ok(Some(LockGuard {
                file,
                path: path.to_owned(),
                transient: true,
            })),
            Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).at("lock", path),
        }
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
        if fs::remove_dir_all(&self.dir).is_err()
            && self.dir.exists()
            && let Some(lock) = self.lock.as_mut()
        {
            lock.transient = false;
        }
    }
}

/// Whether the process with this owner id lives and uses the store at `tmp`.
pub(crate) fn owner_is_alive(tmp: &Path, id: &str) -> bool {
    if !OwnerId::is_well_formed(id) {
        return false;
    }
    let Ok(file) = File::open(tmp.join(format!("{id}.lock"))) else {
        return false;
    };
    matches!(
        flock(&file, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

/// Removes what dead owners left in `tmp`; says how many there were.
pub(crate) fn reap(disk: &Disk, tmp: &Path) -> Result<usize> {
    let mut reaped = 0;
    let mut directories = Vec::new();
    for entry in fs::read_dir(tmp).at("read", tmp)? {
        let name = entry.at("read", tmp)?.file_name();
        match name.to_str() {
            Some(name) if name.ends_with(".lock") => reaped += usize::from(reap_owner(disk, tmp, name)?),
            _ => directories.push(tmp.join(name)),
        }
    }
    for directory in directories {
        // An owner's lock file is there before its directory, and after it: without one there is no owner.
        let mut lock = directory.clone().into_os_string();
        lock.push(".lock");
        if !Path::new(&lock).exists() && directory.exists() {
            disk.remove_tree(&directory)?;
            reaped += 1;
        }
    }
    Ok(reaped)
}

fn reap_owner(disk: &Disk, tmp: &Path, lock_name: &str) -> Result<bool> {
    let path = tmp.join(lock_name);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result.at("open lock", &path)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_linked(&file, &path) => {}
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error).at("lock", &path),
    }
    disk.remove_tree(&tmp.join(lock_name.trim_end_matches(".lock")))?;
    disk.remove_file(&path)?;
    Ok(true)
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
