//! What a build would do: hits and misses, without a step done, anything fetched or a byte written.
//!
//! The steps go the same way as in a build, up to where one is looked up ([`Stage::foresee`]), so that a forecast says of a key
//! what the build will. After the first miss of a stage nothing below is known: a step whose parts no record has is a miss
//! for certain, and of any other it is only known what it depends on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use box_store::Store;

use crate::cache::{Cache, Hit, UsesLog};
use crate::error::{BuildError, StepError};
use crate::exec::{ExecError, ExecIo, ExecOutcome, ExecRequest, Executor};
use crate::explain::{Cause, Verdict};
use crate::graph::StageId;
use crate::lower::Plan;
use crate::plan::{BasePlan, Place, StagePlan};
use crate::progress::{Event, EventSink, StepId};
use crate::request::BuildRequest;
use crate::steps::Tools;
use crate::steps::turns::Turns;

use super::ahead::Ahead;
use super::begin::{Results, Shared, StageResult, begin, unknown};
use super::explained::{Lists, Lookup, of_outcome};
use super::front::Planned;
use super::pulls::Pulls;
use super::record::Recorder;
use super::stage::Stage;
use super::visit::Visits;
use super::{front, named_contexts, open_context};

/// A step as a build would find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// Its stage's place in the Boxfile, from 0.
    pub stage: usize,
    /// Its stage's name.
    pub stage_name: Option<String>,
    /// Its place in the stage, from 1; 1 is FROM.
    pub index: usize,
    /// Steps of its stage.
    pub total: usize,
    /// Where it stands, and what it says.
    pub place: Place,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// Says of every step of a build whether it is in the cache, and if not, why.
///
/// # Errors
/// What is wrong with the Boxfile; images that are not in the store, and layouts that would have to be loaded; when the context or
/// the store can't be read.
pub fn forecast(store: &Store, request: &BuildRequest) -> Result<Vec<Foreseen>, BuildError> {
    let request = &BuildRequest {
        explain: true,
        puller: None,
        ..request.clone()
    };
    let context = open_context(store, request)?;
    let contexts = named_contexts(store, request)?;
    let Planned {
        plan,
        source_date_epoch,
    } = front::plan_alone(store, request, &context)?;
    let (told, turns) = (Told::default(), Turns::new(1));
    let shared = Shared {
        tools: Tools {
            store,
            executor: &Nobody,
            request,
            events: &told,
            context: &context,
            contexts: &contexts,
            source_date_epoch,
            is_forecast: true,
            uses: &UsesLog::default(),
            turns: &turns,
            cancel: &request.cancel,
        },
        plan: &plan,
        cache: Cache::new(store, None),
        recorder: Recorder::default(),
        pulls: &Pulls::default(),
        visits: &Visits::default(),
    };
    let mut forecast = Forecast {
        shared: &shared,
        told: &told,
        plan: &plan,
        results: Results::default(),
        partial: BTreeMap::new(),
        all: Vec::new(),
    };
    let mut first = 0;
    for stage in &plan.stages {
        forecast.stage(stage, first)?;
        first += stage.steps.len() + 1;
    }
    Ok(forecast.all)
}

/// Runs nothing.
struct Nobody;

impl Executor for Nobody {
    fn run(&self, _request: &ExecRequest<'_>, _io: ExecIo<'_>) -> Result<ExecOutcome, ExecError> {
        Err(ExecError::Cancelled)
    }
}

/// What was told of each step.
#[derive(Default)]
struct Told(Mutex<BTreeMap<StepId, Verdict>>);

impl Told {
    fn take(&self, id: StepId) -> Option<Verdict> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

impl EventSink for Told {
    fn event(&self, event: Event<'_>) {
        if let Event::StepExplained { id, verdict } = event {
            let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            told.insert(id, verdict.clone());
        }
    }
}

struct Forecast<'a> {
    shared: &'a Shared<'a>,
    told: &'a Told,
    plan: &'a Plan,
    /// Stages of which all is known.
    results: Results,
    /// The others, as far as they are known.
    partial: BTreeMap<StageId, StageResult>,
    all: Vec<Foreseen>,
}

