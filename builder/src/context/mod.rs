//! The build context, read in place: never sent, never copied as a whole.
//!
//! Everything is opened beneath its root with `openat2(RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS)`; links are followed
//! by [`select::resolve`], component by component. Files are opened without blocking and looked at before they are read,
//! after it too: one that was swapped or written meanwhile is an error. What they hold is kept in a [`stat`] cache in the
//! store, so that an unchanged tree costs one `stat` a file.

mod directory;
mod glob;
mod list;
mod rules;
mod select;
mod stat;
mod walk;

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use box_store::Store;
use box_store::digest::{Digest, Hasher};
use box_store::error::StoreError;
use box_store::record::RecordKind;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::files::{EntryKind, Facts, FileTree, FilesError, Meta, Stamp, Xattr};
use crate::ignore::IgnoreRules;
use crate::source::Source;

use stat::StatCache;

pub use list::{ContextEntry, ContextList, list};
pub use select::{Picking, literal, resolve, select};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// A build context.
pub struct Context<'a> {
    store: &'a Store,
    root: OwnedFd,
    path: PathBuf,
    given_rules: Option<Source>,
    /// What is no part of it, whatever the rules say.
    left_out: Option<PathBuf>,
    rules: OnceLock<IgnoreRules>,
    rules_name: OnceLock<String>,
    stats: Mutex<Option<StatCache>>,
}

impl<'a> Context<'a> {
    /// Opens the directory; nothing of it is read yet. `rules` go before the ignore file in it.
    ///
    /// # Errors
    /// When it can't be opened or is no directory.
    pub fn open(store: &'a Store, path: &Path, rules: Option<Source>) -> Result<Context<'a>, FilesError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| FilesError::Io {
            action: "open",
            path: path.to_owned(),
            tree: "the build context".to_owned(),
            source: error.into(),
        })?;
        let (rules_cell, rules_name, stats) = (OnceLock::new(), OnceLock::new(), Mutex::new(None));
        Ok(Context {
            store,
            root,
            path: path.to_owned(),
            given_rules: rules,
            left_out: None,
            rules: rules_cell,
            rules_name,
            stats,
        })
    }

    /// The same without this file.
    pub fn without(self, path: Option<&Path>) -> Context<'a> {
        Context {
            left_out: path.map(Path::to_owned),
            ..self
        }
    }

    /// Keeps what was learned of files for the next build; writes nothing if that is nothing.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn save(&self) -> Result<(), StoreError> {
        let bytes = self.lock_stats().as_mut().and_then(StatCache::write);
        match (bytes, self.stats_key()) {
            (Some(bytes), Some(key)) => self
                .store
                .put_record(&RecordKind::new("stat")?, &key, &bytes, &[]),
            _ => Ok(()),
        }
    }

    /// The record of this directory's files: it tells it from others as long as it is there.
    pub fn stats_key(&self) -> Option<Digest> {
        let stat = rustix::fs::fstat(&self.root).ok()?;
        Some(Digest::of(
            format!("box stat\n{}\n{}\n", stat.st_dev, stat.st_ino).as_bytes(),
        ))
    }

    fn lock_stats(&self) -> MutexGuard<'_, Option<StatCache>> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_facts(&self, meta: &Meta) -> Result<Option<Facts>, FilesError> {
        let mut stats = self.lock_stats();
        if stats.is_none() {
            let record = match self.stats_key() {
                Some(key) => self.store.get_record(&RecordKind::new("stat")?, &key)?,
                None => None,
            };
            *stats = Some(
                record
                    .map(|record| StatCache::read(&record.bytes))
                    .unwrap_or_default(),
            );
        }
        Ok(stats.as_mut().and_then(|stats| stats.get(&meta.stamp, meta.size)))
    }

    fn read_facts(&self, path: &Path, meta: &Meta) -> Result<Facts, FilesError> {
        let mut file = self.open(path, meta)?;
        let digest = hash(&mut file).map_err(|error| self.io("read", path, error))?;
        let xattrs =
            file_xattrs(&file).map_err(|error| self.io("read the attributes of", path, error.into()))?;
        self.check_same(path, &file, meta)?;
        Ok(Facts { digest, xattrs })
    }

    fn check_same(&self, path: &Path, file: &File, meta: &Meta) -> Result<(), FilesError> {
        let stat = rustix::fs::fstat(file).map_err(|error| self.io("stat", path, error.into()))?;
        let now = meta_of(&stat);
        let is_same = now.kind == meta.kind && now.size == meta.size && now.stamp == meta.stamp;
        if is_same { Ok(()) } else { Err(self.changed(path)) }
    }

    /// Opens what is at `path`, following no link; none if nothing is.
    fn open_at(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>, FilesError> {
        // A FIFO or a terminal must not block; O_PATH opens nothing that could, and takes no such flag.
        let harmless = OFlags::NONBLOCK | OFlags::NOCTTY;
        let extra = if flags.contains(OFlags::PATH) {
            OFlags::empty()
        } else {
            harmless
        };
        let flags = flags | extra | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        loop {
            match rustix::fs::openat2(&self.root, name, flags, Mode::empty(), BENEATH) {
                Ok(fd) => return Ok(Some(fd)),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                // The kernel could not rule out a race with a rename.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(self.io("open", path, error.into())),
            }
        }
    }

    fn changed(&self, path: &Path) -> FilesError {
        FilesError::Changed {
            path: path.to_owned(),
            tree: self.describe(),
        }
    }

    fn io(&self, action: &'static str, path: &Path, source: io::Error) -> FilesError {
        FilesError::Io {
            action,
            path: path.to_owned(),
            tree: self.describe(),
            source,
        }
    }
}

