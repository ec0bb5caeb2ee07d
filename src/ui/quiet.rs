//! No progress: what a step that failed printed last comes with the build's failure.

use std::sync::{Mutex, PoisonError};

use box_builder::progress::{Event, EventSink};

use super::steps;

/// Shows nothing but what was asked for.
#[derive(Debug, Default)]
pub(super) struct Nothing(Mutex<steps::Steps>);

impl EventSink for Nothing {
    fn event(&self, event: Event<'_>) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
                steps.begin(id, stage, stage_name, (index, total), text);
            }
            Event::StepOutput { id, stream, bytes } => drop(steps.output(id, stream, bytes)),
            Event::ShellOpened {
                id,
                stage,
                stage_name,
                index,
                total,
                text,
                occasion,
                command,
            } => {
                steps.last(id).iter().for_each(|line| eprintln!("  | {line}"));
                let label = steps.begin(id, stage, stage_name, (index, total), text);
                eprintln!("{}", super::shell::opened(&label, text, occasion, command));
            }
            // It was asked for.
            Event::StepExplained { id, verdict } => {
                let line = super::plain::explained(&steps, id, verdict);
                line.inspect(|line| eprintln!("{line}"));
            }
            _ => {}
        }
    }
}
