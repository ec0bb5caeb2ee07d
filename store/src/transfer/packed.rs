//! How layers and images are written elsewhere: which blob stands for a layer, which manifest for an image.
//!
//! A layer that came from elsewhere keeps its blob. One that was made here is packed when it is first asked for: its
//! canonical tar as gzip, compressed on every core, without time and name, so that equal layers give equal blobs; what goes into the compressor
//! is compared with the DiffId. Records `packed` (by DiffId) and `manifest` (by image id) remember it, and keep the
//! blobs alive.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::Compression;
use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType};
use serde::{Deserialize, Serialize};

use crate::blob::BlobWriter;
use crate::digest::{DiffId, Digest, Hasher};
use crate::error::{IoContext, StoreError};
use crate::image::Image;
use crate::record::RecordKind;
use crate::store::Store;
use crate::transfer::document::{self, DOCUMENT_LIMIT, DocumentError};
use crate::transfer::gzip::ParallelGzip;

const LAYERS: &str = "packed";
const MANIFESTS: &str = "manifest";
const LEVEL: Compression = Compression::new(6);

/// A layer as others read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packed {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
}

/// An image as others read it.
pub(crate) struct PackedImage {
    pub(crate) descriptor: Descriptor,
    /// All blobs it needs, the manifest's own included, with their sizes.
    pub(crate) blobs: BTreeMap<Digest, u64>,
}

/// Why an image could not be written for others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer that was loaded from elsewhere cannot be packed again.
    #[error(
        "layer {diff_id} came from elsewhere and its archive is gone from the store; load the image again"
    )]
    Gone {
        /// The layer.
        diff_id: DiffId,
    },
    /// A document of the image is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// The blob of a layer, if it is here.
fn known(store: &Store, diff_id: &DiffId) -> Result<Option<Packed>, StoreError> {
    let record = store.get_record(&RecordKind::new(LAYERS)?, &diff_id.0)?;
    let packed = record.and_then(|record| serde_json::from_slice::<Packed>(&record.bytes).ok());
    match packed {
        Some(packed) if has_blob(store, &packed)? => Ok(Some(packed)),
        _ => Ok(None),
    }
}

/// Whether the blob is here and as long as it should be. Its bytes are verified when they are read.
pub(crate) fn has_blob(store: &Store, packed: &Packed) -> Result<bool, StoreError> {
    Ok(store
        .blob(&packed.digest)?
        .is_some_and(|blob| blob.size() == packed.size))
}

/// Notes that a blob stands for a layer.
pub(crate) fn remember(store: &Store, diff_id: &DiffId, packed: &Packed) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(packed).unwrap_or_default();
    store.put_record(&RecordKind::new(LAYERS)?, &diff_id.0, &bytes, &[packed.digest])
}

/// The blob of a layer, made if it is not here.
fn layer(store: &Store, diff_id: &DiffId) -> Result<Packed, PackError> {
    let _once = store.lock("pack", &diff_id.0)?;
    if let Some(packed) = known(store, diff_id)? {
        return Ok(packed);
    }
    let layer = store
        .layer(diff_id)?
        .ok_or(StoreError::MissingLayer { diff_id: *diff_id })?;
    let gzip = ParallelGzip::new(store.blob_writer()?, LEVEL).at("write blob to", store.layout().tmp())?;
    let mut packer = Packer {
        gzip,
        hasher: Hasher::new(),
    };
    layer.write_tar(&mut packer)?;
    if DiffId(packer.hasher.finish()) != *diff_id {
        return Err(PackError::Gone { diff_id: *diff_id });
    }
    let writer = packer.gzip.finish().at("write blob to", store.layout().tmp())?;
    let size = writer.size();
    let digest = writer.commit(None)?;
    let packed = Packed {
        digest,
        size,
        media_type: MediaType::ImageLayerGzip.to_string(),
    };
    remember(store, diff_id, &packed)?;
    Ok(packed)
}

/// Compresses, and hashes what goes in.
struct Packer {
    gzip: ParallelGzip<BlobWriter>,
    hasher: Hasher,
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.gzip.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
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
    store.put_record(&RecordKind::new(MANIFESTS)?, &image.id.0, &record, &[digest])?;
    Ok(digest)
}

/// The manifest of an image and all that belongs to it; what is not here yet is made.
pub(crate) fn manifest(store: &Store, image: &Image) -> Result<PackedImage, PackError> {
    if let Some(kept) = kept_manifest(store, image)? {
        return Ok(kept);
    }
    let layers = image
        .config
        .rootfs
        .diff_ids
        .iter()
        .map(|diff_id| layer(store, diff_id));
    let layers = layers.collect::<Result<Vec<Packed>, PackError>>()?;
    let config_size = store
        .blob(&image.id.0)?
        .ok_or(StoreError::MissingBlob { digest: image.id.0 })?
        .size();
    let config = descriptor(&MediaType::ImageConfig, config_size, &image.id.0)?;
    let layers = layers
        .iter()
        .map(|l| descriptor(&MediaType::from(l.media_type.as_str()), l.size, &l.digest));
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers.collect::<Result<Vec<Descriptor>, DocumentError>>()?)
        .build()
        .map_err(|e| document::wrong("manifest", &e.to_string()))?;
    let bytes = document::to_bytes(&manifest);
    let digest = keep_manifest(store, image, &bytes, &MediaType::ImageManifest)?;
    gather(
        store,
        &manifest,
        &MediaType::ImageManifest,
        digest,
        bytes.len() as u64,
    )?
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

fn descriptor(media_type: &MediaType, size: u64, digest: &Digest) -> Result<Descriptor, DocumentError> {
    let text: Result<oci_spec::image::Digest, _> = digest.to_string().parse();
    let digest = text.map_err(|e| document::wrong("descriptor", &e.to_string()))?;
    Ok(Descriptor::new(media_type.clone(), size, digest))
}
