//! The stat cache: what files were found to hold, by device, inode, size and times, so that an unchanged one is not read.
//!
//! Like git's index it must not trust a file that was written in the same tick of the clock in which it was read: a
//! later write might leave every number equal. So an entry is kept only if the file's change time was already over when
//! it was looked at ([`Facts`] of younger files are used once, and read again by the next build). Change times are the
//! kernel's; no program can set them back, so a file with the size and modification time of another is told apart.
//!
//! ```text
//! box stat 1\n
//! entries: device u64, inode u64, size u64, modified i128, changed i128 (ns), age u8, digest [32],
//!          length u32 of the attributes, attributes as JSON (empty for none); little-endian
//! ```

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use box_store::digest::Digest;

use crate::files::{Facts, Stamp, Xattr};

const MAGIC: &[u8] = b"box stat 1\n";
/// Times that are written without the entry being seen before it is dropped.
const MAX_AGE: u8 = 8;
/// Clocks of file systems tick at least this often, …
const TICK: i128 = 100_000_000;
/// … and those that know whole seconds alone, every two.
const COARSE_TICK: i128 = 2_000_000_000;

#[derive(Clone, Debug)]
struct Known {
    size: u64,
    modified: i128,
    changed: i128,
    age: u8,
    is_seen: bool,
    facts: Facts,
}

/// What is known of files.
#[derive(Debug, Default)]
pub(crate) struct StatCache {
    known: HashMap<(u64, u64), Known>,
    is_changed: bool,
}

impl StatCache {
    /// What a file with this stamp and size holds, if that is known.
    pub(crate) fn get(&mut self, stamp: &Stamp, size: u64) -> Option<Facts> {
        let known = self.known.get_mut(&(stamp.device, stamp.inode))?;
        let is_same =
            known.size == size && known.modified == stamp.modified && known.changed == stamp.changed;
        known.is_seen |= is_same;
        is_same.then(|| known.facts.clone())
    }

    /// Keeps what the file with this stamp holds; `now` (nanoseconds since 1970) is when it was looked at, before it was
    /// read. Too young a file is not kept.
    pub(crate) fn put(&mut self, stamp: &Stamp, size: u64, facts: &Facts, now: i128) {
        let tick = if stamp.changed % 1_000_000_000 == 0 {
            COARSE_TICK
        } else {
            TICK
        };
        if stamp.changed + tick > now {
            return;
        }
        let facts = facts.clone();
        let known = Known {
            size,
            modified: stamp.modified,
            changed: stamp.changed,
            age: 0,
            is_seen: true,
            facts,
        };
        self.known.insert((stamp.device, stamp.inode), known);
        self.is_changed = true;
    }

    /// Reads what [`write`](Self::write) wrote; anything else is an empty cache.
    pub(crate) fn read(bytes: &[u8]) -> StatCache {
        let known = bytes.strip_prefix(MAGIC).and_then(|rest| parse(Reader(rest)));
        StatCache {
            known: known.unwrap_or_default(),
            is_changed: false,
        }
    }

    /// The cache as bytes; none if it says nothing new.
    pub(crate) fn write(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        for known in self.known.values_mut() {
            known.age = if known.is_seen { 0 } else { known.age + 1 };
        }
        self.known.retain(|_, known| known.age <= MAX_AGE);
        let mut entries: Vec<_> = self.known.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| **key);
        let mut out = MAGIC.to_vec();
        entries
            .into_iter()
            .for_each(|(key, known)| write_entry(&mut out, *key, known));
        Some(out)
    }
}

fn write_entry(out: &mut Vec<u8>, (device, inode): (u64, u64), known: &Known) {
    for number in [device, inode, known.size] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&known.modified.to_le_bytes());
    out.extend_from_slice(&known.changed.to_le_bytes());
    out.push(known.age);
    out.extend_from_slice(known.facts.digest.as_bytes());
    let xattrs = write_xattrs(&known.facts.xattrs);
    // Attributes of one file are bounded by the kernel (64 KiB each, few fit).
    out.extend_from_slice(&u32::try_from(xattrs.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&xattrs);
}

fn write_xattrs(xattrs: &[Xattr]) -> Vec<u8> {
    if xattrs.is_empty() {
        return Vec::new();
    }
    let pairs: Vec<(&[u8], &[u8])> = xattrs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_slice()))
        .collect();
    serde_json::to_vec(&pairs).unwrap_or_default()
}