impl Forecast<'_> {
    fn stage(&mut self, plan: &StagePlan, first: usize) -> Result<(), BuildError> {
        let (base, verdict) = match begin(self.shared, plan, &self.results, StepId(first)) {
            Ok(ended) => (Some(ended.value), of_outcome(&ended.outcome)),
            Err(failed) => (None, self.of_error(*failed.error, false)?),
        };
        let is_open = base.is_none();
        let base = match (base, &plan.base) {
            (Some(base), _) => base,
            (None, BasePlan::Stage(id)) if self.partial.contains_key(id) => self.partial[id].clone(),
            (None, _) => unknown()?,
        };
        // A FROM that names a stage has nothing to do, whatever becomes of that.
        let verdict = match plan.base {
            BasePlan::Stage(_) => Verdict::Nothing,
            _ => verdict,
        };
        self.push(plan, 0, &plan.from, verdict);
        let results = std::mem::take(&mut self.results);
        let ahead = Ahead::nothing(self.shared);
        let mut stage = Stage {
            shared: self.shared,
            ahead: &ahead,
            plan,
            results: &results,
            result: base,
            first,
            is_open: Cell::new(is_open),
            room: Cell::new(None),
        };
        for (index, step) in plan.steps.iter().enumerate() {
            let id = StepId(first + index + 1);
            let verdict = match stage.step(id, step) {
                Ok(_) => self.told.take(id).unwrap_or(Verdict::Nothing),
                Err(failed) => {
                    let verdict = self.of_error(*failed.error, stage.is_open.get())?;
                    stage.is_open.set(true);
                    verdict
                }
            };
            self.push(plan, index + 1, &step.place, verdict);
        }
        let (result, is_open) = (stage.result, stage.is_open.get());
        self.results = results;
        match is_open {
            true => drop(self.partial.insert(plan.id, result)),
            false => self.results.insert(plan.id, result),
        }
        Ok(())
    }

    fn push(&mut self, plan: &StagePlan, index: usize, place: &Place, verdict: Verdict) {
        self.all.push(Foreseen {
            stage: plan.id.0,
            stage_name: plan.name.clone(),
            index: index + 1,
            total: plan.steps.len() + 1,
            place: place.clone(),
            verdict,
        });
    }

    /// What an error means here; that the store can't be read is one of the forecast itself.
    fn of_error(&self, error: StepError, is_open: bool) -> Result<Verdict, BuildError> {
        Ok(match error {
            StepError::Store(error) => return Err(error.into()),
            StepError::OnlyBuilt { what } => Verdict::Depends { on: what },
            StepError::StageNotBuilt { stage } => Verdict::Depends {
                on: self.stage_words(StageId(stage)),
            },
            // A name may be looked up in what is not there yet.
            StepError::Place(_) if is_open => Verdict::Depends {
                on: "the step before".to_owned(),
            },
            error => Verdict::Fails {
                error: error.to_string(),
            },
        })
    }

    fn stage_words(&self, id: StageId) -> String {
        let stage = self.plan.stages.iter().find(|stage| stage.id == id);
        let name = stage.and_then(|stage| stage.name.clone());
        format!("stage {}", name.unwrap_or_else(|| id.0.to_string()))
    }
}

impl Stage<'_, '_> {
    /// What a build would find; the layer, if it is a hit.
    pub(super) fn foresee(
        &self,
        lookup: &Lookup<'_>,
        forced: Option<Cause>,
        below: &[box_store::layer::Layer],
        lists: impl FnOnce() -> Result<Lists, StepError>,
    ) -> Result<Option<Hit>, StepError> {
        let is_open = lookup.sees_below && self.is_open.get();
        let parts = lookup.parts.id();
        if forced.is_none()
            && !is_open
            && let Some(hit) = self.lookup(below, parts, lookup.reuse)?
        {
            self.shared.tell(lookup.id, &Verdict::Hit);
            return Ok(Some(hit));
        }
        let verdict = match forced {
            Some(why) => Verdict::Miss { why },
            None if is_open && self.shared.cache.knows(parts)? => Verdict::Depends {
                on: "the step before: if that gives an equal layer, it is a hit".to_owned(),
            },
            None => Verdict::Miss {
                why: self.why(lookup, &lists()?)?,
            },
        };
        self.shared.tell(lookup.id, &verdict);
        self.is_open.set(true);
        Ok(None)
    }
}
