//! Ranges of host ids for containers started by root.
//!
//! Every container gets user and group ids of its own, so that whatever leaves it is nobody on the host. Ids are the
//! machine's, not a store's, so the locks are in one place of the machine (`/run/box/ranges`, on tmpfs): a slot is
//! 65,536 ids, used by whoever holds the `flock` of the file named after it, and free again when the holder is gone.
//! A container needs one slot for each 64 Ki page of ids that its files use, nearly always one.

use std::collections::BTreeSet;
use std::fs::{OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use box_runner::{IdExtent, IdMap};

/// The first host id that is handed out; ordinary users' and their subordinate ids lie far below.
const FIRST_HOST_ID: u32 = 1 << 30;
const PAGE: u32 = 1 << 16;
/// Up to 2³¹: the kernel's own limit for some file systems' ids.
const SLOTS: u32 = (1 << 30) / PAGE;
/// The kernel takes 340 extents at most.
const MAX_PAGES: usize = 340;

/// Ids that are this process' own as long as the value lives.
#[derive(Debug)]
pub(crate) struct IdRange {
    map: IdMap,
    /// Closed last by whoever closes them last: containers that share a user namespace share these, too.
    locks: Vec<OwnedFd>,
}

impl IdRange {
    /// Takes free slots for these pages of container ids (`id >> 16`); page 0 is always among them.
    pub(crate) fn take(directory: &Path, pages: &BTreeSet<u32>) -> io::Result<Self> {
        let mut pages = pages.clone();
        pages.insert(0);
        if pages.len() > MAX_PAGES {
            return Err(io::Error::other(format!(
                "the image's files use ids in {} different ranges of 65,536; the kernel maps {MAX_PAGES} at most",
                pages.len()
            )));
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let mut locks = Vec::new();
        let mut extents = Vec::new();
        let mut slots = 0..SLOTS;
        for page in pages {
            let (slot, lock) = free_slot(directory, &mut slots)?;
            locks.push(lock);
            extents.push(IdExtent {
                container: page * PAGE,
                host: FIRST_HOST_ID + slot * PAGE,
                len: page_len(page),
            });
        }
        Ok(Self {
            map: IdMap::of(extents),
            locks,
        })
    }

    /// The mapping for the container's user namespace.
    pub(crate) fn map(&self) -> &IdMap {
        &self.map
    }

    /// What keeps the ids from others.
    pub(crate) fn into_locks(self) -> Vec<OwnedFd> {
        self.locks
    }
}

/// The very last id, 2³²−1, means "no id" and can't be mapped.
fn page_len(page: u32) -> u32 {
    if page == u32::MAX >> 16 { PAGE - 1 } else { PAGE }
}

fn free_slot(directory: &Path, slots: &mut std::ops::Range<u32>) -> io::Result<(u32, OwnedFd)> {
    for slot in slots {
        let path = directory.join(slot.to_string());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => return Ok((slot, file.into())),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
    Err(io::Error::other(format!(
        "all {SLOTS} ranges of container ids are in use"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_never_share_ids() {
        let dir = tempfile::tempdir().unwrap();
        let one = IdRange::take(dir.path(), &BTreeSet::new()).unwrap();
        let two = IdRange::take(dir.path(), &BTreeSet::from([0, 7])).unwrap();
        let hosts: BTreeSet<u32> = one
            .map()
            .extents
            .iter()
            .chain(&two.map().extents)
            .map(|extent| extent.host)
            .collect();
        assert_eq!(hosts.len(), 3);
        assert_eq!(two.map().extents[1].container, 7 << 16);
        let host = one.map().extents[0].host;
        drop(one);
        let three = IdRange::take(dir.path(), &BTreeSet::new()).unwrap();
        assert_eq!(three.map().extents[0].host, host, "a dropped range is free again");
    }

    #[test]
    fn the_last_id_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let range = IdRange::take(dir.path(), &BTreeSet::from([0xffff])).unwrap();
        assert_eq!(range.map().extents[1].len, PAGE - 1);
    }
}
