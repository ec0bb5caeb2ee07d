//! How layers are written elsewhere: which blob stands for a layer.
//!
//! A layer that came from elsewhere keeps its blob. One that was made here is packed when it is first asked for: its
//! canonical tar as gzip, compressed on every core, without time and name, so that equal layers give equal blobs; what goes into the compressor
//! is compared with the DiffId. Records `packed` (by DiffId) remember it, and keep the blobs alive.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci_spec::image::MediaType;

use crate::blob::BlobWriter;
pub(crate) use crate::blob::Packed;
use crate::digest::DiffId;
use crate::error::{IoContext, StoreError};
use crate::layer::decompress::Decompressor;
use crate::record::RecordKind;
use crate::store::Store;
use crate::transfer::document::DocumentError;
use crate::transfer::encoder::Packer;

const LAYERS: &str = "packed";
/// Levels where none is said. Of zstd the second gives archives of gzip's size in half the time; the third is 4 % smaller and a ninth
/// slower (Debian with gcc).
pub(super) const GZIP_LEVEL: i32 = 5;
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
    /// Who wanted it does so no more.
    #[error("packing was stopped")]
    Stopped,
}

/// Who waits for blobs; asked from several threads.
pub(crate) trait Waiting: Sync {
    /// A layer's blob is here, while others are still being made.
    fn has(&self, packed: &Packed);
    /// Whether to give up.
    fn stopped(&self) -> bool;
}

/// The blob of a layer, if it is here.
pub(super) fn known(store: &Store, diff_id: &DiffId, packing: Packing) -> Result<Option<Packed>, StoreError> {
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
fn layer(
    store: &Store,
    diff_id: &DiffId,
    packing: Packing,
    waiting: &dyn Waiting,
) -> Result<Packed, PackError> {
    let _once = store.lock("pack", &diff_id.0)?;
    if let Some(packed) = known(store, diff_id, packing)? {
        return Ok(packed);
    }
    let layer = store
        .layer(diff_id)?
        .ok_or(StoreError::MissingLayer { diff_id: *diff_id })?;
    let tmp = store.layout().tmp();
    let stopped = || waiting.stopped();
    let mut packer = Packer::new(store.blob_writer()?, packing, &stopped).at("write blob to", &tmp)?;
    let written = layer.write_tar(&mut packer);
    if stopped() {
        return Err(PackError::Stopped);
    }
    let own = match written {
        Ok(_) => packer.finish(diff_id).at("write blob to", &tmp)?,
        Err(_) => None,
    };
    // What came from elsewhere may be another archive than the canonical one; then its blob has it.
    let writer = match own {
        Some(writer) => writer,
        None => repacked(store, diff_id, packing, &stopped)?,
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
fn repacked(
    store: &Store,
    diff_id: &DiffId,
    packing: Packing,
    stopped: &dyn Fn() -> bool,
) -> Result<BlobWriter, PackError> {
    let gone = || PackError::Gone { diff_id: *diff_id };
    let other = known(store, diff_id, Packing::AsTheyAre)?.ok_or_else(gone)?;
    let blob = store.blob(&other.digest)?.ok_or_else(gone)?;
    let tmp = store.layout().tmp();
    let mut plain = Decompressor::new(blob).at("read blob of", &tmp)?;
    let mut packer = Packer::new(store.blob_writer()?, packing, stopped).at("write blob to", &tmp)?;
    let copied = io::copy(&mut plain, &mut packer);
    if stopped() {
        return Err(PackError::Stopped);
    }
    copied.at("pack into", &tmp)?;
    packer.finish(diff_id).at("write blob to", &tmp)?.ok_or_else(gone)
}

/// The blobs of layers, in their order. A layer's tar is read and hashed by one thread: two layers at a time keep the other cores busy.
pub(super) fn layers(
    store: &Store,
    diff_ids: &[DiffId],
    packing: Packing,
    waiting: &dyn Waiting,
) -> Result<Vec<Packed>, PackError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<BTreeMap<DiffId, Packed>, PackError> {
        let mut made = BTreeMap::new();
        while let Some(diff_id) = diff_ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Nobody needs the others when one fails.
            let packed = layer(store, diff_id, packing, waiting)
                .inspect_err(|_| next.store(diff_ids.len(), Ordering::Relaxed))?;
            waiting.has(&packed);
            made.insert(*diff_id, packed);
        }
        Ok(made)
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (own, others) = std::thread::scope(|scope| {
        let others = (cores > 1 && diff_ids.len() > 1).then(|| scope.spawn(work));
        let own = work();
        let others = others.map(|others| others.join().unwrap_or_else(|panic| resume_unwind(panic)));
        (own, others)
    });
    let mut made = own?;
    made.extend(others.transpose()?.unwrap_or_default());
    Ok(diff_ids
        .iter()
        .filter_map(|diff_id| made.get(diff_id).cloned())
        .collect())
}
