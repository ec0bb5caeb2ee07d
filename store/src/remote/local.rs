//! A cache in a directory: `packs/<hex>`, `indexes/<hex>`, and `tmp/` for what is being written.
//!
//! Indexes change under a lock (`flock` on `lock`), which is held for as long as that takes; packs are written without. Writers may be killed
//! at any time: what is in `tmp/` is locked by its writer, and goes when that is dead; what is needed by no index goes when it is an hour old.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::backend::{Backend, Merge, Object};
use super::error::{At, RemoteError};
use super::seal::{ALL_PACKED_LIMIT, MOST, PACKED_LIMIT};
use crate::digest::Digest;

/// How long what nobody needs may still be somebody's who is about to need it.
const GRACE: Duration = Duration::from_secs(3600);

/// How long another one may change the indexes, and how often that is looked at.
const LOCK: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_millis(20);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A cache in a directory.
pub struct LocalBackend {
    dir: PathBuf,
    cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalBackend").field(&self.dir).finish()
    }
}

/// An index, and its bytes if they are whole.
type Found = (PathBuf, Option<Vec<u8>>);

impl LocalBackend {
    /// The cache in this directory, which is made when something is written.
    pub fn new(dir: impl Into<PathBuf>, cancelled: Arc<dyn Fn() -> bool + Send + Sync>) -> LocalBackend {
        LocalBackend {
            dir: dir.into(),
            cancelled,
        }
    }

    fn packs(&self) -> PathBuf {
        self.dir.join("packs")
    }

    fn indexes_dir(&self) -> PathBuf {
        self.dir.join("indexes")
    }

    fn pack(&self, pack: &Object) -> PathBuf {
        self.packs().join(pack.digest.hex())
    }

    /// Writes a file that is there whole or not at all, and after a power cut, too.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), RemoteError> {
        let tmp = self.dir.join("tmp");
        for dir in [Some(tmp.as_path()), path.parent()].into_iter().flatten() {
            fs::create_dir_all(dir).tried("make directory", dir)?;
            if !fs::symlink_metadata(dir).tried("look at", dir)?.is_dir() {
                return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is a link"))
                    .tried("write into", dir);
            }
        }
        let temp = tmp.join(format!(
            "{}-{}-{}",
            path.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let written = begin(&temp)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_data()?;
                Ok(file)
            })
            // It is locked until it is there.
            .and_then(|_file| fs::rename(&temp, path));
        written.tried("write", path).inspect_err(|_| {
            let _ = fs::remove_file(&temp);
        })
    }

    /// Reads all indexes: paths and bytes. Of one that is removed meanwhile there is a newer one: then all are read again.
    fn read_indexes(&self, warn: &mut dyn FnMut(String)) -> Result<Vec<Found>, RemoteError> {
        let mut attempts = 0;
        'again: loop {
            let (mut found, mut left) = (Vec::new(), ALL_PACKED_LIMIT);
            for path in names(&self.indexes_dir())? {
                if found.len() == MOST {
                    warn(format!(
                        "there are more than {MOST} indexes; the others are left out"
                    ));
                    break;
                }
                let bytes = match read_whole(&path, PACKED_LIMIT.min(left)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < 10 => {
                        attempts += 1;
                        continue 'again;
                    }
                    bytes => bytes.tried("read", &path)?,
                };
                let is_whole = bytes
                    .as_ref()
                    .is_some_and(|bytes| path.ends_with(Digest::of(bytes).hex()));
                if !is_whole {
                    warn(format!("the index {} is damaged, or too long", path.display()));
                }
                let bytes = bytes.filter(|_| is_whole);
                left -= bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                found.push((path, bytes));
            }
            return Ok(found);
        }
    }

    /// Removes what no index needs, and what the dead left, if it is old.
    fn sweep(&self, live: &[Object]) -> Result<(), RemoteError> {
        let live: BTreeSet<String> = live.iter().map(|pack| pack.digest.hex()).collect();
        let is_live = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| live.contains(name))
        };
        for path in names(&self.packs())? {
            if !is_live(&path) && is_old(&path) {
                let _ = fs::remove_file(&path);
            }
        }
        for path in names(&self.dir.join("tmp"))? {
            // Locked until it is gone, so that who makes it sees that.
            let dead = of_the_dead(&path);
            if dead.is_some() || is_old(&path) {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Alone among those who change indexes, where the file system has locks.
    fn lock(&self) -> Result<File, RemoteError> {
        fs::create_dir_all(&self.dir).tried("make directory", &self.dir)?;
        let path = self.dir.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(quiet())
            .open(&path);
        let file = file.tried("open", &path)?;
        let until = Instant::now() + LOCK;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if (self.cancelled)() => return Err(RemoteError::Cancelled),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(TICK),
                Err(Errno::WOULDBLOCK) => {
                    let held = io::Error::new(io::ErrorKind::TimedOut, "another box has held it for minutes");
                    return Err(held).tried("lock", &path);
                }
                Err(Errno::INTR) => {}
                // Where the file system has no locks, two at once may lose entries of one.
                Ok(()) | Err(_) => return Ok(file),
            }
        }
    }
}

