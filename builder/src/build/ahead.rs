//! What copies need, got before their turn: what they fetch, and the digests of what they read of the context.
//!
//! Both follow from the plan alone, so that they are got beside the steps that come before. A step that comes to its turn first reads for
//! itself. What is read stands for the context as it was then; if that turns out to have changed when it is copied, the step
//! reads once more. What can't be had fails the build at once, since the step that needs it could only fail, too.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{BuildError, StepError};
use crate::lower::Plan;
use crate::plan::{Action, BasePlan, CopyFrom, CopySourcePlan, CopyStep, StagePlan};
use crate::progress::StepId;
use crate::steps::copy::Reading;

use super::announce::{Announced, Failed};
use super::begin::Shared;

/// The most that are fetched at once.
const FETCHES: usize = 6;
/// The most lists of files that wait for their step at once.
const LISTS: usize = 4;
const TICK: Duration = Duration::from_millis(20);

/// Everything that is got ahead.
pub(super) struct Ahead<'a> {
    shared: &'a Shared<'a>,
    jobs: Vec<Job<'a>>,
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    /// One for each job.
    slots: Vec<Slot<'a>>,
    /// How many lists of files wait for their step.
    lists: usize,
}

/// One copy.
struct Job<'a> {
    plan: &'a StagePlan,
    /// The number of its stage's first step.
    first: usize,
    /// Its place in its stage.
    index: usize,
    step: &'a CopyStep,
    is_fetch: bool,
}

/// What has become of a job.
enum Slot<'a> {
    Waiting,
    /// Whether its step waits for it.
    Working(bool),
    Ready(Box<Result<Reading<'a>, StepError>>),
    /// It is its step's own affair, or was.
    Claimed,
    /// It failed before its step began.
    Failed,
}

impl<'a> Ahead<'a> {
    /// What is worth it: not what its stage comes to first of all. Nothing where everything is to be one after another.
    pub(super) fn new(shared: &'a Shared<'a>, plan: &'a Plan, firsts: &[usize]) -> Ahead<'a> {
        let stages = plan.stages.iter().zip(firsts);
        let jobs: Vec<Job<'a>> = match shared.tools.request.jobs {
            0 | 1 => Vec::new(),
            _ => stages.flat_map(|(stage, first)| jobs_of(stage, *first)).collect(),
        };
        Ahead::of(shared, jobs)
    }

