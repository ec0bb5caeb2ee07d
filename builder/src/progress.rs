//! What a build tells while it goes on. The builder never prints; whoever starts a build shows its events.

use std::fmt;
use std::time::Duration;

use box_store::digest::ImageId;

use crate::diagnostic::Diagnostic;
use crate::exec::{Stream, Usage};
use crate::explain::Verdict;
use crate::source::Sources;

/// Gets the events of a build.
///
/// Contract: called from any thread, also from several at once; must not block for long, since the build waits for it.
pub trait EventSink: Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);
}

/// A sink that drops everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn event(&self, _event: Event<'_>) {}
}

/// A step within one build, counted from 0 over all its stages; its base counts as a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// What a step waits for. It is shown as words: `waits for …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited<'a> {
    /// That one of the steps at work ends: no more may be.
    Turn,
    /// The same step of another stage or build, whose result it can have.
    Equal,
    /// The cache of this id.
    Cache(&'a str),
}

impl fmt::Display for Awaited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Turn => f.write_str("its turn"),
            Awaited::Equal => f.write_str("another stage or build that does the same"),
            Awaited::Cache(id) => write!(f, "the cache {id}, which another step or build uses"),
        }
    }
}

/// When a person is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion<'a> {
    /// The step has failed, for this reason.
    Failed(&'a str),
    /// Before the step.
    Before,
    /// After it, at the end of its stage.
    After,
}

/// One thing that happened. Of each step: perhaps a `StepAhead` with fetches, one `StepStarted`, then any number of outputs and fetches, then exactly one of
/// `StepCached`, `StepFinished`, `StepFailed` and `StepCancelled`. Steps of several stages may run at the same time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// How much is ahead, told once before any step.
    Planned {
        /// Stages that the target reaches.
        stages: usize,
        /// Steps of all of them, bases included.
        steps: usize,
    },
    /// A stage begins.
    StageStarted {
        /// Its place in the Boxfile, from 0.
        stage: usize,
        /// Its name.
        name: Option<&'a str>,
    },
    /// Something is fetched for a step before it begins.
    StepAhead {
        /// The step.
        id: StepId,
        /// Its stage's place in the Boxfile, from 0.
        stage: usize,
        /// Its stage's name.
        stage_name: Option<&'a str>,
        /// Its place in the stage, from 1; 1 is FROM.
        index: usize,
        /// Steps of its stage.
        total: usize,
        /// The instruction on one line.
        text: &'a str,
    },
    /// A step begins: it is looked up, and if need be done.
    StepStarted {
        /// The step.
        id: StepId,
        /// Its stage's place in the Boxfile, from 0.
        stage: usize,
        /// Its stage's name.
        stage_name: Option<&'a str>,
        /// Its place in the stage, from 1; 1 is FROM.
        index: usize,
        /// Steps of its stage.
        total: usize,
        /// The instruction on one line.
        text: &'a str,
        /// Its first line in the Boxfile, from 1.
        line: u32,
    },
    /// It waits for others, or does no longer.
    StepWaiting {
        /// The step.
        id: StepId,
        /// For what; none: it goes on.
        what: Option<Awaited<'a>>,
    },
    /// Whether it is in the cache, and if not, why; told if the request asks for it, before the step is done.
    StepExplained {
        /// The step.
        id: StepId,
        /// What becomes of it.
        verdict: &'a Verdict,
    },
    /// A piece of its output.
    StepOutput {
        /// The step.
        id: StepId,
        /// Where it comes from.
        stream: Stream,
        /// The bytes; may end in the middle of a line or character.
        bytes: &'a [u8],
    },
    /// It had been done before, or changes the image's configuration alone.
    StepCached {
        /// The step.
        id: StepId,
        /// Whether there was nothing to do: ENV, CMD, FROM an image that is here.
        config_only: bool,
    },
    /// It is done.
    StepFinished {
        /// The step.
        id: StepId,
        /// From its start to its layer's commit, without what it waited for other steps and builds.
        wall: Duration,
        /// What its command used; none if it ran none.
        usage: Option<Usage>,
        /// Bytes of files in its layer.
        layer_size: u64,
        /// Entries of its layer.
        layer_entries: u64,
    },
    /// It failed; the build's error says why.
    StepFailed {
        /// The step.
        id: StepId,
        /// From its start, without what it waited for others.
        wall: Duration,
        /// What its command used, if it ran.
        usage: Option<Usage>,
    },
    /// It was stopped, since another step failed or the build was cancelled. Nothing of it is left.
    StepCancelled {
        /// The step.
        id: StepId,
        /// From its start, without what it waited for others.
        wall: Duration,
    },
    /// The terminal is a person's, in a container: nothing is shown on it from now on.
    ShellOpened {
        /// The step that it is at; for the end of a stage its last one.
        id: StepId,
        /// Its stage's place in the Boxfile, from 0.
        stage: usize,
        /// Its stage's name.
        stage_name: Option<&'a str>,
        /// Its place in the stage, from 1; 1 is FROM.
        index: usize,
        /// Steps of its stage.
        total: usize,
        /// The instruction on one line.
        text: &'a str,
        /// Where the shell stands in the build.
        occasion: Occasion<'a>,
        /// What to say there to run the step's command, if it has one.
        command: Option<&'a str>,
    },
    /// The terminal is the build's again.
    ShellClosed {
        /// As it was opened.
        id: StepId,
    },
    /// A download or an unpacking begins.
    FetchStarted {
        /// The step it is for.
        id: StepId,
        /// What, in words: `fetching https://…`, `unpacking ./rootfs.tar`.
        what: &'a str,
        /// Its size in bytes, where that is known.
        total: Option<u64>,
    },
    /// It goes on.
    FetchProgress {
        /// The step it is for.
        id: StepId,
        /// Bytes more than at the last such event.
        bytes: u64,
    },
    /// It is over.
    FetchDone {
        /// The step it is for.
        id: StepId,
    },
    /// Something in the Boxfile is odd; the finding, and what it points into.
    Warning(&'a Diagnostic, &'a Sources),
    /// Something worth saying in one line.
    Note(&'a str),
    /// The image is there.
    Built {
        /// Its id.
        id: ImageId,
    },
}
