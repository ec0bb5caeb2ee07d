//! Letting a person in: after a RUN that failed, or where they asked for it.
//!
//! Whoever is let in holds no lock of a step and no turn, for people take their time; a cache that is locked or private is theirs as it
//! was the step's. Before somebody is let in after a failure all other steps are stopped, as by any failure: what they would have made is
//! of no use to a build that fails, and the terminal is for one at a time.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{BuildError, StepError};
use crate::exec::{ExecError, ExecStatus};
use crate::plan::{Action, Place, RunStep};
use crate::progress::{Event, Occasion, StepId};
use crate::steps::run::Room;
use crate::steps::{At, visit};

use super::announce::Announced;
use super::stage::Stage;

/// Who was let in during a build.
#[derive(Default)]
pub(super) struct Visits {
    is_taken: AtomicBool,
    status: Mutex<Option<ExecStatus>>,
}

impl Visits {
    /// How the shell ended that was asked for.
    pub(super) fn status(&self) -> Option<ExecStatus> {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the shell stands.
struct Standing<'a> {
    index: usize,
    place: &'a Place,
    occasion: Occasion<'a>,
    command: Option<String>,
}

impl Stage<'_, '_> {
    /// After the step of this number (0 is FROM) has failed, if that was a RUN and the first failure. What goes wrong is told, and
    /// changes nothing.
    pub(super) fn let_in_after(&self, announced: &Announced<'_>, index: usize, error: &BuildError) {
        let step = index.checked_sub(1).and_then(|index| self.plan.steps.get(index));
        let (Some(room), Some(step), BuildError::Step { source, .. }) = (self.room.take(), step, error)
        else {
            return;
        };
        let Action::Run(run) = &step.action else {
            return;
        };
        if self.shared.visits.is_taken.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.tools.cancel.cancel();
        let why = source.to_string();
        let standing = Standing {
            index,
            place: &step.place,
            occasion: Occasion::Failed(&why),
            command: visit::command(run),
        };
        let left = room
            .again()
            .and_then(|room| self.visit(announced, &standing, run, room));
        if let Err(error) = left
            && !self.shared.tools.request.cancel.is_cancelled()
        {
            let note = format!(
                "no shell was opened in the step's container: {}",
                said(&error, run)
            );
            self.shared.tools.events.event(Event::Note(&note));
        }
    }

    /// At the end of the stage's steps, if that was asked for.
    pub(super) fn let_in_at_end(&mut self, announced: &Announced<'_>) -> Result<(), BuildError> {
        let Some(visited) = &self.plan.visit else {
            return Ok(());
        };
        // People are let in once, whatever else of the build must be done again.
        if self.shared.visits.status().is_some() {
            return Ok(());
        }
        self.shared.visits.is_taken.store(true, Ordering::SeqCst);
        let tools = &self.shared.tools;
        for stage in visited.run.stages() {
            self.results.wait(stage, tools.cancel)?;
        }
        let last = self.plan.steps.last().map_or(&self.plan.from, |step| &step.place);
        let (index, occasion) = match visited.next {
            Some(_) => (self.plan.steps.len() + 1, Occasion::Before),
            None => (self.plan.steps.len(), Occasion::After),
        };
        let standing = Standing {
            index,
            place: visited.next.as_ref().unwrap_or(last),
            occasion,
            command: visit::command(&visited.run),
        };
        let id = announced.id(index);
        let let_in = || -> Result<ExecStatus, StepError> {
            let sources = self.mount_sources(id, &visited.run)?;
            let layers = tools.store.in_order(&self.result.layers);
            let layers = layers.map_err(|source| StepError::Order { source })?;
            let at = At { id, layers: &layers };
            let room = visit::room(tools, at, &visited.run, &sources)?;
            self.visit(announced, &standing, &visited.run, room)
        };
        let status = let_in().map_err(|error| match error {
            StepError::Exec(ExecError::Cancelled) | StepError::Cancelled => BuildError::Cancelled,
            source => BuildError::NoShell {
                place: Box::new(standing.place.clone()),
                reason: said(&source, &visited.run),
                source: Box::new(source),
            },
        })?;
        let visits = &self.shared.visits;
        *visits.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        Ok(())
    }

    fn visit(
        &self,
        announced: &Announced<'_>,
        standing: &Standing<'_>,
        run: &RunStep,
        room: Room,
    ) -> Result<ExecStatus, StepError> {
        let tools = &self.shared.tools;
        let id: StepId = announced.id(standing.index);
        let is_open = Cell::new(false);
        let opened = || {
            is_open.set(true);
            tools.events.event(Event::ShellOpened {
                id,
                stage: self.plan.id.0,
                stage_name: self.plan.name.as_deref(),
                index: standing.index + 1,
                total: self.plan.total(),
                text: &standing.place.text,
                occasion: standing.occasion,
                command: standing.command.as_deref(),
            });
        };
        let left = room.visit(tools, run, &opened);
        if is_open.get() {
            tools.events.event(Event::ShellClosed { id });
        }
        left
    }
}

/// Why no shell was opened, in words.
fn said(error: &StepError, run: &RunStep) -> String {
    match error {
        StepError::Exec(ExecError::CommandNotFound { command }) => {
            format!(
                "the image has no {command}, which SHELL ({}) names",
                run.shell.join(" ")
            )
        }
        error => error.to_string(),
    }
}
