//! Limits that few containers have: swap, shares of the processor, which processors, and what goes to and comes from devices.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cgroups, Controller, Hierarchies, set, v1};
use crate::error::{Result, RunnerError};
use crate::spec::{Limits, LimitsPolicy, Throttle, Traffic};

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
        for throttle in &limits.throttles {
            let done = self.join(hierarchies, name, ("blkio", "io"));
            let done = done.and_then(|(dir, is_unified)| throttle_device(&dir, is_unified, throttle));
            wanted.push((option_of(throttle.traffic), done));
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

    /// The container's group for a controller, by its names of version 1 and 2, and whether it is one of version 2.
    fn join(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
        controller: (&str, &str),
    ) -> std::result::Result<(PathBuf, bool), String> {
        let parent = hierarchies.parent()?;
        if let Some(hierarchy) = hierarchies.v1.iter().find(|h| h.has(controller.0)) {
            let group = v1::Group::join(&mut self.v1, hierarchy, parent, name)?;
            return Ok((group.dir.clone(), false));
        }
        let group = self.join_unified(hierarchies, name)?;
        group.activate(controller.1)?;
        Ok((group.dir.clone(), true))
    }

    /// Of version 1 a new group has no processor and no memory node at all until it is said.
    fn join_cpuset(&mut self, hierarchies: &Hierarchies, name: &str) -> std::result::Result<PathBuf, String> {
        let (dir, is_unified) = self.join(hierarchies, name, ("cpuset", "cpuset"))?;
        if let (false, Some(above)) = (is_unified, dir.parent()) {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
                if own.trim().is_empty() {
                    let all =
                        fs::read_to_string(above.join(file)).map_err(|e| format!("read {file}: {e}"))?;
                    set(&dir, file, all.trim())?;
                }
            }
        }
        Ok(dir)
    }
}

fn option_of(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::ReadBytes => "device-read-bps",
        Traffic::WriteBytes => "device-write-bps",
        Traffic::Reads => "device-read-iops",
        Traffic::Writes => "device-write-iops",
    }
}

fn throttle_device(dir: &Path, is_unified: bool, throttle: &Throttle) -> Done {
    let (v1, v2) = match throttle.traffic {
        Traffic::ReadBytes => ("read_bps", "rbps"),
        Traffic::WriteBytes => ("write_bps", "wbps"),
        Traffic::Reads => ("read_iops", "riops"),
        Traffic::Writes => ("write_iops", "wiops"),
    };
    let (device, rate) = (throttle.device, throttle.rate);
    let device = format!("{}:{}", device.0, device.1);
    match is_unified {
        true => set(dir, "io.max", format_args!("{device} {v2}={rate}")),
        false => set(
            dir,
            &format!("blkio.throttle.{v1}_device"),
            format_args!("{device} {rate}"),
        ),
    }
}
