//! Another process in a container of a bundle.

use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxSeccomp, Process};

use super::create::Keeper;
use super::namespaces::differing;
use super::{ProcessId, process};
use crate::cgroup::PlacedGroups;
use crate::error::{Result, RunnerError};
use crate::init::detached::Detached;
use crate::setup::SetupOp;
use crate::setup::bundle::BundleOp;

/// What a further process is made of.
#[derive(Debug)]
pub struct Further<'a> {
    /// The first process of the container.
    pub first: ProcessId,
    /// The container's groups.
    pub groups: &'a PlacedGroups,
    /// What is started.
    pub process: &'a Process,
    /// The container's filter.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// The program that is started again.
    pub program: &'a Path,
    /// How many descriptors after the standard streams it gets.
    pub kept_fds: u32,
}

/// Starts it; its parent is then the nearest reaper above the caller.
pub fn exec(further: &Further<'_>) -> Result<(ProcessId, Option<crate::Terminal>)> {
    process::check(further.process)?;
    let gone = |e: std::io::Error| RunnerError::os("find the container's first process", e);
    let pid = rustix::process::Pid::from_raw(further.first.pid);
    let pid = pid.ok_or_else(|| gone(std::io::ErrorKind::NotFound.into()))?;
    let entrance = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let entrance = entrance.map_err(|e| gone(e.into()))?;
    // Held now, so it stays the same.
    if !further.first.is_alive() {
        return Err(gone(rustix::io::Errno::SRCH.into()));
    }
    let kinds = differing(further.first.pid)?;
    let mut outside = process::outside(further.process)?;
    outside.push(SetupOp::Bundle(BundleOp::Enter { kinds }));
    let mut inside = vec![SetupOp::JoinCgroups];
    if kinds & libc::CLONE_NEWUSER != 0 {
        inside.push(SetupOp::Bundle(BundleOp::BecomeRoot));
    }
    inside.push(SetupOp::SessionKeyring);
    if further.process.terminal() == Some(true) {
        inside.push(SetupOp::FurtherTerminal);
    }
    if let Some((path, _)) = process::label(further.process) {
        let path = path.to_owned();
        inside.push(SetupOp::Bundle(BundleOp::OpenLabel { path }));
    }
    inside.extend(process::privileges(
        further.process,
        further.seccomp,
        further.kept_fds,
    )?);
    let detached = Detached {
        outside,
        inside,
        namespaces: 0,
        joins: 0,
        tasks: 0,
        unified: false,
        start: false,
    };
    let keeper = Keeper::start(further.program, further.kept_fds)?;
    keeper.describe(detached, entrance.as_fd(), &[], further.groups, None)?;
    let made = keeper.await_process(&mut |_| Ok(()), false);
    keeper.part(made.is_ok());
    made
}
