//! The index as it is written.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Claims, Index, LayerEntry, MountEntry, REFERENCES, RecordEntry, VERSION};
use crate::cache_mount::CacheMountSpec;
use crate::digest::{DiffId, Digest};
use crate::layer::DirAttrs;
use crate::remote::backend::Object;
use crate::remote::pack::{Chunk, Stored};

/// The index as JSON; packs are named by their place in a list.
#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    pub(super) version: u32,
    packs: Vec<Object>,
    layers: Vec<WireLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<WireMount>,
    records: Vec<WireRecord>,
}

/// Pack, first byte, length packed, length plain.
type WireChunk = (u32, u32, u32, u32);

// What is the same in both is said twice: a flattened struct would be read into a tree of any values first.
#[derive(Serialize, Deserialize)]
struct WireLayer {
    diff_id: DiffId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logical: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<DirAttrs>,
    list: WireChunk,
    list_digest: Digest,
    packs: Vec<u32>,
    size: u64,
    used: i64,
}

#[derive(Serialize, Deserialize)]
struct WireMount {
    spec: CacheMountSpec,
    digest: Digest,
    list: WireChunk,
    list_digest: Digest,
    packs: Vec<u32>,
    size: u64,
    used: i64,
}

#[derive(Serialize, Deserialize)]
struct WireRecord {
    kind: String,
    key: Digest,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<DiffId>,
    used: i64,
}

/// Packs by their numbers.
struct Numbers(BTreeMap<Object, u32>);

impl Numbers {
    fn pack(&self, pack: &Object) -> u32 {
        self.0.get(pack).copied().unwrap_or(u32::MAX)
    }

    fn list(&self, stored: &Stored) -> WireChunk {
        let list = &stored.list;
        (self.pack(&list.pack), list.at, list.packed, list.plain)
    }

    fn packs(&self, stored: &Stored) -> Vec<u32> {
        stored.packs.iter().map(|pack| self.pack(pack)).collect()
    }
}

/// Packs by their numbers, and how often they may still be named.
struct Named<'a> {
    packs: &'a [Object],
    left: usize,
}

impl Named<'_> {
    fn stored(&mut self, list: WireChunk, list_digest: Digest, numbers: &[u32], size: u64) -> Option<Stored> {
        self.left = self.left.checked_sub(numbers.len())?;
        let pack = |number: u32| self.packs.get(usize::try_from(number).ok()?).copied();
        let (number, at, packed, plain) = list;
        let list = Chunk {
            digest: list_digest,
            pack: pack(number)?,
            at,
            packed,
            plain,
        };
        let is_inside = u64::from(at) + u64::from(packed) <= list.pack.size;
        let packs = numbers
            .iter()
            .map(|&number| pack(number))
            .collect::<Option<BTreeSet<_>>>()?;
        (is_inside && packs.contains(&list.pack)).then_some(Stored { list, packs, size })
    }
}

impl Wire {
    pub(super) fn of(index: &Index) -> Wire {
        let packs: Vec<Object> = index.packs().into_iter().collect();
        let numbers = Numbers(packs.iter().copied().zip(0..).collect());
        let layers = index.layers.iter().map(|(diff_id, layer)| WireLayer {
            diff_id: *diff_id,
            newest: layer.claims.newest,
            logical: layer.claims.logical,
            root: layer.claims.root.clone(),
            list: numbers.list(&layer.stored),
            list_digest: layer.stored.list.digest,
            packs: numbers.packs(&layer.stored),
            size: layer.stored.size,
            used: layer.used,
        });
        let mounts = index.mounts.values().map(|mount| WireMount {
            spec: mount.spec.clone(),
            digest: mount.digest,
            list: numbers.list(&mount.stored),
            list_digest: mount.stored.list.digest,
            packs: numbers.packs(&mount.stored),
            size: mount.stored.size,
            used: mount.used,
        });
        let records = index.records.iter().map(|((kind, key), record)| WireRecord {
            kind: kind.clone(),
            key: *key,
            text: record.text.clone(),
            layer: record.layer,
            used: record.used,
        });
        Wire {
            version: VERSION,
            layers: layers.collect(),
            mounts: mounts.collect(),
            records: records.collect(),
            packs,
        }
    }

    /// None if what it says of its packs makes no sense.
    pub(super) fn index(self) -> Option<Index> {
        let mut named = Named {
            packs: &self.packs,
            left: REFERENCES,
        };
        let mut index = Index::default();
        for layer in self.layers {
            let entry = LayerEntry {
                stored: named.stored(layer.list, layer.list_digest, &layer.packs, layer.size)?,
                claims: Claims {
                    newest: layer.newest,
                    logical: layer.logical,
                    root: layer.root,
                },
                used: layer.used,
            };
            index.layers.insert(layer.diff_id, entry);
        }
        for mount in self.mounts {
            let entry = MountEntry {
                stored: named.stored(mount.list, mount.list_digest, &mount.packs, mount.size)?,
                digest: mount.digest,
                used: mount.used,
                spec: mount.spec,
            };
            index.mounts.insert(entry.spec.key(), entry);
        }
        let records = self.records.into_iter().map(|record| {
            let entry = RecordEntry {
                text: record.text,
                layer: record.layer,
                used: record.used,
            };
            ((record.kind, record.key), entry)
        });
        index.records = records.collect();
        index.drop_dangling();
        Some(index)
    }
}
