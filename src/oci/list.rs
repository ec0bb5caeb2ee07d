//! What there is, and what can be had.

use serde_json::{Value, json};

use super::record::Root;
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
    let pids = record.groups.processes();
    match format {
        Format::Json => ui::json(&json!(pids))?,
        Format::Table => {
            let lines: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
            ui::result(&format!("PID\n{lines}"))?;
        }
    }
    Ok(0)
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
