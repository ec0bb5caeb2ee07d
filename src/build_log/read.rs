//! Reading logs. What can't be understood of one is left out: its build may have been killed, or been of a newer box.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use box_store::build_log::EVENTS;
use box_store::{BuildLogInfo, Store, StoreError};

use super::{Figures, How, Line, Subject, output_file};

/// The longest line that is read.
const LONGEST: u64 = 16 << 20;

/// A build, as its log has it.
#[derive(Debug, Default)]
pub(crate) struct Build {
    pub(crate) number: u64,
    /// Whether it goes on.
    pub(crate) is_running: bool,
    /// Milliseconds since 1970.
    pub(crate) started: u64,
    pub(crate) subject: Subject,
    /// In the order of the Boxfile.
    pub(crate) steps: BTreeMap<usize, LoggedStep>,
    /// Notes and warnings.
    pub(crate) said: Vec<String>,
    /// None: it goes on, or was killed.
    pub(crate) how: Option<How>,
    pub(crate) image: Option<String>,
    pub(crate) error: Option<String>,
    /// Milliseconds from the start to the last that is known.
    pub(crate) took: u64,
}

/// A step, as a log has it.
#[derive(Debug)]
pub(crate) struct LoggedStep {
    pub(crate) stage: usize,
    pub(crate) name: Option<String>,
    pub(crate) index: usize,
    pub(crate) total: usize,
    pub(crate) text: String,
    pub(crate) line: u32,
    /// When it began, in milliseconds since the build's start.
    pub(crate) at: u64,
    /// None: it runs, or was killed.
    pub(crate) how: Option<How>,
    pub(crate) figures: Figures,
}

impl LoggedStep {
    /// `[build 2/7]`
    pub(crate) fn label(&self) -> String {
        let stage = self.name.clone();
        let stage = stage.unwrap_or_else(|| format!("stage-{}", self.stage));
        format!("[{stage} {}/{}]", self.index, self.total)
    }
}

impl Build {
    /// What a step printed, byte by byte; none if that is nothing.
    pub(crate) fn output(&self, store: &Store, step: usize) -> Result<Option<File>, StoreError> {
        store.open_build_log(self.number, &output_file(step))
    }

    /// Its state in a word.
    pub(crate) fn status(&self) -> &'static str {
        match (self.how, self.is_running) {
            (Some(how), _) => how.as_str(),
            (None, true) => "running",
            (None, false) => "killed",
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Build { started, subject } => (self.started, self.subject) = (started, subject),
            Line::Step {
                id,
                stage,
                name,
                index,
                total,
                text,
                line,
                at,
            } => {
                self.took = at;
                let step = LoggedStep {
                    stage,
                    name,
                    index,
                    total,
                    text,
                    line,
                    at,
                    how: None,
                    figures: Figures::default(),
                };
                self.steps.insert(id, step);
            }
            Line::Ended { id, how, at, figures } => {
                self.took = at;
                if let Some(step) = self.steps.get_mut(&id) {
                    (step.how, step.figures) = (Some(how), figures);
                }
            }
            Line::Said { text, at } => {
                self.took = at;
                self.said.push(text);
            }
            Line::Over {
                how,
                image,
                error,
                at,
            } => {
                self.took = at;
                (self.how, self.image, self.error) = (Some(how), image, error);
            }
        }
    }
}

/// All logs, oldest first.
pub(crate) fn all(store: &Store) -> Result<Vec<Build>, StoreError> {
    store.build_logs()?.iter().map(|info| read(store, info)).collect()
}

/// A log; the newest if no number is given. None if there is none.
pub(crate) fn one(store: &Store, number: Option<u64>) -> Result<Option<Build>, StoreError> {
    let logs = store.build_logs()?;
    let found = match number {
        Some(number) => logs.iter().find(|info| info.number == number),
        None => logs.last(),
    };
    found.map(|info| read(store, info)).transpose()
}

fn read(store: &Store, info: &BuildLogInfo) -> Result<Build, StoreError> {
    let mut build = Build {
        number: info.number,
        is_running: info.is_running,
        ..Build::default()
    };
    let Some(file) = store.open_build_log(info.number, EVENTS)? else {
        return Ok(build);
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        // An error of the disk ends it as the end of the file does: what is there is shown.
        match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(1..) => {
                if let Ok(line) = serde_json::from_slice(&line) {
                    build.take(line);
                }
            }
            Ok(0) | Err(_) => return Ok(build),
        }
    }
}
