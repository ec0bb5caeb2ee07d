//! A cache in a registry: an artifact whose config is the index and whose layers are the packs.
//!
//! A tag knows no "only if it is still what I read": whoever is last wins. So a writer looks right before and some time after it has
//! written, and merges once more if another one came in between. What could get lost nevertheless is what one of two wrote, for the
//! next builds: never anything that an index refers to, since the registry keeps what a manifest names.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::backend::{Backend, Merge, Object};
use super::error::RemoteError;
use super::seal::PACKED_LIMIT;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::registry::{Artifact, ArtifactSession, RegistryError, RegistryOptions};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.box.cache.v1";
const INDEX: &str = "application/vnd.box.cache.index.v1";
const PACK: &str = "application/vnd.box.cache.pack.v1";
/// Connections at the same time.
const CONNECTIONS: usize = 4;
/// The longest pack that is taken from a registry that sends no parts.
const WHOLE: u64 = 64 << 20;
/// How often others may come in between.
const ATTEMPTS: u32 = 30;
/// How long after it was written a manifest is looked at again.
const SETTLED: Duration = Duration::from_millis(150);

/// How a registry is reached.
pub trait RegistryAccess: Send + Sync {
    /// Options for as long as they are needed.
    fn options(&self) -> RegistryOptions<'_>;
}

/// A cache in a registry. Its connections belong to threads of their own.
pub struct RegistryBackend {
    name: Reference,
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// What the registry has, it keeps; unless it says otherwise.
    is_doubted: std::sync::atomic::AtomicBool,
}

type Job = Box<dyn FnOnce(Result<&Artifact<'_>, &str>) + Send>;

impl std::fmt::Debug for RegistryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RegistryBackend")
            .field(&self.name.to_string())
            .finish()
    }
}

impl RegistryBackend {
    /// The cache of that name. Nothing is asked before something is needed.
    pub fn new(
        access: Arc<dyn RegistryAccess>,
        name: Reference,
        writes: bool,
        cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> RegistryBackend {
        let (queue, jobs) = channel();
        let own = name.clone();
        let thread = std::thread::Builder::new().name("box-cache".into());
        let thread = thread
            .spawn(move || serve(&*access, &own, writes, jobs, &*cancelled))
            .ok();
        RegistryBackend {
            name,
            queue: Some(queue),
            thread,
            is_doubted: false.into(),
        }
    }

    /// Has it done by one of the connections.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Artifact<'_>) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let (answer, answered) = channel();
        let job: Job = Box::new(move |artifact| {
            let result = match artifact {
                Ok(artifact) => work(artifact).map_err(RemoteError::from),
                Err(reason) => Err(RemoteError::Server(reason.to_owned())),
            };
            let _ = answer.send(result);
        });
        let gone = || RemoteError::Server("its connections have ended".to_owned());
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(job).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }

    fn manifest(&self) -> Result<Option<Vec<u8>>, RemoteError> {
        self.ask(|artifact| artifact.manifest())
    }

    /// The index that a manifest names.
    fn index(&self, manifest: &[u8]) -> Result<Vec<u8>, RemoteError> {
        let manifest = read(manifest)?;
        let Object { digest, size } = manifest.config.object();
        if size > PACKED_LIMIT {
            return Err(RemoteError::damaged("index", "it is too long"));
        }
        let bytes = self.ask(move |artifact| artifact.blob(&digest, (0, size), PACKED_LIMIT))?;
        let bytes = bytes.ok_or(RemoteError::Missing { digest })?;
        match Digest::of(&bytes) == digest {
            true => Ok(bytes),
            false => Err(RemoteError::damaged(
                "index",
                "it has another digest than the manifest says",
            )),
        }
    }

    /// One attempt; says whether what is there now is what was written.
    fn attempt(&self, merge: &mut Merge<'_>) -> Result<bool, RemoteError> {
        let before = self.manifest()?;
        // What makes no sense is replaced, but for what is no cache at all.
        let known: Vec<Vec<u8>> = match &before {
            Some(manifest) => {
                check_kind(manifest)?;
                match self.index(manifest) {
                    Ok(index) => vec![index],
                    Err(RemoteError::Damaged { .. } | RemoteError::Missing { .. }) => Vec::new(),
                    // One that can't be had for the moment must not be lost.
                    Err(error) => return Err(error),
                }
            }
            None => Vec::new(),
        };
        let (index, packs) = merge(&known)?;
        let manifest = manifest(&index, &packs);
        if before.as_ref() == Some(&manifest) {
            return Ok(true);
        }
        let digest = Digest::of(&index);
        self.ask(move |artifact| artifact.put_blob(&digest, &index))?;
        if self.manifest()? != before {
            return Ok(false);
        }
        let bytes = manifest.clone();
        match self.ask(move |artifact| artifact.put_manifest(&bytes)) {
            Err(RemoteError::Registry(RegistryError::Status {
                status: 400 | 404, ..
            })) => {
                // A blob that it had is gone.
                self.is_doubted.store(true, std::sync::atomic::Ordering::Relaxed);
                return Err(RemoteError::Missing { digest });
            }
            put => put?,
        }
        std::thread::sleep(SETTLED);
        Ok(self.manifest()? == Some(manifest))
    }
}

