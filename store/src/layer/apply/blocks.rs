//! An archive as blocks: headers, and the data of files padded to whole blocks.

use std::io::{self, Read};

use tar::Header;

use super::error::{ApplyError, Problem};
use super::header::{self, BLOCK};
use super::options::Limits;

/// The uncompressed archive as it is read.
pub(super) struct Blocks<'l, R> {
    input: R,
    limits: &'l Limits,
    /// Bytes read.
    offset: u64,
    /// Bytes of the present entry's data that were not read.
    data: u64,
    padding: u64,
    strict_end: bool,
}

/// What comes next.
pub(super) enum Next {
    Header(Box<Header>),
    End,
}

/// A limit was reached.
pub(super) fn too_much(unit: &'static str, limit: u64) -> ApplyError {
    ApplyError::TooMuch { limit, unit }
}

impl<'l, R: Read> Blocks<'l, R> {
    /// With `strict_end`, an archive without its end mark counts as cut off.
    pub(super) fn new(input: R, limits: &'l Limits, strict_end: bool) -> Self {
        Blocks {
            input,
            limits,
            offset: 0,
            data: 0,
            padding: 0,
            strict_end,
        }
    }

    /// How many bytes were read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads data of the present entry; 0 only at its end.
    pub(super) fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, ApplyError> {
        let want = buf.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.read_some(&mut buf[..want])?;
        if n == 0 {
            return Err(self.truncated("the rest of a file"));
        }
        self.data -= n as u64;
        Ok(n)
    }

    /// Reads what follows the end mark, which means nothing, up to the end of the input.
    pub(super) fn finish(mut self) -> Result<R, ApplyError> {
        let mut buf = vec![0; 64 << 10];
        while self.read_some(&mut buf)? > 0 {}
        Ok(self.input)
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, ApplyError> {
        loop {
            match self.input.read(buf) {
                Ok(n) => {
                    self.offset += n as u64;
                    return match self.offset > self.limits.max_expanded {
                        true => Err(too_much("bytes when uncompressed", self.limits.max_expanded)),
                        false => Ok(n),
                    };
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.truncated("the rest of the compressed stream"));
                }
                Err(source) => {
                    return Err(ApplyError::Read {
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
    }

    /// Fills the block, or returns how far it came.
    pub(super) fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, ApplyError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.read_some(&mut block[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    pub(super) fn next_header(&mut self) -> Result<Next, ApplyError> {
        let mut header = Header::new_old();
        match self.read_block(header.as_mut_bytes())? {
            0 if self.offset == 0 => {
                return Err(ApplyError::Damaged {
                    offset: 0,
                    problem: "it is empty",
                });
            }
            0 if self.strict_end => return Err(self.truncated("the end mark (two blocks of zeros)")),
            0 => return Ok(Next::End),
            BLOCK => {}
            _ if self.offset < BLOCK as u64 => {
                return Err(ApplyError::Damaged {
                    offset: 0,
                    problem: "it is shorter than one header",
                });
            }
            _ => return Err(self.truncated("the rest of a header")),
        }
        if header.as_bytes().iter().any(|b| *b != 0) {
            self.check_first(&header)?;
            return Ok(Next::Header(Box::new(header)));
        }
        self.end_mark()
    }

    /// After one block of zeros: a second one, or the end of the input.
    fn end_mark(&mut self) -> Result<Next, ApplyError> {
        let mut second = [0; BLOCK];
        let length = self.read_block(&mut second)?;
        if second[..length].iter().any(|b| *b != 0) {
            let problem = "a single block of zeros, which is half an end mark, is followed by data";
            return Err(ApplyError::Damaged {
                offset: self.offset - length as u64,
                problem,
            });
        }
        Ok(Next::End)
    }

    /// Says so when the input is an archive of another kind.
    fn check_first(&self, header: &Header) -> Result<(), ApplyError> {
        if self.offset != BLOCK as u64 || header::checksum_fits(header) {
            return Ok(());
        }
        let kind = match &header.as_bytes()[..8] {
            [b'P', b'K', 3 | 5, 4 | 6, ..] => "a zip archive",
            [b'7', b'z', 0xbc, 0xaf, ..] => "a 7z archive",
            [0x04, 0x22, 0x4d, 0x18, ..] => "lz4-compressed data, which is not supported",
            [b'L', b'Z', b'I', b'P', ..] => "lzip-compressed data, which is not supported",
            [0x1f, 0x9d, ..] => "compress-ed data (.Z), which is not supported",
            b"!<arch>\n" => "an ar archive (or a Debian package)",
            [b'0', b'7', b'0', b'7', ..] => "a cpio archive",
            [0x68, 0x73, 0x71, 0x73, ..] => "a squashfs image",
            [b'<', ..] => "a page or a document (a server may have sent an error page)",
            _ => return Ok(()),
        };
        Err(ApplyError::NotTar { kind })
    }

    pub(super) fn skip_data(&mut self) -> Result<(), ApplyError> {
        let mut buf = [0; 8 << 10];
        while self.read_data(&mut buf)? > 0 {}
        while self.padding > 0 {
            let want = self.padding as usize;
            match self.read_some(&mut buf[..want])? {
                0 => return Err(self.truncated("the padding after a file")),
                n => self.padding -= n as u64,
            }
        }
        Ok(())
    }

    pub(super) fn expect_data(&mut self, size: u64) -> Result<(), Problem> {
        size.checked_add(BLOCK as u64).ok_or(Problem::Range("size"))?;
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// The archive ends where this should have come.
    pub(super) fn truncated(&self, missing: &'static str) -> ApplyError {
        ApplyError::Truncated {
            offset: self.offset,
            missing,
        }
    }
}
