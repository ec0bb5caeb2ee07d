//! Reading trees that strangers wrote: by directory fd, one component at a time, never through a link.
//!
//! What a step or an archive left is hostile data. A directory is opened beneath its parent with `openat2` and
//! `RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS | NO_XDEV`; files are opened `O_PATH | O_NOFOLLOW`, looked at, and only then
//! opened again for reading, so that a fifo never blocks and a link is never followed.

mod ownership;
mod walk;

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};

use crate::stamp::Stamp;

pub(crate) use ownership::{give, give_at, give_new, is_record as is_owner_record, record as record_owners};
pub(crate) use walk::{Visit, Walk};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
}

/// What `lstat` says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes of a file, length of a link's target.
    pub size: u64,
    /// When the content changed, as the disk keeps it.
    pub mtime: Stamp,
    /// How many names it has.
    pub nlink: u64,
    /// Device and inode: equal for hard links.
    pub inode: (u64, u64),
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Metadata {
    /// Whether it is overlayfs' mark of a removed entry.
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice && self.device == (0, 0)
    }

    pub(crate) fn from_stat(stat: &Stat) -> Metadata {
        Metadata {
            kind: kind(FileType::from_raw_mode(stat.st_mode)),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: mtime(stat),
            nlink: nlink(stat),
            inode: (stat.st_dev, stat.st_ino),
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        }
    }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn mtime(stat: &Stat) -> Stamp {
    // The C types differ between processors.
    Stamp::new(
        stat.st_mtime as i64,
        u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    )
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn nlink(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Socket => Kind::Socket,
        _ => Kind::File,
    }
}

fn resolve_flags() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

/// Opens beneath `dir` with our resolve flags.
pub(crate) fn open_with(dir: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(
            &dir,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve_flags(),
        ) {
            // The kernel says so when something was renamed meanwhile.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Opens a root directory by its (trusted) path.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a directory beneath `dir` for listing. An empty path is `dir` itself.
pub(crate) fn open_dir(dir: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    open_with(dir, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
}

/// Opens a regular file beneath `dir` for reading: held by a handle that can't read, looked at, and only then opened,
/// through that handle, so that what was looked at is what is read.
pub(crate) fn open_file(dir: impl AsFd, path: &Path) -> io::Result<File> {
    let handle = open_with(dir, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let seen = rustix::fs::fstat(&handle)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(again, flags, Mode::empty())?))
}

/// The same for a file that was just seen to be regular, in a tree that nobody changes, in one call; were it something else by
/// now, it would be opened without waiting for anybody, and refused.
pub(crate) fn open_seen(dir: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_with(dir, Path::new(name), flags)?;
    let seen = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(File::from(file))
}

/// `lstat` of any path beneath `dir`; none if it (or a directory on the way) is not there. An empty path is `dir` itself.
pub(crate) fn lookup(dir: impl AsFd, path: &Path) -> io::Result<Option<Metadata>> {
    if path.as_os_str().is_empty() {
        return stat(dir, OsStr::new("."));
    }
    let is_single = !path.as_os_str().as_bytes().contains(&b'/');
    if is_single {
        return stat(dir, path.as_os_str());
    }
    let handle = match open_with(&dir, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(handle) => handle,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut found = Metadata::from_stat(&rustix::fs::fstat(handle)?);
    if ownership::is_recorded()
        && let (Some(parent), Some(name)) = (path.parent(), path.file_name())
    {
        ownership::apply(open_dir(dir, parent)?, name, &mut found)?;
    }
    Ok(Some(found))
}

/// `lstat` of one name in `dir`; none if it is not there.
pub(crate) fn stat(dir: impl AsFd, name: &OsStr) -> io::Result<Option<Metadata>> {
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let mut found = Metadata::from_stat(&stat);
            ownership::apply(dir, name, &mut found)?;
            Ok(Some(found))
        }
        Err(error) if is_absent(&error.into()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Nothing there: no such name, or something on the way is a link or no directory.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG];
    error
        .raw_os_error()
        .is_some_and(|code| absent.iter().any(|errno| errno.raw_os_error() == code))
}

/// The names in a directory just opened, sorted by their bytes.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The target of a symbolic link in `dir`.
pub(crate) fn read_link(dir: impl AsFd, name: &Path) -> io::Result<OsString> {
    Ok(OsString::from_vec(
        rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes(),
    ))
}

/// The path of `name` in `dir` for the calls that take no directory fd; only the last component is looked up, and not
/// followed by the `l…` calls used with it.
fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    Ok(CString::new(path)?)
}

/// The extended attributes of `name` in `dir` (`.` for `dir` itself), sorted by name; empty where the file system has none.
pub(crate) fn xattrs(dir: impl AsFd, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let path = proc_path(dir.as_fd(), name)?;
    listed(
        |buffer| rustix::fs::llistxattr(path.as_c_str(), buffer),
        |name, buffer| rustix::fs::lgetxattr(path.as_c_str(), name, buffer),
    )
}

/// The same of an open file.
pub(crate) fn file_xattrs(file: &File) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    listed(
        |buffer| rustix::fs::flistxattr(file, buffer),
        |name, buffer| rustix::fs::fgetxattr(file, name, buffer),
    )
}

fn listed(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let names = match grown(list) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut attributes = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        attributes.push((
            OsString::from_vec(name.to_vec()),
            grown(|buffer| get(name, buffer))?,
        ));
    }
    attributes.sort_unstable();
    Ok(attributes)
}

/// What a call writes into a buffer, which is the longest there is if a short one does not do.
fn grown(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = [0; 256];
    match call(&mut buffer[..]) {
        Ok(length) => Ok(buffer[..length].to_vec()),
        Err(rustix::io::Errno::RANGE) => {
            let mut value = vec![0; 65_536];
            let length = call(&mut value[..])?;
            value.truncate(length);
            Ok(value)
        }
        Err(error) => Err(error),
    }
}

/// Whether an open directory has this attribute.
pub(crate) fn has_xattr(dir: impl AsFd, attribute: &str) -> io::Result<bool> {
    match rustix::fs::fgetxattr(dir, attribute, &mut [0; 16][..]) {
        Ok(_) | Err(rustix::io::Errno::RANGE) => Ok(true),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes an extended attribute of `name` in `dir`.
pub(crate) fn remove_xattr(dir: impl AsFd, name: &OsStr, attribute: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::lremovexattr(
        proc_path(dir.as_fd(), name)?.as_c_str(),
        attribute,
    )?)
}

/// Sets an extended attribute of `name` in `dir`.
pub(crate) fn set_xattr(dir: impl AsFd, name: &OsStr, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    let path = proc_path(dir.as_fd(), name)?;
    Ok(rustix::fs::lsetxattr(
        path.as_c_str(),
        attribute,
        value,
        rustix::fs::XattrFlags::empty(),
    )?)
}
