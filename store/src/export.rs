//! A root file system as others read it: the merged view of layers as one canonical tar, or in a directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::beneath::{self, Kind};
use crate::error::{IoContext, Result, StoreError};
use crate::layer::Layer;
use crate::layer::apply::{ApplyError, Extract, Limits, Source, extract};
use crate::layer::tar::{Archive, Header};
use crate::snapshot::set_dir_attrs;
use crate::tree::{Tree, TreeEntry};

/// Writes the merged root file system of these layers (bottom first) as a tar: directories before what is in them, sorted by
/// name, times as in the layers' tars. Gives its length in bytes.
///
/// # Errors
/// When a layer can't be read, or the tar can't be written.
pub fn write_rootfs(layers: &[Layer], out: &mut dyn Write) -> Result<u64> {
    write_rootfs_as(layers, &|owner| owner, out)
}

/// What becomes of a user and a group on the way out.
pub type Owners<'a> = dyn Fn((u32, u32)) -> (u32, u32) + Sync + 'a;

fn write_rootfs_as<'a>(layers: &[Layer], owners: &'a Owners<'a>, out: &'a mut dyn Write) -> Result<u64> {
    let mut writer = Writer::new(Tree::new(layers), Subtree::default(), out);
    writer.owners = owners;
    let root = writer.tree.root_attrs();
    let (uid, gid) = owners((root.uid, root.gid));
    writer.archive.header(&Header {
        path: b".",
        flag: b'5',
        mode: root.mode,
        uid,
        gid,
        xattrs: &root.xattrs,
        ..Header::default()
    })?;
    writer.below(Path::new(""))?;
    writer.archive.finish()
}

/// A part of a root file system, and how it is written.
#[derive(Debug, Clone, Default)]
pub struct Subtree {
    /// Its path, relative to the root, with links followed.
    pub path: PathBuf,
    /// What it is called in the archive; empty: what is in the directory is written without it.
    pub name: PathBuf,
    /// Who owns everything; then files are neither setuid nor setgid, have no extended attributes, and a device is an error. None: as in the image.
    pub owner: Option<(u32, u32)>,
    /// Whether files have the times that they have on this disk, in whole seconds, instead of those of their layers' tars.
    pub has_real_times: bool,
}

/// Writes a part of the merged root file system of these layers as a tar, as [`write_rootfs`] does. Hard links to what is outside are files.
///
/// # Errors
/// When there is nothing at the path, a layer can't be read, or the tar can't be written.
pub fn write_subtree(layers: &[Layer], subtree: &Subtree, out: &mut dyn Write) -> Result<u64> {
    let tree = Tree::new(layers);
    let path = subtree.path.clone();
    let entry = tree.lookup(&path)?;
    let entry = entry.ok_or_else(|| StoreError::NotFound { path: path.clone() })?;
    let mut writer = Writer::new(tree, subtree.clone(), out);
    if !subtree.name.as_os_str().is_empty() {
        writer.entry(&entry)?;
    }
    if entry.metadata.kind == Kind::Directory {
        writer.below(&path)?;
    }
    writer.archive.finish()
}

/// Writes the merged root file system of these layers into a directory, which is made if it is not there, with the root
/// directory's attributes. What is there and of the same name is replaced; no link in it is followed.
///
/// # Errors
/// When a layer can't be read, or the directory can't be written.
pub fn extract_rootfs(layers: &[Layer], directory: &Path) -> std::result::Result<(), ApplyError> {
    extract_rootfs_as(layers, directory, &|owner| owner)
}

/// The same with other owners: each user and group as `owners` has it.
///
/// # Errors
/// As those of [`extract_rootfs`].
pub fn extract_rootfs_as(
    layers: &[Layer],
    directory: &Path,
    owners: &Owners<'_>,
) -> std::result::Result<(), ApplyError> {
    let is_new = !directory.exists();
    extract_written(directory, |out| write_rootfs_as(layers, owners, out))?;
    if is_new {
        let mut root = Tree::new(layers).root_attrs();
        (root.uid, root.gid) = owners((root.uid, root.gid));
        set_dir_attrs(directory, &root)?;
    }
    Ok(())
}

/// Writes a part of the merged root file system of these layers into a directory, as [`extract_rootfs`] does.
///
/// # Errors
/// As those of [`write_subtree`], and when the directory can't be written.
pub fn extract_subtree(
    layers: &[Layer],
    subtree: &Subtree,
    directory: &Path,
) -> std::result::Result<(), ApplyError> {
    extract_written(directory, |out| write_subtree(layers, subtree, out))
}

/// Unpacks a stranger's tar into a directory that is made if it is not there, as [`extract_rootfs`] does.
///
/// # Errors
/// When the tar is not one, or can't be read, or the directory can't be written.
pub fn extract_tar(tar: impl Read, directory: &Path) -> std::result::Result<(), ApplyError> {
    std::fs::create_dir_all(directory).at("make directory", directory)?;
    let root = beneath::open_root(directory).at("open", directory)?;
    extract(root.as_fd(), tar, &into_users(&unlimited())).map(drop)
}

