//! Reading an archive of any usual compression as one plain stream.
//!
//! The format is told by the first bytes, never by a name or a media type: what decides is what is there.
//! Gzip, xz, zstd and bzip2 may all consist of several members one after the other, as `pigz`, `pixz` and
//! `cat a.gz b.gz` make them. How much may come out is not limited here but by the reader of the archive
//! (see [`super::apply::Limits::max_expanded`]); what is limited here is the memory that a stream may ask for.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// The most memory that an xz stream's dictionary may need, in bytes. `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;
/// As many bytes as are needed to tell the formats apart.
const MAGIC_LEN: usize = 6;
const BUFFER: usize = 128 << 10;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz file format.
    Xz,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// Tells the format by the first bytes of a stream; what is not known counts as plain.
    pub fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame, which some writers put first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            _ => Compression::None,
        }
    }
}

/// The input with the bytes that were looked at put back before it.
pub(crate) type Peeked<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A plain stream out of a compressed one. A stream that ends too early is an error, not an end.
pub(crate) struct Decompressor<R: Read>(Inner<R>);

enum Inner<R: Read> {
    Plain(Peeked<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Peeked<R>>>),
    Xz(Box<xz2::bufread::XzDecoder<Peeked<R>>>),
    Zstd(Box<zstd::Decoder<'static, Peeked<R>>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<Peeked<R>>>),
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes of `input` and starts the decompressor they call for.
    pub(crate) fn new(mut input: R) -> io::Result<Decompressor<R>> {
        let mut start = Vec::with_capacity(MAGIC_LEN);
        input.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut start)?;
        let compression = Compression::of(&start);
        let input = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(input));
        let inner = match compression {
            Compression::None => Inner::Plain(input),
            Compression::Gzip => Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Xz => Inner::Xz(Box::new(xz_decoder(input)?)),
            Compression::Zstd => Inner::Zstd(Box::new(zstd::Decoder::with_buffer(input)?)),
            Compression::Bzip2 => Inner::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(input))),
        };
        Ok(Decompressor(inner))
    }

    /// Reads what follows the compressed stream, so that a hash of the input covers every byte of it.
    pub(crate) fn drain_input(self) -> io::Result<()> {
        let mut input = match self.0 {
            Inner::Plain(r) => r,
            Inner::Gzip(r) => r.into_inner(),
            Inner::Xz(r) => r.into_inner(),
            Inner::Zstd(r) => r.finish(),
            Inner::Bzip2(r) => r.into_inner(),
        };
        loop {
            let n = input.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            input.consume(n);
        }
    }
}

fn xz_decoder<R: BufRead>(input: R) -> io::Result<xz2::bufread::XzDecoder<R>> {
    let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED)?;
    Ok(xz2::bufread::XzDecoder::new_stream(input, stream))
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(r) => r.read(buf),
            Inner::Gzip(r) => r.read(buf),
            Inner::Xz(r) => r.read(buf),
            Inner::Zstd(r) => r.read(buf),
            Inner::Bzip2(r) => r.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const TEXT: &[u8] = b"some text that is compressed and comes out again, again and again";

    fn compress(as_: Compression, data: &[u8]) -> Vec<u8> {
        match as_ {
            Compression::None => data.to_vec(),
            Compression::Gzip => {
                let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                w.write_all(data).unwrap();
                w.finish().unwrap()
            }
            Compression::Xz => {
                let mut w = xz2::write::XzEncoder::new(Vec::new(), 6);
                w.write_all(data).unwrap();
                w.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(data, 3).unwrap(),
            Compression::Bzip2 => {
                let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
                w.write_all(data).unwrap();
                w.finish().unwrap()
            }
        }
    }

    fn expand(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompressor::new(data)?.read_to_end(&mut out)?;
        Ok(out)
    }

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::Bzip2,
    ];

    #[test]
    fn each_format_is_told_by_its_magic() {
        for c in ALL {
            let packed = compress(c, TEXT);
            assert_eq!(Compression::of(&packed), c);
            assert_eq!(expand(&packed).unwrap(), TEXT, "{c:?}");
        }
    }

    #[test]
    fn several_members_are_one_stream() {
        for c in ALL {
            let packed = [compress(c, TEXT), compress(c, b"second")].concat();
            assert_eq!(expand(&packed).unwrap(), [TEXT, b"second"].concat(), "{c:?}");
        }
    }

    #[test]
    fn a_cut_stream_is_an_error_wherever_it_is_cut() {
        for c in &ALL[1..] {
            let packed = compress(*c, &TEXT.repeat(50));
            for len in MAGIC_LEN..packed.len() {
                assert!(
                    expand(&packed[..len]).is_err(),
                    "{c:?} cut at {len} of {}",
                    packed.len()
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_never_silent() {
        // (What `zstd` writes without a checksum is covered by the digests around it.)
        for c in [Compression::Gzip, Compression::Xz, Compression::Bzip2] {
            let packed = compress(c, &TEXT.repeat(50));
            for at in packed.len() / 2..packed.len() - 1 {
                let mut bad = packed.clone();
                bad[at] ^= 0x10;
                if let Ok(out) = expand(&bad) {
                    // The trailer may hold bits that mean nothing, the content never.
                    assert!(out == TEXT.repeat(50), "{c:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn what_follows_the_stream_is_read_too() {
        struct Counted<'a>(&'a [u8], &'a mut usize);
        impl Read for Counted<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let n = self.0.read(buf)?;
                *self.1 += n;
                Ok(n)
            }
        }
        for c in ALL {
            let packed = compress(c, &TEXT.repeat(9000));
            let mut seen = 0;
            let mut d = Decompressor::new(Counted(&packed, &mut seen)).unwrap();
            let mut some = [0; 10];
            d.read_exact(&mut some).unwrap();
            d.drain_input().unwrap();
            assert_eq!(seen, packed.len(), "{c:?}");
        }
    }

    #[test]
    fn empty_and_tiny_inputs_are_plain() {
        for data in [&b""[..], b"\x1f", b"\xfd7zX", b"BZh0"] {
            assert_eq!(expand(data).unwrap(), data);
        }
    }

    #[test]
    fn a_zstd_window_that_asks_for_gigabytes_is_refused() {
        // Frame header: no single segment, window descriptor of 2^41 bytes.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        assert!(expand(&frame).is_err());
    }
}
