//! Finding and making mount targets below the container's root, as descriptors.
//!
//! Every lookup is one openat2 beneath a directory descriptor, so a symlink that the image or
//! another process puts in the way never leads outside (CVE-2021-30465).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, readlinkat};
use rustix::io::Errno;

use super::{failed, refused};
use crate::channel::Failure;
use crate::setup::{Links, Missing};
use crate::sys;

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens `path` below `root` as a place to mount on.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, links: Links) -> rustix::io::Result<OwnedFd> {
    let resolve = match links {
        Links::Inside => INSIDE,
        Links::Refuse => INSIDE.union(ResolveFlags::NO_SYMLINKS),
    };
    sys::open_beneath(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens the target of a mount whose own root is a directory or not, making it when missing.
/// `Ok(None)`: it can't be had and may be left out.
pub(super) fn find(
    root: BorrowedFd<'_>,
    path: &Path,
    directory: bool,
    missing: Missing,
    links: Links,
) -> Result<Option<OwnedFd>, Failure> {
    let found = match open(root, path, links) {
        Err(Errno::NOENT) if missing != Missing::Fail => {
            make(root, path, directory).and_then(|()| open(root, path, links))
        }
        other => other,
    };
    let fd = match found {
        Ok(fd) => fd,
        Err(Errno::LOOP) => return Err(refused(format!("{} is a symlink", path.display()))),
        Err(_) if missing == Missing::MakeOrSkip => return Ok(None),
        Err(e) => return Err(failed(format!("mount target {}", path.display()))(e.into())),
    };
    match is_directory(&fd) {
        Ok(found) if found == directory => Ok(Some(fd)),
        Ok(_) if missing == Missing::MakeOrSkip => Ok(None),
        Ok(_) => {
            let kind = if directory {
                "not a directory; a directory needs another target"
            } else {
                "a directory; a file needs a file's name as its target"
            };
            Err(refused(format!("mount target {} is {kind}", path.display())))
        }
        Err(e) => Err(failed(format!("mount target {}", path.display()))(e)),
    }
}

/// Whether the descriptor is of a directory.
pub(super) fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

fn make(root: BorrowedFd<'_>, path: &Path, directory: bool) -> rustix::io::Result<()> {
    if directory {
        return make_dirs(root, path);
    }
    if let Some(parent) = path.parent() {
        make_dirs(root, parent)?;
    }
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    sys::open_beneath(root, path, flags, Mode::from_bits_truncate(0o644), INSIDE).map(drop)
}

/// As many symlinks as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Makes a directory and all that leads to it, following symlinks inside the root only; what a dangling one leads to is made, too.
pub(super) fn make_dirs(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| sys::open_beneath(root, path, directory, Mode::empty(), INSIDE);
    let mut rest: VecDeque<OsString> = steps(path).collect();
    let mut done = PathBuf::from("/");
    let mut parent = open(&done)?;
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let next = done.join(&name);
        match open(&next) {
            Err(Errno::NOENT) => {}
            found => {
                (parent, done) = (found?, next);
                continue;
            }
        }
        match mkdirat(&parent, &name, Mode::from_bits_truncate(0o755)) {
            Err(Errno::EXIST) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let link = readlinkat(&parent, &name, Vec::new())?.into_bytes();
                let link = Path::new(OsStr::from_bytes(&link));
                if link.is_absolute() {
                    done = PathBuf::from("/");
                    parent = open(&done)?;
                }
                rest = steps(link).chain(rest).collect();
            }
            made => {
                made?;
                (parent, done) = (open(&next)?, next);
            }
        }
    }
    Ok(())
}

fn steps(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
