//! How images are written elsewhere: which manifest stands for an image. Records `manifest` (by image id) remember it, and keep its blobs alive.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageManifest, MediaType};

use super::document::{self, DOCUMENT_LIMIT, DocumentError};
use super::packed::{PackError, Packed, Packing, Waiting, known, layers};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::image::Image;
use crate::index::MANIFESTS;
use crate::record::RecordKind;
use crate::store::Store;

/// An image as others read it.
pub(crate) struct PackedImage {
    pub(crate) descriptor: Descriptor,
    /// All blobs it needs, the manifest's own included, with their sizes.
    pub(crate) blobs: BTreeMap<Digest, u64>,
}

impl PackedImage {
    /// Its manifest's.
    pub(crate) fn digest(&self) -> Result<Digest, DocumentError> {
        document::digest(&self.descriptor, "manifest")
    }
}

/// Waits for all of them.
struct Patient;

impl Waiting for Patient {
    fn has(&self, _: &Packed) {}

    fn stopped(&self) -> bool {
        false
    }
}

/// Keeps the manifest that an image came with.
pub(crate) fn keep_manifest(
    store: &Store,
    image: &Image,
    bytes: &[u8],
    media_type: &MediaType,
) -> Result<Digest, StoreError> {
    let digest = store.put_blob(bytes)?;
    let packed = Packed {
        digest,
        size: bytes.len() as u64,
        media_type: media_type.to_string(),
    };
    let record = serde_json::to_vec(&packed).unwrap_or_default();
    // What it names stays with it, so that it can be written elsewhere as it is.
    let mut keeps = vec![digest];
    if let Ok(manifest) = document::manifest(bytes, media_type, "manifest") {
        keeps.extend(
            manifest
                .layers()
                .iter()
                .filter_map(|layer| document::digest(layer, "manifest").ok()),
        );
    }
    store.put_record(&RecordKind::new(MANIFESTS)?, &image.id.0, &record, &keeps)?;
    store.list_manifest(&image.id)?;
    Ok(digest)
}

/// The manifest of an image and all that belongs to it; what is not here yet is made.
pub(crate) fn manifest(store: &Store, image: &Image, packing: Packing) -> Result<PackedImage, PackError> {
    match ready(store, image, packing)? {
        Ready::Whole(packed) => Ok(*packed),
        Ready::Parts(_) => made(store, image, packing, &Patient),
    }
}

/// What is here of an image without packing anything.
pub(crate) enum Ready {
    /// All that belongs to it.
    Whole(Box<PackedImage>),
    /// The blobs of some of its layers.
    Parts(Vec<Packed>),
}

/// What is here already.
pub(crate) fn ready(store: &Store, image: &Image, packing: Packing) -> Result<Ready, PackError> {
    if packing == Packing::AsTheyAre
        && let Some(kept) = kept_manifest(store, image)?
    {
        return Ok(Ready::Whole(Box::new(kept)));
    }
    let diff_ids = &image.config.rootfs.diff_ids;
    let mut layers = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        layers.extend(known(store, diff_id, packing)?);
    }
    match layers.len() == diff_ids.len() {
        true => Ok(Ready::Whole(Box::new(of_layers(store, image, packing, &layers)?))),
        false => Ok(Ready::Parts(layers)),
    }
}

/// The manifest of an image whose layers are packed now; tells who waits of each layer's blob as soon as it is here.
pub(crate) fn made(
    store: &Store,
    image: &Image,
    packing: Packing,
    waiting: &dyn Waiting,
) -> Result<PackedImage, PackError> {
    let layers = layers(store, &image.config.rootfs.diff_ids, packing, waiting)?;
    of_layers(store, image, packing, &layers)
}

/// How long an image's config is, in bytes.
pub(crate) fn config_size(store: &Store, image: &Image) -> Result<u64, StoreError> {
    let config = store.blob(&image.id.0)?;
    let config = config.ok_or(StoreError::MissingBlob { digest: image.id.0 })?;
    Ok(config.size())
}

fn of_layers(
    store: &Store,
    image: &Image,
    packing: Packing,
    layers: &[Packed],
) -> Result<PackedImage, PackError> {
    let config = descriptor(&MediaType::ImageConfig, config_size(store, image)?, &image.id.0)?;
    let layers = layers
        .iter()
        .map(|l| descriptor(&MediaType::from(l.media_type.as_str()), l.size, &l.digest));
    let layers = layers.collect::<Result<Vec<Descriptor>, DocumentError>>()?;
    let manifest = document::new_manifest(config, layers, "manifest")?;
    let bytes = document::to_bytes(&manifest);
    let digest = match packing {
        Packing::AsTheyAre => keep_manifest(store, image, &bytes, &MediaType::ImageManifest)?,
        _ => store.put_blob(&bytes)?,
    };
    let size = bytes.len() as u64;
    gather(store, &manifest, &MediaType::ImageManifest, digest, size)?
        .ok_or(PackError::Store(StoreError::MissingBlob { digest }))
}

/// The manifest that is remembered, if all that belongs to it is here.
fn kept_manifest(store: &Store, image: &Image) -> Result<Option<PackedImage>, PackError> {
    let record = store.get_record(&RecordKind::new(MANIFESTS)?, &image.id.0)?;
    let Some(packed) = record.and_then(|record| serde_json::from_slice::<Packed>(&record.bytes).ok()) else {
        return Ok(None);
    };
    // A damaged manifest is as good as none: the image can get another one.
    let Ok(Some(bytes)) = store.read_blob(&packed.digest, DOCUMENT_LIMIT) else {
        return Ok(None);
    };
    let media_type = MediaType::from(packed.media_type.as_str());
    match document::manifest(&bytes, &media_type, "manifest") {
        Ok(manifest) => gather(store, &manifest, &media_type, packed.digest, packed.size),
        Err(_) => Ok(None),
    }
}

/// All blobs of a manifest; none if one is not here.
fn gather(
    store: &Store,
    manifest: &ImageManifest,
    media_type: &MediaType,
    digest: Digest,
    size: u64,
) -> Result<Option<PackedImage>, PackError> {
    let mut blobs = BTreeMap::from([(digest, size)]);
    for part in manifest.layers().iter().chain([manifest.config()]) {
        let digest = document::digest(part, "manifest")?;
        match store.blob(&digest)? {
            Some(blob) if blob.size() == part.size() => blobs.insert(digest, part.size()),
            _ => return Ok(None),
        };
    }
    Ok(Some(PackedImage {
        descriptor: descriptor(media_type, size, &digest)?,
        blobs,
    }))
}

/// Of a blob.
pub(crate) fn descriptor(
    media_type: &MediaType,
    size: u64,
    digest: &Digest,
) -> Result<Descriptor, DocumentError> {
    let text: Result<oci_spec::image::Digest, _> = digest.to_string().parse();
    let digest = text.map_err(|e| document::wrong("descriptor", &e.to_string()))?;
    Ok(Descriptor::new(media_type.clone(), size, digest))
}
