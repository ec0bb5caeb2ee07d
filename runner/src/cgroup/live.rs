//! What is asked of the groups, and changed in them, while a container runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Cgroups, Controller, Hierarchies, keyed, number, set};
use crate::error::{Result, RunnerError};
use crate::spec::Limits;

/// How long processes may take to stop.
const FREEZING: Duration = Duration::from_secs(5);

/// What the groups count now. What no group counts is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Bytes, without what the kernel can drop at once.
    pub(crate) memory: Option<u64>,
    /// Bytes.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) cpu: Option<Duration>,
    pub(crate) pids: Option<u64>,
    /// Bytes read and written.
    pub(crate) io: Option<(u64, u64)>,
}

impl Cgroups {
    /// Reads what is counted now.
    pub(crate) fn live(&self) -> Live {
        let mut live = Live::default();
        for group in &self.v1 {
            let has = |name: &str| group.controllers.iter().any(|c| c == name);
            if has("memory") {
                let stat = fs::read_to_string(group.dir.join("memory.stat")).unwrap_or_default();
                let cache = keyed(&stat, "total_inactive_file").unwrap_or(0);
                live.memory =
                    number(&group.dir, "memory.usage_in_bytes").map(|all| all.saturating_sub(cache));
                // Without a limit the kernel shows the largest number of pages.
                let limit = number(&group.dir, "memory.limit_in_bytes");
                live.memory_limit = limit.filter(|limit| *limit < 1 << 62);
            }
            if has("pids") {
                live.pids = number(&group.dir, "pids.current");
            }
            if has("cpuacct") {
                live.cpu = number(&group.dir, "cpuacct.usage").map(Duration::from_nanos);
            }
        }
        if let Some(group) = &self.v2 {
            let stat = fs::read_to_string(group.dir.join("memory.stat")).unwrap_or_default();
            let cache = keyed(&stat, "inactive_file").unwrap_or(0);
            let memory = number(&group.dir, "memory.current").map(|all| all.saturating_sub(cache));
            live.memory = memory.or(live.memory);
            live.memory_limit = number(&group.dir, "memory.max").or(live.memory_limit);
            live.pids = number(&group.dir, "pids.current").or(live.pids);
            let mut figures = super::Figures::default();
            group.read(&mut figures);
            live.cpu = figures.cpu.map(|(user, system)| user + system).or(live.cpu);
            live.io = figures.io;
        }
        live
    }

    /// The processes in the groups, by the ids that the caller sees; none where there are no groups.
    pub(crate) fn processes(&self) -> Option<Vec<i32>> {
        let dir = self
            .v1
            .first()
            .map(|g| &g.dir)
            .or(self.v2.as_ref().map(|g| &g.dir))?;
        Some(super::processes_below(dir))
    }

    /// Sets those limits that are given; a limit whose controller the container was started without is an error.
    pub(crate) fn update(&self, limits: &Limits) -> Result<()> {
        let wanted = [
            (Controller::Memory, limits.memory),
            (Controller::Pids, limits.pids),
            (Controller::Cpu, limits.millicpus),
        ];
        for (controller, value) in wanted {
            let Some(value) = value else { continue };
            let v1 = |g: &&super::v1::Group| g.controllers.iter().any(|c| c == controller.name());
            let changed = match (self.v1.iter().find(v1), &self.v2) {
                (Some(group), _) => match controller {
                    Controller::Memory => group.change_memory(value),
                    _ => group.limit(controller, value),
                },
                (None, Some(group)) => group.limit(controller, Some(value)),
                (None, None) => Err("the container was started without a cgroup for it".to_owned()),
            };
            changed.map_err(|reason| RunnerError::LimitUnenforceable {
                limit: controller.limit(),
                reason,
            })?;
        }
        Ok(())
    }

    /// Stops all processes, or lets them go on. Returns when they have stopped.
    pub(crate) fn freeze(&self, hierarchies: &Hierarchies, name: &str, stop: bool) -> Result<()> {
        let failed = |source| RunnerError::Os {
            doing: match stop {
                true => "stop the container's processes".to_owned(),
                false => "let the container's processes go on".to_owned(),
            },
            source,
        };
        match &self.v2 {
            Some(group) => freeze_v2(&group.dir, stop).map_err(failed),
            None => self.freeze_apart(hierarchies, name, stop).map_err(failed),
        }
    }

    /// Whether its processes may be stopped now.
    pub(crate) fn is_freezable(&self) -> bool {
        let freezer = self.freezer.lock().unwrap_or_else(PoisonError::into_inner);
        self.v2.is_some() || freezer.is_some()
    }

    /// Where no group in use can stop its processes: one of version 1's freezer, or of version 2, made when first needed.
    fn freeze_apart(&self, hierarchies: &Hierarchies, name: &str, stop: bool) -> io::Result<()> {
        let parent = hierarchies.parent().map_err(io::Error::other)?;
        let v1 = hierarchies.v1.iter().find(|h| h.has("freezer"));
        let dir = match (v1, &hierarchies.v2) {
            (Some(hierarchy), _) => hierarchy.dir.join(parent).join(name),
            (None, Some(hierarchy)) => hierarchy.dir.join(parent).join(name),
            (None, None) => return Err(io::Error::other("this machine has no cgroup that can")),
        };
        self.move_all(&dir)?;
        match v1 {
            Some(_) => freeze_v1(&dir, stop),
            None => freeze_v2(&dir, stop),
        }
    }

    /// Moves every process into this group; those that they start meanwhile, too.
    fn move_all(&self, dir: &Path) -> io::Result<()> {
        let mut made = self.freezer.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            fs::create_dir(dir)?;
            *made = Some(PathBuf::from(dir));
        }
        let wanted = dir.join("cgroup.procs");
        for _ in 0..100 {
            let there = processes_in(dir)?;
            let rest = self.processes().unwrap_or_default();
            let rest: Vec<i32> = rest.into_iter().filter(|pid| !there.contains(pid)).collect();
            if rest.is_empty() {
                return Ok(());
            }
            for pid in rest {
                match fs::write(&wanted, pid.to_string()) {
                    Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(e),
                    _ => {}
                }
            }
        }
        Err(io::Error::other(
            "they start others faster than they can be stopped",
        ))
    }
}

pub(super) fn processes_in(dir: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

fn freeze_v1(dir: &Path, stop: bool) -> io::Result<()> {
    let (state, wanted) = (dir.join("freezer.state"), if stop { "FROZEN" } else { "THAWED" });
    wait_until(|| {
        // The kernel may need to be told again while processes start others.
        fs::write(&state, wanted)?;
        Ok(fs::read_to_string(&state)?.trim() == wanted)
    })
}

fn freeze_v2(dir: &Path, stop: bool) -> io::Result<()> {
    set(dir, "cgroup.freeze", u8::from(stop)).map_err(io::Error::other)?;
    let wanted = u64::from(stop);
    wait_until(|| {
        let events = fs::read_to_string(dir.join("cgroup.events"))?;
        Ok(keyed(&events, "frozen") == Some(wanted))
    })
}

fn wait_until(mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let end = Instant::now() + FREEZING;
    while !is_so()? {
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