impl Backend for LocalBackend {
    fn describe(&self) -> String {
        self.dir.display().to_string()
    }

    fn indexes(&self, warn: &mut dyn FnMut(String)) -> Result<Vec<Vec<u8>>, RemoteError> {
        let all = self.read_indexes(warn)?;
        Ok(all.into_iter().filter_map(|(_, bytes)| bytes).collect())
    }

    fn missing(&self, packs: &[Object]) -> Result<Vec<Object>, RemoteError> {
        let is_there = |pack: &Object| {
            let metadata = fs::symlink_metadata(self.pack(pack));
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == pack.size)
        };
        Ok(packs.iter().filter(|pack| !is_there(pack)).copied().collect())
    }

    fn read(&self, pack: &Object, at: u64, length: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let path = self.pack(pack);
        let file = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.tried("open", &path)?,
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).tried("read", &path),
            }
        }
        bytes.truncate(filled);
        Ok(Some(bytes))
    }

    fn write(&self, pack: &Object, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        if self.missing(&[*pack])?.is_empty() {
            // It is somebody's now who will say so in an hour.
            let now = SystemTime::now();
            let _ = open(&self.pack(pack)).and_then(|file| file.set_modified(now));
            return Ok(false);
        }
        self.put(&self.pack(pack), &bytes).map(|()| true)
    }

    fn discard(&self, pack: &Object) -> Result<bool, RemoteError> {
        let path = self.pack(pack);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            removed => removed.tried("remove", &path).map(|()| true),
        }
    }

    fn publish(&self, merge: &mut Merge<'_>) -> Result<(), RemoteError> {
        let _lock = self.lock()?;
        let found = self.read_indexes(&mut |_| {})?;
        let indexes: Vec<_> = found.iter().filter_map(|(_, bytes)| bytes.clone()).collect();
        let (bytes, live) = merge(&indexes)?;
        let path = self.indexes_dir().join(Digest::of(&bytes).hex());
        self.put(&path, &bytes)?;
        for (old, _) in found.iter().filter(|(old, _)| *old != path) {
            fs::remove_file(old).tried("remove", old)?;
        }
        self.sweep(&live)
    }
}

/// A new file, locked while its writer lives, where the file system has locks.
fn begin(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // Somebody may take it for a dead one's before it is locked, and holds the lock until it is gone.
        while let Err(Errno::INTR) = rustix::fs::flock(&file, FlockOperation::LockExclusive) {}
        match file.metadata()?.nlink() {
            0 => continue,
            _ => return Ok(file),
        }
    }
}

/// The file, locked, if nobody writes it any more.
fn of_the_dead(path: &Path) -> Option<File> {
    let file = open(path).ok()?;
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    locked.ok().map(|()| file)
}

/// What belongs to somebody else must not be followed elsewhere, nor be waited for.
fn quiet() -> i32 {
    i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default()
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(quiet()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )),
    }
}

/// None if it is longer than that.
fn read_whole(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= limit))
}

/// Paths of what has one of our names in a directory, sorted; none if it is not there. What others put there is not ours to touch, least of
/// all behind a link.
fn names(dir: &Path) -> Result<Vec<PathBuf>, RemoteError> {
    let is_dir = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        metadata => metadata.tried("look at", dir)?.is_dir(),
    };
    if !is_dir {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no directory")).tried("list", dir);
    }
    let entries = fs::read_dir(dir).tried("list", dir)?;
    let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.tried("list", dir)?;
    paths.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let (digest, _) = name.split_once('-').unwrap_or((name, ""));
        Digest::from_hex(digest).is_ok()
    });
    paths.sort();
    Ok(paths)
}

fn is_old(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let age = modified
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > GRACE)
}
