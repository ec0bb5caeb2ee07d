//! The live display: finished steps stay as lines, running ones have a spinner, their time and their last line of output.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use box_builder::progress::{Event, EventSink, StepId};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{human, steps};

use super::quiet::LAST_LINES;

/// Draws on the terminal at standard error.
#[derive(Debug)]
pub(super) struct Live {
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    steps: steps::Steps,
    running: BTreeMap<StepId, Running>,
}

#[derive(Debug)]
struct Running {
    bar: ProgressBar,
    fetch: Option<ProgressBar>,
    last: Vec<String>,
}

/// Columns that a running step's line has beside its text and its output.
const SPINNER_AND_TIME: usize = 10;

impl Live {
    /// An empty display.
    pub(super) fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
            state: Mutex::default(),
        }
    }

    /// Prints one line, clipped where the terminal ends.
    fn print_clipped(&self, line: &str) {
        self.print(&console::truncate_str(
            line,
            console_width().saturating_sub(1),
            "…",
        ));
    }

    fn print(&self, line: &str) {
        // A terminal that went away is noticed by whoever writes the result.
        let _ = self.bars.println(line);
    }

    fn start(&self, state: &mut State, id: StepId, label: &str) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style(
            "{spinner} {prefix} {elapsed} {msg:.dim}",
            ProgressStyle::default_spinner(),
        ));
        let prefix = format!("{label} {}", state.steps.text(id));
        bar.set_prefix(console::truncate_str(&prefix, console_width() * 6 / 10, "…").into_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        state.running.insert(
            id,
            Running {
                bar,
                fetch: None,
                last: Vec::new(),
            },
        );
    }

    fn output(state: &mut State, id: StepId, lines: Vec<String>) {
        let Some(running) = state.running.get_mut(&id) else {
            return;
        };
        if let Some(line) = lines.last() {
            running.bar.set_message(
                console::truncate_str(line, console_width() * 4 / 10 - SPINNER_AND_TIME, "…").into_owned(),
            );
        }
        running.last.extend(lines);
        let over = running.last.len().saturating_sub(LAST_LINES);
        running.last.drain(..over);
    }

    fn end(&self, state: &mut State, id: StepId, mark: &str, figures: &str) -> Vec<String> {
        let Some(running) = state.running.remove(&id) else {
            return Vec::new();
        };
        running.bar.finish_and_clear();
        let (label, text) = (state.steps.label(id), state.steps.text(id));
        let width = console_width().saturating_sub(console::measure_text_width(figures) + label.len() + 6);
        let text = console::truncate_str(text, width.max(8), "…");
        self.print_clipped(&format!("{mark} {label} {text}  {figures}"));
        running.last
    }

    fn fetch(&self, state: &mut State, id: StepId, what: &str, total: Option<u64>) {
        let Some(running) = state.running.get_mut(&id) else {
            return;
        };
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let bar = self.bars.insert_after(&running.bar, bar);
        bar.set_style(super::transfer::style(total));
        let what = human::one_line(what);
        bar.set_prefix(console::truncate_str(&what, console_width() / 3, "…").into_owned());
        running.fetch = Some(bar);
    }
}

impl EventSink for Live {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
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
                let label = state.steps.begin(id, stage, stage_name, (index, total), text);
                self.start(state, id, &label);
            }
            Event::StepExplained { id, verdict } => {
                let line = super::plain::explained(&state.steps, id, verdict);
                line.inspect(|line| self.print(line));
            }
            Event::StepOutput { id, stream, bytes } => {
                let lines = state.steps.output(id, stream, bytes);
                Self::output(state, id, lines);
            }
            Event::StepCached { id, config_only } => {
                self.end(state, id, "✔", if config_only { "" } else { "cached" });
            }
            Event::StepFinished {
                id,
                wall,
                usage,
                layer_size,
                ..
            } => {
                self.end(
                    state,
                    id,
                    "✔",
                    &steps::figures(wall, usage.as_ref(), Some(layer_size)),
                );
            }
            Event::StepFailed { id, wall, usage } => {
                self.failed(state, id, &steps::figures(wall, usage.as_ref(), None))
            }
            Event::FetchStarted { id, what, total } => self.fetch(state, id, what, total),
            Event::FetchProgress { id, bytes } => {
                state
                    .running
                    .get(&id)
                    .and_then(|r| r.fetch.as_ref())
                    .inspect(|bar| bar.inc(bytes));
            }
            Event::FetchDone { id } => {
                let fetch = state.running.get_mut(&id).and_then(|r| r.fetch.take());
                fetch.inspect(ProgressBar::finish_and_clear);
            }
            Event::Warning(diagnostic, sources) => {
                self.print(&human::printable(diagnostic.render(sources).trim_end()))
            }
            Event::Note(text) => self.print(&human::printable(text)),
            _ => {}
        }
    }
}

impl Live {
    /// A failed step's last lines stay on the screen.
    fn failed(&self, state: &mut State, id: StepId, figures: &str) {
        let rest = state.steps.rest(id);
        Self::output(state, id, rest);
        let last = self.end(state, id, "✘", figures);
        for line in last {
            self.print(&format!("  | {line}"));
        }
    }
}

fn style(template: &str, otherwise: ProgressStyle) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or(otherwise)
}

fn console_width() -> usize {
    usize::from(indicatif::TermLike::width(&console::Term::stderr())).max(SPINNER_AND_TIME * 3)
}