impl Drop for RegistryBackend {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Backend for RegistryBackend {
    fn describe(&self) -> String {
        self.name.to_string()
    }

    fn indexes(&self, warn: &mut dyn FnMut(String)) -> Result<Vec<Vec<u8>>, RemoteError> {
        let Some(manifest) = self.manifest()? else {
            return Ok(Vec::new());
        };
        match self.index(&manifest) {
            Ok(index) => Ok(vec![index]),
            Err(error @ (RemoteError::Damaged { .. } | RemoteError::Missing { .. })) => {
                warn(error.to_string());
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    fn missing(&self, packs: &[Object]) -> Result<Vec<Object>, RemoteError> {
        if !self.is_doubted.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let mut missing = Vec::new();
        for pack in packs {
            let digest = pack.digest;
            if !self.ask(move |artifact| artifact.has_blob(&digest))? {
                missing.push(*pack);
            }
        }
        Ok(missing)
    }

    fn read(&self, pack: &Object, at: u64, length: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let Object { digest, size } = *pack;
        self.ask(move |artifact| artifact.blob(&digest, (at, length), size.min(WHOLE)))
    }

    fn write(&self, pack: &Object, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        let digest = pack.digest;
        self.ask(move |artifact| artifact.put_blob(&digest, &bytes))
    }

    fn discard(&self, _: &Object) -> Result<bool, RemoteError> {
        Ok(false)
    }

    fn publish(&self, merge: &mut Merge<'_>) -> Result<(), RemoteError> {
        for attempt in 0..ATTEMPTS {
            if self.attempt(merge)? {
                return Ok(());
            }
            // Those who met don't meet again at once.
            let since = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let spread = u64::from(since.subsec_micros() % (20 * (attempt + 1)));
            std::thread::sleep(Duration::from_millis(spread));
        }
        Err(RemoteError::Unstable)
    }
}

/// Opens the connections when the first job comes, and does jobs until there are no more.
fn serve(
    access: &dyn RegistryAccess,
    name: &Reference,
    writes: bool,
    jobs: Receiver<Job>,
    cancelled: &(dyn Fn() -> bool + Send + Sync),
) {
    let Ok(first) = jobs.recv() else { return };
    let cancelled = || cancelled();
    let options = access.options();
    let session = match ArtifactSession::open(&options, name, writes, &cancelled) {
        Ok(session) => session,
        Err(error) => return refuse(std::iter::once(first).chain(jobs), &error),
    };
    let (first, jobs) = (Mutex::new(Some(first)), Mutex::new(jobs));
    let next = || {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.or_else(|| jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok())
    };
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| match session.connect(&cancelled) {
                Ok(artifact) => std::iter::from_fn(&next).for_each(|job| job(Ok(&artifact))),
                Err(error) => refuse(std::iter::from_fn(&next), &error),
            });
        }
    });
}

fn refuse(jobs: impl Iterator<Item = Job>, error: &RegistryError) {
    let reason = error.to_string();
    jobs.for_each(|job| job(Err(&reason)));
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Descriptor {
    fn of(media_type: &str, object: Object) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: object.digest,
            size: object.size,
        }
    }

    fn object(&self) -> Object {
        Object {
            digest: self.digest,
            size: self.size,
        }
    }
}

fn manifest(index: &[u8], packs: &[Object]) -> Vec<u8> {
    let config = Object {
        digest: Digest::of(index),
        size: index.len() as u64,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: ARTIFACT.to_owned(),
        config: Descriptor::of(INDEX, config),
        layers: packs.iter().map(|pack| Descriptor::of(PACK, *pack)).collect(),
    };
    // Strings and numbers can always be written.
    serde_json::to_vec(&manifest).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Result<Manifest, RemoteError> {
    check_kind(bytes)?;
    serde_json::from_slice(bytes).map_err(|e| RemoteError::damaged("manifest", e.to_string()))
}

/// An image, or whatever else has the name, is not taken for a cache, nor replaced by one.
fn check_kind(bytes: &[u8]) -> Result<(), RemoteError> {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match value["config"]["mediaType"].as_str() {
        Some(INDEX) => Ok(()),
        _ => Err(RemoteError::damaged(
            "manifest",
            "the name is that of something else; give the cache a name or tag of its own",
        )),
    }
}
