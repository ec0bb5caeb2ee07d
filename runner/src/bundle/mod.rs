//! Containers of a runtime-spec bundle: what other tools ask a runtime for.
//!
//! A bundle says each thing itself, and a container of one outlives whoever made it; so this is a second front beside
//! [`ContainerSpec`](crate::ContainerSpec), with the same operations below. What a bundle asks for and is not supported is refused by name.
//!
//! Lifecycle: [`create`] gives a [`Created`] whose first process waits; [`start`] lets it go on; [`exec`] adds a process. Who
//! is the first process' parent afterwards is the kernel's choice: the nearest reaper above the caller.

mod console;
mod create;
mod default;
mod further;
mod mounts;
mod namespaces;
mod options;
mod plan;
mod process;
mod supported;

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

pub use crate::cgroup::PlacedGroups;
pub use console::send_terminal;
pub use create::{RuntimeHooks, create, noted_groups, start, waits};
pub use default::{Command, default_config, find_user};
pub use further::{Further, exec};
pub use supported::{Supported, supported};

use crate::error::{Result, RunnerError};
use crate::setup::SetupOp;
use crate::setup::Slot;
use crate::setup::bundle::MountChange;
use crate::sys;

/// What a container is made of.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its config.json.
    pub spec: &'a Spec,
    /// The directory that paths in it are relative to, absolute.
    pub bundle: &'a Path,
    /// A directory of the caller's alone, in which it is waited for the start.
    pub dir: &'a Path,
    /// The program that is started again, see [`RuntimeConfig`](crate::RuntimeConfig::program).
    pub program: &'a Path,
    /// How many descriptors after the standard streams are the container's, too.
    pub kept_fds: u32,
    /// A session keyring of its own.
    pub own_keyring: bool,
}

/// A container that waits for its start.
#[derive(Debug)]
pub struct Created {
    /// Its first process.
    pub first: ProcessId,
    /// The master side of its terminal, if it has one.
    pub terminal: Option<crate::Terminal>,
    /// Its groups.
    pub groups: PlacedGroups,
}

/// A process that can be told from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number as the caller sees it.
    pub pid: i32,
    /// When it was started, in ticks since the machine's start.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Result<ProcessId> {
        let gone = || RunnerError::os(format!("find process {pid}"), rustix::io::Errno::SRCH);
        let (_, started) = stat(pid).ok_or_else(gone)?;
        Ok(ProcessId { pid, started })
    }

    /// Whether it is there, and no more than a corpse.
    pub fn is_alive(&self) -> bool {
        stat(self.pid)
            .is_some_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X' | 'x'))
    }

    /// Sends it a signal. No error when it is gone already.
    pub fn signal(&self, number: i32) -> Result<()> {
        use std::os::fd::AsFd;
        let failed = |e: std::io::Error| RunnerError::os(format!("send signal {number} to {}", self.pid), e);
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else {
            return Ok(());
        };
        let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            return Ok(());
        };
        // Now that it is held, no other process gets its number.
        match self.is_alive() {
            true => sys::pidfd_signal(fd.as_fd(), number).map_err(failed),
            false => Ok(()),
        }
    }

    /// Waits for its end, as whoever is its parent, and gives its exit code.
    pub fn wait(&self) -> Result<i32> {
        let ended =
            sys::wait_for(self.pid, false).map_err(|e| RunnerError::os("wait for the container", e))?;
        Ok(ended.map_or(0, |ended| match libc::WIFEXITED(ended.status) {
            true => libc::WEXITSTATUS(ended.status),
            false => 128 + libc::WTERMSIG(ended.status),
        }))
    }
}

/// Makes the caller the parent of those among its descendants that lose theirs, so that it can wait for them.
pub fn become_reaper() -> Result<()> {
    sys::become_reaper().map_err(|e| RunnerError::os("become a reaper", e))
}

/// The state letter and the time of the start, from /proc.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The 22nd of all fields; the state is the third.
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn invalid<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T> {
    Err(RunnerError::Bundle {
        field: field.into(),
        reason: reason.into(),
    })
}

fn refused<T>(field: &str) -> Result<T> {
    invalid(field, "is not supported")
}

/// The operations of a container.
#[derive(Debug, Default)]
struct Plan {
    bundle: PathBuf,
    /// The keeper's.
    outside: Vec<SetupOp>,
    /// The first process'.
    inside: Vec<SetupOp>,
    /// What must wait until all is mounted.
    late: Vec<SetupOp>,
    /// The mounts that come from outside.
    locked: Vec<(Slot, MountChange)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        let other = ProcessId {
            started: own.started + 1,
            ..own
        };
        assert!(!other.is_alive());
        other.signal(libc::SIGKILL).unwrap();
    }
}
