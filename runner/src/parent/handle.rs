//! A running container as other threads see it: signals, figures, limits.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::cgroup::{Cgroups, Hierarchies};
use crate::error::{Result, RunnerError};
use crate::spec::Limits;
use crate::sys;

/// Ticks of a second in /proc; the same on every Linux.
const TICKS: u64 = 100;
/// How much is read of a command, in bytes.
const MAX_COMMAND: u64 = 4096;

/// Where the groups of a container are made.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) hierarchies: Hierarchies,
    pub(super) name: String,
    /// Whether others are in the pid namespace of its first process.
    pub(super) shares_pids: bool,
}

/// A container, from any thread, also while another waits for its end. When it has ended, signals do nothing, and the rest is an
/// error.
#[derive(Debug, Clone)]
pub struct Handle {
    first: Arc<Option<OwnedFd>>,
    groups: Arc<Cgroups>,
    place: Place,
}

/// What a running container uses now. What nobody counts here is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory in bytes, without file contents that can be dropped at once.
    pub memory: Option<u64>,
    /// Its memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// Processor time since its start; without a cgroup that counts it, that of the processes that are there.
    pub cpu: Duration,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes read from devices and written to them.
    pub io: Option<(u64, u64)>,
    /// Bytes received and sent, but over loopback.
    pub net: Option<(u64, u64)>,
}

/// A process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its id as the caller sees it.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// The outside id of its user.
    pub uid: u32,
    /// Processor time.
    pub cpu: Duration,
    /// When it was started, since the machine's.
    pub started: Duration,
    /// The number of its terminal's device, 0 for none.
    pub terminal: u64,
    /// Its arguments, or its short name where it has none.
    pub command: String,
}

impl Handle {
    pub(super) fn new(first: Option<&OwnedFd>, groups: &Arc<Cgroups>, place: &Place) -> Handle {
        Handle {
            first: Arc::new(first.and_then(|fd| fd.try_clone().ok())),
            groups: Arc::clone(groups),
            place: place.clone(),
        }
    }

    /// Kills the container with all its processes. No error when it is gone already.
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Sends a signal to its first process. No error when it is gone already.
    pub fn signal(&self, number: i32) -> Result<()> {
        match self.first.as_ref() {
            Some(fd) => sys::pidfd_signal(fd.as_fd(), number)
                .map_err(|e| RunnerError::os(format!("send signal {number}"), e)),
            None => Ok(()),
        }
    }

    /// Stops all its processes where they are.
    pub fn pause(&self) -> Result<()> {
        self.groups
            .freeze(&self.place.hierarchies, &self.place.name, true)
    }

    /// Lets stopped processes go on.
    pub fn resume(&self) -> Result<()> {
        self.groups
            .freeze(&self.place.hierarchies, &self.place.name, false)
    }

    /// The same, if they were ever stopped.
    pub fn resume_if_paused(&self) -> Result<()> {
        match self.groups.is_freezable() {
            true => self.resume(),
            false => Ok(()),
        }
    }

    /// Changes those limits that are given, but for the time.
    pub fn update(&self, limits: &Limits) -> Result<()> {
        self.groups.update(limits)
    }

