//! `linux.resources` of a bundle: what is asked of each controller, in the words of the version that has it.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
    LinuxThrottleDevice,
};

use super::device_program;
use super::devices::USUAL;
use super::placed::{PlacedGroup, PlacedGroups};

type Done = Result<(), String>;

impl PlacedGroups {
    /// Sets all that is asked for; what can't be had is an error that names it.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Done {
        self.devices(resources.devices().as_deref().unwrap_or_default())
            .map_err(|e| format!("devices: {e}"))?;
        if let Some(memory) = resources.memory() {
            self.memory(memory).map_err(|e| format!("memory: {e}"))?;
        }
        if let Some(cpu) = resources.cpu() {
            self.cpu(cpu).map_err(|e| format!("cpu: {e}"))?;
        }
        if let Some(pids) = resources.pids() {
            let limit = match pids.limit() {
                limit if limit > 0 => limit.to_string(),
                _ => "max".to_owned(),
            };
            self.need("pids")?.set("pids.max", limit)?;
        }
        if let Some(io) = resources.block_io() {
            self.block_io(io).map_err(|e| format!("blockIO: {e}"))?;
        }
        self.rarer(resources)
    }

    fn need(&self, controller: &'static str) -> Result<&PlacedGroup, String> {
        self.with(controller).ok_or_else(|| match self.is_partial {
            true => format!(
                "this user may have no cgroup with the {controller} controller; leave the limit out, or have one delegated and name \
                 it (linux.cgroupsPath)"
            ),
            false => format!("this machine has no {controller} controller"),
        })
    }

    fn memory(&self, memory: &LinuxMemory) -> Done {
        if memory.kernel().is_some() {
            return Err("kernel is not supported: the kernels of today have no such limit".to_owned());
        }
        if *memory == LinuxMemory::default() {
            return Ok(());
        }
        let group = self.need("memory")?;
        let limit = memory.limit().filter(|limit| *limit != 0);
        let swap = memory.swap().filter(|swap| *swap != 0);
        if memory.check_before_update() == Some(true)
            && let (Some(limit), Some(used)) = (limit, super::number(&group.dir, "memory.usage_in_bytes"))
            && limit > 0
            && used > limit as u64
        {
            return Err(format!("limit {limit} is less than the {used} bytes in use"));
        }
        if group.is_unified {
            return memory_of_v2(group, memory, limit, swap);
        }
        let files = [
            ("memory.limit_in_bytes", limit),
            (
                "memory.soft_limit_in_bytes",
                memory.reservation().filter(|r| *r != 0),
            ),
            ("memory.memsw.limit_in_bytes", swap),
            ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp()),
        ];
        for (file, value) in files {
            match value {
                // No swap accounting: less than asked for can't be promised, but no limit of swap is all there is.
                Some(-1) if !group.has(file) => {}
                Some(value) => group.set(file, value)?,
                None => {}
            }
        }
        if let Some(swappiness) = memory.swappiness() {
            group.set("memory.swappiness", swappiness)?;
        }
        match memory.disable_oom_killer() {
            Some(true) => group.set("memory.oom_control", 1),
            _ => Ok(()),
        }
    }

    fn cpu(&self, cpu: &LinuxCpu) -> Done {
        let sets = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
        for (file, value) in sets {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                self.need("cpuset")?.set(file, value)?;
            }
        }
        let positive = |value: Option<u64>| value.filter(|value| *value != 0);
        let (shares, period) = (positive(cpu.shares()), positive(cpu.period()));
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let is_asked = shares.is_some()
            || period.is_some()
            || quota.is_some()
            || cpu.burst().is_some()
            || cpu.idle().is_some()
            || cpu.realtime_period().is_some()
            || cpu.realtime_runtime().is_some();
        if !is_asked {
            return Ok(());
        }
        let group = self.need("cpu")?;
        if group.is_unified {
            return cpu_of_v2(group, cpu, shares, (quota, period));
        }
        let files = [
            ("cpu.shares", shares.map(|v| v.to_string())),
            ("cpu.cfs_period_us", period.map(|v| v.to_string())),
            ("cpu.cfs_quota_us", quota.map(|v| v.to_string())),
            ("cpu.cfs_burst_us", cpu.burst().map(|v| v.to_string())),
            ("cpu.idle", cpu.idle().map(|v| v.to_string())),
            (
                "cpu.rt_period_us",
                positive(cpu.realtime_period()).map(|v| v.to_string()),
            ),
            (
                "cpu.rt_runtime_us",
                cpu.realtime_runtime().filter(|v| *v != 0).map(|v| v.to_string()),
            ),
        ];
        set_all(group, files)
    }

    fn block_io(&self, io: &LinuxBlockIo) -> Done {
        if *io == LinuxBlockIo::default() {
            return Ok(());
        }
        if io.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err("leafWeight is not supported: the kernels of today have no such weight".to_owned());
        }
        let weights = io.weight_device().iter().flatten();
        if weights.clone().any(|device| device.leaf_weight().is_some()) {
            return Err("leafWeight is not supported: the kernels of today have no such weight".to_owned());
        }
        let group = self.with("blkio").or_else(|| self.with("io"));
        let group = group.ok_or("this machine has no controller of block devices")?;
        let prefix = if group.is_unified { "io" } else { "blkio" };
        let weight_file = |suffix: &str| match group.has(&format!("{prefix}.weight{suffix}")) {
            true => format!("{prefix}.weight{suffix}"),
            false => format!("{prefix}.bfq.weight{suffix}"),
        };
        if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
            group.set(&weight_file(""), weight)?;
        }
        for device in weights {
            let suffix = if group.is_unified { "" } else { "_device" };
            if let Some(weight) = device.weight() {
                let line = format!("{}:{} {weight}", device.major(), device.minor());
                group.set(&weight_file(suffix), line)?;
            }
        }
        let throttles = [
            (io.throttle_read_bps_device(), "read_bps", "rbps"),
            (io.throttle_write_bps_device(), "write_bps", "wbps"),
            (io.throttle_read_iops_device(), "read_iops", "riops"),
            (io.throttle_write_iops_device(), "write_iops", "wiops"),
        ];
        for (devices, v1, v2) in throttles {
            for device in devices.iter().flatten() {
                throttle(group, device, v1, v2)?;
            }
        }
        Ok(())
    }

    fn rarer(&self, resources: &LinuxResources) -> Done {
        for limit in resources.hugepage_limits().iter().flatten() {
            let group = self.need("hugetlb")?;
            let size = plain(limit.page_size())?;
            match group.is_unified {
                true => group.set(&format!("hugetlb.{size}.max"), limit.limit())?,
                false => group.set(&format!("hugetlb.{size}.limit_in_bytes"), limit.limit())?,
            }
        }
        if let Some(network) = resources.network() {
            if let Some(class) = network.class_id().filter(|class| *class != 0) {
                self.need("net_cls")?.set("net_cls.classid", class)?;
            }
            for priority in network.priorities().iter().flatten() {
                let line = format!("{} {}", priority.name(), priority.priority());
                self.need("net_prio")?.set("net_prio.ifpriomap", line)?;
            }
        }
        for (device, limit) in resources.rdma().iter().flatten() {
            let number = |n: Option<u32>| n.map_or_else(|| "max".to_owned(), |n| n.to_string());
            let (handles, objects) = (number(limit.hca_handles()), number(limit.hca_objects()));
            let line = format!("{device} hca_handle={handles} hca_object={objects}");
            self.need("rdma")?.set("rdma.max", line)?;
        }
        for (file, value) in resources.unified().iter().flatten() {
            let group = self
                .unified()
                .ok_or("unified: this machine has no cgroup version 2")?;
            group
                .set(plain(file)?, value)
                .map_err(|e| format!("unified: {e}"))?;
        }
        Ok(())
    }

    /// What every container needs is allowed at the end, whatever the rules say.
    fn devices(&self, rules: &[LinuxDeviceCgroup]) -> Done {
        let v1 = self
            .groups
            .iter()
            .find(|g| g.controllers.iter().any(|c| c == "devices"));
        let Some(group) = v1 else {
            return match self.unified() {
                // An ordinary user's container has no device that its user may not use.
                _ if self.is_partial => Ok(()),
                Some(group) => device_program(group, rules),
                // Without cgroups there is nothing to deny with.
                None if rules.is_empty() => Ok(()),
                None => Err("this machine has no cgroups that could hold rules".to_owned()),
            };
        };
        if rules.is_empty() {
            group.set("devices.deny", "a")?;
        }
        for rule in rules {
            let file = if rule.allow() {
                "devices.allow"
            } else {
                "devices.deny"
            };
            group.set(file, device_rule(rule)?)?;
        }
        // Nodes can be made of everything, as in every runtime; using one is another matter.
        ["c *:* m", "b *:* m"]
            .iter()
            .chain(&USUAL)
            .try_for_each(|rule| group.set("devices.allow", rule))
    }
}

