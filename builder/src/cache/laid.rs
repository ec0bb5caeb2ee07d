//! What a copy of a directory laid down, so that the next one need write only what differs.
//!
//! Kept for large copies of the context, by the layer they made, with the key under which that was: the same layer may come of
//! a copy that says something else. Unlike in a list of an input's files, nothing is shortened here: what is equal is taken from the
//! earlier layer unread.
//!
//! ```text
//! record `packed-laid`, key: the layer's digest (it lives as long as the layer)
//!   box laid 1\n, the step's key [32], then for each entry: length of the path u32, the path, its type u8,
//!   SHA-256 of all that a copy can show of it [32]; little-endian
//! or, of a layer that was laid over another:
//!   box laid over 1\n, the step's key [32], the other's key [32], its layer's digest [32]
//! ```

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use box_store::Store;
use box_store::digest::{DiffId, Digest, Hasher};
use box_store::error::StoreError;
use box_store::record::RecordKind;

use super::KeyId;
use crate::files::{Entry, EntryKind, Selection};

const MAGIC: &[u8] = b"box laid 1\n";
const MAGIC_OVER: &[u8] = b"box laid over 1\n";
/// Fewer entries are copied as fast.
const FEWEST: usize = 256;
/// The longest list that is kept, in bytes: records have a limit, too.
const LONGEST: usize = 64 << 20;
/// At most one in so many entries may differ.
const PART: usize = 4;

/// Path, type and digest of one entry.
type Line<'a> = (&'a [u8], u8, &'a [u8]);

/// What is kept of a layer that is a large copy.
#[derive(Debug)]
pub(crate) enum Kept {
    /// All that was copied.
    Whole(Laid),
    /// It was laid over the layer that the step with another key made.
    Over(KeyId, DiffId),
}

impl Kept {
    /// Keeps it with the layer that the step with this key made.
    pub(crate) fn keep(&self, store: &Store, key: KeyId, layer: &DiffId) -> Result<(), StoreError> {
        let bytes = match self {
            Kept::Whole(Laid(entries)) => [MAGIC, key.0.as_bytes(), entries].concat(),
            // Nothing differed in the end: what is known of that layer stays.
            Kept::Over(_, other) if other == layer => return Ok(()),
            Kept::Over(other, base) => {
                let (other, base) = (other.0.as_bytes(), base.0.as_bytes());
                [MAGIC_OVER, key.0.as_bytes(), other, base].concat()
            }
        };
        store.put_record(&kind()?, &layer.0, &bytes, &[])
    }

    /// The copy that what the step with this key made can be known by, if any: its own, or the one it was laid over.
    pub(crate) fn find(
        store: &Store,
        (key, layer): (KeyId, DiffId),
    ) -> Result<Option<(KeyId, DiffId, Laid)>, StoreError> {
        match read(store, key, &layer)? {
            Some(Kept::Whole(laid)) => Ok(Some((key, layer, laid))),
            Some(Kept::Over(key, layer)) => match read(store, key, &layer)? {
                Some(Kept::Whole(laid)) => Ok(Some((key, layer, laid))),
                _ => Ok(None),
            },
            None => Ok(None),
        }
    }
}

fn read(store: &Store, key: KeyId, layer: &DiffId) -> Result<Option<Kept>, StoreError> {
    let Some(record) = store.get_record(&kind()?, &layer.0)? else {
        return Ok(None);
    };
    let after = |magic: &[u8]| record.bytes.strip_prefix(&[magic, key.0.as_bytes()].concat()[..]);
    if let Some(entries) = after(MAGIC) {
        return Ok(Some(Kept::Whole(Laid(entries.to_vec()))));
    }
    let over = after(MAGIC_OVER).and_then(|rest| <&[u8; 64]>::try_from(rest).ok());
    Ok(over.map(|both| {
        let half = |at: usize| std::array::from_fn(|byte| both[at + byte]);
        Kept::Over(
            KeyId(Digest::from_bytes(half(0))),
            DiffId(Digest::from_bytes(half(32))),
        )
    }))
}

/// The entries of a directory's copy.
#[derive(Debug)]
pub(crate) struct Laid(Vec<u8>);

impl Laid {
    /// Of this selection from a context; none where it is no large directory.
    pub(crate) fn of(selection: &Selection) -> Option<Laid> {
        if !selection.is_directory() || selection.entries.len() < FEWEST {
            return None;
        }
        let mut bytes = Vec::with_capacity(selection.entries.len() * 80);
        // The directory itself is not copied.
        for entry in &selection.entries[1..] {
            let path = entry.relative.as_os_str().as_bytes();
            bytes.extend_from_slice(&u32::try_from(path.len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(path);
            bytes.push(letter(entry));
            let mut hasher = Hasher::new();
            entry.hash_into(&mut hasher, false);
            bytes.extend_from_slice(hasher.finish().as_bytes());
        }
        (bytes.len() <= LONGEST).then_some(Laid(bytes))
    }

    /// Which entries of `selection`, of which this is the list, are to be laid over `earlier` to make it this; by their places. None if that does
    /// not do (something was removed, or is of another type), or is not worth it.
    pub(crate) fn since(&self, earlier: &Laid) -> Option<Vec<usize>> {
        let mut known = HashMap::with_capacity(earlier.0.len() / 64);
        for (path, kind, digest) in earlier.entries()? {
            known.insert(path, (kind, digest));
        }
        let entries = self.entries()?;
        let count = entries.len();
        let mut changed = Vec::new();
        for (at, (path, kind, digest)) in entries.into_iter().enumerate() {
            match known.remove(path) {
                Some((_, same)) if same == digest => continue,
                Some((old, _)) if !is_leaf(old) || !is_leaf(kind) => return None,
                _ => changed.push(at + 1),
            }
        }
        let is_enough = known.is_empty() && changed.len() <= count / PART;
        is_enough.then_some(changed)
    }

    /// Path, type and digest of each; none if it is malformed.
    fn entries(&self) -> Option<Vec<Line<'_>>> {
        let mut rest = self.0.as_slice();
        let mut entries = Vec::with_capacity(rest.len() / 64);
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (path, after) = after.split_at_checked(length)?;
            let (kind, after) = after.split_first()?;
            let (digest, after) = after.split_at_checked(32)?;
            entries.push((path, *kind, digest));
            rest = after;
        }
        Some(entries)
    }
}

fn letter(entry: &Entry) -> u8 {
    match entry.meta.kind {
        EntryKind::File => b'f',
        EntryKind::Symlink => b'l',
        EntryKind::Directory => b'd',
        _ => b'?',
    }
}

/// Whether one such entry over another hides all of it.
fn is_leaf(kind: u8) -> bool {
    matches!(kind, b'f' | b'l')
}

fn kind() -> Result<RecordKind, StoreError> {
    RecordKind::new("packed-laid")
}