/// What is copied was not made to be small when packed.
fn unlimited() -> Limits {
    Limits {
        max_expanded: u64::MAX,
        ..Limits::default()
    }
}

fn into_users(limits: &Limits) -> Extract<'_> {
    Extract {
        is_into_users: true,
        source: Source::Rootfs,
        limits,
        retime: None,
    }
}

fn extract_written(
    directory: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<u64> + Send,
) -> std::result::Result<(), ApplyError> {
    std::fs::create_dir_all(directory).at("make directory", directory)?;
    let root = beneath::open_root(directory).at("open", directory)?;
    let limits = unlimited();
    let how = into_users(&limits);
    let (reader, writer) = std::io::pipe().map_err(|source| ApplyError::Read { offset: 0, source })?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let mut writer = std::io::BufWriter::with_capacity(1 << 20, writer);
            let written = write(&mut writer).map(drop);
            written.and_then(|()| writer.flush().at("write", "root file system"))
        });
        let extracted = extract(root.as_fd(), reader, &how).map(drop);
        let is_of_reader = |error: &StoreError| matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe);
        match written.join() {
            // What could not be read says more than that the archive ended too soon, but not that nobody wanted more of it.
            Ok(Err(error)) if !is_of_reader(&error) => Err(ApplyError::from(error)),
            Ok(_) => extracted,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

struct Writer<'a> {
    tree: Tree,
    part: Subtree,
    archive: Archive<'a>,
    owners: &'a Owners<'a>,
    /// The first path of every file with several names.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Writer<'a> {
    fn new(tree: Tree, part: Subtree, out: &'a mut dyn Write) -> Writer<'a> {
        Writer {
            tree,
            part,
            archive: Archive::new(out),
            owners: &|owner| owner,
            links: HashMap::new(),
        }
    }

    /// All that is in a directory.
    fn below(&mut self, path: &Path) -> Result<()> {
        let mut ahead: Vec<std::vec::IntoIter<(OsString, TreeEntry)>> =
            vec![self.tree.read_dir(path)?.into_iter()];
        while let Some(entries) = ahead.last_mut() {
            let Some((_, entry)) = entries.next() else {
                ahead.pop();
                continue;
            };
            self.entry(&entry)?;
            if entry.metadata.kind == Kind::Directory {
                ahead.push(self.tree.read_dir(&entry.path)?.into_iter());
            }
        }
        Ok(())
    }

    /// What an entry is called in the archive.
    fn name(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.part.path) {
            Ok(rest) if rest.as_os_str().is_empty() => self.part.name.clone(),
            Ok(rest) => self.part.name.join(rest),
            Err(_) => path.to_owned(),
        }
    }

    fn entry(&mut self, entry: &TreeEntry) -> Result<()> {
        let metadata = &entry.metadata;
        let name = self.name(&entry.path);
        let (uid, gid) = self
            .part
            .owner
            .unwrap_or_else(|| (self.owners)((metadata.uid, metadata.gid)));
        let special = if self.part.owner.is_some() { 0o6000 } else { 0 };
        let base = Header {
            path: name.as_os_str().as_bytes(),
            mode: metadata.mode & !special,
            uid,
            gid,
            mtime: match self.part.has_real_times {
                true => metadata.mtime.sec,
                false => entry.canonical_mtime(),
            },
            ..Header::default()
        };
        if metadata.nlink > 1 && metadata.kind != Kind::Directory {
            if let Some(first) = self.links.get(&metadata.inode) {
                let link = first.as_os_str().as_bytes();
                return self.archive.header(&Header {
                    flag: b'1',
                    link,
                    ..base
                });
            }
            self.links.insert(metadata.inode, name.clone());
        }
        let xattrs = match self.part.owner {
            None => self.tree.xattrs(&entry.path)?,
            Some(_) => Vec::new(),
        };
        let base = Header {
            xattrs: &xattrs,
            ..base
        };
        match metadata.kind {
            Kind::Directory => self.archive.header(&Header { flag: b'5', ..base }),
            Kind::File => {
                let size = metadata.size;
                self.archive.header(&Header {
                    flag: b'0',
                    size,
                    ..base
                })?;
                let file = self.tree.open_file(&entry.path)?;
                self.archive.content(&mut file.take(size), size, &entry.path)
            }
            Kind::Symlink => {
                let target = self.tree.read_link(&entry.path)?;
                self.archive.header(&Header {
                    flag: b'2',
                    mode: 0o777,
                    link: target.as_bytes(),
                    ..base
                })
            }
            Kind::Fifo => self.archive.header(&Header { flag: b'6', ..base }),
            Kind::CharDevice | Kind::BlockDevice if self.part.owner.is_some() => Err(StoreError::Device {
                path: entry.path.clone(),
            }),
            Kind::CharDevice | Kind::BlockDevice => self.archive.header(&Header {
                flag: if metadata.kind == Kind::CharDevice {
                    b'3'
                } else {
                    b'4'
                },
                device: metadata.device,
                ..base
            }),
            Kind::Socket => Ok(()),
        }
    }
}