/// The same rules for version 2, with what every container needs at the end.
fn device_program(group: &PlacedGroup, rules: &[LinuxDeviceCgroup]) -> Done {
    let mut all: Vec<LinuxDeviceCgroup> = Vec::new();
    if rules.is_empty() {
        all.push(device_program::parsed("a *:* rwm", false)?);
    }
    all.extend(rules.iter().cloned());
    for rule in ["c *:* m", "b *:* m"].into_iter().chain(USUAL) {
        all.push(device_program::parsed(rule, true)?);
    }
    device_program::load(&group.dir, &all)
}

fn device_rule(rule: &LinuxDeviceCgroup) -> Result<String, String> {
    let number = |n: Option<i64>| {
        n.filter(|n| *n >= 0)
            .map_or_else(|| "*".to_owned(), |n| n.to_string())
    };
    let access = rule
        .access()
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    if !access.chars().all(|c| "rwm".contains(c)) {
        return Err(format!("access {access:?} (r, w and m)"));
    }
    let (major, minor) = (number(rule.major()), number(rule.minor()));
    match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A if major == "*" && minor == "*" && access.len() == 3 => Ok("a".to_owned()),
        LinuxDeviceType::A => {
            Err("type a with numbers or less than rwm is not supported; name b and c".to_owned())
        }
        LinuxDeviceType::B => Ok(format!("b {major}:{minor} {access}")),
        LinuxDeviceType::C | LinuxDeviceType::U => Ok(format!("c {major}:{minor} {access}")),
        LinuxDeviceType::P => Err("type p has no rules".to_owned()),
    }
}

