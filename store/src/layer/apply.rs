//! A tar archive becomes a layer's tree.
//!
//! The extraction is our own. Every entry is made relative to a directory that was opened beneath the layer's root
//! with `openat2` (`RESOLVE_BENEATH`, no symbolic links, no magic links, no mount crossed); owner, mode and times
//! are set on open descriptors, never by a path. So a hostile archive has no name that leads out.
//!
//! What an archive must not contain is refused by name and nothing is left behind; nothing is silently skipped,
//! with these exceptions: attributes of overlayfs (`*.overlay.*`), SELinux, IMA and EVM are dropped, because they
//! belong to the machine and not to the image; AUFS' bookkeeping files in old layers are passed over, as Docker does.
//!
//! - Names: leading `/` and `./` are stripped, `..` is refused.
//! - An entry over an existing one replaces it, as Docker and containerd do; a directory over a directory takes the
//!   new attributes and keeps what is in it.
//! - Hard links go to regular files and symbolic links that this archive made before.
//! - In a layer, `.wh.NAME` and `.wh..wh..opq` mean removed files (OCI image spec, "Whiteouts"), whose order among
//!   the entries does not matter. In a rootfs archive such names are refused.

mod attrs;
mod beneath;
mod blocks;
mod content;
mod ending;
mod error;
mod extension;
mod header;
mod member;
mod options;
mod pax;
mod place;
mod sparse;
mod trouble;
mod users;
mod whiteout;

use std::io::Read;
use std::os::fd::BorrowedFd;

use super::decompress::Decompressor;

pub use error::{ApplyError, EntryName, Problem};
pub use options::Limits;
pub(crate) use options::{Extract, Extracted, Retime, RootAttrs, Source};
pub(crate) use pax::Time;

pub(crate) use member::{Kind, Members};
use place::Placer;

/// Whether a file begins as a tar archive does, plain or as gzip, xz, zstd or bzip2: with a header whose checksum fits. Reads
/// no more than that takes; what can't be read or decompressed is none.
pub fn is_archive(file: impl Read) -> bool {
    let mut block = [0; header::BLOCK];
    let read = Decompressor::new(file).and_then(|mut plain| plain.read_exact(&mut block));
    let is_zero = block.iter().all(|byte| *byte == 0);
    read.is_ok() && !is_zero && header::checksum_fits(tar::Header::from_byte_slice(&block))
}

/// Extracts the uncompressed archive `tar` into the empty directory `root`. On an error, what was made so far is
/// the caller's to discard. The input is read to its end and given back.
pub(crate) fn extract<R: Read>(
    root: BorrowedFd<'_>,
    tar: R,
    how: &Extract<'_>,
) -> Result<(Extracted, R), ApplyError> {
    let mut members = Members::new(tar, how.limits, how.source == Source::Rootfs);
    let mut placer = Placer::new(root, how);
    while let Some(member) = members.next()? {
        placer.place(member, &mut members)?;
    }
    let extracted = placer.finish()?;
    Ok((extracted, members.finish()?))
}

#[cfg(test)]
pub(crate) mod archive;
#[cfg(test)]
mod tests;
