//! `box build --report`: a page that tells a build, for people. What happens is collected while the build goes on.

mod page;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use box_builder::exec::Usage;
use box_builder::progress::{Event, EventSink, StepId};
use box_store::weigh::Weight;

pub(crate) use page::page;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It changes the image's configuration alone.
    Config,
    Cached,
    Done,
    Failed,
    Stopped,
    /// It had begun when the build ended.
    Open,
}

/// A step of the build.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) stage: usize,
    pub(crate) stage_name: Option<String>,
    /// The instruction on one line.
    pub(crate) text: String,
    /// Its line in the Boxfile, from 1.
    pub(crate) line: u32,
    /// Since the build's start.
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
    pub(crate) fate: Fate,
    /// Why it was done, in words.
    pub(crate) why: String,
    pub(crate) usage: Option<Usage>,
    /// Bytes and entries of its layer.
    pub(crate) layer: Option<(u64, u64)>,
}

/// A layer of the image.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// What made it.
    pub(crate) made_by: String,
    pub(crate) weight: Weight,
}

/// All that the page tells.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The names that the image got, or its id; none if the build failed.
    pub(crate) image: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// From the first event to the last.
    pub(crate) wall: Duration,
    pub(crate) steps: Vec<Step>,
    /// Bottom first.
    pub(crate) layers: Vec<Layer>,
}

/// Collects what a build does, and passes all events on.
pub(crate) struct Recorder<'a> {
    inner: &'a dyn EventSink,
    /// Whether explanations are for the other, too.
    passes_why: bool,
    start: Instant,
    steps: Mutex<BTreeMap<StepId, Step>>,
}

impl<'a> Recorder<'a> {
    /// Before this sink; explanations reach it only if they are asked for otherwise.
    pub(crate) fn new(inner: &'a dyn EventSink, passes_why: bool) -> Self {
        Self {
            inner,
            passes_why,
            start: Instant::now(),
            steps: Mutex::default(),
        }
    }

    /// The steps so far, in their order, and how long the build has taken.
    pub(crate) fn finish(self) -> (Vec<Step>, Duration) {
        let wall = self.start.elapsed();
        let steps = self.steps.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ended = |mut step: Step| {
            if step.fate == Fate::Open {
                step.ended = wall;
            }
            step
        };
        (steps.into_values().map(ended).collect(), wall)
    }

    fn steps(&self) -> MutexGuard<'_, BTreeMap<StepId, Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, id: StepId, fate: Fate, usage: Option<Usage>, layer: Option<(u64, u64)>) {
        let now = self.start.elapsed();
        if let Some(step) = self.steps().get_mut(&id) {
            (step.ended, step.fate) = (now, fate);
            (step.usage, step.layer) = (usage, layer);
        }
    }

    fn take(&self, event: &Event<'_>) {
        match event {
            Event::StepStarted {
                id,
                stage,
                stage_name,
                text,
                line,
                ..
            } => {
                let begun = self.start.elapsed();
                let step = Step {
                    stage: *stage,
                    stage_name: stage_name.map(str::to_owned),
                    text: (*text).to_owned(),
                    line: *line,
                    begun,
                    ended: begun,
                    fate: Fate::Open,
                    why: String::new(),
                    usage: None,
                    layer: None,
                };
                self.steps().insert(*id, step);
            }
            Event::StepExplained { id, verdict } => {
                if let Some(step) = self.steps().get_mut(id) {
                    step.why = verdict.to_string();
                }
            }
            Event::StepCached { id, config_only } => {
                let fate = if *config_only { Fate::Config } else { Fate::Cached };
                self.end(*id, fate, None, None);
            }
            Event::StepFinished {
                id,
                usage,
                layer_size,
                layer_entries,
                ..
            } => self.end(*id, Fate::Done, *usage, Some((*layer_size, *layer_entries))),
            Event::StepFailed { id, usage, .. } => self.end(*id, Fate::Failed, *usage, None),
            Event::StepCancelled { id, .. } => self.end(*id, Fate::Stopped, None, None),
            _ => {}
        }
    }
}

impl EventSink for Recorder<'_> {
    fn event(&self, event: Event<'_>) {
        self.take(&event);
        if self.passes_why || !matches!(event, Event::StepExplained { .. }) {
            self.inner.event(event);
        }
    }
}
