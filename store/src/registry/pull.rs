//! An image comes from a registry, all its layers side by side.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::body::Body;
use super::client::Client;
use super::error::RegistryError;
use super::manifest::{Found, find};
use super::options::{RegistryOptions, TransferProgress};
use super::session::{Action, Session, lock};
use crate::blob::BlobWriter;
use crate::digest::{DiffId, Digest, Hasher, ImageId};
use crate::error::IoContext;
use crate::image::Image;
use crate::layer::Layer;
use crate::layer::apply::ApplyError;
use crate::layer::decompress::Decompressor;
use crate::reference::Reference;
use crate::stamp::Stamp;
use crate::store::Store;
use crate::transfer::Progress;
use crate::transfer::manifest::keep_manifest;
use crate::transfer::packed::{self, Packed};
use crate::transfer::{document, logical_times};
use crate::unpack::{ApplyOptions, LayerBlob};

/// An image that was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image, which has the name now.
    pub image: Image,
    /// Its manifest's digest.
    pub manifest: Digest,
    /// How many layers had to be fetched.
    pub fetched: usize,
}

/// A layer that is to be there.
struct Wanted {
    digest: Digest,
    size: u64,
    media_type: String,
    diff_id: DiffId,
    logical_time: Option<i64>,
}

/// Pulls the image of a name, and gives it the name. Nothing is fetched that is here.
///
/// # Errors
/// See [`RegistryError`]; no image and no name is made then. Layers that came whole stay, so that the next attempt need not
/// fetch them.
pub fn pull(
    store: &Store,
    name: &Reference,
    options: &RegistryOptions<'_>,
    progress: &dyn TransferProgress,
) -> Result<Pulled, RegistryError> {
    pull_telling(store, name, options, progress, &|_| ())
}

/// The same; `tell` is called with what the image is as soon as that is known, before its layers are here.
///
/// # Errors
/// As [`pull`].
pub fn pull_telling(
    store: &Store,
    name: &Reference,
    options: &RegistryOptions<'_>,
    progress: &dyn TransferProgress,
    tell: &dyn Fn(Image),
) -> Result<Pulled, RegistryError> {
    let failed = AtomicBool::new(false);
    let cancelled = || failed.load(Ordering::Relaxed) || progress.cancelled();
    let session = Session::open(options, (name.domain(), name.path()), Action::Pull, &cancelled)?;
    let found = find(&Client::new(&session, &cancelled)?, name)?;
    let wanted = wanted(&found)?;
    tell(Image {
        id: ImageId(Digest::of(&found.config_bytes)),
        config: found.config.clone(),
        built: Stamp::now().sec,
    });
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Done::default());
    let work = || -> Result<(), RegistryError> {
        let client = Client::new(&session, &cancelled)?;
        while let Some(wanted) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let layer = layer(store, &client, wanted, progress)?;
            let mut done = lock(&done);
            done.fetched += usize::from(layer.1);
            done.layers.push(layer.0);
        }
        Ok(())
    };
    let threads = options.connections.clamp(1, wanted.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if let Err(error) = work() {
                    // The first failure is the one that is told; the others follow from it.
                    if !failed.swap(true, Ordering::Relaxed) {
                        lock(&done).error = Some(error);
                    }
                }
            });
        }
    });
    let done = std::mem::take(&mut *lock(&done));
    if let Some(error) = done.error {
        return Err(error);
    }
    // The handles keep the layers until the image does.
    let image = store.put_raw_image(&found.config_bytes)?;
    let manifest = keep_manifest(store, &image, &found.bytes, &found.media_type)?;
    store.tag(name, &image.id)?;
    Ok(Pulled {
        image,
        manifest,
        fetched: done.fetched,
    })
}

/// Asks which image a name stands for now, without fetching its layers: its manifest's digest, and the image as it would be in the
/// store.
///
/// # Errors
/// See [`RegistryError`].
pub fn resolve(
    name: &Reference,
    options: &RegistryOptions<'_>,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<(Digest, Image), RegistryError> {
    let session = Session::open(options, (name.domain(), name.path()), Action::Pull, cancelled)?;
    let found = find(&Client::new(&session, cancelled)?, name)?;
    let image = Image {
        id: ImageId(Digest::of(&found.config_bytes)),
        config: found.config,
        built: 0,
    };
    Ok((found.digest, image))
}

#[derive(Default)]
struct Done {
    layers: Vec<Layer>,
    fetched: usize,
    error: Option<RegistryError>,
}

