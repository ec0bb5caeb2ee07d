//! What can go wrong with an archive of images.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::layer::apply::ApplyError;
use crate::transfer::document::DocumentError;
use crate::transfer::packed::PackError;

/// Why images could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive, or a layer in it, could not be read or unpacked.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A layer could not be unpacked.
    #[error("layer {digest}: {source}")]
    Layer {
        /// The blob.
        digest: Digest,
        /// Why not.
        source: Box<ApplyError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of a layout could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
    /// It is no OCI layout.
    #[error("this is no archive of images: {0}")]
    NotOci(&'static str),
    /// No image, or several, of the name that was asked for.
    #[error("{}", which(reference.as_deref(), known))]
    Which {
        /// The name; none: the only image there is.
        reference: Option<String>,
        /// What there is.
        known: Vec<String>,
    },
    /// An entry that no archive of images has.
    #[error("`{entry}` in the archive is not a regular file")]
    EntryKind {
        /// Its name.
        entry: String,
    },
    /// Two different things have one digest's name, or bytes are not what their name says.
    #[error("blob {expected} of the archive is damaged: its bytes have the digest {found}")]
    Blob {
        /// The digest that it is named by.
        expected: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// A blob is not there.
    #[error("the archive is not complete: {what} {digest} is missing")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// A blob is longer or shorter than what leads to it says.
    #[error("{what} {digest} has {found} bytes, but is said to have {expected}")]
    Size {
        /// What it is.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What its descriptor says.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// A JSON document is too large.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What it is.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A JSON document that makes no sense.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// An image could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Nothing to load.
    #[error("the archive has no image for {platform}{}", others(found))]
    NoImage {
        /// What was looked for.
        platform: String,
        /// What is there.
        found: Vec<String>,
    },
}

fn others(found: &[String]) -> String {
    match found.is_empty() {
        true => String::new(),
        false => format!("; it has some for {}", found.join(", ")),
    }
}

fn which(reference: Option<&str>, known: &[String]) -> String {
    let known = match known.is_empty() {
        true => "none that has a name".to_owned(),
        false => known.join(", "),
    };
    match reference {
        Some(reference) => format!("the layout has no image {reference:?}; it has {known}"),
        None => format!("the layout has several images; say which with :NAME; it has {known}"),
    }
}
