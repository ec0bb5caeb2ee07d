//! A root file system as others read it: the merged view of layers as one canonical tar, or in a directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::beneath::{self, Kind};
use crate::error::{IoContext, Result};
use crate::layer::Layer;
use crate::layer::apply::{ApplyError, Extract, Limits, Source, extract};
use crate::layer::tar::{Archive, Header};
use crate::tree::{Tree, TreeEntry};

/// Writes the merged root file system of these layers (bottom first) as a tar: directories before what is in them, sorted by
/// name, times as in the layers' tars. Gives its length in bytes.
///
/// # Errors
/// When a layer can't be read, or the tar can't be written.
pub fn write_rootfs(layers: &[Layer], out: &mut dyn Write) -> Result<u64> {
    let mut writer = Writer {
        tree: Tree::new(layers),
        archive: Archive::new(out),
        links: HashMap::new(),
    };
    let root = writer.tree.root_attrs();
    writer.archive.header(&Header {
        path: b".",
        flag: b'5',
        mode: root.mode,
        uid: root.uid,
        gid: root.gid,
        xattrs: &root.xattrs,
        ..Header::default()
    })?;
    let mut ahead: Vec<std::vec::IntoIter<(OsString, TreeEntry)>> =
        vec![writer.tree.read_dir(Path::new(""))?.into_iter()];
    while let Some(entries) = ahead.last_mut() {
        let Some((_, entry)) = entries.next() else {
            ahead.pop();
            continue;
        };
        writer.entry(&entry)?;
        if entry.metadata.kind == Kind::Directory {
            ahead.push(writer.tree.read_dir(&entry.path)?.into_iter());
        }
    }
    writer.archive.finish()
}

/// Writes the merged root file system of these layers into a directory, which is made if it is not there. What is there and of the same
/// name is replaced; no link in it is followed.
///
/// # Errors
/// When a layer can't be read, or the directory can't be written.
pub fn extract_rootfs(layers: &[Layer], directory: &Path) -> std::result::Result<(), ApplyError> {
    std::fs::create_dir_all(directory).at("make directory", directory)?;
    let root = beneath::open_root(directory).at("open", directory)?;
    let limits = Limits {
        max_expanded: u64::MAX,
        ..Limits::default()
    };
    let how = Extract {
        source: Source::Rootfs,
        limits: &limits,
        retime: None,
    };
    let (reader, writer) = std::io::pipe().map_err(|source| ApplyError::Read { offset: 0, source })?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let mut writer = std::io::BufWriter::with_capacity(1 << 20, writer);
            let written = write_rootfs(layers, &mut writer).map(drop);
            written.and_then(|()| writer.flush().at("write", "root file system"))
        });
        let extracted = extract(root.as_fd(), reader, &how).map(drop);
        // What could not be read says more than that the archive ended too soon.
        match written.join() {
            Ok(Err(error)) if extracted.is_err() => Err(ApplyError::from(error)),
            Ok(Ok(()) | Err(_)) => extracted,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

struct Writer<'a> {
    tree: Tree,
    archive: Archive<'a>,
    /// The first path of every file with several names.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Writer<'_> {
    fn entry(&mut self, entry: &TreeEntry) -> Result<()> {
        let metadata = &entry.metadata;
        let base = Header {
            path: entry.path.as_os_str().as_bytes(),
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: entry.canonical_mtime(),
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
            self.links.insert(metadata.inode, entry.path.clone());
        }
        let xattrs = self.tree.xattrs(&entry.path)?;
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