/// Each layer once, the largest first, so that none is late.
fn wanted(found: &Found) -> Result<Vec<Wanted>, RegistryError> {
    let what = format!("manifest {}", found.digest);
    let times = logical_times(&found.config);
    let diff_ids = &found.config.rootfs.diff_ids;
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::with_capacity(diff_ids.len());
    for ((layer, diff_id), logical_time) in found.manifest.layers().iter().zip(diff_ids).zip(times) {
        if seen.insert(*diff_id) {
            wanted.push(Wanted {
                digest: document::digest(layer, &what)?,
                size: layer.size(),
                media_type: layer.media_type().to_string(),
                diff_id: *diff_id,
                logical_time,
            });
        }
    }
    wanted.sort_by_key(|wanted| std::cmp::Reverse(wanted.size));
    Ok(wanted)
}

/// The layer, and whether it had to be fetched.
fn layer(
    store: &Store,
    client: &Client<'_>,
    wanted: &Wanted,
    progress: &dyn TransferProgress,
) -> Result<(Layer, bool), RegistryError> {
    let as_packed = Packed {
        digest: wanted.digest,
        size: wanted.size,
        media_type: wanted.media_type.clone(),
    };
    if let Some(layer) = store.layer(&wanted.diff_id)? {
        let is_fetched = !packed::has_blob(store, &as_packed)?;
        if is_fetched {
            // The layer came by another way; what the manifest names must be here, too, or it can't be passed on.
            blob(store, client, wanted, progress)?;
            packed::remember_too(store, &wanted.diff_id, &as_packed)?;
        }
        return Ok((layer, is_fetched));
    }
    let bar = progress.blob(&wanted.digest, wanted.size);
    let mut tee = tee(store, client, wanted, bar.as_ref())?;
    let about = LayerBlob {
        diff_id: wanted.diff_id,
        digest: Some(wanted.digest),
        logical_time: wanted.logical_time,
    };
    let apply = ApplyOptions {
        limits: client.session().options.layer_limits.clone(),
    };
    let applied = store.apply_blob(&mut tee, &about, &apply);
    bar.finish();
    let Tee { body, blob } = tee;
    let layer = match (applied, body.error) {
        // What happened to the connection says more than that reading failed.
        (Err(_), Some(error)) => return Err(error),
        (Err(source), None) => {
            return Err(RegistryError::Layer {
                digest: wanted.digest,
                source: Box::new(source),
            });
        }
        (Ok(layer), _) => layer,
    };
    // An equal layer may have come by another way meanwhile; then nothing was read.
    if blob.size() == wanted.size {
        blob.commit(Some(&wanted.digest))?;
        packed::remember(store, &wanted.diff_id, &as_packed)?;
    }
    Ok((layer, true))
}

/// Fetches the blob of a layer that is here; it must hold that layer.
fn blob(
    store: &Store,
    client: &Client<'_>,
    wanted: &Wanted,
    progress: &dyn TransferProgress,
) -> Result<(), RegistryError> {
    let bar = progress.blob(&wanted.digest, wanted.size);
    let mut tee = tee(store, client, wanted, bar.as_ref())?;
    let limit = client.session().options.layer_limits.max_expanded;
    let found = diff_id_of(&mut tee, limit);
    bar.finish();
    let found = match (found, tee.body.error) {
        (Err(_), Some(error)) => return Err(error),
        (Err(error), None) => Err(error).at("write blob to", store.layout().tmp())?,
        (Ok(found), _) => found,
    };
    if found != wanted.diff_id {
        let expected = wanted.diff_id;
        return Err(RegistryError::Layer {
            digest: wanted.digest,
            source: Box::new(ApplyError::DiffId { expected, found }),
        });
    }
    tee.blob.commit(Some(&wanted.digest))?;
    Ok(())
}

/// Of at most `limit` bytes: what is longer is cut, and so another layer.
fn diff_id_of(packed: &mut impl Read, limit: u64) -> io::Result<DiffId> {
    let mut plain = Decompressor::new(packed)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut within = plain.by_ref().take(limit);
    loop {
        match within.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    plain.drain_input()?;
    Ok(DiffId(hasher.finish()))
}

fn tee<'c>(
    store: &Store,
    client: &'c Client<'_>,
    wanted: &Wanted,
    bar: &'c dyn Progress,
) -> Result<Tee<'c>, RegistryError> {
    bar.start(Some(wanted.size));
    let url = client
        .session()
        .of_repository(&format!("blobs/{}", wanted.digest));
    Ok(Tee {
        body: Body::new(client, bar, url, wanted.size),
        blob: store.blob_writer()?,
    })
}

/// A body that is kept as it is read.
struct Tee<'c> {
    body: Body<'c>,
    blob: BlobWriter,
}

impl Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buf)?;
        self.blob.write_all(&buf[..count])?;
        Ok(count)
    }
}
