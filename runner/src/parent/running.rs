//! A container that runs, and what is left to know when it has ended.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cgroup::{Cgroups, Figures};
use crate::channel::{self, FromKeeper};
use crate::error::{Result, RunnerError};
use crate::parent::handle::{Handle, Place};
use crate::pty::Terminal;
use crate::sys;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Status {
    /// The exit code as a shell has it: 128 and the signal's number for a signal.
    pub fn code(self) -> i32 {
        match self {
            Status::Exited(code) => code,
            Status::Signaled(signal) => 128 + signal,
        }
    }
}

/// What a container used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// From the command's start to its end.
    pub wall: Duration,
    /// Time in user mode, of all processes.
    pub cpu_user: Duration,
    /// Time in the kernel, of all processes.
    pub cpu_system: Duration,
    /// Most memory in use at once, in bytes, where a cgroup accounts it.
    pub peak_memory: Option<u64>,
    /// Bytes read from devices.
    pub io_read: u64,
    /// Bytes written to devices.
    pub io_written: u64,
}

/// The end of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How its command ended.
    pub status: Status,
    /// Whether the kernel killed a process of it for using too much memory.
    pub oom_killed: bool,
    /// Whether it was killed for running longer than its time limit.
    pub timed_out: bool,
    /// What it used.
    pub usage: Usage,
}

/// The process outside that keeps a container, and our lines to it.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) pid: i32,
    /// While this is open the container lives; see the keeper.
    pub(super) control: UnixStream,
    pub(super) report: UnixStream,
    /// The container's first process.
    pub(super) first: Option<OwnedFd>,
    pub(super) reaped: bool,
}

impl Keeper {
    /// Reaps the keeper, which is about to end or made to, and says how it ended.
    fn reap(&mut self) -> String {
        if self.reaped {
            return "gone".into();
        }
        self.reaped = true;
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        match sys::wait_for(self.pid, false) {
            Ok(Some(ended)) => format!("wait status {:#x}", ended.status),
            Ok(None) => "still running".into(),
            Err(e) => e.to_string(),
        }
    }

    pub(super) fn died(&mut self) -> RunnerError {
        if let Some(first) = &self.first {
            // The keeper can't do it any more.
            let _ = sys::pidfd_signal(first.as_fd(), libc::SIGKILL);
        }
        RunnerError::InitDied { status: self.reap() }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Closing our end makes it kill the container; it ends once that is gone.
        self.reap();
    }
}

/// A running container. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    pub(super) keeper: Option<Keeper>,
    pub(super) groups: Arc<Cgroups>,
    pub(super) place: Place,
    pub(super) terminal: Option<Terminal>,
    pub(super) stdin: Option<File>,
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
    pub(super) started: Instant,
}

impl Running {
    pub(super) fn new(groups: Cgroups, place: Place) -> Running {
        Running {
            keeper: None,
            groups: Arc::new(groups),
            place,
            terminal: None,
            stdin: None,
            stdout: None,
            stderr: None,
            started: Instant::now(),
        }
    }

    /// Where the command reads from, when piped. Dropping it is end-of-file to the command.
    pub fn take_stdin(&mut self) -> Option<File> {
        self.stdin.take()
    }

    /// The command's output, when piped; ends when the container does.
    pub fn take_stdout(&mut self) -> Option<File> {
        self.stdout.take()
    }

    /// The command's errors, when piped; ends when the container does.
    pub fn take_stderr(&mut self) -> Option<File> {
        self.stderr.take()
    }

    /// The master side of the container's terminal, when it has one.
    pub fn take_terminal(&mut self) -> Option<Terminal> {
        self.terminal.take()
    }

    /// A handle to the container for any thread.
    pub fn handle(&self) -> Handle {
        let first = self.keeper.as_ref().and_then(|k| k.first.as_ref());
        Handle::new(first, &self.groups, &self.place)
    }

    /// Waits until the container has ended and every process of it is gone.
    ///
    /// Piped output is not read here: take it and read it on other threads, or a full pipe stops
    /// the command.
    pub fn wait(mut self) -> Result<Outcome> {
        let Some(mut keeper) = self.keeper.take() else {
            return Err(RunnerError::InitDied {
                status: "never started".into(),
            });
        };
        self.stdin = None;
        let message = channel::recv::<FromKeeper>(&keeper.control)
            .map_err(|e| RunnerError::Protocol { what: e.to_string() })?;
        let Some((
            FromKeeper::Exited {
                timed_out,
                status,
                user_us,
                system_us,
                blocks_in,
                blocks_out,
                ..
            },
            _,
        )) = message
        else {
            let error = keeper.died();
            if self.place.shares_pids {
                // The keeper would have.
                self.groups.kill();
            }
            return Err(error);
        };
        let wall = self.started.elapsed();
        // The keeper, which is in none of the groups, leaves meanwhile.
        let figures = self.groups.figures();
        std::mem::take(&mut self.groups).remove();
        keeper.reap();
        let own = Usage {
            wall,
            cpu_user: Duration::from_micros(user_us),
            cpu_system: Duration::from_micros(system_us),
            peak_memory: None,
            io_read: blocks_in * 512,
            io_written: blocks_out * 512,
        };
        Ok(Outcome {
            status: status_of(status),
            oom_killed: figures.oom_kills > 0,
            timed_out,
            usage: with_figures(own, &figures),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let was_left = self.keeper.is_some();
        self.keeper = None;
        if self.place.shares_pids && was_left {
            self.groups.kill();
        }
        self.groups.remove();
    }
}

fn status_of(raw: i32) -> Status {
    if libc::WIFSIGNALED(raw) {
        Status::Signaled(libc::WTERMSIG(raw))
    } else {
        Status::Exited(libc::WEXITSTATUS(raw))
    }
}

fn with_figures(own: Usage, figures: &Figures) -> Usage {
    let (cpu_user, cpu_system) = figures.cpu.unwrap_or((own.cpu_user, own.cpu_system));
    let (io_read, io_written) = figures.io.unwrap_or((own.io_read, own.io_written));
    Usage {
        cpu_user,
        cpu_system,
        peak_memory: figures.peak_memory,
        io_read,
        io_written,
        ..own
    }
}
