//! A build looks things up in caches elsewhere. An index is read when something is looked for that is not here; a layer is fetched when
//! somebody needs its files.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::backend::Backend;
use super::error::RemoteError;
use super::fetch::with_stream;
use super::index::{Claims, Index, LayerEntry, MountEntry};
use super::mount;
use super::seal::IndexKey;
use crate::cache_mount::CacheMountSpec;
use crate::digest::{DiffId, Digest};
use crate::error::{Result, StoreError};
use crate::layer::apply::Limits;
use crate::layer::{Layer, LayerFacts, LayerSource, LayerTimes};
use crate::stamp::Stamp;
use crate::store::Store;
use crate::unpack::{ApplyOptions, LayerBlob};

/// Layers that are fetched at the same time.
const SIDE_BY_SIDE: usize = 2;

/// A record of a cache elsewhere. Its bytes are as somebody wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRecord {
    /// What it says.
    pub bytes: Vec<u8>,
    /// The layer that comes with it, if one does.
    pub layer: Option<DiffId>,
    /// Which of the caches it is from, for [`Imports::refuse`].
    place: usize,
}

/// The caches that a build looks into, in order.
pub struct Imports {
    store: Store,
    places: Vec<Place>,
    cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Layers and cache mounts that are damaged somewhere.
    suspects: Mutex<BTreeSet<Digest>>,
    warnings: Mutex<Vec<String>>,
    failures: AtomicUsize,
}

struct Place {
    backend: Arc<dyn Backend>,
    key: Option<IndexKey>,
    index: OnceLock<Index>,
    refused: Mutex<BTreeSet<Digest>>,
}

impl std::fmt::Debug for Imports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = self.places.iter().map(|place| place.backend.describe());
        f.debug_list().entries(places).finish()
    }
}

