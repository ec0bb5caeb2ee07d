//! One stage: its base, then its steps, each looked up before it is done.
//!
//! ```text
//! parts ──known?──► chain of the layers below ──lookup──► hit
//!   └─ never seen, or no hit ──lock of the recipe──► lookup again ──► the step ──► layer ──► record
//! ```
//! A stage owns its state alone; what it shares with others ([`Shared`]) may be used from several threads. It waits for another stage
//! where it needs it: for its base at once, for what it copies or mounts when it comes to that step.

use std::cell::Cell;
use std::time::Instant;

use box_store::image::{History, format_rfc3339};
use box_store::layer::Layer;
use box_store::lock::LockGuard;

use crate::cache::{About, Hit, KeyParts, PartsId, Recipe, StepKind};
use crate::error::{BuildError, StepError};
use crate::explain::Verdict;
use crate::files::FilesError;
use crate::plan::{Action, BasePlan, CopyFrom, CopyStep, Reuse, RunStep, StagePlan, Step, WorkdirStep};
use crate::progress::{Event, StepId};
use crate::request::TimesMode;
use crate::steps::bind::{self, Source};
use crate::steps::mounts;
use crate::steps::run::{Left, Room};
use crate::steps::{At, Made, copy, run, workdir};

use super::ahead::Ahead;
use super::announce::{Announced, Ended, Failed, Outcome};
use super::begin::{Results, Shared, StageResult, begin};
use super::explained::{Lists, Lookup, figures, of_outcome};
use super::record::{Done, chain};

/// Builds a stage, waiting for those that it needs to be in `results`. Its steps are numbered from `first`.
///
/// # Errors
/// The first step that fails ends it.
pub(super) fn build_stage(
    shared: &Shared<'_>,
    ahead: &Ahead<'_>,
    plan: &StagePlan,
    results: &Results,
    first: usize,
) -> Result<StageResult, BuildError> {
    let (events, cancel) = (shared.tools.events, shared.tools.cancel);
    if let BasePlan::Stage(base) = plan.base {
        results.wait(base, cancel)?;
    }
    events.event(Event::StageStarted {
        stage: plan.id.0,
        name: plan.name.as_deref(),
    });
    let announced = Announced {
        tools: &shared.tools,
        plan,
        first,
    };
    let base = announced.step(0, &plan.from, |id| {
        let base = begin(shared, plan, results, id)?;
        shared.tell(id, &of_outcome(&base.outcome));
        Ok(base)
    })?;
    let mut stage = Stage {
        shared,
        ahead,
        plan,
        results,
        result: base,
        first,
        is_open: Cell::new(false),
        room: Cell::new(None),
    };
    for (index, step) in plan.steps.iter().enumerate() {
        for stage in step.action.stages() {
            results.wait(stage, cancel)?;
        }
        ahead.claim(StepId(first + index + 1))?;
        let done = announced.step(index + 1, &step.place, |id| stage.step(id, step));
        if let Err(error) = &done {
            stage.let_in_after(&announced, index + 1, error);
        }
        done?;
    }
    stage.let_in_at_end(&announced)?;
    Ok(stage.result)
}

pub(super) struct Stage<'a, 'b> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) ahead: &'a Ahead<'b>,
    pub(super) plan: &'a StagePlan,
    pub(super) results: &'a Results,
    pub(super) result: StageResult,
    /// The number of its FROM.
    pub(super) first: usize,
    /// Whether what lies below the next step is not known: only in a forecast, after a miss.
    pub(super) is_open: Cell<bool>,
    /// The container of the RUN that failed, if a person may be let in.
    pub(super) room: Cell<Option<Room>>,
}

impl Stage<'_, '_> {
    pub(super) fn step(&mut self, id: StepId, step: &Step) -> Result<Ended<()>, Failed> {
        let ended = match &step.action {
            Action::Config => {
                self.note(step, None);
                self.shared.tell(id, &Verdict::Nothing);
                return Ok(Ended {
                    value: (),
                    outcome: Outcome::Config,
                });
            }
            Action::Run(action) => self.run(id, action)?,
            Action::Copy(action) => self.copy(id, action)?,
            Action::Workdir(action) => self.workdir(id, action)?,
        };
        let (layer, recipe, outcome) = ended;
        let is_linked = matches!(&step.action, Action::Copy(copy) if copy.link);
        let time = layer.as_ref().map(|_| self.logical_time(is_linked));
        self.note(step, time);
        self.result.has_own_layers |= layer.is_some();
        self.result
            .makers
            .extend(layer.as_ref().map(|_| Some(step.place.clone())));
        self.result.layers.extend(layer);
        self.result.recipe = recipe;
        Ok(Ended { value: (), outcome })
    }

