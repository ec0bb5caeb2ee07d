//! The index: what a cache holds, merged from what several writers put there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use super::backend::Object;
use super::error::RemoteError;
use super::pack::Stored;
use super::seal::{IndexKey, PACKED_LIMIT, open, seal};
use crate::cache_mount::CacheMountSpec;
use crate::digest::{DiffId, Digest};
use crate::layer::DirAttrs;

mod wire;

use self::wire::Wire;

const VERSION: u32 = 1;
/// Records that are kept, at most: of more, those that were used last.
const MAX_RECORDS: usize = 50_000;
/// How long an index, and all of a cache together, may be as JSON, in bytes; and how often streams name packs in one. Whoever can write a
/// cache must not fill a reader's memory.
const PLAIN_LIMIT: usize = 64 << 20;
const ALL_PLAIN_LIMIT: usize = 128 << 20;
const REFERENCES: usize = 1 << 20;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// The newest canonical time of any entry.
    pub(super) newest: Option<i64>,
    /// The logical time; none if its times are real.
    pub(super) logical: Option<i64>,
    /// The root directory's attributes, if the layer sets them.
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
    /// Reads all that a cache holds; what can't be read is told and left out.
    pub(super) fn read_all(
        sealed: &[Vec<u8>],
        key: Option<&IndexKey>,
        warn: &mut dyn FnMut(RemoteError),
    ) -> Index {
        let mut index = Index::default();
        let mut left = ALL_PLAIN_LIMIT;
        for sealed in sealed {
            match Index::read(sealed, key, &mut left) {
                Ok(other) => index.merge(other),
                Err(error) => warn(error),
            }
        }
        index
    }

    /// Reads a sealed index, if it is no longer than what is left.
    fn read(sealed: &[u8], key: Option<&IndexKey>, left: &mut usize) -> Result<Index, RemoteError> {
        let json = open(sealed, key, PLAIN_LIMIT.min(*left))?;
        *left -= json.len();
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
            .ok_or_else(|| RemoteError::damaged("index", "what it says of its packs makes no sense"))?;
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

    /// Seals it. Of what is longer than readers take, what was used longest ago is forgotten.
    pub(super) fn write(&mut self, key: Option<&IndexKey>) -> Result<Vec<u8>, RemoteError> {
        self.write_within(key, PLAIN_LIMIT)
    }

    fn write_within(&mut self, key: Option<&IndexKey>, limit: usize) -> Result<Vec<u8>, RemoteError> {
        loop {
            let references: usize = self.streams().map(|(stored, _)| stored.packs.len()).sum();
            // Strings and numbers can always be written.
            let json = serde_json::to_vec(&Wire::of(self)).unwrap_or_default();
            let is_empty = self.layers.len() + self.mounts.len() + self.records.len() == 0;
            if is_empty || (json.len() <= limit && references <= REFERENCES) {
                let sealed = seal(&json, key)?;
                if is_empty || sealed.len() as u64 <= PACKED_LIMIT {
                    return Ok(sealed);
                }
            }
            self.forget_older_half();
        }
    }

    fn forget_older_half(&mut self) {
        fn halve<K: Ord + Clone, V>(all: &mut BTreeMap<K, V>, used: impl Fn(&V) -> i64) {
            let mut by_use: Vec<_> = all
                .iter()
                .map(|(key, value)| (used(value), key.clone()))
                .collect();
            by_use.sort();
            by_use
                .iter()
                .take(by_use.len().div_ceil(2))
                .for_each(|(_, key)| drop(all.remove(key)));
        }
        halve(&mut self.layers, |layer| layer.used);
        halve(&mut self.mounts, |mount| mount.used);
        halve(&mut self.records, |record| record.used);
        self.drop_dangling();
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

    /// Takes the entries of another one, whatever is known of the same things.
    pub(super) fn replace(&mut self, other: Index) {
        self.layers.extend(other.layers);
        self.mounts.extend(other.mounts);
        self.records.extend(other.records);
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

#[cfg(test)]
mod tests {
    use super::super::pack::Chunk;
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

    fn read(sealed: &[u8]) -> Result<Index, RemoteError> {
        Index::read(sealed, None, &mut ALL_PLAIN_LIMIT.clone())
    }

    #[test]
    fn it_never_outgrows_what_is_read() {
        let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let one = [pack("1", 10)];
        let all: Vec<_> = names
            .iter()
            .zip(0..)
            .map(|(name, used)| (name.as_str(), one.as_slice(), used))
            .collect();
        let mut index = index(&all);
        let sealed = index.write_within(None, 100_000).unwrap();
        assert!(open(&sealed, None, 100_000).is_ok());
        assert_eq!(read(&sealed).unwrap(), index);
        assert!(
            (100..1000).contains(&index.layers.len()),
            "{}",
            index.layers.len()
        );
        // Those that were used last, with what leads to them.
        assert!(
            index
                .layers
                .values()
                .all(|layer| layer.used >= 1000 - index.layers.len() as i64)
        );
        assert_eq!(index.records.len(), index.layers.len());
    }

    #[test]
    fn a_flood_is_left_out() {
        let mut index = index(&[("a", &[pack("1", 10)], 5)]);
        let small = index.write(None).unwrap();
        let record = RecordEntry {
            text: "a".repeat(PLAIN_LIMIT / 2),
            layer: None,
            used: 1,
        };
        let mut floods = Vec::new();
        for n in 0..4 {
            let mut flood = Index::default();
            flood
                .records
                .insert(("step".to_owned(), Digest::of(&[n])), record.clone());
            floods.push(flood.write(None).unwrap());
        }
        assert!(floods.iter().all(|flood| flood.len() < 64 << 10));
        let mut told = 0;
        let merged = Index::read_all(&floods, None, &mut |_| told += 1);
        assert_eq!((merged.records.len(), told), (3, 1));
        floods.insert(0, small);
        assert!(Index::read_all(&floods, None, &mut |_| {}).layers.len() == 1);
        // The same pack named again and again.
        let digest = Digest::of(b"");
        let many = format!(
            r#"{{"version":1,"packs":[{{"digest":"{digest}","size":9}}],"layers":[{{"diff_id":"{digest}","list":[0,0,0,0],"list_digest":"{digest}","packs":[0{}],"size":1,"used":1}}],"records":[]}}"#,
            ",0".repeat(REFERENCES)
        );
        assert!(read(&seal(many.as_bytes(), None).unwrap()).is_err());
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
        assert_eq!(read(&index.write(None).unwrap()).unwrap(), index);
        let json = br#"{"version":2,"packs":[],"layers":[],"records":[]}"#;
        assert!(read(&seal(json, None).unwrap()).is_err());
        let lying = br#"{"version":1,"packs":[],"layers":[{"diff_id":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","list":[0,0,0,0],"list_digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","packs":[0],"size":1,"used":1}],"records":[]}"#;
        assert!(read(&seal(lying, None).unwrap()).is_err());
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
