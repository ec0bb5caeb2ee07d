//! The tree of a layer being written: entries are put into it by directory fd, and never through a link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, Timestamps};

use crate::beneath;
use crate::error::{IoContext, Result};
use crate::layer::DirAttrs;
use crate::stamp::Stamp;
use crate::tree::Tree;

/// A tree in the making.
#[derive(Debug)]
pub(super) struct Canvas {
    pub(super) dir: OwnedFd,
    /// Where files are written before they are put into the tree.
    scratch_dir: PathBuf,
    scratch: u64,
    /// The time of everything that brings none of its own.
    pub(super) stamp: Stamp,
    /// Directories written, and the time each is given at the end.
    dirs: BTreeMap<PathBuf, Stamp>,
    /// Everything else that was written.
    written: BTreeSet<PathBuf>,
    last_parent: Option<(PathBuf, Arc<OwnedFd>)>,
}

impl Canvas {
    pub(super) fn new(tree: &Path, scratch_dir: &Path, stamp: Stamp) -> Result<Canvas> {
        let dir = beneath::open_root(tree).at("open", tree)?;
        let scratch_dir = scratch_dir.to_owned();
        Ok(Canvas {
            dir,
            scratch_dir,
            scratch: 0,
            stamp,
            dirs: BTreeMap::new(),
            written: BTreeSet::new(),
            last_parent: None,
        })
    }

    /// Whether this directory was written.
    pub(super) fn has_dir(&self, path: &Path) -> bool {
        self.dirs.contains_key(path)
    }

    /// Whether this entry (no directory) was written.
    pub(super) fn has_entry(&self, path: &Path) -> bool {
        self.written.contains(path)
    }

    /// Notes an entry that was put into the tree.
    pub(super) fn note(&mut self, path: PathBuf) {
        self.written.insert(path);
    }

    /// Gives the directories their times, which writing into them has changed.
    pub(super) fn settle(&self) -> Result<()> {
        for (path, stamp) in self.dirs.iter().rev() {
            let dir = beneath::open_dir(&self.dir, path).at("open", path)?;
            rustix::fs::futimens(&dir, &timestamps(*stamp)).at("set the times of", path)?;
        }
        Ok(())
    }

    /// A fresh path outside the tree.
    pub(super) fn scratch_path(&mut self) -> PathBuf {
        self.scratch += 1;
        self.scratch_dir.join(format!("new-{}", self.scratch))
    }

    /// Makes the parents of `path`, and removes what this layer wrote there before.
    pub(super) fn make_room(&mut self, path: &Path, below: &Tree) -> Result<(Arc<OwnedFd>, OsString)> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.make_parents(parent, below)?;
        }
        self.clear(path)?;
        self.parent(path)
    }

    fn clear(&mut self, path: &Path) -> Result<()> {
        if self.has_entry(path) {
            let (parent, name) = self.parent(path)?;
            rustix::fs::unlinkat(&*parent, &name, AtFlags::empty()).at("remove", path)?;
            self.written.remove(path);
        } else if self.has_dir(path) {
            let (parent, name) = self.parent(path)?;
            let away = self.scratch_path();
            rustix::fs::renameat(&*parent, &name, rustix::fs::CWD, &away).at("remove", path)?;
            self.dirs.retain(|dir, _| !dir.starts_with(path));
            self.written.retain(|file| !file.starts_with(path));
            self.last_parent = None;
        }
        Ok(())
    }

    /// The open parent of `path`, and the name in it.
    pub(super) fn parent(&mut self, path: &Path) -> Result<(Arc<OwnedFd>, OsString)> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default().to_owned();
        // Entries come directory by directory.
        if let Some((_, dir)) = self.last_parent.as_ref().filter(|(last, _)| last == parent) {
            return Ok((Arc::clone(dir), name));
        }
        let dir = Arc::new(beneath::open_dir(&self.dir, parent).at("open", parent)?);
        self.last_parent = Some((parent.to_owned(), Arc::clone(&dir)));
        Ok((dir, name))
    }

    fn make_parents(&mut self, path: &Path, below: &Tree) -> Result<()> {
        if self.dirs.contains_key(path) {
            return Ok(());
        }
        let attrs = below.dir_attrs(path)?.map(|(attrs, _)| attrs).unwrap_or_default();
        self.make_dir(path, &attrs, self.stamp, below)
    }

    pub(super) fn make_dir(
        &mut self,
        path: &Path,
        attrs: &DirAttrs,
        stamp: Stamp,
        below: &Tree,
    ) -> Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.make_parents(parent, below)?;
        }
        if !self.dirs.contains_key(path) {
            self.clear(path)?;
            let (parent, name) = self.parent(path)?;
            rustix::fs::mkdirat(&*parent, &name, Mode::from_raw_mode(0o700)).at("make directory", path)?;
        }
        let dir = beneath::open_dir(&self.dir, path).at("open", path)?;
        beneath::give(&dir, attrs.uid, attrs.gid).at("set the owner of", path)?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(attrs.mode)).at("set the mode of", path)?;
        for (name, value) in attrs.xattrs.iter() {
            beneath::set_xattr(&dir, OsStr::new("."), name, value).at("set an attribute of", path)?;
        }
        self.dirs.insert(path.to_owned(), stamp);
        Ok(())
    }
}

/// Both times of an entry.
pub(super) fn timestamps(stamp: Stamp) -> Timestamps {
    Timestamps {
        last_access: stamp.timespec(),
        last_modification: stamp.timespec(),
    }
}
