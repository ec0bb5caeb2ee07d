//! Putting selections into a layer, as BuildKit places them.
//!
//! The destination is followed through links inside the rootfs. A directory brings its contents, not itself; a file goes
//! into the destination if that is (or is written as) a directory. Missing directories are made 0755, or as `--chmod` says,
//! with the owner of the copy. Below the destination no link is followed: a directory can't replace anything else, nor anything a directory.

mod batch;
mod unpacked;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use box_store::beneath::Kind;
use box_store::snapshot::{Attrs, LayerWriter};
use box_store::tree::Tree;

use crate::error::{PlaceError, StepError};
use crate::exec::CancelToken;
use crate::files::{Content, Entry, EntryKind, FileTree, FilesError, Selection};
use crate::parse::Chmod;

use super::rootfs::kind_of;
use batch::Batch;

/// Where to, and as what.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// Absolute; a slash at the end says that it is a directory.
    pub(crate) destination: &'a str,
    /// The owner of everything; else the source's own.
    pub(crate) owner: Option<(u32, u32)>,
    /// The mode of everything; else the source's own.
    pub(crate) chmod: Option<&'a Chmod>,
    /// Whether a directory that is there keeps its mode and owner when one is copied onto it.
    pub(crate) keeps_directories: bool,
    /// Ends the copy.
    pub(crate) cancel: &'a CancelToken,
}

