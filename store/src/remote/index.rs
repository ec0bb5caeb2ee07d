//! The index: what a cache holds, merged from what several writers put there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::backend::Object;
use super::error::RemoteError;
use super::pack::{Chunk, Stored};
use super::seal::{IndexKey, open, seal};
use crate::cache_mount::CacheMountSpec;
use crate::digest::{DiffId, Digest};
use crate::layer::DirAttrs;

const VERSION: u32 = 1;
/// Records that are kept, at most: of more, those that were used last.
const MAX_RECORDS: usize = 50_000;

/// What a cache holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) layers: BTreeMap<DiffId, LayerEntry>,
    /// By the digest of what they are called.
    pub(super) mounts: BTreeMap<Digest, MountEntry>,
    /// By kind and key.
    pub(super) records: BTreeMap<(String, Digest), RecordEntry>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerEntry {
    pub(super) stored: Stored,
    pub(super) claims: Claims,
    /// When a build last used it, in seconds since 1970.
    pub(super) used: i64,
}

/// What is said of a layer before its tree is here; compared with it then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The newest canonical time of any entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<i64>,
    /// The logical time; none if its times are real.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) logical: Option<i64>,
    /// The root directory's attributes, if the layer sets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<DirAttrs>,
}

/// What a cache mount held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountEntry {
    pub(super) spec: CacheMountSpec,
    pub(super) stored: Stored,
    /// Of its tar.
    pub(super) digest: Digest,
    pub(super) used: i64,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordEntry {
    pub(super) text: String,
    /// The layer that it leads to, if it leads to one.
    pub(super) layer: Option<DiffId>,
    pub(super) used: i64,
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

impl Index {
    /// Reads a sealed index.
    pub(super) fn read(sealed: &[u8], key: Option<&IndexKey>) -> Result<Index, RemoteError> {
        let json = open(sealed, key)?;
        let wire: Wire =
            serde_json::from_slice(&json).map_err(|e| RemoteError::damaged("index", e.to_string()))?;
        if wire.version != VERSION {
            return Err(RemoteError::damaged(
                "index",
                format!("it has version {}, this box understands {VERSION}", wire.version),
            ));
        }
        let mut index = wire
            .index()
            .ok_or_else(|| RemoteError::damaged("index", "it refers to packs that it does not name"))?;
        index.not_later_than(now());
        Ok(index)
    }

    /// A clock that was ahead must not make its entries win for ever.
    fn not_later_than(&mut self, now: i64) {
        self.layers
            .values_mut()
            .for_each(|layer| layer.used = layer.used.min(now));
        self.mounts
            .values_mut()
            .for_each(|mount| mount.used = mount.used.min(now));
        self.records
            .values_mut()
            .for_each(|record| record.used = record.used.min(now));
    }

    /// Seals it.
    pub(super) fn write(&self, key: Option<&IndexKey>) -> Result<Vec<u8>, RemoteError> {
        // Strings and numbers can always be written.
        seal(&serde_json::to_vec(&Wire::of(self)).unwrap_or_default(), key)
    }

    /// Takes the entries of another one; of two for the same thing that which was used last.
    pub(super) fn merge(&mut self, other: Index) {
        fn all<K: Ord, V>(into: &mut BTreeMap<K, V>, from: BTreeMap<K, V>, used: impl Fn(&V) -> i64) {
            for (key, value) in from {
                let is_older = into.get(&key).is_some_and(|known| used(known) >= used(&value));
                if !is_older {
                    into.insert(key, value);
                }
            }
        }
        all(&mut self.layers, other.layers, |layer| layer.used);
        all(&mut self.mounts, other.mounts, |mount| mount.used);
        all(&mut self.records, other.records, |record| record.used);
    }

    fn streams(&self) -> impl Iterator<Item = (&Stored, i64)> {
        let layers = self.layers.values().map(|layer| (&layer.stored, layer.used));
        layers.chain(self.mounts.values().map(|mount| (&mount.stored, mount.used)))
    }

    /// All packs that it needs.
    pub(super) fn packs(&self) -> BTreeSet<Object> {
        self.streams()
            .flat_map(|(stored, _)| stored.packs.iter().copied())
            .collect()
    }

    /// Forgets what needs one of these packs.
    pub(super) fn forget(&mut self, gone: &BTreeSet<Object>) {
        let is_whole = |stored: &Stored| stored.packs.is_disjoint(gone);
        self.layers.retain(|_, layer| is_whole(&layer.stored));
        self.mounts.retain(|_, mount| is_whole(&mount.stored));
        self.drop_dangling();
    }

    /// Keeps of layers and mounts those that were used last and whose packs have together no more than `limit` bytes.
    pub(super) fn evict(&mut self, limit: Option<u64>) {
        let mut all: Vec<_> = self
            .streams()
            .map(|(stored, used)| (stored.clone(), used))
            .collect();
        all.sort_by(|(a, a_used), (b, b_used)| {
            b_used
                .cmp(a_used)
                .then_with(|| (a.size, a.list.digest).cmp(&(b.size, b.list.digest)))
        });
        let (mut kept, mut total) = (BTreeSet::new(), 0);
        for (stored, _) in &all {
            let more = stored
                .packs
                .difference(&kept)
                .fold(0, |sum: u64, pack| sum.saturating_add(pack.size));
            let with = more.saturating_add(total);
            if limit.is_none_or(|limit| with <= limit) {
                total = with;
                kept.extend(stored.packs.iter().copied());
            }
        }
        let gone = all
            .iter()
            .flat_map(|(stored, _)| &stored.packs)
            .filter(|pack| !kept.contains(pack));
        let gone = gone.copied().collect();
        self.forget(&gone);
        if let Some(excess) = self.records.len().checked_sub(MAX_RECORDS) {
            let mut by_use: Vec<_> = self
                .records
                .iter()
                .map(|(key, record)| (record.used, key.clone()))
                .collect();
            by_use.sort();
            by_use
                .iter()
                .take(excess)
                .for_each(|(_, key)| drop(self.records.remove(key)));
        }
    }

    /// A record without its layer leads nowhere.
    fn drop_dangling(&mut self) {
        let layers = &self.layers;
        let leads = |record: &RecordEntry| record.layer.is_none_or(|layer| layers.contains_key(&layer));
        self.records.retain(|_, record| leads(record));
    }
}

/// The index as JSON; packs are named by their place in a list.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    packs: Vec<Object>,
    layers: Vec<WireLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<WireMount>,
    records: Vec<WireRecord>,
}

