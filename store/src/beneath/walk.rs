//! Walking trees, one or several that lie on one another.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Kind, Metadata, is_absent, names, open_dir, stat};

/// Walks a tree in canonical order: names by their bytes, a directory before what is in it.
///
/// The stack is explicit, so that a hostile depth ends in an error (too many open files), not in a crash.
pub(crate) struct Walk {
    stack: Vec<Level>,
    path: Vec<u8>,
    enter: Option<(OsString, usize)>,
    shows_hidden: bool,
}

struct Level {
    /// Of each tree that has this directory, the one on top first, with the tree's number.
    dirs: Vec<(OwnedFd, usize)>,
    /// What is in them, by name; of equal names the one on top first.
    names: std::vec::IntoIter<Name>,
    path_length: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    name: OsString,
    /// Which of a level's directories has it.
    at: usize,
    is_hidden: bool,
}

impl Level {
    fn new(dirs: Vec<(OwnedFd, usize)>, path_length: usize) -> io::Result<Level> {
        let mut all = Vec::new();
        for (at, (dir, _)) in dirs.iter().enumerate() {
            all.extend(names(dir)?.into_iter().map(|name| Name {
                name,
                at,
                is_hidden: false,
            }));
        }
        if dirs.len() > 1 {
            all.sort_unstable();
            for at in 1..all.len() {
                all[at].is_hidden = all[at].name == all[at - 1].name;
            }
        }
        Ok(Level {
            dirs,
            names: all.into_iter(),
            path_length,
        })
    }

    fn is_hidden_next(&self) -> bool {
        self.names.as_slice().first().is_some_and(|next| next.is_hidden)
    }
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
    /// Whether the tree on top has it.
    pub(crate) is_on_top: bool,
    /// Whether an entry above it hides it.
    pub(crate) is_hidden: bool,
}

impl Walk {
    /// A walk of the directory `root`, which itself is not visited.
    pub(crate) fn new(root: impl AsFd) -> io::Result<Walk> {
        Walk::of(&[root])
    }

    /// The same of several trees, the one on top first, that lie on one another: where two have a directory, what is in both is in it;
    /// of anything else the upper one hides the lower one. Removals hide nothing here.
    pub(crate) fn of<R: AsFd>(roots: &[R]) -> io::Result<Walk> {
        let open = |(tree, root)| Ok::<_, io::Error>((open_dir(root, Path::new(""))?, tree));
        let dirs = roots.iter().enumerate().map(open);
        Ok(Walk {
            stack: vec![Level::new(dirs.collect::<io::Result<_>>()?, 0)?],
            path: Vec::new(),
            enter: None,
            shows_hidden: false,
        })
    }

    /// The same, and what is hidden is visited, too, right after what hides it; but not what is in a directory that something else hides.
    pub(crate) fn showing_hidden(self) -> Walk {
        Walk {
            shows_hidden: true,
            ..self
        }
    }

    /// The next entry. A directory that was visited is entered next.
    pub(crate) fn next(&mut self) -> io::Result<Option<Visit<'_>>> {
        loop {
            if !self.stack.last().is_some_and(Level::is_hidden_next) {
                self.enter()?;
            }
            let Some(level) = self.stack.last_mut() else {
                return Ok(None);
            };
            let Some(next) = level.names.next() else {
                self.stack.pop();
                continue;
            };
            if next.is_hidden && !self.shows_hidden {
                continue;
            }
            self.path.truncate(level.path_length);
            // What is gone since the directory was read is not there.
            let Some(metadata) = stat(&level.dirs[next.at].0, &next.name)? else {
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(next.name.as_bytes());
            if metadata.kind == Kind::Directory && !next.is_hidden {
                self.enter = Some((next.name.clone(), next.at));
            }
            break self.visit(next, metadata);
        }
    }

    fn visit(&self, next: Name, metadata: Metadata) -> io::Result<Option<Visit<'_>>> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        Ok(self.stack.last().map(|level| Visit {
            dir: level.dirs[next.at].0.as_fd(),
            path,
            name: next.name,
            metadata,
            is_on_top: level.dirs[next.at].1 == 0,
            is_hidden: next.is_hidden,
        }))
    }

    fn enter(&mut self) -> io::Result<()> {
        let (Some((name, at)), Some(level)) = (self.enter.take(), self.stack.last()) else {
            return Ok(());
        };
        let name = Path::new(&name);
        let (top, tree) = &level.dirs[at];
        let mut dirs = vec![(open_dir(top, name)?, *tree)];
        for (below, tree) in &level.dirs[at + 1..] {
            match open_dir(below, name) {
                Ok(dir) => dirs.push((dir, *tree)),
                // Of this tree, and of those below it, nothing is seen there.
                Err(error) if !is_absent(&error) => return Err(error),
                Err(_) if stat(below, name.as_os_str())?.is_some() => break,
                Err(_) => {}
            }
        }
        self.stack.push(Level::new(dirs, self.path.len())?);
        Ok(())
    }

    /// The path of the entry last visited, for errors.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}
