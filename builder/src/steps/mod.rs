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
mod users;
pub(crate) mod workdir;

use std::collections::BTreeMap;

use box_store::Store;
use box_store::layer::Layer;
use box_store::snapshot::{Mtimes, PrepareOptions};

use crate::cache::UsesLog;
use crate::context::Context;
use crate::exec::{Executor, Usage};
use crate::files::FilesError;
use crate::progress::{EventSink, StepId};
use crate::request::{BuildRequest, TimesMode};

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
}

impl Tools<'_> {
    /// The same for a step that reads a named context instead of the main one.
    pub(crate) fn reading(&self, name: &str) -> Result<Tools<'_>, FilesError> {
        let context = self.contexts.get(name).ok_or_else(|| FilesError::NotFound {
            path: name.to_owned(),
            tree: "the build contexts".to_owned(),
            ignored: false,
        })?;
        Ok(Tools { context, ..*self })
    }

    /// How a layer of this build is made.
    pub(crate) fn options(&self) -> PrepareOptions {
        PrepareOptions {
            mount_stubs: Vec::new(),
            removed_later: false,
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
}

impl Made {
    /// A layer, if it changes anything.
    fn of(layer: Layer, usage: Option<Usage>) -> Made {
        Made {
            layer: Some(layer).filter(|layer| !layer.is_empty()),
            usage,
        }
    }
}

/// A step being done: its id for events, and the layers below, bottom first.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) id: StepId,
    pub(crate) layers: &'a [Layer],
}
