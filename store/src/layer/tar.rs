//! The canonical tar of a layer's tree: one byte sequence for one tree, whoever writes it.
//!
//! POSIX ustar headers, entries in the order of [`Walk`]; numbers in octal; user and group names empty; a PAX header only for
//! what ustar can't say (names over 100 bytes, numbers too large or negative, extended attributes), its keys sorted.
//! Times are whole seconds, from [`LayerFacts::times`]. Hard links point to the first path in order. Sparse files are
//! written whole. The root directory is listed (as `./`, first) only if the layer sets its attributes. Two empty blocks
//! end the tar.

mod archive;

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::beneath::{self, Kind, Metadata, Visit, Walk};
use crate::error::{IoContext, Result, StoreError};
use crate::layer::meta::LayerFacts;
use crate::layer::whiteout;
use crate::root::OverlayXattrs;

pub(crate) use archive::{Archive, Header};

/// The extended attributes of an entry that a tar keeps, in their canonical form.
pub(crate) fn kept_xattrs(dir: impl AsFd, name: &OsStr, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
    canonical_xattrs(beneath::xattrs(dir, name).at("read attributes of", path)?, path)
}

fn canonical_xattrs(all: Vec<(OsString, Vec<u8>)>, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
    let mut kept = Vec::new();
    for (name, value) in all {
        if !whiteout::is_kept_xattr(&name) {
            continue;
        }
        if name.as_bytes().contains(&b'=') {
            return Err(StoreError::XattrName {
                path: path.to_owned(),
                name: name.to_string_lossy().into_owned(),
            });
        }
        let is_capability = name == "security.capability";
        kept.push((
            name,
            if is_capability {
                whiteout::canonical_capability(value)
            } else {
                value
            },
        ));
    }
    Ok(kept)
}

/// Writes the canonical tar of the tree at `root`; gives its length in bytes.
pub(crate) fn write_tree(
    root: impl AsFd,
    facts: &LayerFacts,
    overlay_xattrs: OverlayXattrs,
    out: &mut dyn Write,
) -> Result<u64> {
    write_trees(&[root], facts, overlay_xattrs, out)
}

/// The same of several trees that lie on one another (see [`Walk::of`]).
pub(crate) fn write_trees<R: AsFd>(
    roots: &[R],
    facts: &LayerFacts,
    overlay_xattrs: OverlayXattrs,
    out: &mut dyn Write,
) -> Result<u64> {
    let mut writer = TreeWriter {
        archive: Archive::new(out),
        facts,
        overlay_xattrs,
        links: HashMap::new(),
    };
    writer.root()?;
    let mut walk = Walk::of(roots).at("read", "")?;
    loop {
        match walk.next() {
            Ok(Some(visit)) => writer.entry(&visit)?,
            Ok(None) => break,
            Err(error) => return Err(error).at("read", walk.path()),
        }
    }
    writer.archive.finish()
}

/// The same of a tree that lies over another, into `out.0`, and of that other alone, into `out.1`: what both have is read once. False if that
/// can't be, since files have several names. Neither has attributes of the root of its own.
pub(crate) fn write_over(
    roots: [BorrowedFd<'_>; 2],
    facts: &LayerFacts,
    overlay_xattrs: OverlayXattrs,
    out: (&mut dyn Write, &mut dyn Write),
) -> Result<bool> {
    let to = Cell::new(To::Both);
    let mut both = Both {
        whole: out.0,
        lower: out.1,
        to: &to,
    };
    let mut writer = TreeWriter {
        archive: Archive::new(&mut both),
        facts,
        overlay_xattrs,
        links: HashMap::new(),
    };
    let mut walk = Walk::of(&roots).at("read", "")?.showing_hidden();
    loop {
        let visit = match walk.next() {
            Ok(Some(visit)) => visit,
            Ok(None) => break,
            Err(error) => return Err(error).at("read", walk.path()),
        };
        if visit.metadata.nlink > 1 && visit.metadata.kind != Kind::Directory {
            return Ok(false);
        }
        to.set(match (visit.is_on_top, visit.is_hidden) {
            (true, _) => To::Whole,
            (false, true) => To::Lower,
            (false, false) => To::Both,
        });
        writer.entry(&visit)?;
    }
    to.set(To::Both);
    writer.archive.finish()?;
    Ok(true)
}

/// Which of two archives an entry is for.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Whole,
    Lower,
    Both,
}

/// Writes into one of two, or both. Entries of archives are whole blocks, so that each is as if it were written alone.
struct Both<'w, 'l, 't> {
    whole: &'w mut dyn Write,
    lower: &'l mut dyn Write,
    to: &'t Cell<To>,
}

