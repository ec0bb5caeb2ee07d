//! Progress as lines, for logs and CI.

use std::sync::{Mutex, PoisonError};

use box_builder::explain::Verdict;
use box_builder::progress::{Awaited, Event, EventSink, StepId};

use super::shell::{self, Held};
use super::{human, steps};

/// Prints each event as a line on standard error.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<(steps::Steps, Held)>,
}

impl EventSink for Lines {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (steps, held) = &mut *state;
        let mut lines = lines(steps, &event);
        if let Event::ShellClosed { .. } = event {
            lines.extend(held.release());
        }
        for line in &lines {
            if let Some(line) = held.pass(line) {
                eprintln!("{line}");
            }
        }
        if let Event::ShellOpened { .. } = event {
            held.hold();
        }
    }
}

/// The lines that an event gives.
fn lines(steps: &mut steps::Steps, event: &Event<'_>) -> Vec<String> {
    match *event {
        Event::StepStarted {
            id,
            stage,
            stage_name,
            index,
            total,
            text,
            ..
        } => {
            let label = steps.begin(id, stage, stage_name, (index, total), text);
            vec![format!("{label} {}", human::one_line(text))]
        }
        Event::StepAhead {
            id,
            stage,
            stage_name,
            index,
            total,
            text,
        } => {
            steps.begin(id, stage, stage_name, (index, total), text);
            Vec::new()
        }
        // That there is much to do is seen anyway.
        Event::StepWaiting { id, what: Some(what) } if what != Awaited::Turn => {
            vec![waits(steps, id, what)]
        }
        Event::StepOutput { id, stream, bytes } => {
            let lines = steps.output(id, stream, bytes);
            labelled(steps, id, lines)
        }
        Event::StepExplained { id, verdict } => explained(steps, id, verdict).into_iter().collect(),
        Event::StepCached {
            id,
            config_only: false,
        } => vec![format!("{} CACHED {}", steps.label(id), steps.text(id))],
        Event::StepFinished {
            id,
            wall,
            ref usage,
            layer_size,
            ..
        } => {
            let figures = steps::figures(wall, usage.as_ref(), Some(layer_size));
            ended(steps, id, &format!("DONE {figures}"))
        }
        Event::StepFailed { id, wall, ref usage } => {
            let figures = steps::figures(wall, usage.as_ref(), None);
            ended(steps, id, &format!("FAILED {figures}"))
        }
        Event::StepCancelled { id, wall } => {
            ended(steps, id, &format!("CANCELLED {}", human::duration(wall)))
        }
        Event::FetchStarted { id, what, total } => {
            let size = total.map_or_else(String::new, |t| format!(" ({})", human::bytes(t)));
            vec![format!("{} {}{size}", steps.label(id), human::one_line(what))]
        }
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
            let label = steps.begin(id, stage, stage_name, (index, total), text);
            vec![shell::opened(&label, text, occasion, command)]
        }
        Event::Warning(diagnostic, sources) => vec![human::printable(diagnostic.render(sources).trim_end())],
        Event::Note(text) => vec![human::printable(text)],
        _ => Vec::new(),
    }
}

/// That a step waits. One that was not begun is where a person is to be let in.
pub(super) fn waits(steps: &steps::Steps, id: StepId, what: Awaited<'_>) -> String {
    let label = match steps.label(id) {
        "" => "the shell",
        label => label,
    };
    format!("{label} waits for {}", human::one_line(&what.to_string()))
}

/// Why a step is done, or not; nothing of those that are nothing to do.
pub(super) fn explained(steps: &steps::Steps, id: StepId, verdict: &Verdict) -> Option<String> {
    let is_worth = *verdict != Verdict::Nothing;
    is_worth.then(|| format!("{} {}", steps.label(id), super::verdict(verdict)))
}

fn labelled(steps: &steps::Steps, id: StepId, lines: Vec<String>) -> Vec<String> {
    lines
        .into_iter()
        .map(|line| format!("{} | {line}", steps.label(id)))
        .collect()
}

/// What is left of the output, then how it ended.
fn ended(steps: &mut steps::Steps, id: StepId, how: &str) -> Vec<String> {
    let rest = steps.rest(id);
    let mut lines = labelled(steps, id, rest);
    lines.push(format!("{} {how}", steps.label(id)));
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use box_builder::exec::Stream;

    #[test]
    fn a_step_in_lines() {
        let mut steps = steps::Steps::default();
        let id = StepId(3);
        let mut all = Vec::new();
        let started = Event::StepStarted {
            id,
            stage: 0,
            stage_name: None,
            index: 2,
            total: 3,
            text: "RUN a",
            line: 2,
        };
        let finished = Event::StepFinished {
            id,
            wall: Duration::from_millis(3),
            usage: None,
            layer_size: 20,
            layer_entries: 1,
        };
        for event in [
            started,
            Event::StepOutput {
                id,
                stream: Stream::Stdout,
                bytes: b"x\ny",
            },
            finished,
        ] {
            all.extend(lines(&mut steps, &event));
        }
        assert_eq!(
            all,
            [
                "[stage-0 2/3] RUN a",
                "[stage-0 2/3] | x",
                "[stage-0 2/3] | y",
                "[stage-0 2/3] DONE 3.0ms, layer 20B"
            ]
        );
    }
}
