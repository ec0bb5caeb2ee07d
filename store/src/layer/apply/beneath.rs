//! Directories beneath the layer's root, found without ever leaving it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Names one below the other; never `.`, `..`, or empty.
pub(super) type Components = Vec<Vec<u8>>;

/// The root directory of a layer that is being made.
#[derive(Clone, Copy)]
pub(super) struct Root<'a>(pub(super) BorrowedFd<'a>);

fn resolve_flags() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

fn or_dot(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

impl Root<'_> {
    /// A directory to name things in (`O_PATH`); `path` is relative to the root, empty for the root.
    pub(super) fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// A directory to read, and to set attributes of.
    pub(super) fn readable_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(self.0, or_dot(path), flags, Mode::empty(), resolve_flags())
    }

    /// What is at `path`, links not followed; `None` if nothing is.
    pub(super) fn look(&self, path: &[u8]) -> Result<Option<FileType>, Errno> {
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        look_at(parent.as_fd(), or_dot(name))
    }

    /// Where the symbolic link at `path` leads.
    pub(super) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        Ok(rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes())
    }

    /// Removes the directory at `path` with all that is in it. Works on names, not on open directories, so that
    /// depth costs no descriptors.
    pub(super) fn remove_tree(&self, path: &[u8]) -> Result<(), Errno> {
        let mut waiting = vec![path.to_vec()];
        while let Some(top) = waiting.last().cloned() {
            let (parent, name) = split(&top);
            match rustix::fs::unlinkat(self.directory(parent)?, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => self.remove_children(&top, &mut waiting)?,
                Err(e) => return Err(e),
                Ok(()) => {
                    waiting.pop();
                }
            }
        }
        Ok(())
    }

    fn remove_children(&self, path: &[u8], directories: &mut Vec<Vec<u8>>) -> Result<(), Errno> {
        let fd = self.readable_directory(path)?;
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            match rustix::fs::unlinkat(&fd, name, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ISDIR | Errno::PERM) => directories.push([path, b"/", name].concat()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// What `name` is in `parent`, links not followed; `None` if nothing is.
pub(super) fn look_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>, Errno> {
    match stat_at(parent, name) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

fn stat_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The parent (empty for the root) and the last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// `parent` and `name` as one path.
pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent.is_empty() {
        true => name.to_vec(),
        false => [parent, b"/", name].concat(),
    }
}
