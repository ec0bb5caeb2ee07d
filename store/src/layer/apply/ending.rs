//! What can be done only when the whole archive is known: whiteouts, and the directories' own attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::attrs::Attrs;
use super::beneath::{Root, look_at, split};
use super::error::ApplyError;
use super::options::{Extract, Extracted, RootAttrs, Source};
use super::pax::Time;
use super::trouble::{Trouble, failed};

/// What is put off to the end.
pub(super) struct Ending<'a> {
    root: Root<'a>,
    source: Source,
    /// What the directories get, by path.
    directories: BTreeMap<Vec<u8>, Directory>,
    /// Paths that are to hide what is below, once it is known whether the archive also has them.
    removed: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    root_attrs: Option<RootAttrs>,
    late: BTreeSet<Time>,
}

struct Directory {
    attrs: Attrs,
    listed: bool,
}

impl<'a> Ending<'a> {
    pub(super) fn new(root: Root<'a>, source: Source) -> Ending<'a> {
        let (directories, removed, opaque) = Default::default();
        Ending {
            root,
            source,
            directories,
            removed,
            opaque,
            root_attrs: None,
            late: BTreeSet::new(),
        }
    }

    /// A directory that the archive lists.
    pub(super) fn directory(&mut self, path: Vec<u8>, attrs: Attrs) {
        self.directories.insert(path, Directory { attrs, listed: true });
    }

    /// A time of the archive's own that could be taken for one of the import.
    pub(super) fn note_time(&mut self, mtime: Time, how: &Extract<'_>) {
        if how
            .retime
            .is_some_and(|retime| mtime.seconds >= retime.to.seconds && mtime != retime.to)
        {
            self.late.insert(mtime);
        }
    }

    /// The root directory is listed.
    pub(super) fn root(&mut self, attrs: Attrs) {
        let Attrs {
            mode,
            uid,
            gid,
            mut xattrs,
            ..
        } = attrs;
        xattrs.sort();
        self.root_attrs = Some(RootAttrs {
            mode,
            uid,
            gid,
            xattrs,
        });
    }

    /// A directory that was made because something is in it.
    pub(super) fn imply_directory(&mut self, path: &[u8]) {
        let directory = Directory {
            attrs: Attrs::implied(),
            listed: false,
        };
        self.directories.insert(path.to_vec(), directory);
    }

    /// A whiteout.
    pub(super) fn remove(&mut self, path: Vec<u8>) {
        self.removed.insert(path);
    }

    /// An opaque whiteout.
    pub(super) fn make_opaque(&mut self, path: Vec<u8>) {
        self.opaque.insert(path);
    }

    /// A directory was replaced by something else, with all that was in it. (`0` comes right after `/`, so that the
    /// range is all that begins with `PATH/`.)
    pub(super) fn forget(&mut self, path: &[u8]) {
        let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        let below = first..end;
        for gone in self
            .directories
            .range(below.clone())
            .map(|(p, _)| p.clone())
            .collect::<Vec<_>>()
        {
            self.directories.remove(&gone);
        }
        for set in [&mut self.opaque, &mut self.removed] {
            for gone in set.range(below.clone()).cloned().collect::<Vec<_>>() {
                set.remove(&gone);
            }
        }
        self.directories.remove(path);
        self.opaque.remove(path);
    }

    /// Makes the whiteouts, then gives the directories their attributes, times last.
    pub(super) fn finish(mut self) -> Result<Extracted, ApplyError> {
        for path in std::mem::take(&mut self.removed) {
            self.remove_below(&path).map_err(|trouble| trouble.of(&path))?;
        }
        for path in &self.opaque {
            self.mark_opaque(path).map_err(|trouble| trouble.of(path))?;
        }
        // What is deeper comes first: a directory's own mode may forbid to go on.
        for (path, directory) in self.directories.iter().rev() {
            self.finish_directory(path, &directory.attrs)
                .map_err(|trouble| trouble.of(path))?;
        }
        let implied = self
            .directories
            .iter()
            .filter(|(_, d)| !d.listed)
            .map(|(path, _)| path.clone());
        Ok(Extracted {
            root: self.root_attrs,
            late: self.late,
            implied: implied.collect(),
            opaque: self.opaque.iter().cloned().collect(),
        })
    }

    /// A whiteout hides lower layers only: what this archive also has stays, and a directory of it becomes opaque.
    fn remove_below(&mut self, path: &[u8]) -> Result<(), Trouble> {
        if self.below_opaque(path) {
            return Ok(());
        }
        let (parent, name) = split(path);
        // An entry after the whiteout may have replaced its directory.
        let parent = match self.root.directory(parent) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(e) => return Err(failed("open its directory")(e)),
        };
        match look_at(parent.as_fd(), name).map_err(failed("look at what is there"))? {
            Some(FileType::Directory) => {
                self.opaque.insert(path.to_vec());
                Ok(())
            }
            Some(_) => Ok(()),
            None => {
                let mode = Mode::empty();
                rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, mode, 0)
                    .map_err(failed("make the whiteout"))
            }
        }
    }

    fn below_opaque(&self, path: &[u8]) -> bool {
        let mut parent = path;
        while !parent.is_empty() {
            parent = split(parent).0;
            if self.opaque.contains(parent) {
                return true;
            }
        }
        false
    }

    fn mark_opaque(&self, path: &[u8]) -> Result<(), Trouble> {
        let Source::Layer { opaque_xattr } = self.source else {
            return Ok(());
        };
        let fd = self
            .root
            .readable_directory(path)
            .map_err(failed("open the directory"))?;
        rustix::fs::fsetxattr(&fd, opaque_xattr, b"y", XattrFlags::empty())
            .map_err(failed("mark the directory as opaque"))
    }

    fn finish_directory(&self, path: &[u8], attrs: &Attrs) -> Result<(), Trouble> {
        let fd = self
            .root
            .readable_directory(path)
            .map_err(failed("open the directory"))?;
        Ok(attrs.set_on(fd.as_fd())?)
    }
}
