//! The times that a layer's tree has on disk.

use std::collections::HashSet;

use super::Layer;
use crate::error::{IoContext, Result};
use crate::stamp::Stamp;

impl Layer {
    /// Whether an entry has this time on disk; the tree is walked once for it.
    pub(crate) fn has_mtime(&self, mtime: Stamp) -> Result<bool> {
        Ok(self.mtimes()?.contains(&mtime))
    }

    /// The times of its entries on disk; the tree is walked once for it.
    pub(crate) fn mtimes(&self) -> Result<&HashSet<Stamp>> {
        if let Some(mtimes) = self.shared.mtimes.get() {
            return Ok(mtimes);
        }
        let mut mtimes = HashSet::new();
        self.each_mtime(|mtime| {
            mtimes.insert(mtime);
        })?;
        Ok(self.shared.mtimes.get_or_init(|| mtimes))
    }

    fn each_mtime(&self, mut each: impl FnMut(Stamp)) -> Result<()> {
        let mut walk = self.walk()?;
        while let Some(visit) = walk.next().at("read", self.path())? {
            if !visit.metadata.is_whiteout() {
                each(visit.metadata.mtime);
            }
        }
        Ok(())
    }

    pub(super) fn newest_until(&self, limit: i64) -> Option<i64> {
        let mut newest = None;
        let times = &self.facts().times;
        // An unreadable tree is an error where it is used; here it only has no times.
        let _ = self.each_mtime(|mtime| {
            let time = times.canonical(mtime);
            newest = newest.max(Some(time).filter(|&time| time <= limit));
        });
        newest
    }
}
