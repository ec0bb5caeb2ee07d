//! What a build used goes to a cache elsewhere: what that has is not sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::backend::{Backend, Object};
use super::error::RemoteError;
use super::fetch;
use super::index::{Claims, Index, LayerEntry, MountEntry, RecordEntry, now};
use super::mount;
use super::pack::{Chunk, Packer, Pending, Stored};
use super::seal::IndexKey;
use super::uses::{ExportOptions, Exported, Uses};
use crate::cache_mount::CacheMountSpec;
use crate::digest::{DiffId, Digest};
use crate::layer::Layer;
use crate::store::Store;

mod verify;

/// Packs that are sent at the same time, and that wait for it.
const SENDERS: usize = 4;
const WAITING: usize = 2;
/// Lists that are read to learn what is known already, and their bytes together: those of the streams that were used last.
const LISTS: usize = 1024;
const LISTED: u64 = 64 << 20;
const LIST_READERS: usize = 8;
/// How often an export begins anew since others removed what it needs.
const ATTEMPTS: usize = 3;

/// Writes what a build used. What was there before stays, as long as there is room.
///
/// # Errors
/// When the cache can't be read or written. What was there before is there still; the next attempt need not send the packs again that
/// were sent whole.
pub fn export(
    store: &Store,
    backend: &dyn Backend,
    uses: &Uses,
    options: &ExportOptions,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Exported, RemoteError> {
    let mut sent = 0;
    for _ in 0..ATTEMPTS {
        let job = Job {
            store,
            backend,
            uses,
            key: options.key.as_ref(),
            cancelled,
            sent: AtomicU64::new(0),
            gone: Mutex::default(),
        };
        let mut notes = Vec::new();
        let (own, streams) = job.pack(&mut notes)?;
        let (length, needed) = match job.publish(&own, options.max_size, &mut notes) {
            // What was thought to be there is not.
            Err(RemoteError::Missing { .. }) => continue,
            published => published?,
        };
        sent += length + job.sent.load(Ordering::Relaxed);
        if backend.missing(&needed)?.is_empty() {
            return Ok(Exported { streams, sent, notes });
        }
    }
    Err(RemoteError::Unstable)
}

struct Job<'a> {
    store: &'a Store,
    backend: &'a dyn Backend,
    uses: &'a Uses,
    key: Option<&'a IndexKey>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    sent: AtomicU64,
    /// Packs that were found to be missing or damaged.
    gone: Mutex<BTreeSet<Object>>,
}