fn set_all<const N: usize>(group: &PlacedGroup, files: [(&str, Option<String>); N]) -> Done {
    files
        .into_iter()
        .filter_map(|(file, value)| value.map(|value| (file, value)))
        .try_for_each(|(file, value)| group.set(file, value))
}

fn max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn memory_of_v2(group: &PlacedGroup, memory: &LinuxMemory, limit: Option<i64>, swap: Option<i64>) -> Done {
    if memory.swappiness().is_some()
        || memory.disable_oom_killer() == Some(true)
        || memory.kernel_tcp().is_some()
    {
        return Err(
            "swappiness, disableOOMKiller and kernelTCP are not there in cgroup version 2".to_owned(),
        );
    }
    let swap = match (swap, limit) {
        // Version 2 counts swap alone, the bundle memory and swap together.
        (Some(both), Some(limit)) if both > 0 && limit > 0 => match both.checked_sub(limit) {
            Some(swap) if swap >= 0 => Some(swap.to_string()),
            _ => return Err(format!("swap {both} is less than limit {limit}")),
        },
        (Some(both), None) if both > 0 => return Err(format!("swap {both} without a limit")),
        (Some(_), _) => Some("max".to_owned()),
        (None, _) => None,
    };
    set_all(
        group,
        [
            ("memory.max", limit.map(max)),
            ("memory.low", memory.reservation().filter(|r| *r != 0).map(max)),
            ("memory.swap.max", swap),
        ],
    )
}

fn cpu_of_v2(
    group: &PlacedGroup,
    cpu: &LinuxCpu,
    shares: Option<u64>,
    (quota, period): (Option<i64>, Option<u64>),
) -> Done {
    if cpu.realtime_period().is_some_and(|v| v != 0) || cpu.realtime_runtime().is_some_and(|v| v != 0) {
        return Err("realtime limits are not there in cgroup version 2".to_owned());
    }
    // 2 to 262144 become 1 to 10000, as in every runtime.
    let weight = shares.map(|shares| 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142);
    let limit = (quota.is_some() || period.is_some()).then(|| {
        format!(
            "{} {}",
            quota.map_or_else(|| "max".to_owned(), max),
            period.unwrap_or(100_000)
        )
    });
    set_all(
        group,
        [
            ("cpu.idle", cpu.idle().map(|v| v.to_string())),
            ("cpu.weight", weight.map(|v| v.to_string())),
            ("cpu.max", limit),
            ("cpu.max.burst", cpu.burst().map(|v| v.to_string())),
        ],
    )
}

fn throttle(group: &PlacedGroup, device: &LinuxThrottleDevice, v1: &str, v2: &str) -> Done {
    let (major, minor, rate) = (device.major(), device.minor(), device.rate());
    match group.is_unified {
        true => group.set("io.max", format!("{major}:{minor} {v2}={rate}")),
        false => group.set(
            &format!("blkio.throttle.{v1}_device"),
            format!("{major}:{minor} {rate}"),
        ),
    }
}

/// A name that is a part of a file's name, and no path.
fn plain(name: &str) -> Result<&str, String> {
    match name.is_empty() || name.contains('/') {
        true => Err(format!("{name:?} is no name")),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<String, String> {
        device_rule(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn device_rules_are_the_kernels() {
        assert_eq!(rule(r#"{"allow":false,"access":"rwm"}"#).unwrap(), "a");
        assert_eq!(
            rule(r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}"#).unwrap(),
            "c 10:229 rw"
        );
        assert_eq!(
            rule(r#"{"allow":true,"type":"b","access":"m"}"#).unwrap(),
            "b *:* m"
        );
        assert!(rule(r#"{"allow":true,"access":"rx"}"#).is_err());
        assert!(rule(r#"{"allow":true,"type":"a","major":1,"access":"rwm"}"#).is_err());
    }

    /// In a group of version 2, where there is one.
    #[test]
    fn a_device_program_is_obeyed() {
        let path = format!("box-device-test-{}", std::process::id());
        let path = std::path::Path::new(&path);
        let mut groups = PlacedGroups::plan(path).unwrap();
        groups.make(path).unwrap();
        if let Some(group) = groups.unified() {
            let rule = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]"#;
            device_program(group, &serde_json::from_str::<Vec<_>>(rule).unwrap()).unwrap();
            let script = format!(
                "echo $$ > {}/cgroup.procs; true < /dev/null && true < /dev/kmsg && ! true < /dev/fuse && ! true 2>&1 > /dev/kmsg",
                group.dir.display()
            );
            let status = std::process::Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap();
            assert!(status.success());
        }
        assert!(groups.remove());
    }

    #[test]
    fn names_are_no_paths() {
        assert!(plain("../x").is_err());
        assert_eq!(plain("2MB"), Ok("2MB"));
    }
}
