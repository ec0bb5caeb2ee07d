//! What there is, and what can be had.

use serde_json::{Value, json};

use super::record::{Root, Status};
use crate::cli::Format;
use crate::error::Failure;
use crate::ui;

/// `list`.
pub(super) fn list(root: &Root, format: Format, quiet: bool) -> Result<u8, Failure> {
    let mut states = Vec::new();
    for id in root.ids() {
        // One that is being made, or went meanwhile, is not there.
        if let Some(record) = root.read(&id)? {
            states.push(record.state(record.status(root)));
        }
    }
    let text = |state: &Value, key: &str| match &state[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if quiet {
        let lines: String = states
            .iter()
            .map(|state| format!("{}\n", text(state, "id")))
            .collect();
        ui::result(&lines)?;
    } else if format == Format::Json {
        ui::json(&Value::Array(states))?;
    } else {
        let mut table = format!("{:<40} {:>8} {:<8} {}\n", "ID", "PID", "STATUS", "BUNDLE");
        for state in &states {
            let [id, pid, status, bundle] = ["id", "pid", "status", "bundle"].map(|key| text(state, key));
            table.push_str(&format!("{id:<40} {pid:>8} {status:<8} {bundle}\n"));
        }
        ui::result(&table)?;
    }
    Ok(0)
}

/// `ps`.
pub(super) fn processes(root: &Root, id: &str, format: Format) -> Result<u8, Failure> {
    let (record, _held) = root.find(id)?;
    let mut pids = record.groups.processes();
    if pids.is_empty() && record.status(root) != Status::Stopped {
        pids = of_namespace(record.first.pid);
    }
    match format {
        Format::Json => ui::json(&json!(pids))?,
        Format::Table => {
            let lines: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
            ui::result(&format!("PID\n{lines}"))?;
        }
    }
    Ok(0)
}

/// Without a cgroup: the processes of the container's pid namespace, or its first one alone if it has none of its own.
fn of_namespace(first: i32) -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&first.to_string());
    if own.is_none() || own == namespace("self") {
        return vec![first];
    }
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let pids = names
        .filter(|name| namespace(name) == own)
        .filter_map(|name| name.parse().ok());
    let mut pids: Vec<i32> = pids.collect();
    pids.sort_unstable();
    pids
}

/// `features`, as features.md of the specification has it.
pub(super) fn features() -> Result<u8, Failure> {
    let all = box_runner::bundle::supported();
    let value = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::SPECIFICATION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": all.mount_options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": all.capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": all.seccomp_actions,
                "operators": all.seccomp_operators,
                "archs": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
        },
    });
    ui::json(&value)?;
    Ok(0)
}
