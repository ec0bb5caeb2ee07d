//! Images of the store become an archive, which is an OCI layout and one of Docker's at once.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};

use oci_spec::image::{Descriptor, ImageIndexBuilder, MediaType};

use super::docker::DockerImage;
use super::error::ArchiveError;
use super::index::annotations;
use crate::digest::Digest;
use crate::image::Image;
use crate::reference::Reference;
use crate::store::Store;
use crate::transfer::document::{self, DOCUMENT_LIMIT, to_bytes};
use crate::transfer::manifest::{self, PackedImage};
use crate::transfer::packed::Packing;

/// Writes marker, index and Docker's, then the blobs by digest: equal images give equal bytes.
pub(super) fn save(
    store: &Store,
    images: &[(Image, Vec<Reference>)],
    archive: impl Write,
) -> Result<(), ArchiveError> {
    let mut blobs = BTreeMap::new();
    let (mut descriptors, mut docker) = (Vec::new(), Vec::new());
    for (image, names) in images {
        let manifest = manifest::manifest(store, image, Packing::AsTheyAre)?;
        blobs.extend(manifest.blobs.iter().map(|(digest, size)| (*digest, *size)));
        descriptors.extend(named(&manifest.descriptor, names));
        docker.push(docker_image(store, &manifest, names)?);
    }
    let mut index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex);
    index = index.manifests(descriptors);
    let index = index
        .build()
        .map_err(|e| crate::transfer::document::wrong("index.json", &e.to_string()))?;
    let mut tar = tar::Builder::new(archive);
    small(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    small(&mut tar, "index.json", &to_bytes(&index))?;
    small(&mut tar, "manifest.json", &to_bytes(&docker))?;
    for directory in ["blobs/", "blobs/sha256/"] {
        entry(
            &mut tar,
            directory,
            tar::EntryType::Directory,
            0,
            std::io::empty(),
        )?;
    }
    for (digest, size) in blobs {
        let blob = store
            .blob(&digest)?
            .ok_or(ArchiveError::Missing { what: "blob", digest })?;
        let found = blob.size();
        if found != size {
            return Err(ArchiveError::Size {
                what: "blob",
                digest,
                expected: size,
                found,
            });
        }
        copy(&mut tar, &digest, size, blob)?;
    }
    let mut out = tar.into_inner().map_err(ArchiveError::Write)?;
    out.flush().map_err(ArchiveError::Write)
}

/// What Docker reads of an image.
fn docker_image(
    store: &Store,
    image: &PackedImage,
    names: &[Reference],
) -> Result<DockerImage, ArchiveError> {
    let digest = document::digest(&image.descriptor, "manifest")?;
    let bytes = store
        .read_blob(&digest, DOCUMENT_LIMIT)?
        .ok_or(ArchiveError::Missing {
            what: "manifest",
            digest,
        })?;
    let manifest = document::manifest(&bytes, image.descriptor.media_type(), "manifest")?;
    let path = |descriptor: &Descriptor| -> Result<String, ArchiveError> {
        let digest = document::digest(descriptor, "manifest")?;
        Ok(format!("blobs/sha256/{}", digest.hex()))
    };
    let layers = manifest.layers().iter().map(path);
    Ok(DockerImage {
        config: path(manifest.config())?,
        names: Some(names.iter().map(Reference::familiar).collect()),
        layers: Some(layers.collect::<Result<_, _>>()?),
    })
}

/// One entry of the index for each name, or one without.
fn named(descriptor: &Descriptor, names: &[Reference]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![descriptor.clone()];
    }
    let with = |name: &Reference| {
        let mut descriptor = descriptor.clone();
        descriptor.set_annotations(Some(HashMap::from(annotations(name))));
        descriptor
    };
    names.iter().map(with).collect()
}

fn small<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    entry(tar, name, tar::EntryType::Regular, bytes.len() as u64, bytes)
}

/// The blob's reader fails at the end if its bytes are not those of its digest.
fn copy<W: Write>(
    tar: &mut tar::Builder<W>,
    digest: &Digest,
    size: u64,
    mut blob: impl Read,
) -> Result<(), ArchiveError> {
    let name = format!("blobs/sha256/{}", digest.hex());
    entry(tar, &name, tar::EntryType::Regular, size, &mut blob)?;
    let mut rest = [0];
    match blob.read(&mut rest).map_err(ArchiveError::Write)? {
        0 => Ok(()),
        _ => Err(ArchiveError::Size {
            what: "blob",
            digest: *digest,
            expected: size,
            found: size + 1,
        }),
    }
}

fn entry<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    kind: tar::EntryType,
    size: u64,
    content: impl Read,
) -> Result<(), ArchiveError> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind == tar::EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content.take(size))
        .map_err(ArchiveError::Write)
}
