//! What each instruction does once it is known that it must be done.
//!
//! A step gets the layers below and gives a new one, or none if it changed nothing. It knows nothing of keys, records and
//! other steps.

pub(crate) mod archive;
pub(crate) mod bind;
mod caches;
pub(crate) mod copy;
pub(crate) mod fetch;
mod mask;
pub(crate) mod mounts;
mod pick;
mod place;
mod remote;
mod rootfs;
pub(crate) mod run;
pub(crate) mod turns;
mod users;
pub(crate) mod visit;
pub(crate) mod workdir;

use std::collections::BTreeMap;
use std::time::Instant;

use box_store::Store;
use box_store::digest::Digest;
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::lock::LockGuard;
use box_store::snapshot::{Mtimes, PrepareOptions};

use crate::cache::{Kept, UsesLog};
use crate::context::Context;
use crate::error::StepError;
use crate::exec::{CancelToken, Executor, Usage};
use crate::files::FilesError;
use crate::plan::CopyFrom;
use crate::progress::{Awaited, Event, EventSink, StepId};
use crate::request::{BuildRequest, TimesMode};

use turns::{Turn, Turns};

/// What all steps of a build share.
pub(crate) struct Tools<'a> {
    pub(crate) store: &'a Store,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) request: &'a BuildRequest,
    pub(crate) events: &'a dyn EventSink,
    pub(crate) context: &'a Context<'a>,
    /// The directories among the named contexts.
    pub(crate) contexts: &'a BTreeMap<String, Context<'a>>,
    /// SOURCE_DATE_EPOCH as the caller gave it.
    pub(crate) source_date_epoch: Option<i64>,
    /// What was used so far.
    pub(crate) uses: &'a UsesLog,
    /// How many steps work at once.
    pub(crate) turns: &'a Turns,
    /// Stops the steps: the caller's wish, or the failure of one of them.
    pub(crate) cancel: &'a CancelToken,
    /// Whether nothing is done, fetched or written: it is only said what would be.
    pub(crate) is_forecast: bool,
}

impl<'a> Tools<'a> {
    /// The context that a copy reads.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn context_of(&self, from: &CopyFrom) -> Result<&'a Context<'a>, FilesError> {
        let CopyFrom::Named(name) = from else {
            return Ok(self.context);
        };
        self.contexts.get(name).ok_or_else(|| FilesError::NotFound {
            path: name.to_owned(),
            tree: "the build contexts".to_owned(),
            ignored: false,
        })
    }
}

impl Tools<'_> {
    /// Waits until this step may work.
    ///
    /// # Errors
    /// [`StepError::Cancelled`].
    pub(crate) fn turn(&self, id: StepId) -> Result<Turn<'_>, StepError> {
        match self.turns.try_take(id) {
            Some(turn) => Ok(turn),
            None => self.waiting(id, Awaited::Turn, || self.turns.take(id, self.cancel)),
        }
    }

    /// Takes the lock of one thing, waiting for whoever makes it. `meanwhile` is done whenever it is not free yet.
    ///
    /// # Errors
    /// [`StepError::Cancelled`]; what the store or `meanwhile` says.
    pub(crate) fn lock(
        &self,
        id: StepId,
        (class, key): (&str, &Digest),
        mut meanwhile: impl FnMut() -> Result<(), StoreError>,
    ) -> Result<LockGuard, StepError> {
        if let Some(lock) = self.store.try_lock(class, key)? {
            return Ok(lock);
        }
        let poll = || {
            self.cancel.poll(|| -> Result<_, StoreError> {
                meanwhile()?;
                self.store.try_lock(class, key)
            })
        };
        let lock = self.waiting(id, Awaited::Equal, poll);
        lock?.ok_or(StepError::Cancelled)
    }

    /// Waits for something that is not this step's own work.
    pub(crate) fn waiting<T>(&self, id: StepId, what: Awaited<'_>, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        self.events.event(Event::StepWaiting { id, what: Some(what) });
        let result = wait();
        self.turns.waited(id, start.elapsed());
        self.events.event(Event::StepWaiting { id, what: None });
        result
    }

    /// How a layer of this build is made.
    pub(crate) fn options(&self) -> PrepareOptions {
        PrepareOptions {
            mount_stubs: Vec::new(),
            mtimes: match self.request.mtimes {
                TimesMode::Logical => Mtimes::Logical,
                TimesMode::Real => Mtimes::Real,
            },
            source_date_epoch: self.source_date_epoch,
        }
    }
}

/// A layer that was made of something else, and whether it was here.
pub(crate) struct Unpacked {
    pub(crate) layer: Layer,
    pub(crate) is_cached: bool,
}

/// What a step made.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its layer; none if it changed nothing.
    pub(crate) layer: Option<Layer>,
    /// What its command used.
    pub(crate) usage: Option<Usage>,
    /// What of a context it is a copy of, if one like it may be built upon it.
    pub(crate) laid: Option<Kept>,
}

impl Made {
    /// A layer, if it changes anything.
    fn of(layer: Layer, usage: Option<Usage>) -> Made {
        Made {
            layer: Some(layer).filter(|layer| !layer.is_empty()),
            usage,
            laid: None,
        }
    }
}

/// A step being done: its id for events, and the layers below, bottom first.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) id: StepId,
    pub(crate) layers: &'a [Layer],
}