impl FileTree for Context<'_> {
    fn describe(&self) -> String {
        format!("the build context {}", self.path.display())
    }

    fn keeps_owners(&self) -> bool {
        false
    }

    fn lookup(&self, path: &Path) -> Result<Option<Meta>, FilesError> {
        // A link in the middle is refused with ELOOP; the last one is opened itself.
        let Some(fd) = self.open_at(path, OFlags::PATH)? else {
            return Ok(None);
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.io("stat", path, error.into()))?;
        Ok(Some(meta_of(&stat)))
    }

    fn list(&self, path: &Path) -> Result<Vec<(OsString, Meta)>, FilesError> {
        let fd = self
            .open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?
            .ok_or_else(|| self.changed(path))?;
        let mut entries = Vec::new();
        let io = |error: Errno| self.io("read", path, error.into());
        let names = Dir::read_from(&fd).map_err(io)?;
        for entry in names {
            let entry = entry.map_err(io)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if name == "." || name == ".." {
                continue;
            }
            match rustix::fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.push((name, meta_of(&stat))),
                Err(Errno::NOENT) => return Err(self.changed(&path.join(name))),
                Err(error) => return Err(io(error)),
            }
        }
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, FilesError> {
        let fd = self
            .open_at(path, OFlags::PATH)?
            .ok_or_else(|| self.changed(path))?;
        let target = rustix::fs::readlinkat(&fd, "", Vec::new());
        let target = target.map_err(|error| self.io("read link", path, error.into()))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    fn facts(&self, path: &Path, meta: &Meta) -> Result<Facts, FilesError> {
        if let Some(facts) = self.known_facts(meta)? {
            return Ok(facts);
        }
        let now = now();
        let facts = self.read_facts(path, meta)?;
        if let Some(stats) = self.lock_stats().as_mut() {
            stats.put(&meta.stamp, meta.size, &facts, now);
        }
        Ok(facts)
    }

    fn known(&self, _path: &Path, meta: &Meta) -> Result<Option<Facts>, FilesError> {
        self.known_facts(meta)
    }

    fn xattrs(&self, _path: &Path, _meta: &Meta) -> Result<Vec<Xattr>, FilesError> {
        // Those of directories and links would cost a look at each in every build; they are not copied.
        Ok(Vec::new())
    }

    fn open(&self, path: &Path, meta: &Meta) -> Result<File, FilesError> {
        let file = File::from(
            self.open_at(path, OFlags::RDONLY)?
                .ok_or_else(|| self.changed(path))?,
        );
        self.check_same(path, &file, meta)?;
        Ok(file)
    }

    fn rules(&self) -> Option<&IgnoreRules> {
        self.rules.get()
    }
}

fn meta_of(stat: &Stat) -> Meta {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharDevice(stat.st_rdev),
        FileType::BlockDevice => EntryKind::BlockDevice(stat.st_rdev),
        _ => EntryKind::File,
    };
    let nanoseconds = |seconds: i64, rest: u64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Meta {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        #[allow(clippy::useless_conversion)] // 32 bits on some architectures
        links: stat.st_nlink.into(),
        stamp: Stamp {
            device: stat.st_dev,
            inode: stat.st_ino,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        },
    }
}

/// The clock by which file systems write times, in nanoseconds since 1970.
fn now() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// The digest of what is left of a file.
pub(crate) fn hash(file: &mut File) -> io::Result<Digest> {
    thread_local! {
        // To clear a new one for each file takes longer than to read a small file.
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 128 << 10]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        let mut hasher = Hasher::new();
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })
}

/// The attributes of a context's file that go into a layer: capabilities and the user's own.
fn file_xattrs(file: &File) -> Result<Vec<Xattr>, Errno> {
    let mut names = Vec::new();
    // Most have none.
    match rustix::fs::flistxattr(file, &mut [0; 16][..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(_) | Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    match rustix::fs::flistxattr(
        file,
        rustix::buffer::spare_capacity(reserve(&mut names, 64 << 10)),
    ) {
        Ok(_) => {}
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let mut value = Vec::new();
        rustix::fs::fgetxattr(
            file,
            name,
            rustix::buffer::spare_capacity(reserve(&mut value, 64 << 10)),
        )?;
        xattrs.push((OsStr::from_bytes(name).to_owned(), value));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

fn reserve(buffer: &mut Vec<u8>, capacity: usize) -> &mut Vec<u8> {
    buffer.reserve(capacity);
    buffer
}

fn is_kept(name: &[u8]) -> bool {
    let is_overlay = name.starts_with(b"user.overlay.");
    name == b"security.capability" || (name.starts_with(b"user.") && !is_overlay)
}
