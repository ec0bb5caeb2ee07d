//! Archives made by hand, for tests: also those that no tool would write.

use std::io::Write;

/// An archive that is being written.
#[derive(Default, Clone)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

/// One header's fields; what is not said is as a plain regular file has it.
#[derive(Clone)]
pub(crate) struct Head<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) flag: u8,
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    /// If it is not the data's length.
    pub(crate) size: Option<u64>,
    pub(crate) data: &'a [u8],
    pub(crate) device: (u32, u32),
}

impl Default for Head<'_> {
    fn default() -> Self {
        Head {
            name: b"f",
            flag: b'0',
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1_000_000_000,
            size: None,
            data: b"",
            device: (0, 0),
        }
    }
}

fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    match text.len() <= digits {
        true => field[..digits].copy_from_slice(text.as_bytes()),
        false => {
            let start = field.len() - 8;
            field[start..].copy_from_slice(&value.to_be_bytes());
            field[0] |= 0x80;
        }
    }
}

pub(crate) fn header(h: &Head<'_>) -> [u8; 512] {
    let mut b = [0; 512];
    b[..h.name.len()].copy_from_slice(h.name);
    number(&mut b[100..108], h.mode.into());
    number(&mut b[108..116], h.uid);
    number(&mut b[116..124], h.gid);
    number(&mut b[124..136], h.size.unwrap_or(h.data.len() as u64));
    number(&mut b[136..148], h.mtime);
    b[156] = h.flag;
    b[157..157 + h.link.len()].copy_from_slice(h.link);
    b[257..265].copy_from_slice(b"ustar\x0000");
    number(&mut b[329..337], h.device.0.into());
    number(&mut b[337..345], h.device.1.into());
    checksum(&mut b);
    b
}

pub(crate) fn checksum(b: &mut [u8; 512]) {
    b[148..156].fill(b' ');
    let sum: u64 = b.iter().map(|b| u64::from(*b)).sum();
    write!(&mut b[148..156], "{sum:06o}\0").unwrap();
}

impl Archive {
    pub(crate) fn head(mut self, h: Head<'_>) -> Self {
        self.0.extend(header(&h));
        self.0.extend(h.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.head(Head {
            name: name.as_bytes(),
            data,
            ..Head::default()
        })
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.head(Head {
            name: name.as_bytes(),
            flag: b'5',
            mode: 0o755,
            ..Head::default()
        })
    }

    pub(crate) fn link(self, flag: u8, name: &str, link: &str) -> Self {
        self.head(Head {
            name: name.as_bytes(),
            flag,
            link: link.as_bytes(),
            mode: 0o777,
            ..Head::default()
        })
    }

    pub(crate) fn sym(self, name: &str, target: &str) -> Self {
        self.link(b'2', name, target)
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.link(b'1', name, target)
    }

    pub(crate) fn node(self, flag: u8, name: &str, device: (u32, u32)) -> Self {
        self.head(Head {
            name: name.as_bytes(),
            flag,
            device,
            ..Head::default()
        })
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data = pax(records);
        self.head(Head {
            name: b"PaxHeader/x",
            flag: b'x',
            data: &data,
            ..Head::default()
        })
    }

    pub(crate) fn extension(self, flag: u8, data: &[u8]) -> Self {
        self.head(Head {
            name: b"././@LongLink",
            flag,
            data,
            ..Head::default()
        })
    }

    /// With the end mark.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        data.extend(format!("{length} {key}=").as_bytes());
        data.extend(*value);
        data.push(b'\n');
    }
    data
}
