//! Walking trees.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Kind, Metadata, names, open_dir, stat};

/// Walks a tree in canonical order: names by their bytes, a directory before what is in it.
///
/// The stack is explicit, so that a hostile depth ends in an error (too many open files), not in a crash.
pub(crate) struct Walk {
    stack: Vec<Level>,
    path: Vec<u8>,
    enter: Option<OsString>,
}

struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<OsString>,
    path_length: usize,
}

/// One entry met on a walk.
pub(crate) struct Visit<'a> {
    /// The directory that holds it.
    pub(crate) dir: BorrowedFd<'a>,
    /// Its path, relative to the root of the walk.
    pub(crate) path: &'a Path,
    /// Its name in `dir`.
    pub(crate) name: OsString,
    pub(crate) metadata: Metadata,
}

impl Walk {
    /// A walk of the directory `root`, which itself is not visited.
    pub(crate) fn new(root: impl AsFd) -> io::Result<Walk> {
        let dir = open_dir(root, Path::new(""))?;
        let names = names(&dir)?.into_iter();
        Ok(Walk {
            stack: vec![Level {
                dir,
                names,
                path_length: 0,
            }],
            path: Vec::new(),
            enter: None,
        })
    }

    /// The next entry. A directory that was visited is entered next.
    pub(crate) fn next(&mut self) -> io::Result<Option<Visit<'_>>> {
        self.enter()?;
        loop {
            let Some(level) = self.stack.last_mut() else {
                return Ok(None);
            };
            self.path.truncate(level.path_length);
            let Some(name) = level.names.next() else {
                self.stack.pop();
                continue;
            };
            // What is gone since the directory was read is not there.
            let Some(metadata) = stat(&level.dir, &name)? else {
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            if metadata.kind == Kind::Directory {
                self.enter = Some(name.clone());
            }
            break self.visit(name, metadata);
        }
    }

    fn visit(&self, name: OsString, metadata: Metadata) -> io::Result<Option<Visit<'_>>> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        Ok(self.stack.last().map(|level| Visit {
            dir: level.dir.as_fd(),
            path,
            name,
            metadata,
        }))
    }

    fn enter(&mut self) -> io::Result<()> {
        let (Some(name), Some(level)) = (self.enter.take(), self.stack.last()) else {
            return Ok(());
        };
        let dir = open_dir(&level.dir, Path::new(&name))?;
        let names = names(&dir)?.into_iter();
        self.stack.push(Level {
            dir,
            names,
            path_length: self.path.len(),
        });
        Ok(())
    }

    /// The path of the entry last visited, for errors.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}
