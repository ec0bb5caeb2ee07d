//! Another process in a container that runs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::handle::Handle;
use super::running::Running;
use super::spawn::{await_exec, start_keeper, tell};
use super::stdio::Stdio;
use super::{Runtime, handle::Place};
use crate::cgroup::Cgroups;
use crate::error::{Result, RunnerError};
use crate::init::{Inside, Outside};
use crate::setup::{plan_exec_inside, plan_exec_outside};
use crate::spec::ContainerSpec;
use crate::userns::UserNamespace;

pub(super) fn exec(
    runtime: &Runtime,
    handle: &Handle,
    spec: &ContainerSpec,
    user: &UserNamespace,
    stdio: Stdio,
) -> Result<Running> {
    let stdio = if spec.terminal { Stdio::null() } else { stdio };
    let (ends, mut keeper) =
        start_keeper(runtime, stdio).map_err(|e| RunnerError::os("start a keeper", e))?;
    let outside = Outside {
        ops: plan_exec_outside(spec, user.ids()),
    };
    tell(&keeper.control, &outside, &[handle.first()?])?;
    let opening = |e| RunnerError::os("open the container's cgroups", e);
    // Of version 2 as well it enters by a file: one made in a group from within the container's cgroup namespace would have to
    // come from there.
    let mut tasks = handle.groups().tasks().map_err(opening)?;
    tasks.extend(handle.groups().unified_processes().map_err(opening)?);
    let milliseconds = |t: Duration| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1);
    let inside = Inside {
        ops: plan_exec_inside(spec),
        net: false,
        tasks: tasks.len(),
        unified: false,
        time_limit: spec.limits.time.map(milliseconds),
        namespaces: 0,
        crowd: None,
    };
    let fds: Vec<BorrowedFd<'_>> = tasks.iter().map(AsFd::as_fd).collect();
    tell(&keeper.control, &inside, &fds)?;
    // The groups are the container's, and end with it.
    let mut running = Running::new(Cgroups::default(), Place::default());
    let [stdin, stdout, stderr] = ends;
    running.stdin = stdin.map(File::from);
    running.stdout = stdout.map(File::from);
    running.stderr = stderr.map(File::from);
    await_exec(&mut keeper, &mut running)?;
    running.keeper = Some(keeper);
    running.started = Instant::now();
    Ok(running)
}
