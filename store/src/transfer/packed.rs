//! How layers and images are written elsewhere: which blob stands for a layer, which manifest for an image.
//!
//! A layer that came from elsewhere keeps its blob. One that was made here is packed when it is first asked for: its
//! canonical tar as gzip, compressed on every core, without time and name, so that equal layers give equal blobs; what goes into the compressor
//! is compared with the DiffId. Records `packed` (by DiffId) and `manifest` (by image id) remember it, and keep the
//! blobs alive.

use std::collections::BTreeMap;
use std::io::{self, Write};

use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType};

use crate::blob::BlobWriter;
pub(crate) use crate::blob::Packed;
use crate::digest::{DiffId, Digest, Hasher};
use crate::error::{IoContext, StoreError};
use crate::image::Image;
use crate::index::MANIFESTS;
use crate::layer::decompress::Decompressor;
use crate::record::RecordKind;
use crate::store::Store;
use crate::transfer::document::{self, DOCUMENT_LIMIT, DocumentError};
use crate::transfer::gzip::ParallelGzip;

const LAYERS: &str = "packed";
/// Levels where none is said. Of zstd the second gives archives of gzip's size in half the time; the third is 4 % smaller and a ninth
/// slower (Debian with gcc).
const GZIP_LEVEL: i32 = 5;
const ZSTD_LEVEL: i32 = 2;

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As they came from elsewhere, else as gzip.
    AsTheyAre,
    /// As gzip of this level (0 to 9).
    Gzip(u32),
    /// As zstd of this level (1 to 19).
    Zstd(i32),
    /// Not at all.
    Plain,
}

impl Packing {
    /// The kind of records that lead from a layer to its blob; each begins with `packed`.
    fn records(self) -> String {
        match self {
            Packing::AsTheyAre => LAYERS.to_owned(),
            Packing::Gzip(level) => format!("{LAYERS}-gzip-{level}"),
            Packing::Zstd(level) => format!("{LAYERS}-zstd-{level}"),
            Packing::Plain => format!("{LAYERS}-plain"),
        }
    }

    fn media_type(self) -> MediaType {
        match self {
            Packing::AsTheyAre | Packing::Gzip(_) => MediaType::ImageLayerGzip,
            Packing::Zstd(_) => MediaType::ImageLayerZstd,
            Packing::Plain => MediaType::ImageLayer,
        }
    }
}

impl std::str::FromStr for Packing {
    type Err = String;

    /// `gzip`, `zstd` or `none`, with `:LEVEL` where there are some.
    fn from_str(text: &str) -> Result<Packing, String> {
        let (name, level) = text
            .split_once(':')
            .map_or((text, None), |(name, level)| (name, Some(level)));
        let wrong = || format!("'{text}' is no compression; write gzip, zstd or none, or for example zstd:9");
        let number = |least: i32, most: i32, default: i32| match level {
            None => Ok(default),
            Some(level) => {
                let level: Option<i32> = level.parse().ok();
                level
                    .filter(|level| (least..=most).contains(level))
                    .ok_or_else(wrong)
            }
        };
        match name {
            "gzip" => Ok(Packing::Gzip(number(0, 9, GZIP_LEVEL)?.unsigned_abs())),
            "zstd" => Ok(Packing::Zstd(number(1, 19, ZSTD_LEVEL)?)),
            "none" if level.is_none() => Ok(Packing::Plain),
            _ => Err(wrong()),
        }
    }
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
fn known(store: &Store, diff_id: &DiffId, packing: Packing) -> Result<Option<Packed>, StoreError> {
    let record = store.get_record(&RecordKind::new(&packing.records())?, &diff_id.0)?;
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

/// Notes that a blob that was fetched stands for a layer that was here, unless another does.
pub(crate) fn remember_too(store: &Store, diff_id: &DiffId, packed: &Packed) -> Result<(), StoreError> {
    match known(store, diff_id, Packing::AsTheyAre)? {
        Some(_) => Ok(()),
        None => remember(store, diff_id, packed),
    }
}

/// Notes that a blob stands for a layer.
pub(crate) fn remember(store: &Store, diff_id: &DiffId, packed: &Packed) -> Result<(), StoreError> {
    remember_as(store, diff_id, packed, Packing::AsTheyAre)
}

fn remember_as(store: &Store, diff_id: &DiffId, packed: &Packed, packing: Packing) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(packed).unwrap_or_default();
    let kind = RecordKind::new(&packing.records())?;
    store.put_record(&kind, &diff_id.0, &bytes, &[packed.digest])
}

/// The blob of a layer, made if it is not here.
fn layer(store: &Store, diff_id: &DiffId, packing: Packing) -> Result<Packed, PackError> {
    let _once = store.lock("pack", &diff_id.0)?;
    if let Some(packed) = known(store, diff_id, packing)? {
        return Ok(packed);
    }
    let layer = store
        .layer(diff_id)?
        .ok_or(StoreError::MissingLayer { diff_id: *diff_id })?;
    let tmp = store.layout().tmp();
    let mut packer = Packer {
        encoder: Encoder::new(store.blob_writer()?, packing).at("write blob to", &tmp)?,
        hasher: Hasher::new(),
    };
    let written = layer.write_tar(&mut packer);
    let is_same = written.is_ok() && DiffId(packer.hasher.finish()) == *diff_id;
    // What came from elsewhere may be another archive than the canonical one; then its blob has it.
    let writer = match is_same {
        true => packer.encoder.finish().at("write blob to", &tmp)?,
        false => repacked(store, diff_id, packing)?,
    };
    let size = writer.size();
    let digest = writer.commit(None)?;
    let packed = Packed {
        digest,
        size,
        media_type: packing.media_type().to_string(),
    };
    remember_as(store, diff_id, &packed, packing)?;
    Ok(packed)
}

/// Packs what another blob of the layer holds.
fn repacked(store: &Store, diff_id: &DiffId, packing: Packing) -> Result<BlobWriter, PackError> {
    let gone = || PackError::Gone { diff_id: *diff_id };
    let other = known(store, diff_id, Packing::AsTheyAre)?.ok_or_else(gone)?;
    let blob = store.blob(&other.digest)?.ok_or_else(gone)?;
    let tmp = store.layout().tmp();
    let mut plain = Decompressor::new(blob).at("read blob of", &tmp)?;
    let mut packer = Packer {
        encoder: Encoder::new(store.blob_writer()?, packing).at("write blob to", &tmp)?,
        hasher: Hasher::new(),
    };
    io::copy(&mut plain, &mut packer).at("pack into", &tmp)?;
    match DiffId(packer.hasher.finish()) == *diff_id {
        true => Ok(packer.encoder.finish().at("write blob to", &tmp)?),
        false => Err(gone()),
    }
}

/// Compresses, and hashes what goes in.
struct Packer {
    encoder: Encoder,
    hasher: Hasher,
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
    let is_own = packing == Packing::AsTheyAre;
    if is_own && let Some(kept) = kept_manifest(store, image)? {
        return Ok(kept);
    }
    let layers = image
        .config
        .rootfs
        .diff_ids
        .iter()
        .map(|diff_id| layer(store, diff_id, packing));
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
    let digest = match is_own {
        true => keep_manifest(store, image, &bytes, &MediaType::ImageManifest)?,
        false => store.put_blob(&bytes)?,
    };
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
