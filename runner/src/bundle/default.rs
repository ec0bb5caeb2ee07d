//! Our own default container as a config.json, for the runtimes of others.

use std::path::Path;

use serde_json::{Value, json};

use crate::Capabilities;
use crate::confine::{paths, seccomp};

/// What of a container is an image's.
#[derive(Debug, Clone)]
pub struct Command {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// User, group and further groups.
    pub user: (u32, u32, Vec<u32>),
    /// The container's host name.
    pub hostname: String,
}

/// The user that `user[:group]` is in these files of passwd and group, by the rules of containers: uid, gid and further groups. Why
/// there is none, in words, otherwise.
pub fn find_user(text: &str, passwd: &str, group: &str) -> Result<(u32, u32, Vec<u32>), String> {
    let user = crate::user::resolve(text, passwd, group)?;
    Ok((user.uid, user.gid, user.groups))
}

/// The config.json of our default container with this command, its root file system at `root`.
///
/// But for the user namespace: the files of a bundle belong to real ids, and other runtimes map none.
pub fn default_config(command: &Command, root: &Path) -> Value {
    let caps = Capabilities::default();
    let names: Vec<String> = Capabilities::names()
        .filter(|name| caps.has(name))
        .map(|name| format!("CAP_{name}"))
        .collect();
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces = namespaces.map(|kind| json!({"type": kind}));
    let masked = below("/proc", &paths::MASKED_PROC).chain(below("/sys", &paths::MASKED_SYS));
    let masked: Vec<String> = masked.collect();
    let read_only: Vec<String> = below("/proc", &paths::READ_ONLY_PROC).collect();
    let (uid, gid, groups) = &command.user;
    // A user that is not root gets none by its exec, as in our own containers.
    let held = if *uid == 0 { names.clone() } else { Vec::new() };
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": uid, "gid": gid, "additionalGids": groups, "umask": 0o022},
            "args": command.args,
            "env": command.env,
            "cwd": command.cwd,
            "capabilities": {"bounding": names, "effective": held, "permitted": held},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
            "noNewPrivileges": true,
        },
        "root": {"path": root, "readonly": false},
        "hostname": command.hostname,
        "mounts": mounts(),
        "linux": {
            "namespaces": namespaces,
            "resources": {"pids": {"limit": 2048}, "devices": [{"allow": false, "access": "rwm"}]},
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "seccomp": seccomp::told::describe(caps),
            "maskedPaths": masked,
            "readonlyPaths": read_only,
        },
    })
}

fn below<'a>(top: &'a str, names: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    names.iter().map(move |name| format!("{top}/{name}"))
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5"
            ]
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
    ])
}
