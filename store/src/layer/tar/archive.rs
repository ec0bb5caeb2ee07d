//! The bytes of a tar: headers, contents, padding, the end.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{IoContext, Result};

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
