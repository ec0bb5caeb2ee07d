//! No progress; but the last lines of a step that fails are shown, since they say why.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use box_builder::exec::Stream;
use box_builder::progress::{Event, EventSink, StepId};

use super::steps;

/// How many lines of a failed step are shown.
pub(super) const LAST_LINES: usize = 20;

/// Remembers the last lines of the steps that run.
#[derive(Debug, Default)]
pub(super) struct LastWords(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    steps: steps::Steps,
    last: BTreeMap<StepId, VecDeque<String>>,
}

impl State {
    fn output(&mut self, id: StepId, stream: Stream, bytes: &[u8]) {
        let lines = self.steps.output(id, stream, bytes);
        self.keep(id, lines);
    }

    fn keep(&mut self, id: StepId, lines: Vec<String>) {
        let last = self.last.entry(id).or_default();
        last.extend(lines);
        let over = last.len().saturating_sub(LAST_LINES);
        last.drain(..over);
    }
}

impl EventSink for LastWords {
    fn event(&self, event: Event<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted {
                id,
                stage,
                stage_name,
                index,
                total,
                text,
                ..
            } => {
                state.steps.begin(id, stage, stage_name, (index, total), text);
            }
            // It was asked for.
            Event::StepExplained { id, verdict } => {
                let line = super::plain::explained(&state.steps, id, verdict);
                line.inspect(|line| eprintln!("{line}"));
            }
            Event::StepOutput { id, stream, bytes } => state.output(id, stream, bytes),
            Event::StepFinished { id, .. } => drop(state.last.remove(&id)),
            Event::StepFailed { id, .. } => {
                let rest = state.steps.rest(id);
                state.keep(id, rest);
                for line in state.last.remove(&id).unwrap_or_default() {
                    eprintln!("{line}");
                }
            }
            _ => {}
        }
    }
}