#[derive(Serialize, Deserialize)]
struct WireStored {
    /// Pack, first byte, length packed, length plain.
    list: (u32, u32, u32, u32),
    list_digest: Digest,
    packs: Vec<u32>,
    size: u64,
    used: i64,
}

#[derive(Serialize, Deserialize)]
struct WireLayer {
    diff_id: DiffId,
    #[serde(flatten)]
    claims: Claims,
    #[serde(flatten)]
    stored: WireStored,
}

#[derive(Serialize, Deserialize)]
struct WireMount {
    spec: CacheMountSpec,
    digest: Digest,
    #[serde(flatten)]
    stored: WireStored,
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

impl WireStored {
    fn of(stored: &Stored, used: i64, numbers: &BTreeMap<Object, u32>) -> WireStored {
        let number = |pack: &Object| numbers.get(pack).copied().unwrap_or(u32::MAX);
        let list = &stored.list;
        WireStored {
            list: (number(&list.pack), list.at, list.packed, list.plain),
            list_digest: list.digest,
            packs: stored.packs.iter().map(number).collect(),
            size: stored.size,
            used,
        }
    }

    fn stored(&self, packs: &[Object]) -> Option<Stored> {
        let pack = |number: u32| packs.get(usize::try_from(number).ok()?).copied();
        let (number, at, packed, plain) = self.list;
        let list = Chunk {
            digest: self.list_digest,
            pack: pack(number)?,
            at,
            packed,
            plain,
        };
        let is_inside = u64::from(at) + u64::from(packed) <= list.pack.size;
        let packs = self
            .packs
            .iter()
            .map(|&number| pack(number))
            .collect::<Option<BTreeSet<_>>>()?;
        (is_inside && packs.contains(&list.pack)).then_some(Stored {
            list,
            packs,
            size: self.size,
        })
    }
}

impl Wire {
    fn of(index: &Index) -> Wire {
        let packs: Vec<Object> = index.packs().into_iter().collect();
        let numbers = packs.iter().copied().zip(0..).collect();
        let layers = index.layers.iter().map(|(diff_id, layer)| WireLayer {
            diff_id: *diff_id,
            claims: layer.claims.clone(),
            stored: WireStored::of(&layer.stored, layer.used, &numbers),
        });
        let mounts = index.mounts.values().map(|mount| WireMount {
            spec: mount.spec.clone(),
            digest: mount.digest,
            stored: WireStored::of(&mount.stored, mount.used, &numbers),
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

    fn index(self) -> Option<Index> {
        let packs = &self.packs;
        let layers = self.layers.into_iter().map(|layer| {
            let entry = LayerEntry {
                stored: layer.stored.stored(packs)?,
                claims: layer.claims,
                used: layer.stored.used,
            };
            Some((layer.diff_id, entry))
        });
        let mounts = self.mounts.into_iter().map(|mount| {
            let entry = MountEntry {
                stored: mount.stored.stored(packs)?,
                digest: mount.digest,
                used: mount.stored.used,
                spec: mount.spec,
            };
            Some((entry.spec.key(), entry))
        });
        let records = self.records.into_iter().map(|record| {
            let entry = RecordEntry {
                text: record.text,
                layer: record.layer,
                used: record.used,
            };
            ((record.kind, record.key), entry)
        });
        let mut index = Index {
            layers: layers.collect::<Option<_>>()?,
            mounts: mounts.collect::<Option<_>>()?,
            records: records.collect(),
        };
        index.drop_dangling();
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(name: &str, size: u64) -> Object {
        Object {
            digest: Digest::of(name.as_bytes()),
            size,
        }
    }

    fn stored(packs: &[Object]) -> Stored {
        Stored {
            list: Chunk {
                digest: Digest::of(b"list"),
                pack: packs[0],
                at: 1,
                packed: 2,
                plain: 3,
            },
            packs: packs.iter().copied().collect(),
            size: 9,
        }
    }

    fn index(layers: &[(&str, &[Object], i64)]) -> Index {
        let mut index = Index::default();
        for (name, packs, used) in layers {
            let diff_id = DiffId(Digest::of(name.as_bytes()));
            let entry = LayerEntry {
                stored: stored(packs),
                claims: Claims::default(),
                used: *used,
            };
            index.layers.insert(diff_id, entry);
            let record = RecordEntry {
                text: "{}".to_owned(),
                layer: Some(diff_id),
                used: *used,
            };
            index.records.insert(("step".to_owned(), diff_id.0), record);
        }
        index
    }

    #[test]
    fn it_comes_back() {
        let mut index = index(&[
            ("a", &[pack("1", 10), pack("2", 20)], 5),
            ("b", &[pack("2", 20)], 6),
        ]);
        let spec = CacheMountSpec {
            id: "apt".to_owned(),
            base: String::new(),
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        let mount = MountEntry {
            spec: spec.clone(),
            stored: stored(&[pack("3", 7)]),
            digest: Digest::of(b"tar"),
            used: 4,
        };
        index.mounts.insert(spec.key(), mount);
        assert_eq!(Index::read(&index.write(None).unwrap(), None).unwrap(), index);
        let json = br#"{"version":2,"packs":[],"layers":[],"records":[]}"#;
        assert!(Index::read(&seal(json, None).unwrap(), None).is_err());
        let lying = br#"{"version":1,"packs":[],"layers":[{"diff_id":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","list":[0,0,0,0],"list_digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","packs":[0],"size":1,"used":1}],"records":[]}"#;
        assert!(Index::read(&seal(lying, None).unwrap(), None).is_err());
    }

    #[test]
    fn of_two_writers_none_is_lost_and_the_last_use_counts() {
        let (old, new) = (pack("old", 1), pack("new", 1));
        let mut one = index(&[("a", &[old], 1), ("b", &[old], 1)]);
        let two = index(&[("a", &[new], 2), ("c", &[new], 2)]);
        one.merge(two.clone());
        assert_eq!(one.layers.len(), 3);
        assert_eq!(one.layers[&DiffId(Digest::of(b"a"))].used, 2);
        let mut other = two;
        other.merge(index(&[("a", &[old], 1), ("b", &[old], 1)]));
        assert_eq!(one, other);
    }

    #[test]
    fn what_was_used_last_stays() {
        let check = |limit: Option<u64>, expected: &[&str]| {
            let shared = pack("s", 40);
            let mut index = index(&[
                ("new", &[pack("n", 30), shared], 9),
                ("old", &[pack("o", 30)], 1),
                ("middle", &[shared], 5),
            ]);
            index.evict(limit);
            let expected: BTreeSet<_> = expected
                .iter()
                .map(|name| DiffId(Digest::of(name.as_bytes())))
                .collect();
            assert_eq!(
                index.layers.keys().copied().collect::<BTreeSet<_>>(),
                expected,
                "{limit:?}"
            );
            assert_eq!(index.records.len(), expected.len());
            assert!(limit.is_none_or(|limit| index.packs().iter().map(|p| p.size).sum::<u64>() <= limit));
        };
        check(None, &["new", "middle", "old"]);
        check(Some(100), &["new", "middle", "old"]);
        check(Some(99), &["new", "middle"]);
        check(Some(69), &["middle"]);
        check(Some(39), &["old"]);
        check(Some(0), &[]);
    }
}
