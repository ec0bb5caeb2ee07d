//! Which stages are built, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{FromRef, GraphOptions, Names, Stage, StageId};
use crate::ast::Boxfile;
use crate::diagnostic::Diagnostic;
use crate::suggest::did_you_mean;

/// The stage that is wanted.
pub(super) fn target(
    stages: &[Stage],
    names: &Names,
    options: &GraphOptions,
    boxfile: &Boxfile,
) -> Result<StageId, Vec<Diagnostic>> {
    let Some(target) = &options.target else {
        return Ok(StageId(stages.len().saturating_sub(1)));
    };
    let names = Names {
        contexts: BTreeSet::new(),
        ..names.clone()
    };
    if let FromRef::Stage(id) = names.resolve(target) {
        return Ok(id);
    }
    // As a stage without a name is shown.
    if let Some(number) = target.strip_prefix("stage-")
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && let FromRef::Stage(id) = names.resolve(number)
        && stages.get(id.0).is_some_and(|stage| stage.name.is_none())
    {
        return Ok(id);
    }
    let known = || names.stages.keys().map(String::as_str);
    let list = known().collect::<Vec<_>>().join(", ");
    let list = if list.is_empty() {
        format!("a number below {}", stages.len())
    } else {
        list
    };
    let span = boxfile.instructions.last().map(|i| i.span).unwrap_or_default();
    let error = Diagnostic::error(span, format!("target stage {target:?} could not be found"));
    Err(vec![
        error.expected(list).maybe_suggest(did_you_mean(target, known())),
    ])
}

/// The stages that the target reaches, each after those it needs.
pub(super) fn order(stages: Vec<Stage>, target: StageId) -> Result<Vec<Stage>, Vec<Diagnostic>> {
    let order = sort(&stages)?;
    let wanted = reachable(&stages, target);
    let mut stages: Vec<Option<Stage>> = stages.into_iter().map(Some).collect();
    let wanted = order.into_iter().filter(|id| wanted.contains(id));
    Ok(wanted
        .filter_map(|id| stages.get_mut(id.0).and_then(Option::take))
        .collect())
}

fn reachable(stages: &[Stage], target: StageId) -> BTreeSet<StageId> {
    let mut found = BTreeSet::from([target]);
    let mut queue = vec![target];
    while let Some(id) = queue.pop() {
        let needs = stages.get(id.0).into_iter().flat_map(|s| &s.needs);
        queue.extend(needs.filter(|n| found.insert(**n)));
    }
    found
}

/// All stages, each after those it needs, otherwise as in the file.
fn sort(stages: &[Stage]) -> Result<Vec<StageId>, Vec<Diagnostic>> {
    let mut waiting: Vec<usize> = stages.iter().map(|s| s.needs.len()).collect();
    let mut needed_by: BTreeMap<StageId, Vec<StageId>> = BTreeMap::new();
    for stage in stages {
        stage
            .needs
            .iter()
            .for_each(|n| needed_by.entry(*n).or_default().push(stage.id));
    }
    let mut ready: BTreeSet<StageId> = stages
        .iter()
        .filter(|s| s.needs.is_empty())
        .map(|s| s.id)
        .collect();
    let mut order = Vec::with_capacity(stages.len());
    while let Some(id) = ready.pop_first() {
        order.push(id);
        for next in needed_by.get(&id).into_iter().flatten() {
            waiting[next.0] -= 1;
            if waiting[next.0] == 0 {
                ready.insert(*next);
            }
        }
    }
    if order.len() == stages.len() {
        return Ok(order);
    }
    Err(vec![circle(stages, &waiting)])
}

/// Names one circle among the stages that wait for ever.
fn circle(stages: &[Stage], waiting: &[usize]) -> Diagnostic {
    let stuck = |id: &StageId| waiting.get(id.0).is_some_and(|w| *w > 0);
    let mut path: Vec<&Stage> = stages.iter().find(|s| stuck(&s.id)).into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(stage) = path.last().filter(|s| seen.insert(s.id)) {
        match stage
            .needs
            .iter()
            .find(|n| stuck(n))
            .and_then(|n| stages.get(n.0))
        {
            Some(next) => path.push(next),
            None => break,
        }
    }
    let name = |s: &Stage| s.name.clone().unwrap_or_else(|| s.id.0.to_string());
    let last = path.last().map(|s| s.id);
    let circle: Vec<&Stage> = path.into_iter().skip_while(|s| Some(s.id) != last).collect();
    let first = circle.first().map(|s| name(s)).unwrap_or_default();
    let shown = circle
        .iter()
        .take(10)
        .map(|s| name(s))
        .collect::<Vec<_>>()
        .join(" → ");
    let span = circle.first().map(|s| s.from.span).unwrap_or_default();
    Diagnostic::error(span, format!("circular dependency detected on stage: {first}"))
        .expected("stages that need only stages that do not need them")
        .suggest(format!("each needs the next: {shown}"))
}