    /// The id of its first process as the caller sees it.
    pub fn pid(&self) -> Result<i32> {
        let gone = || RunnerError::Os {
            doing: "find the container's first process".into(),
            source: rustix::io::Errno::SRCH.into(),
        };
        let fd = self.first()?.as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))
            .map_err(|e| RunnerError::os("read about the container's first process", e))?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        let pid: Option<i32> = pid.and_then(|pid| pid.trim().parse().ok());
        pid.filter(|pid| *pid > 0).ok_or_else(gone)
    }

    pub(super) fn first(&self) -> Result<BorrowedFd<'_>> {
        let first = self.first.as_ref().as_ref().map(AsFd::as_fd);
        first.ok_or_else(|| RunnerError::InitDied {
            status: "never started".into(),
        })
    }

    pub(super) fn groups(&self) -> &Cgroups {
        &self.groups
    }

    /// The descriptor (pidfd) of its first process, for those who join its namespaces. It says for ever that process, and no other.
    pub fn first_process(&self) -> Result<BorrowedFd<'_>> {
        self.pid()?;
        self.first()
    }

    /// What it uses now.
    pub fn stats(&self) -> Result<Stats> {
        let pid = self.pid()?;
        let live = self.groups.live();
        let pids_of = || self.pids().unwrap_or_default();
        let counted = || {
            pids_of()
                .into_iter()
                .filter_map(|pid| process(pid, false))
                .map(|process| process.cpu)
                .sum()
        };
        let pids = || Some(self.pids().ok()?.len() as u64);
        Ok(Stats {
            memory: live.memory,
            memory_limit: live.memory_limit,
            cpu: live.cpu.unwrap_or_else(counted),
            pids: live.pids.or_else(pids),
            io: live.io,
            net: traffic(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default()),
        })
    }

    /// Its processes, those that end meanwhile left out.
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        Ok(self
            .pids()?
            .into_iter()
            .filter_map(|pid| process(pid, true))
            .collect())
    }

    fn pids(&self) -> Result<Vec<i32>> {
        if let Some(pids) = self.groups.processes() {
            return Ok(pids);
        }
        // Without cgroups: all that are in the namespace of its first process.
        let kind = if self.place.shares_pids { "mnt" } else { "pid" };
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let own = namespace(self.pid()?);
        let all = fs::read_dir("/proc").map_err(|e| RunnerError::os("read /proc", e))?;
        let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter(|pid| namespace(*pid) == own).collect())
    }
}

/// Bytes received and sent by all interfaces but loopback, from /proc/net/dev.
fn traffic(text: &str) -> Option<(u64, u64)> {
    let lines = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let mut sums = None;
    for (name, numbers) in lines {
        let numbers: Vec<u64> = numbers.split_whitespace().flat_map(str::parse).collect();
        if let (false, Some(received), Some(sent)) = (name.trim() == "lo", numbers.first(), numbers.get(8)) {
            let (r, s) = sums.unwrap_or((0, 0));
            sums = Some((r + received, s + sent));
        }
    }
    sums
}

/// The arguments only if they are wanted, and not more of them than anybody reads: they may be megabytes.
fn process(pid: i32, with_command: bool) -> Option<ProcessInfo> {
    use std::os::unix::fs::MetadataExt;
    let dir = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{dir}/stat")).ok()?;
    // The name stands in parentheses, and may hold some itself.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS);
    let mut arguments = Vec::new();
    if with_command && let Ok(file) = fs::File::open(format!("{dir}/cmdline")) {
        // What has ended meanwhile has none.
        let _ = file.take(MAX_COMMAND).read_to_end(&mut arguments);
    }
    let arguments = String::from_utf8_lossy(&arguments);
    let command = arguments.trim_end_matches('\0').replace('\0', " ");
    Some(ProcessInfo {
        pid,
        parent: i32::try_from(field(4)?).ok()?,
        uid: fs::metadata(&dir).ok()?.uid(),
        // With what its children used that it waited for.
        cpu: time((14..=17).filter_map(field).sum()),
        started: time(field(22)?),
        terminal: field(7).unwrap_or(0),
        command: match command.is_empty() {
            true => format!("[{name}]"),
            false => command,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_summed_without_loopback() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), Some((15, 26)));
        assert_eq!(traffic(""), None);
    }

    #[test]
    fn a_process_is_read() {
        let own = process(std::process::id() as i32, true).unwrap();
        assert_eq!(own.pid, std::process::id() as i32);
        assert!(!own.command.is_empty() && own.started > Duration::ZERO);
        assert_eq!(process(-1, true), None);
    }
}
