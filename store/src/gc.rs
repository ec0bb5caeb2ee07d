//! Collecting what nothing leads to any more, and what was not used for long.
//!
//! Everything happens while nobody else uses the store (`locks/store`, exclusive), so that nothing can come into use meanwhile;
//! running containers let go of that lock and hold their layers by `locks/use` instead ([`Store::rest`]). What is found is first
//! taken out of sight, and removed when others may go on. Nothing needs a free byte on the disk.
//!
//! Alive is what an image or a record keeps. A blob that stands for a layer, and a manifest, are alive with their layer or image.

mod alone;
mod logs;
mod mark;
mod sweep;
mod usage;

use std::time::Duration;

use crate::error::{Result, StoreError};
use crate::index;
use crate::store::Store;

pub use alone::Rest;
pub use usage::{ImageUsage, Usage};

use alone::Alone;
use mark::Marks;

/// What is collected, besides what nothing leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prune {
    /// Nothing else.
    #[default]
    Nothing,
    /// Every image without a name and every record.
    Unused,
    /// Those that were not used for this long.
    OlderThan(Duration),
    /// Of those the ones that were not used for the longest time, until the store has at most so many bytes on the disk.
    Above(u64),
}

/// How to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOptions {
    /// What else is collected.
    pub prune: Prune,
    /// How long to wait for others to be done with the store.
    pub wait: Duration,
    /// Whether everything stays, and is only counted.
    pub dry_run: bool,
}

impl Default for GcOptions {
    /// Collects what nothing leads to; waits for a minute.
    fn default() -> GcOptions {
        GcOptions {
            prune: Prune::Nothing,
            wait: Duration::from_secs(60),
            dry_run: false,
        }
    }
}

/// What was collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images without a name.
    pub images: u64,
    /// Records of the build cache.
    pub records: u64,
    /// Layers.
    pub layers: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes on the disk.
    pub bytes: u64,
    /// Bytes on the disk of what is left.
    pub left: u64,
}

impl Store {
    /// Removes what nothing leads to. No other handle of this process may be in use.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if others use the store all the time; a damaged image, whose layers can't be known. Nothing that is alive
    /// is removed, whatever happens.
    pub fn collect(&self, options: &GcOptions) -> Result<Collected> {
        let (root, _) = self.parts();
        let Some(alone) = Alone::wait(root, options.wait)? else {
            return Err(StoreError::InUse {
                path: root.layout.root().to_owned(),
            });
        };
        let mut marks = Marks::read(root, &alone)?;
        let mut collected = marks.prune(options.prune);
        let gone = marks.dead();
        collected.layers = gone.layers.len() as u64;
        collected.blobs = gone.blobs.len() as u64;
        collected.bytes = gone.bytes;
        collected.left = marks.bytes().saturating_sub(gone.bytes);
        if !options.dry_run {
            // The index must not list what goes. On a full disk there may be room for a new one only afterwards.
            let blobs = gone.blobs.iter().copied().collect();
            let listed = index::rebuild_without(root, &blobs);
            sweep::sweep(root, alone, gone)?;
            listed.or_else(|_| index::rebuild(root))?;
        }
        Ok(collected)
    }
}