impl Imports {
    /// These caches, each with the key that its index must be signed with, if any.
    pub fn new(
        store: &Store,
        caches: Vec<(Arc<dyn Backend>, Option<IndexKey>)>,
        cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Arc<Imports> {
        let places = caches.into_iter().map(|(backend, key)| Place {
            backend,
            key,
            index: OnceLock::new(),
            refused: Mutex::default(),
        });
        Arc::new(Imports {
            store: store.clone(),
            places: places.collect(),
            cancelled,
            suspects: Mutex::default(),
            warnings: Mutex::default(),
            failures: AtomicUsize::new(0),
        })
    }

    /// What went wrong since this was last asked, one line each.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many layers could not be had so far. What was built on one of them must be done again: the next look finds no
    /// such layer.
    pub fn failures(&self) -> usize {
        self.failures.load(Ordering::Acquire)
    }

    /// A record by its kind and key; none if no cache has it.
    pub fn record(&self, kind: &str, key: &Digest) -> Option<RemoteRecord> {
        let name = (kind.to_owned(), *key);
        self.places.iter().enumerate().find_map(|(number, place)| {
            let record = self.index(place).records.get(&name)?;
            let leads = record.layer.is_none_or(|layer| !place.refuses(&layer.0));
            (leads && !place.refuses(key)).then(|| RemoteRecord {
                bytes: record.text.clone().into_bytes(),
                layer: record.layer,
                place: number,
            })
        })
    }

    /// The keys of all records of a kind.
    pub fn keys(&self, kind: &str) -> BTreeSet<Digest> {
        let records = self
            .places
            .iter()
            .flat_map(|place| self.index(place).records.keys());
        let keys = records.filter(|(known, _)| known == kind);
        keys.map(|(_, key)| *key).collect()
    }

    /// All cache mounts.
    pub fn mounts(&self) -> BTreeSet<CacheMountSpec> {
        let mounts = self
            .places
            .iter()
            .flat_map(|place| self.index(place).mounts.values());
        mounts.map(|mount| mount.spec.clone()).collect()
    }

    /// The layers and cache mounts that are damaged in some cache, or not what its index says.
    pub fn suspects(&self) -> BTreeSet<Digest> {
        self.suspects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes what a cache could not give, unless it could not be reached.
    fn suspect(&self, digest: Digest, error: &RemoteError) {
        match error {
            RemoteError::Server(_)
            | RemoteError::Registry(_)
            | RemoteError::Store(_)
            | RemoteError::Cancelled => {}
            _ => drop(
                self.suspects
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(digest),
            ),
        }
    }

    /// Says that a record makes no sense: it is not given out again.
    pub fn refuse(&self, key: &Digest, record: &RemoteRecord, reason: &str) {
        if let Some(place) = self.places.get(record.place) {
            self.warn(format!(
                "cache {}: record {key}: {reason}; it is left out",
                place.backend.describe()
            ));
            place.refuse(*key);
        }
    }

    /// A layer; none if no cache has it. Nothing is fetched before somebody needs its files.
    pub fn layer(self: &Arc<Imports>, diff_id: &DiffId) -> Option<Layer> {
        let (_, entry) = self.places_of(diff_id).next()?;
        let source = Arc::clone(self) as Arc<dyn LayerSource>;
        let facts = facts(entry);
        Some(Layer::elsewhere(
            *diff_id,
            facts,
            self.store.overlay_xattrs(),
            source,
        ))
    }

    /// Fetches what is not here of these layers, side by side.
    ///
    /// # Errors
    /// When one can't be had, which is counted by [`Imports::failures`], too.
    pub fn fetch(&self, layers: &[Layer]) -> Result<()> {
        crate::layer::fetch_all(layers)
    }

    /// Makes a cache mount of what a cache elsewhere has of it, unless there is one here; says whether it did. What goes wrong is a warning.
    pub fn restore_mount(&self, spec: &CacheMountSpec) -> bool {
        let key = spec.key();
        for place in &self.places {
            let Some(entry) = self
                .index(place)
                .mounts
                .get(&key)
                .filter(|_| !place.refuses(&key))
            else {
                continue;
            };
            match self.restore(place, entry) {
                Ok(made) => return made,
                Err(error) => {
                    place.refuse(key);
                    self.suspect(key, &error);
                    let place = place.backend.describe();
                    self.warn(format!(
                        "cache {place}: cache mount {}: {error}; it begins empty",
                        spec.id
                    ));
                }
            }
        }
        false
    }

    fn restore(&self, place: &Place, entry: &MountEntry) -> Result<bool, RemoteError> {
        let limit = Limits::default().max_expanded;
        with_stream(
            &*place.backend,
            &entry.stored,
            limit,
            &*self.cancelled,
            |stream| mount::restore(&self.store, &entry.spec, stream),
        )?
    }

    fn index<'a>(&self, place: &'a Place) -> &'a Index {
        place.index.get_or_init(|| {
            let described = place.backend.describe();
            let warn = |text: String| self.warn(format!("cache {described}: {text}"));
            let sealed = place.backend.indexes(&mut |text| warn(text));
            let sealed = sealed.unwrap_or_else(|error| {
                warn(format!("{error}; the build goes on without it"));
                Vec::new()
            });
            Index::read_all(&sealed, place.key.as_ref(), &mut |error| {
                warn(format!("{error}; it is left out"));
            })
        })
    }

    fn places_of(&self, diff_id: &DiffId) -> impl Iterator<Item = (&Place, &LayerEntry)> {
        self.places.iter().filter_map(|place| {
            let entry = self.index(place).layers.get(diff_id)?;
            (!place.refuses(&diff_id.0)).then_some((place, entry))
        })
    }