/// A copy in the making.
pub(crate) struct Placer<'a> {
    tree: &'a Tree,
    writer: LayerWriter,
    target: Target<'a>,
    /// The destination with links followed, relative to the root.
    root: PathBuf,
    written: HashMap<PathBuf, EntryKind>,
    /// Whether it is an archive's entries that are put now: they keep owner, mode and time, and replace what is of another kind.
    is_unpacking: bool,
    keeps_times: bool,
    /// Files with several names, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Placer<'a> {
    /// Begins a copy onto the rootfs that `tree` shows.
    ///
    /// # Errors
    /// When the destination leads through something that is no directory.
    pub(crate) fn new(
        tree: &'a Tree,
        writer: LayerWriter,
        target: Target<'a>,
    ) -> Result<Placer<'a>, StepError> {
        let root = tree.resolve(Path::new(target.destination), true)?.path;
        Ok(Placer {
            tree,
            writer,
            target,
            root,
            written: HashMap::new(),
            is_unpacking: false,
            keeps_times: false,
            linked: HashMap::new(),
        })
    }

    /// What was written.
    pub(crate) fn finish(self) -> LayerWriter {
        self.writer
    }

    /// Whether files go into the destination.
    pub(crate) fn is_directory(&self) -> Result<bool, StepError> {
        let is_written_so = self.target.destination.ends_with('/');
        Ok(is_written_so || self.existing(&self.root)? == Some(EntryKind::Directory))
    }

    /// Puts a file that was fetched: it keeps its time.
    pub(crate) fn put_fetched(
        &mut self,
        source: &dyn FileTree,
        selection: &Selection,
    ) -> Result<(), StepError> {
        self.keeps_times = true;
        let result = self.put(source, selection);
        self.keeps_times = false;
        result
    }

    /// Puts a file or the contents of a directory. Names of one file stay so within what is put at once, as with Docker.
    pub(crate) fn put(&mut self, source: &dyn FileTree, selection: &Selection) -> Result<(), StepError> {
        let mut batch = Batch::new(source, self.target.cancel);
        self.put_into(&mut batch, source, selection)?;
        batch.write()
    }

    fn put_into<'s>(
        &mut self,
        batch: &mut Batch<'s>,
        source: &'s dyn FileTree,
        selection: &'s Selection,
    ) -> Result<(), StepError> {
        self.linked.clear();
        let root = self.root.clone();
        if selection.is_directory() {
            self.make_dirs(&root)?;
            // The directory itself is not copied: what is there keeps its mode and owner.
            return selection.entries.iter().skip(1).try_for_each(|entry| {
                let from = selection.root.join(&entry.relative);
                self.entry(Some(batch), source, &from, &root.join(&entry.relative), entry)
            });
        }
        let path = match self.is_directory()? {
            true => {
                self.make_dirs(&root)?;
                root.join(&selection.name)
            }
            false => {
                self.make_dirs(root.parent().unwrap_or(Path::new("")))?;
                root
            }
        };
        let file = selection.entries.first();
        file.map_or(Ok(()), |entry| {
            self.entry(None, source, &selection.root, &path, entry)
        })
    }

    /// Puts some entries of a directory, by their places, into a layer over one that has the others. False if it can't be: the layers below have
    /// something where one of them goes.
    pub(crate) fn put_some(
        &mut self,
        source: &dyn FileTree,
        selection: &Selection,
        places: &[usize],
    ) -> Result<bool, StepError> {
        let root = self.root.clone();
        let entries = || places.iter().filter_map(|&place| selection.entries.get(place));
        for entry in entries() {
            if self.tree.lookup(&root.join(&entry.relative))?.is_some() {
                return Ok(false);
            }
        }
        self.make_dirs(&root)?;
        let mut batch = Batch::new(source, self.target.cancel);
        for entry in entries() {
            let from = selection.root.join(&entry.relative);
            self.entry(
                Some(&mut batch),
                source,
                &from,
                &root.join(&entry.relative),
                entry,
            )?;
        }
        batch.write()?;
        Ok(true)
    }

    /// Puts a file that stands in the Boxfile.
    pub(crate) fn put_inline(&mut self, name: &str, data: &[u8]) -> Result<(), StepError> {
        let root = self.root.clone();
        let path = if self.is_directory()? {
            root.join(name)
        } else {
            root
        };
        self.make_dirs(path.parent().unwrap_or(Path::new("")))?;
        self.check_no_directory(&path)?;
        let (uid, gid) = self.target.owner.unwrap_or((0, 0));
        let mode = self.target.chmod.map_or(0o644, |chmod| chmod.apply(0o644, false));
        let attrs = Attrs {
            mode,
            uid,
            gid,
            ..Attrs::default()
        };
        self.writer.file(&path, &attrs, &mut &*data)?;
        self.written.insert(path, EntryKind::File);
        Ok(())
    }

    /// Makes a directory and what is missing above it, as the owner of the copy.
    pub(crate) fn make_dirs(&mut self, path: &Path) -> Result<(), StepError> {
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            match self.existing(ancestor)? {
                Some(EntryKind::Directory) => break,
                Some(_) => {
                    return Err(PlaceError::NotADirectory {
                        path: absolute(ancestor),
                    }
                    .into());
                }
                None if ancestor.as_os_str().is_empty() => break,
                None => missing.push(ancestor),
            }
        }
        let (uid, gid) = self.owner().unwrap_or((0, 0));
        let mode = self.chmod().map_or(0o755, |chmod| chmod.apply(0o755, true));
        for directory in missing.into_iter().rev() {
            self.writer.directory(
                directory,
                &Attrs {
                    mode,
                    uid,
                    gid,
                    ..Attrs::default()
                },
            )?;
            self.written.insert(directory.to_owned(), EntryKind::Directory);
        }
        Ok(())
    }

    /// What is at this path by now, no link followed.
    fn existing(&self, path: &Path) -> Result<Option<EntryKind>, StepError> {
        if path.as_os_str().is_empty() {
            return Ok(Some(EntryKind::Directory));
        }
        if let Some(kind) = self.written.get(path) {
            return Ok(Some(*kind));
        }
        Ok(self.tree.lookup(path)?.map(|entry| kind_of(&entry.metadata)))
    }

    /// The owner that the copy gives; entries of an archive keep theirs.
    fn owner(&self) -> Option<(u32, u32)> {
        self.target.owner.filter(|_| !self.is_unpacking)
    }

    fn chmod(&self) -> Option<&'a Chmod> {
        self.target.chmod.filter(|_| !self.is_unpacking)
    }

    fn check_no_directory(&self, path: &Path) -> Result<(), StepError> {
        match self.existing(path)? {
            Some(EntryKind::Directory) => Err(PlaceError::IsADirectory { path: absolute(path) }.into()),
            _ => Ok(()),
        }
    }

    /// Puts one entry. A file may wait in `batch` to be written, if there is one.
    fn entry<'s>(
        &mut self,
        batch: Option<&mut Batch<'s>>,
        source: &'s dyn FileTree,
        from: &Path,
        path: &Path,
        entry: &'s Entry,
    ) -> Result<(), StepError> {
        if self.target.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        let attrs = self.attrs(source, entry);
        let is_directory = entry.meta.kind == EntryKind::Directory;
        match self.existing(path)? {
            None => {}
            Some(EntryKind::Directory) if is_directory && self.target.keeps_directories => return Ok(()),
            Some(EntryKind::Directory) if is_directory => {}
            Some(_) if self.is_unpacking => {}
            Some(EntryKind::Directory) => {
                return Err(PlaceError::IsADirectory { path: absolute(path) }.into());
            }
            // As Docker does: what was a link becomes a directory.
            Some(EntryKind::Symlink) => {}
            Some(_) if is_directory => return Err(PlaceError::NotADirectory { path: absolute(path) }.into()),
            Some(_) => {}
        }
        match (&entry.content, entry.meta.kind) {
            (Content::File(_), _) => self.file(batch, (source, from), path, entry, &attrs)?,
            (Content::Symlink(target), _) => self.writer.symlink(path, target.as_os_str(), &attrs)?,
            (Content::Nothing, EntryKind::CharDevice(number)) => {
                self.writer.node(path, Kind::CharDevice, device(number), &attrs)?;
            }
            (Content::Nothing, EntryKind::BlockDevice(number)) => {
                self.writer
                    .node(path, Kind::BlockDevice, device(number), &attrs)?;
            }
            (Content::Nothing, EntryKind::Fifo) => self.writer.fifo(path, &attrs)?,
            (Content::Nothing, _) => self.writer.directory(path, &attrs)?,
        }
        self.written.insert(path.to_owned(), entry.meta.kind);
        Ok(())
    }

    fn file<'s>(
        &mut self,
        batch: Option<&mut Batch<'s>>,
        (source, from): (&'s dyn FileTree, &Path),
        path: &Path,
        entry: &'s Entry,
        attrs: &Attrs,
    ) -> Result<(), StepError> {
        let inode = (entry.meta.stamp.device, entry.meta.stamp.inode);
        // In a context names of one file are files of their own: a clone of it elsewhere has no such links.
        let is_linked = source.keeps_owners() && entry.meta.links > 1;
        if let Some(first) = self.linked.get(&inode).filter(|_| is_linked) {
            return Ok(self.writer.hard_link(path, first)?);
        }
        // Whatever needs this one's bytes at once, or what is below it, is written now.
        if let Some(batch) = batch.filter(|_| !is_linked)
            && let Some(place) = self.writer.reserve(path, attrs)?
        {
            return batch.push(from, entry, place);
        }
        let mut file: File = source.open(from, &entry.meta)?;
        let digest = self.writer.file(path, attrs, &mut file)?;
        if Content::File(digest) != entry.content {
            return Err(FilesError::Changed {
                path: from.to_owned(),
                tree: source.describe(),
            }
            .into());
        }
        if is_linked {
            self.linked.insert(inode, path.to_owned());
        }
        Ok(())
    }

    fn attrs(&self, source: &dyn FileTree, entry: &Entry) -> Attrs {
        let own = if source.keeps_owners() {
            (entry.meta.uid, entry.meta.gid)
        } else {
            (0, 0)
        };
        let (uid, gid) = self.owner().unwrap_or(own);
        let is_directory = entry.meta.kind == EntryKind::Directory;
        let mode = match self.chmod() {
            Some(chmod) if entry.meta.kind != EntryKind::Symlink => {
                chmod.apply(entry.meta.mode, is_directory)
            }
            _ => entry.meta.mode,
        };
        Attrs {
            mode,
            uid,
            gid,
            xattrs: entry.xattrs.clone(),
            mtime: (self.is_unpacking || self.keeps_times).then(|| seconds(entry.meta.stamp.modified)),
        }
    }
}

fn device(number: u64) -> (u32, u32) {
    (rustix::fs::major(number), rustix::fs::minor(number))
}

/// Whole seconds of nanoseconds.
fn seconds(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or_default()
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
