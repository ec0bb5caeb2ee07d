//! Whose turn it is: so many steps work at once, the others wait.
//!
//! A turn is the last thing that a step takes, after the lock of its key and its caches, and only while it works: whoever has one waits
//! for nobody, so that no two wait for each other. What waits for the network, another build or another stage has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::StepError;
use crate::exec::CancelToken;
use crate::progress::StepId;

/// The turns of one build. Clones are one.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    /// Who waits; the first of the Boxfile is the next, so that stages end one after another rather than all at last.
    waiting: BTreeSet<StepId>,
    /// How long steps have waited for others.
    idle: BTreeMap<StepId, Duration>,
}

/// A step may work as long as this is held.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// So many at once, at least one.
    pub(crate) fn new(count: usize) -> Turns {
        Turns(Arc::new(Inner {
            state: Mutex::new(State {
                free: count.max(1),
                waiting: BTreeSet::new(),
                idle: BTreeMap::new(),
            }),
            changed: Condvar::new(),
        }))
    }

    /// A turn, if there is one that nobody waits for.
    pub(crate) fn try_take(&self, id: StepId) -> Option<Turn<'_>> {
        let mut state = self.state();
        if state.free == 0 || state.waiting.first().is_some_and(|first| *first < id) {
            return None;
        }
        state.free -= 1;
        Some(Turn(self))
    }

    /// Waits for a turn. [`Turns::wake`] must be called when the token is cancelled.
    ///
    /// # Errors
    /// [`StepError::Cancelled`].
    pub(crate) fn take(&self, id: StepId, cancel: &CancelToken) -> Result<Turn<'_>, StepError> {
        let mut state = self.state();
        state.waiting.insert(id);
        let is_waiting = |state: &mut State| {
            let is_next = state.free > 0 && state.waiting.first() == Some(&id);
            !is_next && !cancel.is_cancelled()
        };
        let woken = self.0.changed.wait_while(state, is_waiting);
        state = woken.unwrap_or_else(PoisonError::into_inner);
        state.waiting.remove(&id);
        if cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        state.free -= 1;
        drop(state);
        // There may be a turn for the next one, too.
        self.0.changed.notify_all();
        Ok(Turn(self))
    }

    /// Notes that a step waited for others.
    pub(crate) fn waited(&self, id: StepId, time: Duration) {
        *self.state().idle.entry(id).or_default() += time;
    }

    /// How long a step has waited for others.
    pub(crate) fn idle(&self, id: StepId) -> Duration {
        self.state().idle.get(&id).copied().unwrap_or_default()
    }

    /// Has all who wait look whether they still should.
    pub(crate) fn wake(&self) {
        let _state = self.state();
        self.0.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().free += 1;
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_than_so_many_work_at_once() {
        let (turns, cancel) = (Turns::new(3), CancelToken::new());
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for id in 0..12 {
                let (turns, cancel, now, most) = (&turns, &cancel, &now, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let turn = turns.take(StepId(id), cancel).unwrap();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    }

    #[test]
    fn the_first_of_the_boxfile_is_the_next() {
        let (turns, cancel) = (Turns::new(1), CancelToken::new());
        let first = turns.take(StepId(0), &cancel).unwrap();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for id in [5, 3, 4] {
                let (turns, cancel, order) = (&turns, &cancel, &order);
                scope.spawn(move || {
                    let turn = turns.take(StepId(id), cancel).unwrap();
                    order.lock().unwrap().push(id);
                    drop(turn);
                });
            }
            while turns.state().waiting.len() < 3 {
                std::thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), [3, 4, 5]);
    }

    #[test]
    fn whoever_waits_is_told_of_the_end() {
        let (turns, cancel) = (Turns::new(1), CancelToken::new());
        let _held = turns.take(StepId(0), &cancel).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| turns.take(StepId(1), &cancel).is_err());
            while turns.state().waiting.is_empty() {
                std::thread::yield_now();
            }
            cancel.cancel();
            turns.wake();
            assert!(waits.join().unwrap());
        });
    }
}