impl Write for Both<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let to = self.to.get();
        if to != To::Lower {
            self.whole.write_all(bytes)?;
        }
        if to != To::Whole {
            self.lower.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct TreeWriter<'a> {
    archive: Archive<'a>,
    facts: &'a LayerFacts,
    overlay_xattrs: OverlayXattrs,
    /// The first path of every file with several names.
    links: HashMap<(u64, u64), PathBuf>,
}

impl TreeWriter<'_> {
    fn root(&mut self) -> Result<()> {
        self.root_attrs()?;
        match self.facts.hides_below {
            true => self.removal(Path::new(whiteout::OPAQUE)),
            false => Ok(()),
        }
    }

    fn root_attrs(&mut self) -> Result<()> {
        let Some(root) = &self.facts.root else {
            return Ok(());
        };
        let mtime = self.facts.times.clamped(self.facts.times.logical);
        let (mode, uid, gid) = (root.mode, root.uid, root.gid);
        self.header(&Header {
            path: b".",
            flag: b'5',
            mode,
            uid,
            gid,
            mtime,
            xattrs: &root.xattrs,
            ..Header::default()
        })
    }

    fn entry(&mut self, visit: &Visit<'_>) -> Result<()> {
        let metadata = &visit.metadata;
        if metadata.is_whiteout() {
            return self.whiteout(visit);
        }
        if metadata.nlink > 1 && metadata.kind != Kind::Directory {
            if let Some(first) = self.links.get(&metadata.inode).cloned() {
                let link = first.as_os_str().as_bytes();
                return self.header(&Header {
                    flag: b'1',
                    link,
                    ..self.base(visit)
                });
            }
            self.links.insert(metadata.inode, visit.path.to_owned());
        }
        if metadata.kind == Kind::File && metadata.size > 0 {
            return self.file(visit);
        }
        let all = beneath::xattrs(visit.dir, &visit.name).at("read attributes of", visit.path)?;
        let is_opaque = all.iter().any(|(name, _)| name == self.overlay_xattrs.opaque());
        let xattrs = canonical_xattrs(all, visit.path)?;
        let base = Header {
            xattrs: &xattrs,
            ..self.base(visit)
        };
        match metadata.kind {
            Kind::File => self.header(&Header { flag: b'0', ..base }),
            Kind::Directory => self.directory(visit, base, is_opaque),
            Kind::Symlink => self.symlink(visit, base),
            Kind::Fifo => self.header(&Header { flag: b'6', ..base }),
            Kind::CharDevice => self.header(&Header {
                flag: b'3',
                device: metadata.device,
                ..base
            }),
            Kind::BlockDevice => self.header(&Header {
                flag: b'4',
                device: metadata.device,
                ..base
            }),
            Kind::Socket => Ok(()),
        }
    }

    fn base<'v>(&self, visit: &'v Visit<'_>) -> Header<'v> {
        let Metadata {
            mode,
            uid,
            gid,
            mtime,
            ..
        } = visit.metadata;
        let mtime = self.facts.times.canonical(mtime);
        Header {
            path: visit.path.as_os_str().as_bytes(),
            mode,
            uid,
            gid,
            mtime,
            ..Header::default()
        }
    }

    fn directory(&mut self, visit: &Visit<'_>, base: Header<'_>, is_opaque: bool) -> Result<()> {
        self.header(&Header { flag: b'5', ..base })?;
        if is_opaque {
            self.removal(&visit.path.join(whiteout::OPAQUE))
        } else {
            Ok(())
        }
    }

    fn symlink(&mut self, visit: &Visit<'_>, base: Header<'_>) -> Result<()> {
        let target = beneath::read_link(visit.dir, Path::new(&visit.name)).at("read link", visit.path)?;
        self.header(&Header {
            flag: b'2',
            mode: 0o777,
            link: target.as_bytes(),
            ..base
        })
    }

    fn whiteout(&mut self, visit: &Visit<'_>) -> Result<()> {
        let path = visit.path.with_file_name(whiteout::tar_name(&visit.name));
        self.removal(&path)
    }

    fn removal(&mut self, path: &Path) -> Result<()> {
        let mtime = self.facts.times.clamped(self.facts.times.logical);
        self.header(&Header {
            path: path.as_os_str().as_bytes(),
            flag: b'0',
            mtime,
            ..Header::default()
        })
    }

    fn file(&mut self, visit: &Visit<'_>) -> Result<()> {
        let size = visit.metadata.size;
        let mut file = beneath::open_seen(visit.dir, &visit.name).at("open", visit.path)?;
        let all = beneath::file_xattrs(&file).at("read attributes of", visit.path)?;
        let xattrs = canonical_xattrs(all, visit.path)?;
        self.header(&Header {
            flag: b'0',
            size,
            xattrs: &xattrs,
            ..self.base(visit)
        })?;
        self.archive.content(&mut file, size, visit.path)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<()> {
        self.archive.header(header)
    }
}
