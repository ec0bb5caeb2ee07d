//! What was done but is not recorded yet, since a digest is still being computed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use box_store::digest::{ChainId, DiffId};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::lock::LockGuard;

use crate::cache::{About, Cache, CacheKey, Kept, KeyId, KeyParts, Whence};

/// A step that was done, holding its lock until others can find it.
pub(super) struct Done {
    pub(super) parts: KeyParts,
    /// The layers below.
    pub(super) below: Vec<Layer>,
    pub(super) layer: Option<Layer>,
    pub(super) lock: Option<LockGuard>,
    /// What of a context its layer is a copy of, if that is to be kept.
    pub(super) laid: Option<Kept>,
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
        if let (Some(laid), Some(layer)) = (&self.laid, &layer) {
            laid.keep(cache.store(), KeyId::new(parent, self.parts.id()), layer)?;
        }
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
    state: Mutex<State>,
    changed: Condvar,
    count: AtomicUsize,
}

#[derive(Default)]
struct State {
    list: Vec<Done>,
    /// How many do steps.
    workers: usize,
}

/// How often is looked whether a digest is there.
const TICK: Duration = Duration::from_millis(2);

/// Somebody who does steps, until this is dropped.
pub(super) struct Worker<'a>(&'a Recorder);

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.0.state().workers -= 1;
        self.0.changed.notify_all();
    }
}

impl Recorder {
    /// Takes a step, and records all whose digests are known.
    pub(super) fn add(&self, cache: &Cache<'_>, done: Done) -> Result<(), StoreError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.state().list.push(done);
        self.changed.notify_all();
        self.flush(cache, Done::is_ready)
    }

    /// Notes that somebody will do steps.
    pub(super) fn worker(&self) -> Worker<'_> {
        self.state().workers += 1;
        Worker(self)
    }

    /// Records steps as soon as their digests are known, until no worker is left: other builds may wait for them.
    ///
    /// # Errors
    /// The first that recording gave; it goes on nevertheless.
    pub(super) fn serve(&self, cache: &Cache<'_>, on_error: impl Fn()) -> Result<(), StoreError> {
        let mut result = Ok(());
        loop {
            if let Err(error) = self.poll(cache)
                && result.is_ok()
            {
                result = Err(error);
                on_error();
            }
            let state = self.state();
            if state.workers == 0 {
                return result;
            }
            // Woken by the next step, or by the last worker.
            drop(match state.list.is_empty() {
                true => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                false => {
                    let waited = self.changed.wait_timeout(state, TICK);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            });
        }
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
        let due: Vec<Done> = self.state().list.extract_if(.., |done| is_due(done)).collect();
        // All are tried: a layer whose digest failed takes none of the others with it.
        let results: Vec<_> = due.into_iter().map(|done| done.record(cache)).collect();
        results.into_iter().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
