//! What was done but is not recorded yet, since a digest is still being computed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use box_store::digest::{ChainId, DiffId};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::lock::LockGuard;

use crate::cache::{About, Cache, CacheKey, KeyParts, Whence};

/// A step that was done, holding its lock until others can find it.
pub(super) struct Done {
    pub(super) parts: KeyParts,
    /// The layers below.
    pub(super) below: Vec<Layer>,
    pub(super) layer: Option<Layer>,
    pub(super) lock: Option<LockGuard>,
    /// What else is known of it, and where that is found.
    pub(super) about: About,
    pub(super) whence: Whence,
}

impl Done {
    fn is_ready(&self) -> bool {
        self.below.iter().chain(&self.layer).all(Layer::is_ready)
    }

    fn record(self, cache: &Cache<'_>) -> Result<(), StoreError> {
        let parent = chain(&self.below)?;
        let layer = self.layer.as_ref().map(Layer::diff_id).transpose()?;
        let about = About {
            below: diff_ids(&self.below)?,
            ..self.about
        };
        cache.record(
            CacheKey {
                parent,
                parts: self.parts,
            },
            layer,
            about,
            &self.whence,
        )?;
        drop(self.lock);
        Ok(())
    }
}

/// Steps on their way into the cache.
#[derive(Default)]
pub(super) struct Recorder {
    list: Mutex<Vec<Done>>,
    count: AtomicUsize,
}

impl Recorder {
    /// Takes a step, and records all whose digests are known.
    pub(super) fn add(&self, cache: &Cache<'_>, done: Done) -> Result<(), StoreError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.list().push(done);
        self.flush(cache, Done::is_ready)
    }

    /// How many steps were done.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Records all, waiting for digests.
    pub(super) fn finish(&self, cache: &Cache<'_>) -> Result<(), StoreError> {
        self.flush(cache, |_| true)
    }

    /// Records what it can without waiting.
    pub(super) fn poll(&self, cache: &Cache<'_>) -> Result<(), StoreError> {
        self.flush(cache, Done::is_ready)
    }

    fn flush(&self, cache: &Cache<'_>, is_due: impl Fn(&Done) -> bool) -> Result<(), StoreError> {
        let due: Vec<Done> = self.list().extract_if(.., |done| is_due(done)).collect();
        // All are tried: a layer whose digest failed takes none of the others with it.
        let results: Vec<_> = due.into_iter().map(|done| done.record(cache)).collect();
        results.into_iter().collect()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Done>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chain of these layers; waits for their digests.
pub(super) fn chain(layers: &[Layer]) -> Result<Option<ChainId>, StoreError> {
    Ok(ChainId::of(&diff_ids(layers)?))
}

/// The digests of these layers; waits for them.
pub(super) fn diff_ids(layers: &[Layer]) -> Result<Vec<DiffId>, StoreError> {
    layers.iter().map(Layer::diff_id).collect()
}
