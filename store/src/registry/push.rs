//! An image goes to a registry: what it has is not sent, what another repository of it has is mounted.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

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
use crate::transfer::document::DOCUMENT_LIMIT;
use crate::transfer::manifest::{self, PackedImage, Ready};
use crate::transfer::packed::{PackError, Packed, Waiting};

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
    let failed = AtomicBool::new(false);
    let cancelled = || failed.load(Ordering::Relaxed) || progress.cancelled();
    let ready = manifest::ready(store, image, options.packing)?;
    let mut session = Session::open(options, (name.domain(), name.path()), Action::Push, &cancelled)?;
    let parts: Vec<Digest> = match &ready {
        Ready::Whole(packed) => packed.blobs.keys().copied().collect(),
        Ready::Parts(known) => {
            let known = known.iter().map(|packed| packed.digest);
            known.chain([image.id.0]).collect()
        }
    };
    for digest in &parts {
        let place = known_place(store, name, digest)?;
        session
            .also
            .extend(place.filter(|place| !session.also.contains(place)));
    }
    let client = Client::new(&session, &cancelled)?;
    let media_type = |packed: &PackedImage| packed.descriptor.media_type().to_string();
    let is_there = match &ready {
        // Then it has all that belongs to it.
        Ready::Whole(packed) => {
            let url = session.of_repository(&format!("manifests/{}", packed.digest()?));
            has(&client, &url, &media_type(packed))?
        }
        Ready::Parts(_) => false,
    };
    let sending = Sending {
        store,
        image,
        name,
        session: &session,
        progress,
        failed: &failed,
    };
    let (packed, counts) = match (ready, is_there) {
        (Ready::Whole(packed), true) => (*packed, Counts::default()),
        (ready, _) => sending.send_all(ready)?,
    };
    let digest = packed.digest()?;
    let bytes = store
        .read_blob(&digest, DOCUMENT_LIMIT)?
        .ok_or(StoreError::MissingBlob { digest })?;
    put_manifest(&client, name, (&bytes, digest), &media_type(&packed))?;
    Ok(Pushed {
        manifest: digest,
        size: bytes.len() as u64,
        sent: counts.sent,
        mounted: counts.mounted,
    })
}

/// A blob that is to be there.
type Blob = (Digest, u64);

#[derive(Default)]
struct Counts {
    /// Blobs that somebody has taken.
    begun: HashSet<Digest>,
    sent: usize,
    mounted: usize,
    error: Option<RegistryError>,
}

/// Blobs on their way.
struct Sending<'s> {
    store: &'s Store,
    image: &'s Image,
    name: &'s Reference,
    session: &'s Session<'s>,
    progress: &'s dyn TransferProgress,
    failed: &'s AtomicBool,
}

/// Gives each blob to those who send as soon as it is packed.
struct Giving<'s> {
    give: Sender<Blob>,
    sending: &'s Sending<'s>,
}

impl Waiting for Giving<'_> {
    fn has(&self, packed: &Packed) {
        // Nobody takes it when all senders have failed.
        let _ = self.give.send((packed.digest, packed.size));
    }

    fn stopped(&self) -> bool {
        self.sending.cancelled()
    }
}

impl Sending<'_> {
    fn cancelled(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.progress.cancelled()
    }

    /// All blobs side by side, and layers that are packed already while others still are being packed.
    fn send_all(&self, ready: Ready) -> Result<(PackedImage, Counts), RegistryError> {
        let (give, take) = channel::<Blob>();
        let take = Mutex::new(take);
        let counts = Mutex::new(Counts::default());
        let count = self.image.config.rootfs.diff_ids.len() + 1;
        let packed = std::thread::scope(|scope| {
            for _ in 0..self.session.options.connections.clamp(1, count) {
                scope.spawn(|| {
                    if let Err(error) = self.send_some(&take, &counts)
                        && !self.failed.swap(true, Ordering::Relaxed)
                    {
                        lock(&counts).error = Some(error);
                    }
                });
            }
            let packed = match ready {
                Ready::Whole(packed) => Ok(*packed),
                Ready::Parts(_) => self.pack(&give),
            };
            match &packed {
                Ok(packed) => {
                    let manifest = packed.digest().ok();
                    for (&digest, &size) in packed
                        .blobs
                        .iter()
                        .filter(|(digest, _)| Some(**digest) != manifest)
                    {
                        // As above.
                        let _ = give.send((digest, size));
                    }
                }
                Err(_) => self.failed.store(true, Ordering::Relaxed),
            }
            drop(give);
            packed
        });
        let mut counts = std::mem::take(&mut *lock(&counts));
        match (counts.error.take(), packed) {
            (Some(error), _) => Err(error),
            (None, Err(PackError::Stopped)) => Err(RegistryError::Cancelled),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(packed)) => Ok((packed, counts)),
        }
    }

    /// Packs what is not packed yet, while the config and each layer that is ready are sent: what the registry refuses ends it early.
    fn pack(&self, give: &Sender<Blob>) -> Result<PackedImage, PackError> {
        let waiting = Giving {
            give: give.clone(),
            sending: self,
        };
        // As above.
        let _ = give.send((self.image.id.0, manifest::config_size(self.store, self.image)?));
        manifest::made(self.store, self.image, self.session.options.packing, &waiting)
    }

    /// Sends what it is given, each blob once.
    fn send_some(&self, take: &Mutex<Receiver<Blob>>, counts: &Mutex<Counts>) -> Result<(), RegistryError> {
        let cancelled = || self.cancelled();
        let client = Client::new(self.session, &cancelled)?;
        loop {
            let Ok((digest, size)) = lock(take).recv() else {
                return Ok(());
            };
            if !lock(counts).begun.insert(digest) {
                continue;
            }
            let place = known_place(self.store, self.name, &digest)?;
            // What the registry allows was asked for before.
            let place = place.filter(|place| self.session.also.contains(place));
            let upload = Upload {
                store: self.store,
                client: &client,
                progress: self.progress,
                digest,
                size,
            };
            let sent = upload.run(place.as_deref())?;
            remember_place(self.store, self.name, &digest)?;
            let mut counts = lock(counts);
            counts.sent += usize::from(sent == Delivery::Sent);
            counts.mounted += usize::from(sent == Delivery::Mounted);
        }
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
