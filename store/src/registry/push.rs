//! An image goes to a registry: what it has is not sent, what another repository of it has is mounted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Body, Method, Url};

use super::client::{Ask, Client};
use super::error::RegistryError;
use super::options::{RegistryOptions, TransferProgress};
use super::places::{known_place, remember_place};
use super::session::{Action, Session, lock};
use super::upload::{Delivery, Upload};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::image::Image;
use crate::reference::Reference;
use crate::store::Store;
use crate::transfer::document::{self, DOCUMENT_LIMIT};
use crate::transfer::packed;

/// An image that was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Its manifest's digest.
    pub manifest: Digest,
    /// The manifest's length in bytes.
    pub size: u64,
    /// How many blobs were sent.
    pub sent: usize,
    /// How many were mounted from another repository.
    pub mounted: usize,
}

/// Pushes an image under a name.
///
/// # Errors
/// See [`RegistryError`]; the name does not change then.
pub fn push(
    store: &Store,
    image: &Image,
    name: &Reference,
    options: &RegistryOptions<'_>,
    progress: &dyn TransferProgress,
) -> Result<Pushed, RegistryError> {
    let packed = packed::manifest(store, image, options.packing)?;
    let manifest = document::digest(&packed.descriptor, "manifest")?;
    let media_type = packed.descriptor.media_type().to_string();
    let bytes = store
        .read_blob(&manifest, DOCUMENT_LIMIT)?
        .ok_or(StoreError::MissingBlob { digest: manifest })?;
    let failed = AtomicBool::new(false);
    let cancelled = || failed.load(Ordering::Relaxed) || progress.cancelled();
    let mut session = Session::open(options, (name.domain(), name.path()), Action::Push, &cancelled)?;
    let mut blobs = Vec::with_capacity(packed.blobs.len());
    for (&digest, &size) in packed.blobs.iter().filter(|(digest, _)| **digest != manifest) {
        let place = known_place(store, name, &digest)?;
        session
            .also
            .extend(place.clone().filter(|place| !session.also.contains(place)));
        blobs.push(Blob { digest, size, place });
    }
    let client = Client::new(&session, &cancelled)?;
    let url = session.of_repository(&format!("manifests/{manifest}"));
    let counts = match has(&client, &url, &media_type)? {
        // Then it has all that belongs to it.
        true => Counts::default(),
        false => send_all(store, name, &session, (&blobs, &failed), progress)?,
    };
    put_manifest(&client, name, (&bytes, manifest), &media_type)?;
    Ok(Pushed {
        manifest,
        size: bytes.len() as u64,
        sent: counts.sent,
        mounted: counts.mounted,
    })
}

/// A blob that is to be there.
struct Blob {
    digest: Digest,
    size: u64,
    /// Another repository of the registry that has it.
    place: Option<String>,
}

#[derive(Default)]
struct Counts {
    sent: usize,
    mounted: usize,
    error: Option<RegistryError>,
}

/// All blobs side by side.
fn send_all(
    store: &Store,
    name: &Reference,
    session: &Session<'_>,
    (blobs, failed): (&[Blob], &AtomicBool),
    progress: &dyn TransferProgress,
) -> Result<Counts, RegistryError> {
    let cancelled = || failed.load(Ordering::Relaxed) || progress.cancelled();
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(Counts::default());
    let work = || -> Result<(), RegistryError> {
        let client = Client::new(session, &cancelled)?;
        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let upload = Upload {
                store,
                client: &client,
                progress,
                digest: blob.digest,
                size: blob.size,
            };
            let sent = upload.run(blob.place.as_deref())?;
            remember_place(store, name, &blob.digest)?;
            let mut counts = lock(&counts);
            counts.sent += usize::from(sent == Delivery::Sent);
            counts.mounted += usize::from(sent == Delivery::Mounted);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..session.options.connections.clamp(1, blobs.len().max(1)) {
            scope.spawn(|| {
                if let Err(error) = work()
                    && !failed.swap(true, Ordering::Relaxed)
                {
                    lock(&counts).error = Some(error);
                }
            });
        }
    });
    let mut counts = std::mem::take(&mut *lock(&counts));
    match counts.error.take() {
        Some(error) => Err(error),
        None => Ok(counts),
    }
}

fn put_manifest(
    client: &Client<'_>,
    name: &Reference,
    (bytes, digest): (&[u8], Digest),
    media_type: &str,
) -> Result<(), RegistryError> {
    let what = name.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let url = client.session().of_repository(&format!("manifests/{what}"));
    let body = || Ok(Body::from(bytes.to_vec()));
    let mut ask = Ask::new(Method::PUT, url, &[200, 201, 202]).header(CONTENT_TYPE, media_type);
    ask.body = Some(&body);
    client.ask(&ask).map(drop)
}

/// Whether the registry has something.
pub(super) fn has(client: &Client<'_>, url: &Url, accept: &str) -> Result<bool, RegistryError> {
    let ask = Ask::new(Method::HEAD, url.clone(), &[200, 404]).header(ACCEPT, accept);
    Ok(client.ask(&ask)?.status().as_u16() == 200)
}
