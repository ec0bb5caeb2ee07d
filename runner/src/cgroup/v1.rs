//! Version 1: one tree for each controller or few.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Controller, Figures, keyed, make_dir, number, set, told};
use crate::sys;

/// Microseconds over which a cpu quota counts.
const PERIOD: u64 = 100_000;

/// One mounted tree.
#[derive(Debug, Clone)]
pub(super) struct Hierarchy {
    pub(super) dir: PathBuf,
    pub(super) controllers: Vec<String>,
}

impl Hierarchy {
    /// From the mount point and the options; a tree without controllers is of no use here.
    pub(super) fn parse(dir: PathBuf, options: &str) -> Option<Hierarchy> {
        let plain = |o: &&str| {
            !o.contains('=')
                && !matches!(
                    *o,
                    "rw" | "ro"
                        | "xattr"
                        | "none"
                        | "clone_children"
                        | "noprefix"
                        | "favordynmods"
                        | "cpuset_v2_mode"
                )
        };
        let controllers: Vec<String> = options.split(',').filter(plain).map(str::to_owned).collect();
        (!controllers.is_empty()).then_some(Hierarchy { dir, controllers })
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// A container's group in one tree.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) dir: PathBuf,
    /// The last part of the tree's mount point, by which programs look for it.
    pub(super) hierarchy_name: String,
    pub(super) controllers: Vec<String>,
}

impl Group {
    /// The container's group in the tree, made when another controller has not made it already.
    pub(super) fn join<'a>(
        groups: &'a mut Vec<Group>,
        hierarchy: &Hierarchy,
        parent: &Path,
        name: &str,
    ) -> Result<&'a Group, String> {
        let dir = hierarchy.dir.join(parent).join(name);
        let index = match groups.iter().position(|g| g.dir == dir) {
            Some(index) => index,
            None => {
                make_dir(&dir).map_err(told("make", &dir))?;
                let hierarchy_name = hierarchy
                    .dir
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default();
                groups.push(Group {
                    dir,
                    hierarchy_name,
                    controllers: hierarchy.controllers.clone(),
                });
                groups.len() - 1
            }
        };
        groups.get(index).ok_or_else(|| "no group".to_owned())
    }

    pub(super) fn limit(&self, controller: Controller, value: u64) -> Result<(), String> {
        let dir = &self.dir;
        match controller {
            Controller::Memory => {
                set(dir, "memory.limit_in_bytes", value)?;
                // Swap is accounted only by some kernels; where it is, none is given on top.
                match dir.join("memory.memsw.limit_in_bytes").exists() {
                    true => set(dir, "memory.memsw.limit_in_bytes", value),
                    false => Ok(()),
                }
            }
            Controller::Pids => set(dir, "pids.max", value),
            Controller::Cpu => {
                set(dir, "cpu.cfs_period_us", PERIOD)?;
                set(dir, "cpu.cfs_quota_us", (value * PERIOD / 1000).max(1000))
            }
        }
    }

    /// Another memory limit than it has: of memory, and of memory and swap together, the second is never the smaller.
    pub(super) fn change_memory(&self, value: u64) -> Result<(), String> {
        let both = "memory.memsw.limit_in_bytes";
        let old = number(&self.dir, "memory.limit_in_bytes").unwrap_or(u64::MAX);
        match (self.dir.join(both).exists(), value > old) {
            (false, _) => set(&self.dir, "memory.limit_in_bytes", value),
            (true, true) => {
                set(&self.dir, both, value)?;
                set(&self.dir, "memory.limit_in_bytes", value)
            }
            (true, false) => {
                set(&self.dir, "memory.limit_in_bytes", value)?;
                set(&self.dir, both, value)
            }
        }
    }

    pub(super) fn tasks(&self) -> io::Result<OwnedFd> {
        Ok(fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join("tasks"))?
            .into())
    }

    pub(super) fn read(&self, figures: &mut Figures) {
        if self.controllers.iter().any(|c| c == "memory") {
            figures.peak_memory = number(&self.dir, "memory.max_usage_in_bytes");
            let control = fs::read_to_string(self.dir.join("memory.oom_control")).unwrap_or_default();
            figures.oom_kills = keyed(&control, "oom_kill").unwrap_or(0);
        }
    }
}

/// Kills every process of a group until none is left.
pub(super) fn kill(dir: &Path) -> io::Result<()> {
    for _ in 0..100 {
        let pids = match fs::read_to_string(dir.join("cgroup.procs")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let pids: Vec<i32> = pids
            .lines()
            .filter_map(|l| l.parse().ok())
            .filter(|p| *p > 1)
            .collect();
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            sys::signal(pid, libc::SIGKILL)?;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}
