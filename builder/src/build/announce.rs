//! What is told of every step, and what its failure becomes.

use std::time::{Duration, Instant};

use crate::error::{BuildError, StepError};
use crate::exec::Usage;
use crate::plan::{Place, StagePlan};
use crate::progress::{Event, StepId};
use crate::steps::Tools;

/// How a step ended, for its event.
pub(super) struct Ended<T> {
    pub(super) value: T,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Config,
    Cached,
    Done {
        size: u64,
        entries: u64,
        usage: Option<Usage>,
    },
}

/// Why a step failed, and what it used.
pub(super) struct Failed {
    pub(super) error: Box<StepError>,
    pub(super) usage: Option<Usage>,
}

impl<E: Into<StepError>> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed {
            error: Box::new(error.into()),
            usage: None,
        }
    }
}

/// Tells the events around steps.
pub(super) struct Announced<'a> {
    pub(super) tools: &'a Tools<'a>,
    pub(super) plan: &'a StagePlan,
    /// The number of its first step.
    pub(super) first: usize,
}

impl Announced<'_> {
    pub(super) fn step<T>(
        &self,
        index: usize,
        place: &Place,
        run: impl FnOnce(StepId) -> Result<Ended<T>, Failed>,
    ) -> Result<T, BuildError> {
        let tools = self.tools;
        if tools.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let id = self.id(index);
        let start = Instant::now();
        tools.events.event(self.started(id, index, place));
        match run(id) {
            Ok(Ended { value, outcome }) => {
                tools.events.event(ended(id, &outcome, self.wall(id, start)));
                Ok(value)
            }
            // What goes wrong in a build that is being stopped went wrong because of that.
            Err(Failed { error, .. })
                if tools.cancel.is_cancelled() || matches!(*error, StepError::Cancelled) =>
            {
                let wall = self.wall(id, start);
                tools.events.event(Event::StepCancelled { id, wall });
                Err(BuildError::Cancelled)
            }
            Err(Failed { error, usage }) => {
                let wall = self.wall(id, start);
                tools.events.event(Event::StepFailed { id, wall, usage });
                Err(BuildError::Step {
                    place: Box::new(place.clone()),
                    source: error,
                })
            }
        }
    }

    /// Tells that something is got for a step whose turn has not come.
    pub(super) fn ahead(&self, index: usize) {
        let place = match index.checked_sub(1).and_then(|index| self.plan.steps.get(index)) {
            Some(step) => &step.place,
            None => &self.plan.from,
        };
        self.tools.events.event(Event::StepAhead {
            id: self.id(index),
            stage: self.plan.id.0,
            stage_name: self.plan.name.as_deref(),
            index: index + 1,
            total: self.plan.total(),
            text: &place.text,
        });
    }

    pub(super) fn id(&self, index: usize) -> StepId {
        StepId(self.first + index)
    }

    /// The time since, but for what the step waited for others.
    fn wall(&self, id: StepId, start: Instant) -> Duration {
        start.elapsed().saturating_sub(self.tools.turns.idle(id))
    }

    fn started<'e>(&'e self, id: StepId, index: usize, place: &'e Place) -> Event<'e> {
        Event::StepStarted {
            id,
            stage: self.plan.id.0,
            stage_name: self.plan.name.as_deref(),
            index: index + 1,
            total: self.plan.total(),
            text: &place.text,
            line: place.span.line,
        }
    }
}

fn ended(id: StepId, outcome: &Outcome, wall: Duration) -> Event<'static> {
    match *outcome {
        Outcome::Config => Event::StepCached {
            id,
            config_only: true,
        },
        Outcome::Cached => Event::StepCached {
            id,
            config_only: false,
        },
        Outcome::Done { size, entries, usage } => Event::StepFinished {
            id,
            wall,
            usage,
            layer_size: size,
            layer_entries: entries,
        },
    }
}
