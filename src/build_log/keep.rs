//! Keeping a log while a build goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use box_builder::progress::{Event, EventSink, StepId};
use box_store::build_log::EVENTS;
use box_store::{BuildLog, Store, StoreError};

use super::{BOUNDS, Figures, How, Line, Subject, millis, output_file};

/// Bytes of a step's last output that are remembered for its failure.
const TAIL: usize = 64 << 10;

/// Passes events on, and keeps them. A log that can't be written is said once, and disturbs no build.
pub(crate) struct Keeper<'a> {
    store: &'a Store,
    shown: &'a dyn EventSink,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Lines from before the first step was done.
    waiting: Vec<u8>,
    open: Option<Open>,
    is_broken: bool,
    tails: BTreeMap<StepId, Vec<u8>>,
    last_words: Option<LastWords>,
}

struct Open {
    log: BuildLog,
    events: File,
    outputs: BTreeMap<StepId, File>,
}

/// What the step that failed printed last.
#[derive(Clone, Debug)]
pub(crate) struct LastWords {
    /// The end of its output.
    pub(crate) output: Vec<u8>,
    /// The build's number, if its log is kept.
    pub(crate) build: Option<u64>,
}

impl<'a> Keeper<'a> {
    /// A build of this, whose events are shown there, too.
    pub(crate) fn new(store: &'a Store, shown: &'a dyn EventSink, subject: Subject) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let keeper = Self {
            store,
            shown,
            start: Instant::now(),
            state: Mutex::default(),
        };
        let started = since.map_or(0, millis);
        keeper
            .state()
            .line(&Line::Build { started, subject }, store, false);
        keeper
    }

    /// Writes how the build ended, if its log is kept.
    pub(crate) fn over(&self, how: How, image: Option<String>, error: Option<String>) {
        let at = self.at();
        let line = Line::Over {
            how,
            image,
            error,
            at,
        };
        let mut state = self.state();
        if state.open.is_some() {
            // There is nobody left to be told.
            let _ = state.line(&line, self.store, true);
        }
    }

    /// Of the step that failed first.
    pub(crate) fn last_words(&self) -> Option<LastWords> {
        self.state().last_words.clone()
    }

    fn at(&self) -> u64 {
        millis(self.start.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, event: &Event<'_>) -> Option<StoreError> {
        let mut state = self.state();
        if let Event::StepOutput { id, bytes, .. } = *event {
            return state.output(id, bytes, self.store);
        }
        let (line, is_kept) = line(event, self.at())?;
        let trouble = state.line(&line, self.store, is_kept);
        match *event {
            Event::StepFailed { id, .. } => {
                let output = state.tails.remove(&id).unwrap_or_default();
                let build = state.open.as_ref().map(|open| open.log.number());
                state.last_words.get_or_insert(LastWords { output, build });
            }
            Event::StepFinished { id, .. } | Event::StepCancelled { id, .. } => {
                state.tails.remove(&id);
            }
            _ => return trouble,
        }
        if let Event::StepFailed { id, .. } | Event::StepFinished { id, .. } | Event::StepCancelled { id, .. } =
            *event
            && let Some(open) = &mut state.open
        {
            open.outputs.remove(&id);
        }
        trouble
    }
}

impl EventSink for Keeper<'_> {
    fn event(&self, event: Event<'_>) {
        let trouble = self.keep(&event);
        self.shown.event(event);
        if let Some(error) = trouble {
            let note = format!("the build's log can't be kept: {error}");
            self.shown.event(Event::Note(&note));
        }
    }
}

impl State {
    /// Writes a line, or has it wait for the first that `is_kept`. The first error is given.
    fn line(&mut self, line: &Line, store: &Store, is_kept: bool) -> Option<StoreError> {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        if self.is_broken {
            return None;
        }
        if self.open.is_none() {
            self.waiting.extend(text);
            if !is_kept {
                return None;
            }
            text = std::mem::take(&mut self.waiting);
        }
        self.with_open(store, |open| open.log.write(&mut open.events, &text))
    }

    fn output(&mut self, id: StepId, bytes: &[u8], store: &Store) -> Option<StoreError> {
        let tail = self.tails.entry(id).or_default();
        tail.extend(bytes);
        if tail.len() > 2 * TAIL {
            let over = tail.len() - TAIL;
            tail.drain(..over);
        }
        if self.is_broken {
            return None;
        }
        let before = std::mem::take(&mut self.waiting);
        self.with_open(store, |open| {
            if !before.is_empty() {
                open.log.write(&mut open.events, &before)?;
            }
            let file = match open.outputs.entry(id) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(open.log.create(&output_file(id.0))?)
                }
            };
            open.log.write(file, bytes)
        })
    }

    fn with_open(
        &mut self,
        store: &Store,
        write: impl FnOnce(&mut Open) -> Result<(), StoreError>,
    ) -> Option<StoreError> {
        let open = match &mut self.open {
            Some(open) => Ok(open),
            None => Open::new(store).map(|open| self.open.insert(open)),
        };
        let result = open.and_then(write);
        self.is_broken = result.is_err();
        result.err()
    }
}

impl Open {
    fn new(store: &Store) -> Result<Open, StoreError> {
        let log = store.new_build_log(BOUNDS)?;
        let events = log.create(EVENTS)?;
        Ok(Open {
            log,
            events,
            outputs: BTreeMap::new(),
        })
    }
}

/// The line of an event, and whether a log is made for it.
fn line(event: &Event<'_>, at: u64) -> Option<(Line, bool)> {
    let ended = |id: StepId, how, figures| Line::Ended {
        id: id.0,
        how,
        at,
        figures,
    };
    Some(match *event {
        Event::StepStarted {
            id,
            stage,
            stage_name,
            index,
            total,
            text,
            line,
        } => {
            let step = Line::Step {
                id: id.0,
                stage,
                name: stage_name.map(str::to_owned),
                index,
                total,
                text: text.to_owned(),
                line,
                at,
            };
            (step, false)
        }
        Event::StepCached { id, config_only } => {
            let how = if config_only { How::Config } else { How::Cached };
            (ended(id, how, Figures::default()), false)
        }
        Event::StepFinished {
            id,
            wall,
            ref usage,
            layer_size,
            layer_entries,
        } => {
            let figures = Figures {
                layer_size: Some(layer_size),
                layer_entries: Some(layer_entries),
                ..Figures::new(wall, usage.as_ref())
            };
            (ended(id, How::Done, figures), true)
        }
        Event::StepFailed { id, wall, ref usage } => {
            (ended(id, How::Failed, Figures::new(wall, usage.as_ref())), true)
        }
        Event::StepCancelled { id, wall } => (ended(id, How::Cancelled, Figures::new(wall, None)), true),
        Event::Warning(diagnostic, sources) => {
            let text = diagnostic.render(sources).trim_end().to_owned();
            (Line::Said { text, at }, false)
        }
        Event::Note(text) => {
            let text = text.to_owned();
            (Line::Said { text, at }, false)
        }
        _ => return None,
    })
}
