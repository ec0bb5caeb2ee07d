//! A stage right after its FROM, and what stages give each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use box_store::error::StoreError;
use box_store::image::{History, format_rfc3339};
use box_store::layer::Layer;

use crate::base;
use crate::cache::{Cache, Recipe};
use crate::error::{BuildError, StepError};
use crate::exec::CancelToken;
use crate::graph::StageId;
use crate::lower::Plan;
use crate::plan::{BasePlan, CopyFrom, Place, StagePlan};
use crate::progress::StepId;
use crate::steps::{Tools, Unpacked};
use crate::url::without_credentials;

use super::announce::{Ended, Failed, Outcome};
use super::pulls::Pulls;
use super::record::{Recorder, chain};
use super::visit::Visits;

/// What the stages of a build share.
pub(super) struct Shared<'a> {
    pub(super) tools: Tools<'a>,
    pub(super) plan: &'a Plan,
    pub(super) cache: Cache<'a>,
    pub(super) recorder: Recorder,
    /// Images whose layers are on their way.
    pub(super) pulls: &'a Pulls,
    /// Who was let in, in any attempt.
    pub(super) visits: &'a Visits,
}

/// A stage that was built.
#[derive(Clone)]
pub(super) struct StageResult {
    pub(super) layers: Vec<Layer>,
    pub(super) history: Vec<History>,
    pub(super) recipe: Recipe,
    /// What its base says of when it was made.
    pub(super) base_created: Option<i64>,
    /// Whether some layer was made here, so that the image is not as old as its base.
    pub(super) has_own_layers: bool,
    /// What FROM names in the end, in words, and how many layers that gave.
    pub(super) base: String,
    pub(super) base_layers: usize,
    /// The steps that gave the layers; none for those of an image.
    pub(super) makers: Vec<Option<Place>>,
}

/// The stages that were built. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Results(Arc<(Mutex<BTreeMap<StageId, StageResult>>, Condvar)>);

impl Results {
    /// Takes a stage, and tells all who wait for it.
    pub(super) fn insert(&self, id: StageId, result: StageResult) {
        self.map().insert(id, result);
        self.0.1.notify_all();
    }

    /// Waits until a stage is built. [`Results::wake`] must be called when the token is cancelled.
    ///
    /// # Errors
    /// [`BuildError::Cancelled`].
    pub(super) fn wait(&self, id: StageId, cancel: &CancelToken) -> Result<(), BuildError> {
        let mut map = self.map();
        while !map.contains_key(&id) {
            if cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            map = self.0.1.wait(map).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Has all who wait look whether they still should.
    pub(super) fn wake(&self) {
        let _map = self.map();
        self.0.1.notify_all();
    }

    /// A stage that others need, and that was waited for.
    ///
    /// # Errors
    /// It is not built.
    pub(super) fn get(&self, id: StageId) -> Result<StageResult, StepError> {
        let found = self.map().get(&id).cloned();
        found.ok_or(StepError::StageNotBuilt { stage: id.0 })
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<StageId, StageResult>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layers that are read, with their name; none for a context.
    pub(super) fn layers_of(
        &self,
        shared: &Shared<'_>,
        from: &CopyFrom,
    ) -> Result<Option<(Vec<Layer>, String)>, StepError> {
        Ok(match from {
            CopyFrom::Context | CopyFrom::Named(_) => None,
            CopyFrom::Stage(stage) => {
                let result = self.get(*stage)?;
                Some((result.layers, format!("stage {}", stage.0)))
            }
            CopyFrom::Image(name, image) => {
                shared.pulls.wait(&image.id, shared.tools.cancel)?;
                let layers = shared.tools.store.image_layers(image)?;
                Some((layers, format!("image {name}")))
            }
        })
    }
}

/// A stage right after its FROM.
pub(super) fn begin(
    shared: &Shared<'_>,
    plan: &StagePlan,
    results: &Results,
    id: StepId,
) -> Result<Ended<StageResult>, Failed> {
    let tools = &shared.tools;
    let (base, shown) = match &plan.base {
        BasePlan::Scratch => {
            return Ok(Ended {
                value: on("scratch", Vec::new(), Vec::new(), None)?,
                outcome: Outcome::Config,
            });
        }
        BasePlan::Stage(stage) => {
            return Ok(Ended {
                value: results.get(*stage)?,
                outcome: Outcome::Config,
            });
        }
        BasePlan::Image(image) => {
            shared.pulls.wait(&image.id, shared.tools.cancel)?;
            let layers = tools.store.image_layers(image)?;
            let value = on(
                &named(&plan.base_name, &image.id.0.hex()),
                layers,
                image.config.history.clone(),
                image.config.created_seconds(),
            )?;
            return Ok(Ended {
                value,
                outcome: Outcome::Config,
            });
        }
        BasePlan::File { path, checksum } => (
            base::from_context(tools, id, path, checksum.as_ref())?,
            path.clone(),
        ),
        BasePlan::Url { url, checksum } => (
            base::from_url(tools, id, url, checksum.as_ref())?,
            without_credentials(url),
        ),
    };
    let Unpacked { layer, is_cached } = base;
    let history = History {
        created: Some(format_rfc3339(layer.newest_time().unwrap_or_default())),
        created_by: Some(format!("FROM {shown}")),
        ..History::default()
    };
    let outcome = match is_cached {
        true => Outcome::Cached,
        false => Outcome::Done {
            size: layer.size(),
            entries: layer.entries(),
            usage: None,
        },
    };
    let value = StageResult {
        has_own_layers: true,
        makers: vec![Some(plan.from.clone())],
        ..on(
            &named(&shown, &layer.diff_id()?.hex()),
            vec![layer],
            vec![history],
            None,
        )?
    };
    Ok(Ended { value, outcome })
}

/// A base as people know it: its name, and the beginning of its digest.
fn named(name: &str, hex: &str) -> String {
    format!("{name} ({})", &hex[..hex.len().min(12)])
}

/// A stage on something that is not known yet.
pub(super) fn unknown() -> Result<StageResult, StoreError> {
    on("", Vec::new(), Vec::new(), None)
}

/// A stage on these layers. What its base says of when it was made counts only if it leaves something out.
fn on(
    base: &str,
    layers: Vec<Layer>,
    history: Vec<History>,
    created: Option<i64>,
) -> Result<StageResult, StoreError> {
    let counts = layers
        .iter()
        .any(|layer| layer.newest_time() != layer.with_kept_limit(None).newest_time());
    let recipe = Recipe::of_base(chain(&layers)?);
    let makers = vec![None; layers.len()];
    Ok(StageResult {
        layers,
        history,
        recipe,
        base_created: created.filter(|_| counts),
        has_own_layers: false,
        base: base.to_owned(),
        base_layers: makers.len(),
        makers,
    })
}
