//! A build with caches elsewhere. A layer that was found there is fetched when somebody needs its files; one that can't be had then is
//! made here: the build begins anew, finds what it has done, and finds that layer nowhere.

use std::collections::BTreeSet;

use crate::cache::UsesLog;
use crate::error::BuildError;
use crate::graph::StageId;
use crate::lower::Plan;
use crate::plan::{BasePlan, StagePlan};
use crate::progress::{Event, EventSink};
use crate::request::BuildRequest;

use super::Target;

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
