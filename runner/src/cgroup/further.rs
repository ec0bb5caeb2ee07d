//! Limits that few containers have: swap, shares of the processor, and which processors.

use std::fs;

use super::{Cgroups, Controller, Hierarchies, set, v1};
use crate::error::{Result, RunnerError};
use crate::spec::{Limits, LimitsPolicy};

type Done = std::result::Result<(), String>;

impl Cgroups {
    /// Sets those of these limits that are given. As in [`Cgroups::create`], one that can't be had is an error or left out.
    pub(crate) fn limit_further(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
        limits: &Limits,
        policy: LimitsPolicy,
    ) -> Result<()> {
        let mut wanted: Vec<(&'static str, Done)> = Vec::new();
        if let Some(swap) = limits.memory_swap {
            wanted.push(("memory-swap", self.limit_swap(limits.memory, swap)));
        }
        if let Some(shares) = limits.cpu_shares {
            let done = self
                .add(hierarchies, name, Controller::Cpu, None)
                .and_then(|()| self.share_cpu(shares));
            wanted.push(("cpu-shares", done));
        }
        let sets = [
            ("cpuset-cpus", "cpuset.cpus", &limits.cpuset_cpus),
            ("cpuset-mems", "cpuset.mems", &limits.cpuset_mems),
        ];
        for (option, file, value) in sets {
            if let Some(value) = value {
                let done = self
                    .join_cpuset(hierarchies, name)
                    .and_then(|dir| set(&dir, file, value));
                wanted.push((option, done));
            }
        }
        for (limit, done) in wanted {
            match done {
                Err(reason) if policy == LimitsPolicy::Enforce => {
                    self.remove();
                    return Err(RunnerError::LimitUnenforceable { limit, reason });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `both` is memory and swap together, none for as much as there is.
    fn limit_swap(&self, memory: Option<u64>, both: Option<u64>) -> Done {
        let has_memory = |g: &&v1::Group| g.controllers.iter().any(|c| c == "memory");
        if let Some(group) = self.v1.iter().find(has_memory) {
            let file = "memory.memsw.limit_in_bytes";
            if !group.dir.join(file).exists() {
                return Err(
                    "this kernel does not account swap by cgroup (boot it with swapaccount=1)".to_owned(),
                );
            }
            return match both {
                Some(both) => set(&group.dir, file, both),
                None => set(&group.dir, file, -1),
            };
        }
        let group = self.v2.as_ref().ok_or("this machine has no cgroup for memory")?;
        match both {
            Some(both) => set(
                &group.dir,
                "memory.swap.max",
                both.saturating_sub(memory.unwrap_or(0)),
            ),
            None => set(&group.dir, "memory.swap.max", "max"),
        }
    }

    fn share_cpu(&self, shares: u64) -> Done {
        let has_cpu = |g: &&v1::Group| g.controllers.iter().any(|c| c == "cpu");
        if let Some(group) = self.v1.iter().find(has_cpu) {
            return set(&group.dir, "cpu.shares", shares);
        }
        let group = self.v2.as_ref().ok_or("this machine has no cgroup for cpu")?;
        // 2 to 262144 become 1 to 10000, as in every runtime.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        set(&group.dir, "cpu.weight", weight)
    }

    /// Of version 1 a new group has no processor and no memory node at all until it is said.
    fn join_cpuset(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
    ) -> std::result::Result<std::path::PathBuf, String> {
        let parent = hierarchies.parent()?;
        if let Some(hierarchy) = hierarchies.v1.iter().find(|h| h.has("cpuset")) {
            let above = hierarchy.dir.join(parent);
            let dir = v1::Group::join(&mut self.v1, hierarchy, parent, name)?
                .dir
                .clone();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
                if own.trim().is_empty() {
                    let all =
                        fs::read_to_string(above.join(file)).map_err(|e| format!("read {file}: {e}"))?;
                    set(&dir, file, all.trim())?;
                }
            }
            return Ok(dir);
        }
        let group = self.join_unified(hierarchies, name)?;
        group.activate("cpuset")?;
        Ok(group.dir.clone())
    }
}
