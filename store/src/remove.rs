//! Removing a tree that strangers wrote.
//!
//! A step may leave directories as deep as it likes. Neither the stack nor the number of open files may depend on that: what
//! lies deeper than [`DEPTH`] is moved up to the tree's root first, and removed from there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::beneath;

/// How many directories are open at once.
const DEPTH: usize = 32;

/// Removes a directory with all that is in it, following no links.
///
/// # Errors
/// `NotADirectory` for anything else; what the system says, with part of the tree left.
pub(crate) fn tree(path: &Path) -> io::Result<()> {
    let mut remover = Remover {
        root: open(CWD, path.as_os_str())?,
        moved: 0,
    };
    while !remover.pass()? {}
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

fn open(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

struct Remover {
    root: OwnedFd,
    moved: u64,
}

impl Remover {
    /// Removes what the root holds, but for what is moved there meanwhile; whether it was empty.
    fn pass(&mut self) -> io::Result<bool> {
        let dir = open(&self.root, OsStr::new("."))?;
        let names = beneath::names(&dir)?;
        for name in &names {
            self.remove(dir.as_fd(), name, 1)?;
        }
        Ok(names.is_empty())
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        if depth > DEPTH {
            return self.move_up(dir, name);
        }
        match self.empty(dir, name, depth) {
            // Somebody else removes it, too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn empty(&mut self, dir: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
        let inner = open(dir, name)?;
        for child in beneath::names(&inner)? {
            self.remove(inner.as_fd(), &child, depth + 1)?;
        }
        Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        loop {
            self.moved += 1;
            let fresh = OsString::from(format!("deep-{}", self.moved));
            match renameat_with(dir, name, &self.root, &fresh, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return Ok(result?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(make: impl Fn(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "").unwrap();
        make(&tree);
        super::tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("file").exists());
    }

    #[test]
    fn any_tree_is_removed() {
        check(|_| {});
        check(|tree| {
            std::os::unix::fs::symlink("../outside", tree.join("link")).unwrap();
            std::fs::create_dir_all(tree.join("deep-1/deep-2/a")).unwrap();
            std::fs::write(tree.join("deep-1/file"), "").unwrap();
        });
        check(|tree| {
            let mut dir = open(CWD, tree.as_os_str()).unwrap();
            for level in 0..3000 {
                let name = if level % 2 == 0 { "deep-1" } else { "d" };
                rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)).unwrap();
                drop(
                    openat(
                        &dir,
                        "file",
                        OFlags::CREATE | OFlags::WRONLY,
                        Mode::from_raw_mode(0o600),
                    )
                    .unwrap(),
                );
                dir = open(&dir, OsStr::new(name)).unwrap();
            }
        });
    }

    #[test]
    fn a_file_is_no_tree() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = super::tree(file.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