fn parse(mut reader: Reader<'_>) -> Option<HashMap<(u64, u64), Known>> {
    let mut known = HashMap::with_capacity(reader.0.len() / 93);
    while !reader.0.is_empty() {
        let key = (reader.u64()?, reader.u64()?);
        let (size, modified, changed) = (reader.u64()?, reader.i128()?, reader.i128()?);
        let age = reader.array::<1>()?[0];
        let digest = Digest::from_bytes(reader.array()?);
        let length = u32::from_le_bytes(reader.array()?);
        let xattrs = parse_xattrs(reader.take(usize::try_from(length).ok()?)?)?;
        let facts = Facts { digest, xattrs };
        known.insert(
            key,
            Known {
                size,
                modified,
                changed,
                age,
                is_seen: false,
                facts,
            },
        );
    }
    Some(known)
}

fn parse_xattrs(bytes: &[u8]) -> Option<Vec<Xattr>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = serde_json::from_slice(bytes).ok()?;
    Some(
        pairs
            .into_iter()
            .map(|(name, value)| (OsString::from_vec(name), value))
            .collect(),
    )
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn i128(&mut self) -> Option<i128> {
        Some(i128::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    fn stamp(inode: u64) -> Stamp {
        Stamp {
            device: 1,
            inode,
            modified: 5 * SECOND + 1,
            changed: 5 * SECOND + 1,
        }
    }

    fn facts(text: &str) -> Facts {
        Facts {
            digest: Digest::of(text.as_bytes()),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut cache = StatCache::default();
        let attributed = Facts {
            xattrs: vec![("user.é".into(), vec![0, 255])],
            ..facts("b")
        };
        cache.put(&stamp(1), 3, &facts("a"), 10 * SECOND);
        cache.put(&stamp(2), 3, &attributed, 10 * SECOND);
        let bytes = cache.write().unwrap();
        assert_eq!(cache.write(), None);
        let mut again = StatCache::read(&bytes);
        assert_eq!(again.get(&stamp(1), 3), Some(facts("a")));
        assert_eq!(again.get(&stamp(2), 3), Some(attributed));
        assert_eq!(again.get(&stamp(3), 3), None);
        assert_eq!(again.write(), None);
        for end in 0..bytes.len() {
            drop(StatCache::read(&bytes[..end]));
        }
    }

    #[test]
    fn any_difference_is_another_file() {
        let mut cache = StatCache::default();
        cache.put(&stamp(1), 3, &facts("a"), 10 * SECOND);
        assert_eq!(cache.get(&stamp(1), 4), None);
        assert_eq!(
            cache.get(
                &Stamp {
                    changed: 6 * SECOND,
                    ..stamp(1)
                },
                3
            ),
            None
        );
        assert_eq!(
            cache.get(
                &Stamp {
                    modified: 6 * SECOND,
                    ..stamp(1)
                },
                3
            ),
            None
        );
        assert_eq!(
            cache.get(
                &Stamp {
                    device: 2,
                    ..stamp(1)
                },
                3
            ),
            None
        );
    }

    #[test]
    fn young_files_are_not_trusted() {
        let mut cache = StatCache::default();
        cache.put(&stamp(1), 3, &facts("a"), 5 * SECOND + 2);
        cache.put(
            &Stamp {
                changed: 5 * SECOND,
                ..stamp(2)
            },
            3,
            &facts("a"),
            6 * SECOND,
        );
        assert_eq!(cache.write(), None);
        cache.put(
            &Stamp {
                changed: 5 * SECOND,
                ..stamp(2)
            },
            3,
            &facts("a"),
            7 * SECOND,
        );
        assert!(cache.write().is_some());
    }

    #[test]
    fn what_is_never_seen_again_goes() {
        let mut cache = StatCache::default();
        cache.put(&stamp(1), 3, &facts("old"), 10 * SECOND);
        let mut bytes = cache.write().unwrap();
        for round in 2..20 {
            let mut cache = StatCache::read(&bytes);
            cache.put(&stamp(round), 3, &facts("new"), 10 * SECOND);
            bytes = cache.write().unwrap();
        }
        assert_eq!(StatCache::read(&bytes).get(&stamp(1), 3), None);
        assert!(StatCache::read(&bytes).known.len() < 12);
    }
}
