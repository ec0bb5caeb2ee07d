//! A build with caches elsewhere. A layer that was found there is fetched when somebody needs its files; one that can't be had then is
//! made here: the build begins anew, finds what it has done, and finds that layer nowhere.

use std::collections::BTreeSet;

use box_store::layer::Layer;

use crate::cache::{Hit, PartsId, StepUse, UsesLog};
use crate::error::BuildError;
use crate::explain::Verdict;
use crate::graph::StageId;
use crate::lower::Plan;
use crate::plan::{BasePlan, Reuse, StagePlan};
use crate::progress::{Event, EventSink, StepId};
use crate::request::BuildRequest;

use super::Target;
use super::stage::Stage;

impl Stage<'_, '_> {
    /// A step that was found.
    pub(super) fn hit(&self, step: StepId, below: &[Layer], parts: PartsId, hit: Hit) -> Hit {
        self.note_use(below, parts, Reuse::Always, hit.as_ref());
        self.shared.tell(step, &Verdict::Hit);
        hit
    }

    /// Notes a step that was found or done. What is never used again need not travel.
    pub(super) fn note_use(&self, below: &[Layer], parts: PartsId, reuse: Reuse, layer: Option<&Layer>) {
        if reuse != Reuse::Never {
            self.shared.tools.uses.step(|| StepUse {
                stage: self.plan.id,
                below: below.to_vec(),
                parts,
                layer: layer.cloned(),
            });
        }
    }
}

/// Builds, and once more for each time that something could not be had that had been found.
pub(super) fn attempts<'a>(
    request: &BuildRequest,
    events: &dyn EventSink,
    uses: &UsesLog,
    build: impl Fn() -> Result<Target<'a>, BuildError>,
) -> Result<Target<'a>, BuildError> {
    let Some(imports) = &request.imports else {
        return build();
    };
    let mut is_first = true;
    loop {
        let before = imports.failures();
        let built = build();
        for warning in imports.take_warnings() {
            events.event(Event::Note(&format!("warning: {warning}")));
        }
        match built {
            Ok(built) => {
                let is_cached = built.is_cached && is_first;
                return Ok(Target { is_cached, ..built });
            }
            Err(_) if imports.failures() > before && !request.cancel.is_cancelled() => {}
            Err(error) => return Err(error),
        }
        is_first = false;
        uses.clear();
    }
}

/// Brings in all that the result consists of.
pub(super) fn fetched<'a>(
    request: &BuildRequest,
    built: Result<Target<'a>, BuildError>,
) -> Result<Target<'a>, BuildError> {
    let built = built?;
    if let Some(imports) = &request.imports {
        imports.fetch(&built.result.layers)?;
    }
    Ok(built)
}

/// The stages whose layers the image has.
pub(super) fn stages_of(plan: &Plan, target: &StagePlan) -> BTreeSet<StageId> {
    let mut stages = BTreeSet::from([target.id]);
    let mut at = target;
    while let BasePlan::Stage(id) = &at.base {
        let below = plan.stages.iter().find(|stage| stage.id == *id);
        match below.filter(|_| stages.insert(*id)) {
            Some(below) => at = below,
            None => break,
        }
    }
    stages
}