    /// The logical time of the next layer: it follows from those below, also where the layer is of another origin.
    fn logical_time(&self, is_linked: bool) -> i64 {
        let below = if is_linked { &[][..] } else { &self.result.layers };
        let tools = &self.shared.tools;
        tools.store.logical_time(below, &tools.options())
    }

    /// Adds to the history. `created` is the layer's logical time; what makes no layer has that of the last one.
    fn note(&mut self, step: &Step, time: Option<i64>) {
        let created = match time {
            Some(time) => Some(format_rfc3339(time)),
            None => self.result.history.last().and_then(|last| last.created.clone()),
        };
        self.result.history.push(History {
            created,
            created_by: Some(step.created_by.clone()),
            // What is loaded elsewhere keeps its times, unless they are logical ones that say "box".
            comment: Some(match self.shared.tools.request.mtimes {
                TimesMode::Logical => "box".to_owned(),
                TimesMode::Real => "box --mtimes real".to_owned(),
            }),
            empty_layer: time.is_none().then_some(true),
            ..History::default()
        });
    }

    fn run(&mut self, id: StepId, step: &RunStep) -> Result<(Option<Layer>, Recipe, Outcome), Failed> {
        let sources = self.mount_sources(id, step)?;
        let parts = KeyParts {
            inputs: mounts::inputs(step, &sources),
            env: step.env.clone(),
            user: step.user.clone(),
            workdir: step.workdir.clone(),
            network: Some(step.network.as_str().to_owned()),
            hosts: self.hosts(),
            ..self.parts(StepKind::Run, step.args.clone())
        };
        let (left, ordered) = (Left::default(), Cell::new(None));
        let lists = || bind::lists(&self.shared.tools, id, &sources);
        let made = self.cached((id, parts, step.reuse), &self.result.layers, lists, || {
            // Tools that compare times see each layer newer than those below it.
            let tools = &self.shared.tools;
            let layers = tools.store.in_order(&self.result.layers);
            let layers = layers.map_err(|source| StepError::Order { source })?;
            let made = run::run(tools, At { id, layers: &layers }, step, &sources, &left)?;
            ordered.set(Some(layers));
            Ok(made)
        });
        if let Some(layers) = ordered.take() {
            self.result.layers = layers;
        }
        made.map_err(|error| {
            self.room.set(left.room.take());
            Failed {
                error: Box::new(error),
                usage: left.usage.get(),
            }
        })
    }

    fn hosts(&self) -> Vec<String> {
        let hosts = self.shared.tools.request.hosts.iter();
        hosts.map(|(name, address)| format!("{name} {address}")).collect()
    }