    fn warn(&self, text: String) {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text);
    }

    /// From the first cache that has it whole.
    fn fetch_one(&self, diff_id: &DiffId, time: Stamp) -> Result<Layer> {
        if let Some(layer) = self.store.layer(diff_id)? {
            // What was said of it may be in use: times of layers above follow from that.
            if let Some((place, entry)) = self.places_of(diff_id).next()
                && !is_as_claimed(layer.facts(), &entry.claims)
            {
                place.refuse(diff_id.0);
                let error =
                    RemoteError::damaged("index", format!("layer {diff_id} is not what it says of it"));
                self.suspect(diff_id.0, &error);
                let place = place.backend.describe();
                self.warn(format!("cache {place}: {error}; that is left out"));
                self.failures.fetch_add(1, Ordering::AcqRel);
                return Err(StoreError::MissingLayer { diff_id: *diff_id });
            }
            // Who asked may have looked for its tree before it was known to be made up of others.
            let unstacked = self.store.unstacked(&[layer])?.pop();
            return unstacked.ok_or(StoreError::MissingLayer { diff_id: *diff_id });
        }
        for (place, entry) in self.places_of(diff_id) {
            match self.fetch_from(place, diff_id, entry, time) {
                Ok(layer) => return Ok(layer),
                Err(error) => {
                    place.refuse(diff_id.0);
                    self.suspect(diff_id.0, &error);
                    let place = place.backend.describe();
                    self.warn(format!("cache {place}: {error}; the layer is made here"));
                }
            }
        }
        self.failures.fetch_add(1, Ordering::AcqRel);
        Err(StoreError::MissingLayer { diff_id: *diff_id })
    }

    fn fetch_from(
        &self,
        place: &Place,
        diff_id: &DiffId,
        entry: &LayerEntry,
        time: Stamp,
    ) -> Result<Layer, RemoteError> {
        let options = ApplyOptions::default();
        let about = LayerBlob {
            diff_id: *diff_id,
            digest: None,
            logical_time: entry.claims.logical,
        };
        let limit = options.limits.max_expanded;
        let applied = with_stream(
            &*place.backend,
            &entry.stored,
            limit,
            &*self.cancelled,
            |stream| self.store.apply_blob_at(stream, &about, &options, time),
        )?;
        let layer = applied.map_err(|source| RemoteError::Layer {
            diff_id: *diff_id,
            source: Box::new(source),
        })?;
        match is_as_claimed(layer.facts(), &entry.claims) {
            true => Ok(layer),
            false => Err(RemoteError::damaged(
                format!("layer {diff_id}"),
                "it is not what the index says of it",
            )),
        }
    }
}

impl LayerSource for Imports {
    fn fetch(&self, diff_ids: &[DiffId]) -> Result<Vec<Layer>> {
        // Each is newer on disk than those below it, in whatever order they come.
        let mut time = Stamp::now();
        let mut wanted = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            wanted.push((*diff_id, time));
            time = time.after(1_000);
        }
        let next = AtomicUsize::new(0);
        let done: Vec<OnceLock<Result<Layer>>> = wanted.iter().map(|_| OnceLock::new()).collect();
        std::thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE.min(wanted.len()) {
                scope.spawn(|| {
                    while let Some(number) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < wanted.len())
                    {
                        let (diff_id, time) = &wanted[number];
                        let _ = done[number].set(self.fetch_one(diff_id, *time));
                    }
                });
            }
        });
        let missing = |diff_id| Err(StoreError::MissingLayer { diff_id });
        let done = done.into_iter().zip(diff_ids);
        done.map(|(layer, diff_id)| layer.into_inner().unwrap_or_else(|| missing(*diff_id)))
            .collect()
    }
}

impl Place {
    fn refuses(&self, digest: &Digest) -> bool {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest)
    }

    fn refuse(&self, digest: Digest) {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(digest);
    }
}

/// What stands for the facts of a layer until it is here.
fn facts(entry: &LayerEntry) -> LayerFacts {
    let claims = &entry.claims;
    LayerFacts {
        times: LayerTimes {
            logical: claims.logical.unwrap_or_default(),
            ..LayerTimes::kept()
        },
        newest: claims.newest,
        newest_on_disk: None,
        window: None,
        committed: Stamp::new(0, 0),
        size: entry.stored.size,
        entries: 1,
        sockets: 0,
        opaque: None,
        id_pages: Vec::new(),
        root: claims.root.clone(),
        hides_below: false,
        implied_parents: Vec::new(),
    }
}

/// Whether a layer is what was said of it before it was here.
fn is_as_claimed(facts: &LayerFacts, claims: &Claims) -> bool {
    facts.newest == claims.newest
        && facts.root == claims.root
        && !facts.hides_below
        && facts.implied_parents.is_empty()
}
