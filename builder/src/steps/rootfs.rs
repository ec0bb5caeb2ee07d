//! Layers as a tree that COPY --from reads.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use box_store::beneath::{Kind, Metadata};
use box_store::layer::Layer;
use box_store::tree::{Tree, TreeEntry};

use crate::context::hash;
use crate::files::{EntryKind, Facts, FileTree, FilesError, Meta, Stamp, Xattr};

/// A stage's or an image's files.
pub(crate) struct Rootfs {
    tree: Tree,
    name: String,
}

impl Rootfs {
    /// The view of these layers, bottom first, called `name` in errors.
    pub(crate) fn new(layers: &[Layer], name: String) -> Rootfs {
        Rootfs {
            tree: Tree::new(layers),
            name,
        }
    }
}

impl FileTree for Rootfs {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn keeps_owners(&self) -> bool {
        true
    }

    fn lookup(&self, path: &Path) -> Result<Option<Meta>, FilesError> {
        Ok(self.tree.lookup(path)?.map(|entry| meta_of(&entry)))
    }

    fn list(&self, path: &Path) -> Result<Vec<(OsString, Meta)>, FilesError> {
        let entries = self.tree.read_dir(path)?;
        Ok(entries
            .into_iter()
            .map(|(name, entry)| (name, meta_of(&entry)))
            .collect())
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, FilesError> {
        Ok(PathBuf::from(self.tree.read_link(path)?))
    }

    fn facts(&self, path: &Path, _meta: &Meta) -> Result<Facts, FilesError> {
        let mut file = self.tree.open_file(path)?;
        let digest = hash(&mut file).map_err(|source| FilesError::Io {
            action: "read",
            path: path.to_owned(),
            tree: self.name.clone(),
            source,
        })?;
        Ok(Facts {
            digest,
            xattrs: self.tree.xattrs(path)?,
        })
    }

    fn xattrs(&self, path: &Path, _meta: &Meta) -> Result<Vec<Xattr>, FilesError> {
        Ok(self.tree.xattrs(path)?)
    }

    fn open(&self, path: &Path, _meta: &Meta) -> Result<File, FilesError> {
        Ok(self.tree.open_file(path)?)
    }
}

/// The type of an entry.
pub(crate) fn kind_of(metadata: &Metadata) -> EntryKind {
    let number = rustix::fs::makedev(metadata.device.0, metadata.device.1);
    match metadata.kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink,
        Kind::Fifo => EntryKind::Fifo,
        Kind::Socket => EntryKind::Socket,
        Kind::CharDevice => EntryKind::CharDevice(number),
        Kind::BlockDevice => EntryKind::BlockDevice(number),
    }
}

fn meta_of(entry: &TreeEntry) -> Meta {
    let metadata = &entry.metadata;
    Meta {
        kind: kind_of(metadata),
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        size: metadata.size,
        links: metadata.nlink,
        stamp: Stamp {
            device: metadata.inode.0,
            inode: metadata.inode.1,
            modified: i128::from(entry.canonical_mtime()) * 1_000_000_000,
            ..Stamp::default()
        },
    }
}
