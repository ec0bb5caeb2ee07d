//! A build with caches elsewhere. A layer that was found there is fetched when somebody needs its files; one that can't be had then is
//! made here: the build begins anew, finds what it has done, and finds that layer nowhere.

use std::collections::BTreeSet;

use box_store::error::StoreError;

use crate::error::BuildError;
use crate::graph::StageId;
use crate::lower::Plan;
use crate::plan::{BasePlan, StagePlan};
use crate::progress::Event;

use super::Target;
use super::begin::Shared;

/// Builds the stages, and brings in all that the result consists of.
pub(super) fn stages<'a>(shared: &Shared<'_>, plan: &'a Plan) -> Result<Target<'a>, BuildError> {
    let request = shared.tools.request;
    let Some(imports) = &request.imports else {
        return super::stages(shared, plan);
    };
    loop {
        let before = imports.failures();
        let built = super::stages(shared, plan).and_then(|built| {
            imports.fetch(&built.result.layers)?;
            Ok(built)
        });
        warn(shared);
        let has_lost = imports.failures() > before && !request.cancel.is_cancelled();
        if built.is_ok() || !has_lost {
            return built;
        }
        // Nobody else may wait for what was done so far.
        shared.recorder.finish(&shared.cache)?;
        shared.tools.uses.clear();
    }
}

/// Records here what came from elsewhere.
pub(super) fn keep(shared: &Shared<'_>) -> Result<(), StoreError> {
    match shared.cache.elsewhere() {
        Some(elsewhere) => elsewhere.keep(shared.tools.store),
        None => Ok(()),
    }
}

/// Tells what went wrong with the caches.
fn warn(shared: &Shared<'_>) {
    let imports = shared.tools.request.imports.iter();
    for warning in imports.flat_map(|imports| imports.take_warnings()) {
        shared
            .tools
            .events
            .event(Event::Note(&format!("warning: {warning}")));
    }
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
