//! A build with caches elsewhere. A layer that was found there is fetched when somebody needs its files; one that can't be had then is
//! made here: the build begins anew, finds what it has done, and finds that layer nowhere.

use std::collections::BTreeSet;

use box_store::layer::Layer;

use crate::cache::{Hit, PartsId, StepUse, UsesLog};
use crate::error::BuildError;
use crate::exec::CancelToken;
use crate::explain::Verdict;
use crate::graph::StageId;
use crate::lower::Plan;
use crate::plan::{BasePlan, Reuse, StagePlan};
use crate::progress::{Event, StepId};
use crate::request::BuildRequest;

use super::Target;
use super::pulls::Puller;
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

/// Builds, and once more for each time that something could not be had that had been found. Each attempt is stopped by itself, since the next
/// one may still need what is being pulled.
pub(super) fn attempts<'a>(
    way: Puller<'_, '_>,
    uses: &UsesLog,
    build: impl Fn(&CancelToken) -> Result<Target<'a>, BuildError>,
) -> Result<Target<'a>, BuildError> {
    let Some(imports) = &way.request.imports else {
        return build(way.cancel);
    };
    let mut is_first = true;
    loop {
        let before = imports.failures();
        let cancel = CancelToken::new();
        let stop = cancel.clone();
        let link = way.cancel.on_cancel(move || stop.cancel());
        let built = build(&cancel);
        drop(link);
        for warning in imports.take_warnings() {
            way.events.event(Event::Note(&format!("warning: {warning}")));
        }
        match built {
            Ok(built) => {
                let is_cached = built.is_cached && is_first;
                return Ok(Target { is_cached, ..built });
            }
            Err(_) if imports.failures() > before && !way.cancel.is_cancelled() => {}
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
