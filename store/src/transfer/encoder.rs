//! What goes into a layer's blob is compressed, on every core where there are several, and compared with its DiffId.

use std::io::{self, Write};

use super::gzip::ParallelGzip;
use super::packed::{GZIP_LEVEL, Packing};
use crate::blob::BlobWriter;
use crate::digest::{DiffId, Hasher};

/// Compresses, and hashes what goes in.
pub(super) struct Packer<'a> {
    encoder: Encoder,
    hasher: Hasher,
    stopped: &'a dyn Fn() -> bool,
}

impl<'a> Packer<'a> {
    /// What it writes fails when it is to be stopped.
    pub(super) fn new(
        out: BlobWriter,
        packing: Packing,
        stopped: &'a dyn Fn() -> bool,
    ) -> io::Result<Packer<'a>> {
        Ok(Packer {
            encoder: Encoder::new(out, packing)?,
            hasher: Hasher::new(),
            stopped,
        })
    }

    /// The blob, if what went in has this DiffId.
    pub(super) fn finish(self, diff_id: &DiffId) -> io::Result<Option<BlobWriter>> {
        match DiffId(self.hasher.finish()) == *diff_id {
            true => self.encoder.finish().map(Some),
            false => Ok(None),
        }
    }
}

impl Write for Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.stopped)() {
            return Err(io::Error::other("stopped"));
        }
        let n = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One of the ways to compress, on every core where there are several.
enum Encoder {
    Gzip(Box<ParallelGzip<BlobWriter>>),
    Zstd(Box<zstd::Encoder<'static, BlobWriter>>),
    Plain(BlobWriter),
}

impl Encoder {
    fn new(out: BlobWriter, packing: Packing) -> io::Result<Encoder> {
        let gzip = |out, level| Ok(Encoder::Gzip(Box::new(ParallelGzip::new(out, level)?)));
        match packing {
            Packing::AsTheyAre => gzip(out, GZIP_LEVEL.unsigned_abs()),
            Packing::Gzip(level) => gzip(out, level),
            Packing::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                // With threads the bytes are the same for any number of them.
                encoder.multithread(u32::try_from(cores).unwrap_or(1))?;
                Ok(Encoder::Zstd(Box::new(encoder)))
            }
            Packing::Plain => Ok(Encoder::Plain(out)),
        }
    }

    fn finish(self) -> io::Result<BlobWriter> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Plain(out) => Ok(out),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Plain(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
