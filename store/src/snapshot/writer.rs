//! Layers written directly, entry by entry (COPY, ADD, WORKDIR): no container, no overlay.
//!
//! All paths are relative to the rootfs (a slash at the beginning is fine) and already resolved by the caller; they are walked by
//! directory fd and never through a link. What is equal to the entry below (bytes, type, attributes) is left out. Missing
//! parents are made with the attributes of the directory below, or 0755 and root's. Everything gets one time on disk,
//! that of the writing, and L in the tar, but for entries that bring a time of their own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::beneath::{self, Kind, Metadata};
use crate::digest::Digest;
use crate::error::{IoContext, Result, StoreError};
use crate::layer::survey::survey;
use crate::layer::whiteout::{self, is_kept_xattr};
use crate::layer::{DirAttrs, Draft, Layer, Layers, fetch_all};
use crate::root::Root;
use crate::snapshot::canvas::{Canvas, timestamps};
use crate::snapshot::clock::Clock;
use crate::snapshot::options::PrepareOptions;
use crate::snapshot::{content, fixup};
use crate::stamp::Stamp;
use crate::trash::TempDir;
use crate::tree::Tree;

/// What an entry is given besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attrs {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Extended attributes; those that a tar does not keep are left out.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// A time of its own, kept in the tar, in seconds since 1970; else the layer's.
    pub mtime: Option<i64>,
}

/// Writes one layer. Dropping it discards what was written.
#[derive(Debug)]
pub struct LayerWriter {
    layers: Arc<Layers>,
    temp: TempDir,
    path: PathBuf,
    canvas: Canvas,
    below: Tree,
    clock: Clock,
    root: Option<DirAttrs>,
    buffer: Vec<u8>,
}

impl LayerWriter {
    pub(crate) fn new(
        root: &Arc<Root>,
        layers: &Arc<Layers>,
        lowers: &[Layer],
        options: &PrepareOptions,
    ) -> Result<LayerWriter> {
        fetch_all(lowers)?;
        let temp = root.temp_dir()?;
        let path = temp.path().join("tree");
        root.disk.make_dir(&path)?;
        let clock = Clock::start(lowers, options, root.clock_offset);
        let stamp = Stamp::file_clock().plus(root.clock_offset);
        let canvas = Canvas::new(&path, temp.path(), stamp)?;
        let (layers, below) = (Arc::clone(layers), Tree::new(lowers));
        Ok(LayerWriter {
            layers,
            temp,
            path,
            canvas,
            below,
            clock,
            root: None,
            buffer: Vec::new(),
        })
    }

    /// The layer's logical time L, in seconds since 1970.
    pub fn logical_time(&self) -> i64 {
        self.clock.logical_time()
    }

    /// Writes a directory (the root, too: its attributes), or gives one already written other attributes.
    pub fn directory(&mut self, path: &Path, attrs: &Attrs) -> Result<()> {
        let path = plain(path)?;
        let wanted = dir_attrs(attrs);
        if path.as_os_str().is_empty() {
            self.root = Some(wanted).filter(|wanted| *wanted != self.below.root_attrs());
            return Ok(());
        }
        let is_written = self.canvas.has_dir(&path);
        if !is_written && attrs.mtime.is_none() && self.is_dir_below(&path, &wanted)? {
            return Ok(());
        }
        let stamp = self.stamp_of(attrs);
        self.canvas.make_dir(&path, &wanted, stamp, &self.below)
    }