    /// What the mounts of a step read, one for each.
    pub(super) fn mount_sources<'b>(
        &self,
        id: StepId,
        step: &'b RunStep,
    ) -> Result<Vec<Option<Source<'b>>>, StepError> {
        let source = |mount| match mounts::bind_of(mount) {
            Some(bind) => {
                let layers = self.results.layers_of(self.shared, &bind.from)?;
                Source::new(&self.shared.tools, id, bind, layers).map(Some)
            }
            None => Ok(None),
        };
        step.mounts.iter().map(source).collect()
    }

    fn workdir(&self, id: StepId, step: &WorkdirStep) -> Result<(Option<Layer>, Recipe, Outcome), Failed> {
        let parts = KeyParts {
            user: step.user.clone(),
            ..self.parts(StepKind::Workdir, vec![step.path.clone()])
        };
        let below = &self.result.layers;
        Ok(self.cached(
            (id, parts, Reuse::Always),
            below,
            || Ok(Vec::new()),
            || workdir::run(&self.shared.tools, self.at(id), step),
        )?)
    }

    /// With what was read ahead, unless that has changed since.
    fn copy(&self, id: StepId, step: &CopyStep) -> Result<(Option<Layer>, Recipe, Outcome), Failed> {
        if let Some(reading) = self.ahead.take(id)? {
            match self.copy_read(id, step, &reading) {
                Err(StepError::Files(FilesError::Changed { .. })) => {}
                result => return Ok(result?),
            }
        }
        let tools = &self.shared.tools;
        let layers = self.results.layers_of(self.shared, &step.from)?;
        let read = || {
            let layers = layers
                .as_ref()
                .map(|(layers, name)| (layers.as_slice(), name.clone()));
            let reading = copy::Reading::new(tools, id, step, layers)?;
            self.copy_read(id, step, &reading)
        };
        match read() {
            // A cache elsewhere had said that it was something else.
            Err(StepError::Files(FilesError::Changed { .. })) if tools.request.imports.is_some() => {
                Ok(read()?)
            }
            result => Ok(result?),
        }
    }

    fn copy_read(
        &self,
        id: StepId,
        step: &CopyStep,
        reading: &copy::Reading<'_>,
    ) -> Result<(Option<Layer>, Recipe, Outcome), StepError> {
        let linked;
        let (step, below) = match step.link {
            // Nothing of what is below is seen: neither its times nor its links, and names of owners are numbers by then.
            true => {
                linked = copy::linked(step, &self.result.layers)?;
                (&linked, &[][..])
            }
            false => (step, self.result.layers.as_slice()),
        };
        let keeps_owners = !matches!(step.from, CopyFrom::Context | CopyFrom::Named(_));
        let mut parts = KeyParts {
            inputs: reading.inputs()?,
            ..self.parts(StepKind::Copy, copy::canonical(step, keeps_owners))
        };
        if step.link {
            parts.layer.base_created = None;
        }
        let lists = || reading.lists();
        let (like, shared) = (parts.clone(), self.shared);
        self.cached((id, parts, Reuse::Always), below, lists, || {
            // A container needs the whole tree at once.
            let is_run_on = shared.plan.runs_on(self.plan.id, id.0 - self.first);
            let earlier = || match is_run_on {
                true => Ok(Vec::new()),
                false => self.earlier_like(id, &like, below),
            };
            reading.copy(At { id, layers: below }, step.chown.as_deref(), &earlier)
        })
    }

    fn at(&self, id: StepId) -> At<'_> {
        At {
            id,
            layers: &self.result.layers,
        }
    }

    /// The step's layer from the cache; else it is done, and recorded.
    fn cached(
        &self,
        (step, parts, reuse): (StepId, KeyParts, Reuse),
        below: &[Layer],
        lists: impl FnOnce() -> Result<Lists, StepError>,
        make: impl FnOnce() -> Result<Made, StepError>,
    ) -> Result<(Option<Layer>, Recipe, Outcome), StepError> {
        let shared = self.shared;
        let id = parts.id();
        let recipe = self.result.recipe.then(id);
        let start = Instant::now();
        let forced = self.forced(reuse);
        let find = || match forced {
            None => self.lookup(below, id, reuse),
            Some(_) => Ok(None),
        };
        if !shared.tools.is_forecast
            && let Some(hit) = find()?
        {
            return Ok((self.hit(step, below, id, hit), recipe, Outcome::Cached));
        }
        let about = self.about(step);
        let lookup = Lookup {
            id: step,
            parts: &parts,
            reuse,
            sees_below: std::ptr::eq(below, self.result.layers.as_slice()),
            about: &about,
            whence: &self.whence(step, parts.kind),
        };
        if shared.tools.is_forecast {
            let hit = self.foresee(&lookup, forced, below, lists)?;
            return Ok((hit.flatten(), recipe, Outcome::Cached));
        }
        let lock = match forced {
            None => Some(self.lock(step, recipe)?),
            Some(_) => None,
        };
        // An equal build or stage may have done it meanwhile.
        if let Some(hit) = find()? {
            return Ok((self.hit(step, below, id, hit), recipe, Outcome::Cached));
        }
        let lists = lists()?;
        self.tell_miss(&lookup, forced, &lists)?;
        let Made { layer, usage, laid } = make()?;
        for (input, list) in &lists {
            list.keep(shared.tools.store, input)?;
        }
        let outcome = Outcome::Done {
            size: layer.as_ref().map_or(0, Layer::size),
            entries: layer.as_ref().map_or(0, Layer::entries),
            usage,
        };
        let whence = *lookup.whence;
        let wall = start.elapsed().saturating_sub(shared.tools.turns.idle(step));
        let figures = Some(figures(wall, usage.as_ref(), layer.as_ref()));
        let done = Done {
            about: About { figures, ..about },
            whence,
            parts,
            below: below.to_vec(),
            layer: layer.clone(),
            lock,
            laid,
        };
        self.note_use(below, id, reuse, layer.as_ref());
        shared.recorder.add(&shared.cache, done)?;
        Ok((layer, recipe, outcome))
    }

    /// Looks a step up. The digests below are waited for only if some step had these parts.
    pub(super) fn lookup(
        &self,
        layers: &[Layer],
        parts: PartsId,
        reuse: Reuse,
    ) -> Result<Option<Hit>, StepError> {
        let is_ready = layers.iter().all(Layer::is_ready);
        if !is_ready && !self.shared.cache.knows(parts)? {
            return Ok(None);
        }
        let ttl = match reuse {
            Reuse::For(time) => Some(time),
            Reuse::Always | Reuse::Never => None,
        };
        Ok(self.shared.cache.lookup(chain(layers)?, parts, ttl)?)
    }

    /// Takes the lock of the step. Whoever waits here holds nothing that others wait for: locks of what is done go as soon as it is
    /// recorded, whatever this stage does.
    fn lock(&self, step: StepId, recipe: Recipe) -> Result<LockGuard, StepError> {
        let Shared {
            tools,
            cache,
            recorder,
            ..
        } = self.shared;
        tools.lock(step, ("step", &recipe.0), || recorder.poll(cache))
    }
}
