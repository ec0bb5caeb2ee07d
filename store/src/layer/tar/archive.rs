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
    let mut number = |key: &str, needed: bool, value: i128| {
        if needed {
            records.push((key.into(), value.to_string().into_bytes()));
        }
    };
    let is_long = |value: Option<u64>| value.is_none_or(|value| value > OCTAL_11);
    number("gid", header.gid > OCTAL_7, header.gid.into());
    number(
        "mtime",
        is_long(header.mtime.try_into().ok()),
        header.mtime.into(),
    );
    number("size", is_long(Some(header.size)), header.size.into());
    number("uid", header.uid > OCTAL_7, header.uid.into());
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
const OCTAL_11: u64 = 0o77_777_777_777;

/// Writes `value` in octal digits, as many as there is room for; zero if it needs more.
fn octal(value: u64, digits: &mut [u8]) {
    let fits = digits.len() >= 22 || value >> (3 * digits.len()) == 0;
    let mut rest = if fits { value } else { 0 };
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

/// One 512-byte ustar header. What a PAX record says is cut (names) or zero (numbers).
fn ustar(header: &Header<'_>, path: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path[..path.len().min(100)]);
    put(148, b"        ");
    put(156, &[header.flag]);
    put(157, &header.link[..header.link.len().min(100)]);
    put(257, b"ustar\x0000");
    let mut number = |at: usize, digits: usize, value: u64| octal(value, &mut block[at..at + digits]);
    number(100, 7, header.mode.into());
    number(108, 7, header.uid.into());
    number(116, 7, header.gid.into());
    number(124, 11, header.size);
    number(136, 11, header.mtime.try_into().unwrap_or(u64::MAX));
    number(329, 7, header.device.0.into());
    number(337, 7, header.device.1.into());
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(sum, &mut block[148..154]);
    block[154..156].copy_from_slice(b"\0 ");
    block
}
