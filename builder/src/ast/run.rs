//! RUN, and the limits that LIMIT shares with it.

use std::time::Duration;

use super::heredoc::Heredoc;
use super::mount::RunMount;
use crate::source::Spanned;

/// What a RUN runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunCommand {
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A script for SHELL: the line, followed by its heredocs as written; or the text of a sole heredoc.
    Shell(String),
    /// A sole heredoc that begins with `#!`: a file with this name and these bytes, run as a program.
    Program {
        /// The heredoc's name.
        name: String,
        /// The file.
        data: Vec<u8>,
    },
}

/// RUN
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: RunCommand,
    /// The heredocs as they were read, for lints and history; [`Run::command`] already has them.
    pub heredocs: Vec<Heredoc>,
    /// `--mount=`, in order.
    pub mounts: Vec<RunMount>,
    /// `--network=`
    pub network: Option<Spanned<Network>>,
    /// `--security=`
    pub security: Option<Spanned<Security>>,
    /// `--memory= --cpus= --pids= --timeout=`, over those of LIMIT.
    pub limits: Limits,
    /// `--cache=`
    pub cache: Option<RunCache>,
}

/// `--network=` of a RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// What the build says.
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// `--security=` of a RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// The usual sandbox.
    Sandbox,
    /// Without it; must be allowed by the caller.
    Insecure,
}

/// `--cache=` of a RUN: a step that must run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunCache {
    /// Always.
    Never,
    /// After that time.
    Ttl(Duration),
}

/// Limits of a step; `None` leaves what was said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<Spanned<u64>>,
    /// Thousandths of a CPU.
    pub cpus: Option<Spanned<u64>>,
    /// Processes and threads.
    pub pids: Option<Spanned<u64>>,
    /// Wall-clock time.
    pub time: Option<Spanned<Duration>>,
}

impl Limits {
    /// These limits over `base`: what is unset here is taken from there.
    #[must_use]
    pub fn over(&self, base: &Limits) -> Limits {
        let newer = self.clone();
        Limits {
            memory: newer.memory.or_else(|| base.memory.clone()),
            cpus: newer.cpus.or_else(|| base.cpus.clone()),
            pids: newer.pids.or_else(|| base.pids.clone()),
            time: newer.time.or_else(|| base.time.clone()),
        }
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }
}
