//! Which stage is done when: side by side, as far as the request allows.
//!
//! Workers take the stages in the order of the plan, in which each comes after those it needs; a stage that comes to a need which is not
//! built yet waits for it ([`Results::wait`]). Since whoever is waited for was taken before, somebody can always go on. How many steps
//! work at once is told by [`Turns`](crate::steps::turns::Turns); a waiting worker has none. With one job there is one worker, and
//! everything happens one after another.
//!
//! The first failure is the build's; it cancels all others, which end at once and leave nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope};

use crate::error::BuildError;
use crate::exec::CancelToken;
use crate::lower::Plan;
use crate::plan::BasePlan;
use crate::progress::Event;

use super::ahead::Ahead;
use super::begin::{Results, Shared};
use super::stage::build_stage;
use super::{BuiltLayer, Target};

/// The most stages that are under way at once.
const WORKERS: usize = 64;
/// As much as the program's first thread usually has.
const STACK: usize = 8 << 20;

/// Builds all stages of the plan; gives its target.
///
/// # Errors
/// That of the step that failed first; [`BuildError::Cancelled`].
pub(super) fn stages<'a>(shared: &Shared<'_>, plan: &'a Plan) -> Result<Target<'a>, BuildError> {
    // A graph has at least its target.
    let target = plan.stages.last().ok_or(BuildError::Empty)?;
    let firsts = first_steps(plan);
    let ahead = Ahead::new(shared, plan, &firsts);
    let work = Work::new(shared, plan, &firsts, &ahead);
    shared.tools.events.event(Event::Planned {
        stages: plan.stages.len(),
        steps: plan.stages.iter().map(|stage| stage.steps.len() + 1).sum(),
    });
    let (turns, results) = (shared.tools.turns.clone(), work.results.clone());
    let pulls = shared.pulls.clone();
    let _wake = shared.tools.cancel.on_cancel(move || {
        turns.wake();
        results.wake();
        pulls.wake();
    });
    let recorded = std::thread::scope(|scope| {
        for number in 0..work.workers() {
            // Counted before it starts, so that it is not missed.
            let worker = shared.recorder.worker();
            let thread = Builder::new().name("box-stage".into()).stack_size(STACK);
            let run = || {
                work.run();
                drop(worker);
            };
            if thread.spawn_scoped(scope, run).is_err() {
                // Without another thread there is one worker less, but for the first.
                if number == 0 {
                    work.run();
                }
                break;
            }
        }
        work.start_ahead(scope);
        shared
            .recorder
            .serve(&shared.cache, || shared.tools.cancel.cancel())
    });
    let failed = work.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (failed, recorded) {
        (Some(BuildError::Cancelled) | None, Err(error)) => return Err(error.into()),
        (Some(error), _) => return Err(error),
        (None, Ok(())) => {}
    }
    let result = work.results.get(target.id).map_err(|_| BuildError::Cancelled)?;
    Ok(Target {
        plan: target,
        result,
        visited: shared.visits.status(),
        is_cached: shared.recorder.count() == 0,
        layers: layers(plan, &work.results),
    })
}

/// What each stage's own steps gave.
fn layers(plan: &Plan, results: &Results) -> Vec<BuiltLayer> {
    let count = |id| results.get(id).map_or(0, |result| result.layers.len());
    let mut all = Vec::new();
    for stage in &plan.stages {
        let Ok(result) = results.get(stage.id) else {
            continue;
        };
        let below = match stage.base {
            BasePlan::Stage(base) => count(base),
            _ => 0,
        };
        let made = result.makers.into_iter().zip(result.layers).skip(below);
        all.extend(made.filter_map(|(place, layer)| {
            place.map(|place| BuiltLayer {
                stage: stage.id,
                place,
                layer,
            })
        }));
    }
    all
}

/// The number of each stage's first step: its base.
fn first_steps(plan: &Plan) -> Vec<usize> {
    let firsts = plan.stages.iter().scan(0, |next, stage| {
        let first = *next;
        *next += stage.steps.len() + 1;
        Some(first)
    });
    firsts.collect()
}

/// What the workers share.
struct Work<'a, 'b> {
    shared: &'a Shared<'a>,
    plan: &'a Plan,
    ahead: &'a Ahead<'b>,
    /// The number of each stage's first step.
    firsts: &'a [usize],
    results: Results,
    /// The next stage that nobody has taken.
    next: AtomicUsize,
    failed: Mutex<Option<BuildError>>,
}

impl<'a, 'b> Work<'a, 'b> {
    fn new(
        shared: &'a Shared<'a>,
        plan: &'a Plan,
        firsts: &'a [usize],
        ahead: &'a Ahead<'b>,
    ) -> Work<'a, 'b> {
        Work {
            shared,
            plan,
            ahead,
            firsts,
            results: Results::default(),
            next: AtomicUsize::new(0),
            failed: Mutex::default(),
        }
    }

    fn workers(&self) -> usize {
        match self.shared.tools.request.jobs {
            0 | 1 => 1,
            _ => self.plan.stages.len().min(WORKERS),
        }
    }

    /// Starts those who get things ahead. Where no thread is to be had, each step does so itself.
    fn start_ahead<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let (fetches, is_hashing) = self.ahead.workers();
        let kinds = std::iter::repeat_n(true, fetches).chain(is_hashing.then_some(false));
        for is_fetch in kinds {
            let thread = Builder::new().name("box-ahead".into()).stack_size(STACK);
            let run = move || {
                let _guard = Panic(self.shared.tools.cancel);
                if let Err(error) = self.ahead.run(is_fetch) {
                    self.fail(error);
                }
            };
            let _ = thread.spawn_scoped(scope, run);
        }
    }

    /// Does stages until there is none left, or one fails.
    fn run(&self) {
        let _guard = Panic(self.shared.tools.cancel);
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let (Some(stage), Some(first)) = (self.plan.stages.get(number), self.firsts.get(number)) else {
                return;
            };
            match build_stage(self.shared, self.ahead, stage, &self.results, *first) {
                Ok(result) => self.results.insert(stage.id, result),
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Stops all others. What ends them is not what failed.
    fn fail(&self, error: BuildError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*failed, None | Some(BuildError::Cancelled)) {
            *failed = Some(error);
        }
        drop(failed);
        self.shared.tools.cancel.cancel();
    }
}

/// Whoever waits for a stage whose worker panics would wait for ever.
struct Panic<'a>(&'a CancelToken);

impl Drop for Panic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}
