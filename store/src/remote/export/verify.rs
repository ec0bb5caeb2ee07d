//! What a build could not get out of the cache that it writes is looked at again.

use std::collections::BTreeSet;

use super::Job;
use crate::digest::{DiffId, Digest};
use crate::remote::backend::Object;
use crate::remote::error::RemoteError;
use crate::remote::index::Index;
use crate::remote::seal::PACKED_LIMIT;

/// Packs that are read, and their bytes together: a cache that says more of one build's layers is no cache.
const PACKS: usize = 512;
const BYTES: u64 = 1 << 30;

/// Reads the packs of what could not be had; removes and gives those that are damaged. What the index says of it is forgotten.
pub(super) fn verify(
    job: &Job<'_>,
    index: &mut Index,
    notes: &mut Vec<String>,
) -> Result<BTreeSet<Object>, RemoteError> {
    let mut packs = BTreeSet::new();
    for suspect in &job.uses.suspects {
        let layer = index.layers.remove(&DiffId(*suspect)).map(|entry| entry.stored);
        let mount = index.mounts.remove(suspect).map(|entry| entry.stored);
        packs.extend(
            [layer, mount]
                .into_iter()
                .flatten()
                .flat_map(|stored| stored.packs),
        );
    }
    let (mut damaged, mut kept, mut left) = (BTreeSet::new(), 0, BYTES);
    for pack in packs.into_iter().take(PACKS) {
        if (job.cancelled)() {
            return Err(RemoteError::Cancelled);
        }
        // What is longer is no pack of ours.
        let bytes = match pack.size <= PACKED_LIMIT {
            true if pack.size > left => continue,
            true => job.backend.read(&pack, 0, pack.size),
            false => Ok(None),
        };
        left = left.saturating_sub(pack.size.min(PACKED_LIMIT));
        match bytes {
            Ok(Some(bytes)) if Digest::of(&bytes) == pack.digest => continue,
            // Its disk can't read it.
            Ok(_) | Err(RemoteError::Io { .. }) => {}
            Err(RemoteError::Cancelled) => return Err(RemoteError::Cancelled),
            // Who knows what it is. The layer is sent once more.
            Err(_) => continue,
        }
        kept += usize::from(!job.backend.discard(&pack)?);
        damaged.insert(pack);
    }
    if damaged.len() > kept {
        notes.push(format!(
            "{} packs are damaged; what they held is sent again",
            damaged.len() - kept
        ));
    }
    if kept > 0 {
        notes.push(format!(
            "{kept} packs are damaged in the registry, which removes nothing by itself: give the cache another name (ref=), or have the \
             registry collect its garbage"
        ));
    }
    Ok(damaged)
}
