//! The port through which a step is run: the builder says what, the command line brings a container.
//!
//! The builder knows no namespaces and no cgroups. It hands an [`ExecRequest`] to an [`Executor`] and gets an
//! [`ExecOutcome`] back; its tests use an executor that writes into the upper directory itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

mod cancel;
mod mount;

pub use box_store::snapshot::OverlayDirs;
pub use cancel::{CancelHook, CancelToken};
pub use mount::{ExecMount, ExecMountKind, Secret};

/// Runs the command of a step in a container of its own.
///
/// Contract: `run` returns only when no process of the step is left and nothing of it is mounted any more, so that the
/// upper directory can be read and renamed. It changes nothing but that directory. A command that ends badly is an
/// outcome, not an error; an error means that the command did not run to its end. Several steps may run at once.
pub trait Executor: Sync {
    /// Runs one command to its end.
    ///
    /// # Errors
    /// [`ExecError::Cancelled`] after [`CancelToken::cancel`]; otherwise why the command could not be run.
    fn run(&self, request: &ExecRequest<'_>, io: ExecIo<'_>) -> Result<ExecOutcome, ExecError>;

    /// Runs one command to its end, on a terminal of its own that is joined with that of the person who builds. The same contract.
    ///
    /// # Errors
    /// As of [`Executor::run`]; [`ExecError::NoTerminal`] where nobody is at one.
    fn visit(&self, request: &ExecRequest<'_>, visit: Visit<'_>) -> Result<ExecStatus, ExecError> {
        let _ = (request, visit);
        Err(ExecError::NoTerminal)
    }
}

/// What a person's visit is connected to besides their terminal.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    /// Is called when the command runs, before the terminal is its own: the last that may be shown before it has ended.
    pub opened: &'a dyn Fn(),
    /// Ends the command when it is cancelled.
    pub cancel: &'a CancelToken,
}

impl fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Visit")
    }
}

/// What is run, in what.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The root file system; the changes go to its upper directory.
    pub dirs: &'a OverlayDirs,
    /// The program and its arguments; never empty. Without a `/` the program is looked up in `PATH` of `env`.
    pub args: Vec<OsString>,
    /// The whole environment but `HOME`, which the runner sets from the rootfs's passwd where it is missing.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, absolute; made by the runner if it is missing.
    pub cwd: PathBuf,
    /// `""`, `user` or `user:group`, names or numbers; looked up in the rootfs by the runner.
    pub user: String,
    /// What is mounted besides the rootfs.
    pub mounts: Vec<ExecMount>,
    /// Its host name.
    pub hostname: String,
    /// What its `/etc/hosts` says besides its own names.
    pub hosts: &'a [(String, IpAddr)],
    /// Its network.
    pub network: NetworkMode,
    /// Its limits.
    pub limits: Limits,
    /// What happens to a limit that can't be enforced here.
    pub limits_policy: LimitsPolicy,
    /// Every `id >> 16` of users and groups that the layers hold: the range of the container must have them.
    pub id_pages: BTreeSet<u32>,
}

/// What the command is connected to. Standard input is empty.
#[derive(Clone, Copy)]
pub struct ExecIo<'a> {
    /// Gets the output in pieces, as they come; called from any thread.
    pub output: &'a (dyn Fn(Stream, &[u8]) + Sync),
    /// Ends the command when it is cancelled.
    pub cancel: &'a CancelToken,
}

impl fmt::Debug for ExecIo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExecIo")
    }
}

/// Where output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The network of a step. It is part of the cache key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
    /// One of the build's own, with a way out.
    #[default]
    Private,
}

impl NetworkMode {
    /// `none`, `host` or `private`.
    pub fn as_str(self) -> &'static str {
        match self {
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
            NetworkMode::Private => "private",
        }
    }
}

/// Limits of a step. They say whether it may finish, not what it makes: they are in no cache key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, swap included.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub millicpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Wall-clock time.
    pub time: Option<Duration>,
}

impl Limits {
    /// These limits, completed from `base` where they say nothing.
    #[must_use]
    pub fn over(self, base: Limits) -> Limits {
        Limits {
            memory: self.memory.or(base.memory),
            millicpus: self.millicpus.or(base.millicpus),
            pids: self.pids.or(base.pids),
            time: self.time.or(base.time),
        }
    }
}

/// What happens to a limit that can't be enforced on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitsPolicy {
    /// The step fails with [`ExecError::LimitUnenforceable`].
    #[default]
    Enforce,
    /// The step runs without that limit.
    BestEffort,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl ExecStatus {
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == ExecStatus::Exited(0)
    }
}

/// How a command ended and what it used.
#[derive(Clone, Copy, Debug)]
pub struct ExecOutcome {
    /// How it ended.
    pub status: ExecStatus,
    /// Whether the kernel killed one of its processes for memory.
    pub oom_killed: bool,
    /// Whether it was ended since its time was over.
    pub timed_out: bool,
    /// What it used.
    pub usage: Usage,
}

/// What a step used; none where this machine can't tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Wall-clock time.
    pub wall: Duration,
    /// CPU time in user space.
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// The most memory in use at once, in bytes.
    pub peak_memory: Option<u64>,
    /// Bytes read from devices.
    pub io_read: Option<u64>,
    /// Bytes written to devices.
    pub io_written: Option<u64>,
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Nobody is at a terminal.
    #[error("there is no terminal")]
    NoTerminal,
    /// The program does not exist in the rootfs.
    #[error("{command}: command not found")]
    CommandNotFound {
        /// The program as it was asked for.
        command: String,
    },
    /// The program can't be executed.
    #[error("{command}: cannot be executed: {reason}")]
    CommandNotExecutable {
        /// The program as it was asked for.
        command: String,
        /// The kernel's answer.
        reason: String,
    },
    /// A limit was asked for that this machine can't enforce.
    #[error("the limit {limit} cannot be enforced: {reason}")]
    LimitUnenforceable {
        /// Which one (`memory`).
        limit: String,
        /// Why not.
        reason: String,
    },
    /// The container could not be set up.
    #[error("cannot run the step's container: {source}")]
    Failed {
        /// What the runner says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_step_go_before_those_of_its_stage() {
        let stage = Limits {
            memory: Some(1),
            pids: Some(2),
            ..Limits::default()
        };
        let step = Limits {
            memory: Some(3),
            ..Limits::default()
        };
        assert_eq!(
            step.over(stage),
            Limits {
                memory: Some(3),
                pids: Some(2),
                ..Limits::default()
            }
        );
    }
}