/// A stream that was packed, and what it is.
enum Packed<'a> {
    Layer(&'a Layer, DiffId),
    Mount(&'a CacheMountSpec, Digest),
}

impl Job<'_> {
    /// Sends what is not there; gives the entries of this build, and how many streams were packed.
    fn pack(&self, notes: &mut Vec<String>) -> Result<(Index, usize), RemoteError> {
        let now = now();
        let known = self.known(notes)?;
        let mut own = Index::default();
        let mut fresh: BTreeMap<DiffId, &Layer> = BTreeMap::new();
        let mut order = Vec::new();
        for layer in &self.uses.layers {
            let diff_id = layer.diff_id()?;
            if let Some(entry) = known.layers.get(&diff_id) {
                let entry = LayerEntry {
                    used: now,
                    ..entry.clone()
                };
                own.layers.insert(diff_id, entry);
            } else if fresh.insert(diff_id, layer).is_none() {
                order.push((diff_id, layer));
            }
        }
        let streams = order.len() + self.uses.mounts.len();
        if streams > 0 {
            for (packed, stored) in self.send(&known, &order, notes)? {
                match packed {
                    Packed::Layer(layer, diff_id) => {
                        let claims = claims(layer);
                        own.layers.insert(
                            diff_id,
                            LayerEntry {
                                stored,
                                claims,
                                used: now,
                            },
                        );
                    }
                    Packed::Mount(spec, digest) => {
                        let spec = spec.clone();
                        let key = spec.key();
                        own.mounts.insert(
                            key,
                            MountEntry {
                                spec,
                                stored,
                                digest,
                                used: now,
                            },
                        );
                    }
                }
            }
        }
        for record in &self.uses.records {
            if record.layer.is_none_or(|layer| own.layers.contains_key(&layer)) {
                let entry = RecordEntry {
                    text: record.text.clone(),
                    layer: record.layer,
                    used: now,
                };
                own.records.insert((record.kind.clone(), record.key), entry);
            }
        }
        Ok((own, streams))
    }

    /// What is there and whole.
    fn known(&self, notes: &mut Vec<String>) -> Result<Index, RemoteError> {
        let sealed = self.backend.indexes(&mut |text| notes.push(text))?;
        let mut index = Index::read_all(&sealed, self.key, &mut |error| {
            notes.push(format!("{error}; it is replaced"));
        });
        let packs: Vec<Object> = index.packs().into_iter().collect();
        let missing: BTreeSet<Object> = self.backend.missing(&packs)?.into_iter().collect();
        if !missing.is_empty() {
            notes.push(format!(
                "{} packs are missing or cut off; what they held is sent again",
                missing.len()
            ));
            index.forget(&missing);
        }
        let damaged = verify::verify(self, &mut index, notes)?;
        index.forget(&damaged);
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.extend(missing.union(&damaged));
        Ok(index)
    }

    /// Packs these layers and the cache mounts while packs that are full are sent.
    fn send<'b>(
        &'b self,
        known: &Index,
        layers: &[(DiffId, &'b Layer)],
        notes: &mut Vec<String>,
    ) -> Result<Vec<(Packed<'b>, Stored)>, RemoteError> {
        let chunks = self.known_chunks(known);
        let (queue, packs) = sync_channel::<(Object, Vec<u8>)>(WAITING);
        let packs = Mutex::new(packs);
        let failed = Mutex::new(None);
        let packed = std::thread::scope(|scope| {
            // It ends with the packing, however that ends, and the senders with it.
            let queue = queue;
            for _ in 0..SENDERS {
                scope.spawn(|| self.sender(&packs, &failed));
            }
            let mut finished = |object: Object, bytes: Vec<u8>| {
                if (self.cancelled)() || is_set(&failed) {
                    return Err(RemoteError::Cancelled);
                }
                queue.send((object, bytes)).map_err(|_| RemoteError::Cancelled)
            };
            let mut packer = Packer::new(chunks, &mut finished);
            let pending = self.pack_all(&mut packer, layers, notes)?;
            let finished = packer.finish()?;
            let stored = |(packed, pending): (_, Pending)| Some((packed, finished.stored(&pending)?));
            Ok(pending.into_iter().filter_map(stored).collect())
        });
        // The failure of a sender is why packing ended.
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => packed,
        }
    }

    /// Sends packs until there are no more. After a failure they are thrown away, so that nobody waits.
    fn sender(&self, packs: &Mutex<Receiver<(Object, Vec<u8>)>>, failed: &Mutex<Option<RemoteError>>) {
        loop {
            let next = packs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((object, bytes)) = next else { return };
            if is_set(failed) {
                continue;
            }
            match self.backend.write(&object, bytes) {
                Ok(true) => drop(self.sent.fetch_add(object.size, Ordering::Relaxed)),
                Ok(false) => {}
                Err(error) => {
                    failed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                }
            }
        }
    }

    fn pack_all<'b>(
        &'b self,
        packer: &mut Packer<'_>,
        layers: &[(DiffId, &'b Layer)],
        notes: &mut Vec<String>,
    ) -> Result<Vec<(Packed<'b>, Pending)>, RemoteError> {
        let mut all = Vec::new();
        for &(diff_id, layer) in layers {
            let added = packer.add::<RemoteError>(|out| Ok(layer.write_tar(out).map(drop)?));
            match added {
                Ok((pending, digest)) if digest == diff_id.0 && has_plain_facts(layer) => {
                    all.push((Packed::Layer(layer, diff_id), pending));
                }
                Ok(_) => notes.push(format!("layer {diff_id} came from elsewhere and is not sent")),
                // It is in a cache that can't be read now.
                Err(RemoteError::Store(error)) => notes.push(format!("layer {diff_id} is not sent: {error}")),
                Err(error) => return Err(error),
            }
        }
        for spec in &self.uses.mounts {
            let mut is_had = false;
            let added = packer.add::<RemoteError>(|out| {
                is_had = mount::write(self.store, spec, out)?;
                Ok(())
            });
            match added {
                Ok((pending, digest)) if is_had => all.push((Packed::Mount(spec, digest), pending)),
                Ok(_) => notes.push(format!("cache mount {} is in use and is not sent", spec.id)),
                Err(RemoteError::Store(error)) => {
                    notes.push(format!("cache mount {} is not sent: {error}", spec.id))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The chunks of what was used last. A list that can't be read is as good as none.
    fn known_chunks(&self, known: &Index) -> Vec<Chunk> {
        let mut streams: Vec<(i64, &Stored)> = Vec::new();
        streams.extend(known.layers.values().map(|layer| (layer.used, &layer.stored)));
        streams.extend(known.mounts.values().map(|mount| (mount.used, &mount.stored)));
        streams.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        streams.truncate(LISTS);
        let mut listed = 0;
        streams.retain(|(_, stored)| {
            listed += u64::from(stored.list.plain);
            listed <= LISTED
        });
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..LIST_READERS.min(streams.len()) {
                scope.spawn(|| {
                    while let Some((_, stored)) = streams.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Ok(chunks) = fetch::chunks(self.backend, stored, u64::MAX)
                            && !(self.cancelled)()
                        {
                            found
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .extend(chunks);
                        }
                    }
                });
            }
        });
        let mut chunks = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Of what is there twice always the same is taken, in whatever order the lists came; and only what is in a pack that stays.
        let packs = known.packs();
        chunks.retain(|chunk| packs.contains(&chunk.pack));
        chunks.sort_by_key(|chunk| (chunk.digest, chunk.pack, chunk.at));
        chunks
    }

    /// Puts the entries of this build into the index; gives its length, and which packs they need.
    fn publish(
        &self,
        own: &Index,
        max_size: Option<u64>,
        notes: &mut Vec<String>,
    ) -> Result<(u64, Vec<Object>), RemoteError> {
        let mut length = 0;
        let mut is_whole = true;
        let mut needed = Vec::new();
        self.backend.publish(&mut |sealed| {
            if sealed.iter().any(|sealed| is_of_another_version(sealed)) {
                return Err(RemoteError::damaged(
                    "index",
                    "another version of box keeps a cache here; give this one a place of its own",
                ));
            }
            let mut index = Index::read_all(sealed, self.key, &mut |_| {});
            // What was not there is there again where it is this build's, or another one has sent it meanwhile.
            let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            let gone: Vec<Object> = gone.difference(&own.packs()).copied().collect();
            index.forget(&self.backend.missing(&gone)?.into_iter().collect());
            index.replace(own.clone());
            index.evict(max_size);
            let bytes = index.write(self.key)?;
            is_whole = own.layers.keys().all(|layer| index.layers.contains_key(layer));
            length = bytes.len() as u64;
            let packs = index.packs();
            needed = own.packs().intersection(&packs).copied().collect();
            Ok((bytes, packs.into_iter().collect()))
        })?;
        if !is_whole {
            notes.push("max-size leaves no room for all layers of this build".to_owned());
        }
        Ok((length, needed))
    }
}

fn is_set<T>(slot: &Mutex<Option<T>>) -> bool {
    slot.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

fn is_of_another_version(sealed: &[u8]) -> bool {
    sealed.starts_with(b"box-cache ") && !sealed.starts_with(b"box-cache 1\n")
}

/// Whether what is said of a layer is all there is to say before its tree is there. It is of all that steps make.
fn has_plain_facts(layer: &Layer) -> bool {
    !layer.facts().hides_below && layer.facts().implied_parents.is_empty()
}

fn claims(layer: &Layer) -> Claims {
    let facts = layer.facts();
    Claims {
        newest: facts.newest,
        logical: facts.times.threshold.map(|_| facts.times.logical),
        root: facts.root.clone(),
    }
}