    /// Writes a regular file with all that `source` gives; the digest is of its bytes.
    pub fn file(&mut self, path: &Path, attrs: &Attrs, source: &mut dyn Read) -> Result<Digest> {
        let path = self.entry_path(path)?;
        if self.may_equal_below(&path, attrs)? {
            return self.file_unless_equal(path, attrs, source);
        }
        let (parent, name) = self.canvas.make_room(&path, &self.below)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&*parent, &name, flags, Mode::from_raw_mode(0o600)).at("create", &path)?;
        let mut file = File::from(file);
        // Noted first: what fails halfway is replaced when it is written again.
        self.canvas.note(path.clone());
        let digest = content::copy(source, &mut file, &path, &mut self.buffer)?;
        self.finish_file(&file, &path, attrs)?;
        Ok(digest)
    }

    /// Writes a file aside, and puts it into the tree only if it differs from the one below.
    fn file_unless_equal(&mut self, path: PathBuf, attrs: &Attrs, source: &mut dyn Read) -> Result<Digest> {
        let scratch = self.canvas.scratch_path();
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&scratch)
            .at("create", &path)?;
        let digest = content::copy(source, &mut file, &path, &mut self.buffer)?;
        file.seek(SeekFrom::Start(0)).at("read", &path)?;
        if content::equal(&mut self.below.open_file(&path)?, &mut file).at("read", &path)? {
            std::fs::remove_file(&scratch).at("remove", &scratch)?;
            return Ok(digest);
        }
        self.finish_file(&file, &path, attrs)?;
        let (parent, name) = self.canvas.make_room(&path, &self.below)?;
        rustix::fs::renameat(rustix::fs::CWD, &scratch, &*parent, &name).at("rename to", &path)?;
        self.canvas.note(path);
        Ok(digest)
    }

    /// Owner, mode, attributes and time of a file just written.
    fn finish_file(&mut self, file: &File, path: &Path, attrs: &Attrs) -> Result<()> {
        beneath::give(file, attrs.uid, attrs.gid).at("set the owner of", path)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(attrs.mode)).at("set the mode of", path)?;
        for (name, value) in kept(&attrs.xattrs) {
            rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty())
                .at("set an attribute of", path)?;
        }
        let stamp = self.stamp_of(attrs);
        rustix::fs::futimens(file, &timestamps(stamp)).at("set the times of", path)
    }

    /// Writes a symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &OsStr, attrs: &Attrs) -> Result<()> {
        let path = self.entry_path(path)?;
        if attrs.mtime.is_none() && self.is_symlink_below(&path, target, attrs)? {
            return Ok(());
        }
        let (parent, name) = self.canvas.make_room(&path, &self.below)?;
        rustix::fs::symlinkat(target, &*parent, &name).at("link", &path)?;
        self.finish_entry(&parent, &name, path, attrs, false)
    }

    /// Writes a named pipe.
    pub fn fifo(&mut self, path: &Path, attrs: &Attrs) -> Result<()> {
        self.node(path, Kind::Fifo, (0, 0), attrs)
    }

    /// Writes a device or a named pipe.
    pub fn node(&mut self, path: &Path, kind: Kind, device: (u32, u32), attrs: &Attrs) -> Result<()> {
        let path = self.entry_path(path)?;
        let file_type = match kind {
            Kind::Fifo => FileType::Fifo,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => return Err(StoreError::BadPath { path }),
        };
        if attrs.mtime.is_none() && self.is_node_below(&path, kind, device, attrs)? {
            return Ok(());
        }
        let (parent, name) = self.canvas.make_room(&path, &self.below)?;
        let number = rustix::fs::makedev(device.0, device.1);
        rustix::fs::mknodat(&*parent, &name, file_type, Mode::from_raw_mode(0o600), number)
            .at("make", &path)?;
        self.finish_entry(&parent, &name, path, attrs, true)
    }

    /// Gives a file of the rootfs another name. A file of a lower layer is copied into this one for it.
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> Result<()> {
        let path = self.entry_path(path)?;
        let target = self.entry_path(target)?;
        if !self.canvas.has_entry(&target) {
            self.copy_up(&target)?;
        }
        let (parent, name) = self.canvas.make_room(&path, &self.below)?;
        let (target_parent, target_name) = self.canvas.parent(&target)?;
        rustix::fs::linkat(&*target_parent, &target_name, &*parent, &name, AtFlags::empty())
            .at("link", &path)?;
        self.canvas.note(path);
        Ok(())
    }

    /// Makes a layer of what was written.
    pub fn commit(mut self) -> Result<Layer> {
        self.canvas.settle()?;
        let root = self.root.take();
        fixup::set_dir_attrs(&self.path, root.as_ref().unwrap_or(&self.below.root_attrs()))?;
        let mut facts = survey(&self.canvas.dir, self.clock.finish(), root, Vec::new())?;
        facts.opaque = Some(0);
        drop(self.canvas);
        self.layers.adopt(Draft {
            temp: self.temp,
            tree: self.path,
            facts,
            diff_id: None,
        })
    }

    fn stamp_of(&mut self, attrs: &Attrs) -> Stamp {
        let Some(sec) = attrs.mtime else {
            return self.canvas.stamp;
        };
        let stamp = Stamp::new(sec, 0);
        self.clock.keep(stamp);
        stamp
    }

    fn entry_path(&self, path: &Path) -> Result<PathBuf> {
        let plain = plain(path)?;
        if plain.as_os_str().is_empty() {
            Err(StoreError::BadPath {
                path: path.to_owned(),
            })
        } else {
            Ok(plain)
        }
    }

    /// What the layers below have at a path that this layer has not written yet.
    fn below_unwritten(&self, path: &Path) -> Result<Option<Metadata>> {
        let is_written = self.canvas.has_entry(path) || self.canvas.has_dir(path);
        if is_written {
            Ok(None)
        } else {
            Ok(self.below.lookup(path)?.map(|entry| entry.metadata))
        }
    }

    fn has_attrs_below(&self, path: &Path, below: &Metadata, attrs: &Attrs) -> Result<bool> {
        let same_owner = (below.uid, below.gid) == (attrs.uid, attrs.gid);
        let same_mode = below.kind == Kind::Symlink || below.mode == attrs.mode & 0o7777;
        Ok(same_owner && same_mode && self.below.xattrs(path)? == dir_attrs(attrs).xattrs)
    }

    fn is_dir_below(&self, path: &Path, attrs: &DirAttrs) -> Result<bool> {
        Ok(self
            .below
            .dir_attrs(path)?
            .is_some_and(|(below, _)| below == *attrs))
    }

    /// Whether the layers below have a file here that only its bytes can tell apart.
    fn may_equal_below(&self, path: &Path, attrs: &Attrs) -> Result<bool> {
        let below = self
            .below_unwritten(path)?
            .filter(|below| below.kind == Kind::File);
        let Some(below) = below.filter(|_| attrs.mtime.is_none()) else {
            return Ok(false);
        };
        self.has_attrs_below(path, &below, attrs)
    }

    fn is_symlink_below(&self, path: &Path, target: &OsStr, attrs: &Attrs) -> Result<bool> {
        let below = self
            .below_unwritten(path)?
            .filter(|below| below.kind == Kind::Symlink);
        let Some(below) = below else { return Ok(false) };
        Ok(self.has_attrs_below(path, &below, attrs)? && self.below.read_link(path)? == target)
    }

    fn is_node_below(&self, path: &Path, kind: Kind, device: (u32, u32), attrs: &Attrs) -> Result<bool> {
        let same = |below: &Metadata| below.kind == kind && below.device == device;
        let Some(below) = self.below_unwritten(path)?.filter(same) else {
            return Ok(false);
        };
        self.has_attrs_below(path, &below, attrs)
    }

    fn copy_up(&mut self, path: &Path) -> Result<()> {
        let below = self
            .below
            .lookup(path)?
            .filter(|below| below.metadata.kind == Kind::File);
        let below = below.ok_or_else(|| StoreError::NotFound {
            path: path.to_owned(),
        })?;
        let Metadata { mode, uid, gid, .. } = below.metadata;
        let attrs = Attrs {
            mode,
            uid,
            gid,
            xattrs: self.below.xattrs(path)?,
            mtime: Some(below.canonical_mtime()),
        };
        let mut source = self.below.open_file(path)?;
        self.file(path, &attrs, &mut source).map(drop)
    }

    /// Owner, mode, attributes and time of a link or node just made.
    fn finish_entry(
        &mut self,
        parent: &Arc<OwnedFd>,
        name: &OsStr,
        path: PathBuf,
        attrs: &Attrs,
        has_mode: bool,
    ) -> Result<()> {
        beneath::give_at(parent, name, attrs.uid, attrs.gid).at("set the owner of", &path)?;
        if has_mode {
            let mode = Mode::from_raw_mode(attrs.mode);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).at("set the mode of", &path)?;
        }
        for (attribute, value) in kept(&attrs.xattrs) {
            beneath::set_xattr(parent, name, attribute, value).at("set an attribute of", &path)?;
        }
        let times = timestamps(self.stamp_of(attrs));
        rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .at("set the times of", &path)?;
        self.canvas.note(path);
        Ok(())
    }
}

fn dir_attrs(attrs: &Attrs) -> DirAttrs {
    let mut xattrs: Vec<_> = kept(&attrs.xattrs).cloned().collect();
    xattrs.sort_unstable();
    DirAttrs {
        mode: attrs.mode & 0o7777,
        uid: attrs.uid,
        gid: attrs.gid,
        xattrs,
    }
}

fn plain(path: &Path) -> Result<PathBuf> {
    let bad = || StoreError::BadPath {
        path: path.to_owned(),
    };
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if whiteout::is_tar_name(name) => {
                return Err(StoreError::WhiteoutName {
                    path: path.to_owned(),
                });
            }
            Component::Normal(name) if !name.as_bytes().contains(&0) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(bad()),
        }
    }
    Ok(plain)
}

/// The attributes that a tar keeps.
fn kept(xattrs: &[(OsString, Vec<u8>)]) -> impl Iterator<Item = &(OsString, Vec<u8>)> {
    xattrs.iter().filter(|(name, _)| is_kept_xattr(name))
}