    fn of(shared: &'a Shared<'a>, jobs: Vec<Job<'a>>) -> Ahead<'a> {
        let state = State {
            slots: jobs.iter().map(|_| Slot::Waiting).collect(),
            lists: 0,
        };
        Ahead {
            shared,
            jobs,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Nothing: everything is got when its turn comes.
    pub(super) fn nothing(shared: &'a Shared<'a>) -> Ahead<'a> {
        Ahead::of(shared, Vec::new())
    }

    /// How many fetch, and whether somebody hashes.
    pub(super) fn workers(&self) -> (usize, bool) {
        let fetches = self.jobs.iter().filter(|job| job.is_fetch).count();
        (fetches.min(FETCHES), fetches < self.jobs.len())
    }

    /// Does the jobs of one kind until there are none left. The error of one whose step has not begun is the build's.
    ///
    /// # Errors
    /// That one.
    pub(super) fn run(&self, is_fetch: bool) -> Result<(), BuildError> {
        for (number, job) in self.jobs.iter().enumerate() {
            if job.is_fetch == is_fetch && self.begin(number, is_fetch) {
                self.work(number, job)?;
            }
            if self.shared.tools.cancel.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// Takes a job, unless its step or somebody else has; waits until there is room for one more list of files.
    fn begin(&self, number: usize, is_fetch: bool) -> bool {
        let mut state = self.state();
        while !is_fetch && state.lists >= LISTS && !self.shared.tools.cancel.is_cancelled() {
            let waited = self.changed.wait_timeout(state, TICK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.slots.get_mut(number) {
            Some(slot @ Slot::Waiting) => {
                *slot = Slot::Working(false);
                true
            }
            _ => false,
        }
    }

    fn work(&self, number: usize, job: &Job<'a>) -> Result<(), BuildError> {
        let announced = job.announced(self.shared);
        let id = job.id();
        if job.is_fetch {
            announced.ahead(job.index);
        }
        let reading = Reading::new(&self.shared.tools, id, job.step, None);
        let read = reading.and_then(|reading| reading.inputs().map(|_| reading));
        let mut state = self.state();
        let Some(slot) = state.slots.get_mut(number) else {
            return Ok(());
        };
        let is_awaited = matches!(slot, Slot::Working(true));
        match read {
            Err(error) if !is_awaited => {
                *slot = Slot::Failed;
                drop(state);
                announced.step(job.index, job.place(), |_| Err::<_, Failed>(error.into()))
            }
            read => {
                *slot = Slot::Ready(Box::new(read));
                state.lists += usize::from(!job.is_fetch);
                drop(state);
                self.changed.notify_all();
                Ok(())
            }
        }
    }

    /// Says that a step is about to begin: from now on it is the one to tell of a failure.
    ///
    /// # Errors
    /// [`BuildError::Cancelled`] if that has been done.
    pub(super) fn claim(&self, id: StepId) -> Result<(), BuildError> {
        let Some(number) = self.number(id) else {
            return Ok(());
        };
        match self.state().slots.get_mut(number) {
            Some(Slot::Failed) => Err(BuildError::Cancelled),
            Some(slot @ Slot::Waiting) => {
                *slot = Slot::Claimed;
                Ok(())
            }
            Some(Slot::Working(is_awaited)) => {
                *is_awaited = true;
                Ok(())
            }
            Some(Slot::Ready(_) | Slot::Claimed) | None => Ok(()),
        }
    }

    /// What was read for a step that was claimed, waiting for it if it is being read; none if it must read for itself.
    ///
    /// # Errors
    /// Why it could not be read.
    pub(super) fn take(&self, id: StepId) -> Result<Option<Reading<'a>>, StepError> {
        let Some(number) = self.number(id) else {
            return Ok(None);
        };
        let mut state = self.state();
        loop {
            match state.slots.get_mut(number) {
                Some(Slot::Working(_)) => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(slot @ Slot::Ready(_)) => {
                    let ready = std::mem::replace(slot, Slot::Claimed);
                    state.lists -= self.jobs.get(number).map_or(0, |job| usize::from(!job.is_fetch));
                    drop(state);
                    self.changed.notify_all();
                    return match ready {
                        Slot::Ready(read) => read.map(Some),
                        _ => Ok(None),
                    };
                }
                _ => return Ok(None),
            }
        }
    }

    fn number(&self, id: StepId) -> Option<usize> {
        // They are in the order of the plan, as the numbers of steps are.
        self.jobs.binary_search_by_key(&id, Job::id).ok()
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Job<'a> {
    fn id(&self) -> StepId {
        StepId(self.first + self.index)
    }

    fn place(&self) -> &'a crate::plan::Place {
        // The first is FROM.
        let step = self
            .index
            .checked_sub(1)
            .and_then(|index| self.plan.steps.get(index));
        step.map_or(&self.plan.from, |step| &step.place)
    }

    fn announced(&self, shared: &'a Shared<'a>) -> Announced<'a> {
        Announced {
            tools: &shared.tools,
            plan: self.plan,
            first: self.first,
        }
    }
}

fn jobs_of(plan: &StagePlan, first: usize) -> impl Iterator<Item = Job<'_>> {
    // A stage that begins at once comes to its first copy as soon as anybody.
    let mut is_late = !matches!(plan.base, BasePlan::Scratch | BasePlan::Image(_));
    plan.steps.iter().zip(1..).filter_map(move |(step, index)| {
        let was_late = is_late;
        is_late |= !matches!(step.action, Action::Config);
        let Action::Copy(copy) = &step.action else {
            return None;
        };
        let is_of_context = matches!(copy.from, CopyFrom::Context | CopyFrom::Named(_));
        (is_of_context && was_late).then(|| Job {
            plan,
            first,
            index,
            step: copy,
            is_fetch: copy.sources.iter().any(is_fetched),
        })
    })
}

fn is_fetched(source: &CopySourcePlan) -> bool {
    match source {
        CopySourcePlan::Url { .. } | CopySourcePlan::Git { .. } => true,
        CopySourcePlan::Path(_) | CopySourcePlan::Inline { .. } => false,
    }
}
