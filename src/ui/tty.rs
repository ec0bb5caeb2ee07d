//! The live display: finished steps stay as lines, running ones have a spinner, their time and their last line of output.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use box_builder::progress::{Awaited, Event, EventSink, StepId};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::shell::{self, Held};
use super::{human, steps};

/// Draws on the terminal at standard error.
#[derive(Debug)]
pub(super) struct Live {
    bars: MultiProgress,
    state: Mutex<State>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct State {
    steps: steps::Steps,
    running: BTreeMap<StepId, ProgressBar>,
    /// Also of steps whose turn has not come.
    fetches: BTreeMap<StepId, ProgressBar>,
}

/// Columns that a running step's line has beside its text and its output.
const SPINNER_AND_TIME: usize = 10;

impl Live {
    /// An empty display.
    pub(super) fn new() -> Self {
        Self {
            bars: super::transfer::terminal(),
            state: Mutex::default(),
            held: Mutex::default(),
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

    /// A step that waits says so; its time is that of its own work. One that was not begun is a shell's.
    fn waiting(&self, state: &mut State, id: StepId, what: Option<Awaited<'_>>) {
        if let Some(bar) = state.running.get(&id) {
            let text = what.map(|what| format!("waits for {}", human::one_line(&what.to_string())));
            bar.set_message(clipped(&text.unwrap_or_default()));
            bar.reset_elapsed();
        } else if let (Some(what), "") = (what, state.steps.label(id)) {
            self.print(&super::plain::waits(&state.steps, id, what));
        }
    }

    fn print(&self, line: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = held.pass(line) {
            // A terminal that went away is noticed by whoever writes the result.
            let _ = self.bars.println(line);
        }
    }

    /// A shell takes the terminal, or gives it back.
    fn shell(&self, state: &mut State, event: &Event<'_>) {
        let Event::ShellOpened {
            id,
            stage,
            stage_name,
            index,
            total,
            text,
            occasion,
            command,
        } = *event
        else {
            return self.come_back();
        };
        let last = state.steps.last(id).into_iter();
        let mut lines: Vec<String> = last.map(|line| format!("  | {line}")).collect();
        let label = state.steps.begin(id, stage, stage_name, (index, total), text);
        lines.push(shell::opened(&label, text, occasion, command));
        self.leave(&lines);
    }

    /// Leaves the terminal to a shell, below what it should know.
    fn leave(&self, lines: &[String]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
        lines.iter().for_each(|line| eprintln!("{line}"));
        held.hold();
    }

    /// Comes back to it.
    fn come_back(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = held.release();
        drop(held);
        self.bars.set_draw_target(ProgressDrawTarget::stderr());
        lines.iter().for_each(|line| self.print(line));
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
        state.running.insert(id, bar);
    }

    fn output(state: &mut State, id: StepId, lines: &[String]) {
        if let (Some(bar), Some(line)) = (state.running.get(&id), lines.last()) {
            bar.set_message(clipped(line));
        }
    }

    fn end(&self, state: &mut State, id: StepId, mark: &str, figures: &str) {
        if let Some(fetch) = state.fetches.remove(&id) {
            fetch.finish_and_clear();
        }
        let Some(bar) = state.running.remove(&id) else {
            return;
        };
        bar.finish_and_clear();
        let (label, text) = (state.steps.label(id), state.steps.text(id));
        let width = console_width().saturating_sub(console::measure_text_width(figures) + label.len() + 6);
        let text = console::truncate_str(text, width.max(8), "…");
        self.print_clipped(&format!("{mark} {label} {text}  {figures}"));
    }

    fn fetch(&self, state: &mut State, id: StepId, what: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let (bar, what) = match state.running.get(&id) {
            Some(running) => (self.bars.insert_after(running, bar), what.to_owned()),
            None => (self.bars.add(bar), format!("{} {what}", state.steps.label(id))),
        };
        bar.set_style(super::transfer::style(total));
        let what = human::one_line(&what);
        bar.set_prefix(console::truncate_str(&what, console_width() / 3, "…").into_owned());
        state.fetches.insert(id, bar);
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
            Event::StepAhead {
                id,
                stage,
                stage_name,
                index,
                total,
                text,
            } => {
                state.steps.begin(id, stage, stage_name, (index, total), text);
            }
            Event::StepWaiting { id, what } => self.waiting(state, id, what),
            Event::StepExplained { id, verdict } => {
                let line = super::plain::explained(&state.steps, id, verdict);
                line.inspect(|line| self.print(line));
            }
            Event::StepOutput { id, stream, bytes } => {
                let lines = state.steps.output(id, stream, bytes);
                Self::output(state, id, &lines);
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
            // What it printed last comes with the build's failure.
            Event::StepFailed { id, wall, usage } => {
                self.end(state, id, "✘", &steps::figures(wall, usage.as_ref(), None));
            }
            Event::StepCancelled { id, wall } => {
                self.end(
                    state,
                    id,
                    "⊘",
                    &format!("cancelled after {}", human::duration(wall)),
                );
            }
            Event::ShellOpened { .. } | Event::ShellClosed { .. } => self.shell(state, &event),
            Event::FetchStarted { id, what, total } => self.fetch(state, id, what, total),
            Event::FetchProgress { id, bytes } => {
                state.fetches.get(&id).inspect(|bar| bar.inc(bytes));
            }
            Event::FetchDone { id } => {
                let fetch = state.fetches.remove(&id);
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

/// What fits behind a step's text and time.
fn clipped(text: &str) -> String {
    console::truncate_str(text, console_width() * 4 / 10 - SPINNER_AND_TIME, "…").into_owned()
}

fn style(template: &str, otherwise: ProgressStyle) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or(otherwise)
}

fn console_width() -> usize {
    usize::from(indicatif::TermLike::width(&console::Term::stderr())).max(SPINNER_AND_TIME * 3)
}
