//! The logs of builds: kept while a build goes on, and read afterwards.
//!
//! A log is made when a build does its first step, so that one which finds everything in the cache writes nothing. It has the whole output
//! of each step, as it came, and a line of JSON for each thing that happened.

mod keep;
mod read;

use std::time::Duration;

use box_builder::exec::Usage;
use box_store::LogBounds;
use serde::{Deserialize, Serialize};

pub(crate) use keep::{Keeper, LastWords};
pub(crate) use read::{Build, LoggedStep, all, one};

/// What is kept of builds, see docs/store-format.md.
const BOUNDS: LogBounds = LogBounds {
    count: 100,
    bytes: 256 << 20,
};

/// What was built.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Subject {
    /// The Boxfile's name.
    pub(crate) boxfile: String,
    /// The context, as it was given, without passwords.
    pub(crate) context: String,
    /// The stage, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// The names that the image gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
}

/// How a step, or a build, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// It changed the configuration alone.
    Config,
    /// It was in the cache.
    Cached,
    /// It was done.
    Done,
    /// It failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl How {
    /// As people read it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            How::Config => "nothing to do",
            How::Cached => "cached",
            How::Done => "done",
            How::Failed => "failed",
            How::Cancelled => "cancelled",
        }
    }
}

/// One line of `events`. Times are in milliseconds, `at` since the build's start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    /// The first.
    Build {
        /// Since 1970.
        started: u64,
        #[serde(flatten)]
        subject: Subject,
    },
    Step {
        id: usize,
        stage: usize,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        index: usize,
        total: usize,
        text: String,
        line: u32,
        at: u64,
    },
    Ended {
        id: usize,
        how: How,
        at: u64,
        #[serde(flatten)]
        figures: Figures,
    },
    Said {
        text: String,
        at: u64,
    },
    /// The last.
    Over {
        how: How,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        at: u64,
    },
}

/// What a step took. Times in milliseconds, sizes in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    /// Of its own work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wall: Option<u64>,
    /// In user space and kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) io_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) io_written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layer_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layer_entries: Option<u64>,
}

impl Figures {
    fn new(wall: Duration, usage: Option<&Usage>) -> Figures {
        let usage = usage.copied().unwrap_or_default();
        let cpu = usage
            .cpu_user
            .into_iter()
            .chain(usage.cpu_system)
            .reduce(|a, b| a + b);
        Figures {
            wall: Some(millis(wall)),
            cpu: cpu.map(millis),
            peak_memory: usage.peak_memory,
            io_read: usage.io_read,
            io_written: usage.io_written,
            ..Figures::default()
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The file of a step's output.
fn output_file(step: usize) -> String {
    format!("{step}.log")
}
