//! Images in and out as OCI archives (a tar of an OCI image layout) and from OCI layout directories; Docker's archives are read, and what
//! is written has their `manifest.json`, too, so that `docker load` takes it.
//!
//! What is loaded is kept as it came: blobs and manifest, byte for byte, so that a save gives the same ones back. An
//! image that was built here gets its manifest, and its layers their gzip blobs, when it is first saved; both are equal
//! for equal images and an equal compressor.
//!
//! Everything is checked before anything is unpacked, and every byte against the digest that leads to it: blobs against
//! their descriptors, layers against the config's DiffIds. `urls` of descriptors are never followed.

mod docker;
mod error;
mod index;
mod layout;
mod load;
mod options;
mod save;
mod staging;

use std::io::{Read, Write};
use std::path::Path;

pub use super::document::DocumentError;
pub use super::packed::PackError;
pub use error::ArchiveError;
pub use options::{LoadOptions, LoadedImage, Platform};

use crate::image::Image;
use crate::reference::Reference;
use crate::store::Store;

/// Loads all images of an OCI or Docker archive, in its order; the archive itself may be compressed.
///
/// # Errors
/// See [`ArchiveError`]. No name is given then; layers that were whole may stay until they are collected.
pub fn load_oci(
    store: &Store,
    archive: impl Read,
    options: &LoadOptions,
) -> Result<Vec<LoadedImage>, ArchiveError> {
    let staged = staging::stage(store, archive, &options.limits)?;
    load::load(store, &staged, options)
}

/// Loads all images of an OCI layout directory.
///
/// # Errors
/// As [`load_oci`].
pub fn load_oci_layout(
    store: &Store,
    directory: &Path,
    options: &LoadOptions,
) -> Result<Vec<LoadedImage>, ArchiveError> {
    load::load(store, &layout::Directory::open(directory)?, options)
}

/// Loads one image of an OCI layout directory: that with the tag, name or manifest digest `reference`, else the only one.
/// It gets no name.
///
/// # Errors
/// As [`load_oci`]; [`ArchiveError::Which`].
pub fn load_from_layout(
    store: &Store,
    directory: &Path,
    reference: Option<&str>,
    options: &LoadOptions,
) -> Result<LoadedImage, ArchiveError> {
    load::load_one(store, &layout::Directory::open(directory)?, reference, options)
}

/// Writes images, each with its names, as one OCI archive.
///
/// # Errors
/// See [`ArchiveError`]; what was written then is no archive.
pub fn save_oci(
    store: &Store,
    images: &[(Image, Vec<Reference>)],
    archive: impl Write,
) -> Result<(), ArchiveError> {
    save::save(store, images, archive)
}

#[cfg(test)]
mod tests;
