//! The canonical tar of a layer's tree: one byte sequence for one tree, whoever writes it.
//!
//! POSIX ustar headers, entries in the order of [`Walk`]; numbers in octal; user and group names empty; a PAX header only for
//! what ustar can't say (names over 100 bytes, numbers too large or negative, extended attributes), its keys sorted.
//! Times are whole seconds, from [`LayerFacts::times`]. Hard links point to the first path in order. Sparse files are
//! written whole. The root directory is listed (as `./`, first) only if the layer sets its attributes. Two empty blocks
//! end the tar.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::beneath::{self, Kind, Metadata, Visit, Walk};
use crate::error::{IoContext, Result, StoreError};
use crate::layer::meta::LayerFacts;
use crate::layer::whiteout;
use crate::root::OverlayXattrs;

const BLOCK: usize = 512;
const BUFFER: usize = 128 << 10;

/// One entry of a tar, but for its content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Header<'a> {
    /// The path without a slash at its end.
    pub(crate) path: &'a [u8],
    /// The ustar type flag.
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    /// Target of a symbolic or hard link.
    pub(crate) link: &'a [u8],
    pub(crate) device: (u32, u32),
    /// Extended attributes, sorted by name.
    pub(crate) xattrs: &'a [(OsString, Vec<u8>)],
}

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
    let mut writer = TreeWriter {
        archive: Archive::new(out),
        facts,
        overlay_xattrs,
        links: HashMap::new(),
    };
    writer.root()?;
    let mut walk = Walk::new(root).at("read", "")?;
    loop {
        match walk.next() {
            Ok(Some(visit)) => writer.entry(&visit)?,
            Ok(None) => break,
            Err(error) => return Err(error).at("read", walk.path()),
        }
    }
    writer.archive.finish()
}

/// A tar in the making.
pub(crate) struct Archive<'a> {
    out: Counted<'a>,
    buffer: Vec<u8>,
}

impl<'a> Archive<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Archive<'a> {
        Archive {
            out: Counted { out, written: 0 },
            buffer: vec![0; BUFFER],
        }
    }

    /// Writes an entry's header, extended where it must be.
    pub(crate) fn header(&mut self, header: &Header<'_>) -> Result<()> {
        write_header(&mut self.out, header)
    }

    /// Writes the bytes of the file at `path`, of which there must be so many.
    pub(crate) fn content(&mut self, file: &mut dyn Read, size: u64, path: &Path) -> Result<()> {
        let mut rest = size;
        while rest > 0 {
            let want = BUFFER.min(usize::try_from(rest).unwrap_or(BUFFER));
            // A file that became shorter while it was read ends in an error, never in a wrong tar.
            let read = file.read(&mut self.buffer[..want]).at("read", path)?;
            if read == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).at("read", path);
            }
            self.out.write(&self.buffer[..read])?;
            rest -= read as u64;
        }
        self.out.pad()
    }

    /// Ends it; gives its length in bytes.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.out.write(&[0; 2 * BLOCK])?;
        Ok(self.out.written)
    }
}

/// Counts what is written, so that padding and length are known.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).at("write", "layer archive")
    }

    fn pad(&mut self) -> Result<()> {
        let over = usize::try_from(self.written % BLOCK as u64).unwrap_or(0);
        if over == 0 {
            Ok(())
        } else {
            self.write(&[0; BLOCK][over..])
        }
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
        let all = beneath::xattrs(visit.dir, &visit.name).at("read attributes of", visit.path)?;
        let is_opaque = all.iter().any(|(name, _)| name == self.overlay_xattrs.opaque());
        let xattrs = canonical_xattrs(all, visit.path)?;
        let base = Header {
            xattrs: &xattrs,
            ..self.base(visit)
        };
        match metadata.kind {
            Kind::File => self.file(visit, base),
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

    fn file(&mut self, visit: &Visit<'_>, base: Header<'_>) -> Result<()> {
        let size = visit.metadata.size;
        self.header(&Header {
            flag: b'0',
            size,
            ..base
        })?;
        if size == 0 {
            return Ok(());
        }
        let mut file = beneath::open_file(visit.dir, Path::new(&visit.name)).at("open", visit.path)?;
        self.archive.content(&mut file, size, visit.path)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<()> {
        self.archive.header(header)
    }
}

fn write_header(out: &mut Counted<'_>, header: &Header<'_>) -> Result<()> {
    let mut path = header.path.to_vec();
    if header.flag == b'5' {
        path.push(b'/');
    }
    let pax = pax_records(header, &path);
    if !pax.is_empty() {
        let size = pax.len() as u64;
        let extended = Header {
            path: b"././@PaxHeader",
            flag: b'x',
            mode: 0o644,
            size,
            ..Header::default()
        };
        out.write(&ustar(&extended, extended.path))?;
        out.write(&pax)?;
        out.pad()?;
    }
    out.write(&ustar(header, &path))
}

/// The records of the PAX header that this entry needs; empty for most.
fn pax_records(header: &Header<'_>, path: &[u8]) -> Vec<u8> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut number = |key: &str, needed: bool, value: String| {
        if needed {
            records.push((key.into(), value.into_bytes()));
        }
    };
    number("gid", header.gid > OCTAL_7, header.gid.to_string());
    number(
        "mtime",
        octal(header.mtime.try_into().ok(), 11).is_none(),
        header.mtime.to_string(),
    );
    number(
        "size",
        octal(Some(header.size), 11).is_none(),
        header.size.to_string(),
    );
    number("uid", header.uid > OCTAL_7, header.uid.to_string());
    for (key, value) in [("path", path), ("linkpath", header.link)] {
        if value.len() > 100 {
            records.push((key.into(), value.to_vec()));
            if std::str::from_utf8(value).is_err() {
                records.push((b"hdrcharset".to_vec(), b"BINARY".to_vec()));
            }
        }
    }
    for (name, value) in header.xattrs {
        records.push(([b"SCHILY.xattr.", name.as_bytes()].concat(), value.clone()));
    }
    records.sort_unstable();
    records.dedup();
    records
        .iter()
        .flat_map(|(key, value)| pax_record(key, value))
        .collect()
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

const OCTAL_7: u32 = 0o7_777_777;

/// `value` in `digits` octal digits; none if it needs more.
fn octal(value: Option<u64>, digits: u32) -> Option<Vec<u8>> {
    let value = value.filter(|value| value >> (3 * digits) == 0)?;
    Some(format!("{value:0width$o}", width = digits as usize).into_bytes())
}

/// One 512-byte ustar header. What a PAX record says is cut (names) or zero (numbers).
fn ustar(header: &Header<'_>, path: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let number =
        |value: u64, digits| octal(Some(value), digits).unwrap_or_else(|| vec![b'0'; digits as usize]);
    put(0, &path[..path.len().min(100)]);
    put(100, &number(header.mode.into(), 7));
    put(108, &number(header.uid.into(), 7));
    put(116, &number(header.gid.into(), 7));
    put(124, &number(header.size, 11));
    put(136, &number(header.mtime.try_into().unwrap_or(u64::MAX), 11));
    put(148, b"        ");
    put(156, &[header.flag]);
    put(157, &header.link[..header.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, &number(header.device.0.into(), 7));
    put(337, &number(header.device.1.into(), 7));
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(&[&number(sum, 6)[..], b"\0 "].concat());
    block
}
