//! The kernel's parameters that belong to a namespace of the container.

use super::{ContainerSpec, Sharing, invalid};
use crate::error::RunnerError;
use crate::net::Network;

/// Those of the ipc namespace.
pub(crate) const OF_IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The path below /proc/sys of a name as sysctl(8) writes it, with dots or slashes.
pub(crate) fn path(name: &str) -> String {
    // What comes first says which of the two divides; the other one stands for it then.
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('.') => {
            let swap = |c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

/// Refuses what would be the host's.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), RunnerError> {
    for (name, value) in &spec.sysctls {
        let path = path(name);
        let is_plain = |part: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            !part.is_empty() && part != "." && part != ".." && part.chars().all(good)
        };
        if !path.split('/').all(is_plain) || value.is_empty() || value.contains('\0') {
            return invalid("sysctl", name);
        }
        let is_net = path.starts_with("net/");
        if is_net && spec.network == Network::Host {
            return invalid(
                "sysctl (with the host's network it would be the host's; --network none gives the container its own)",
                name,
            );
        }
        if !is_net && spec.namespaces.ipc == Sharing::Host {
            return invalid("sysctl (with the host's IPC it would be the host's)", name);
        }
        if !is_net && !OF_IPC.contains(&path.as_str()) && !path.starts_with("fs/mqueue/") {
            return invalid(
                "sysctl (only net.*, fs.mqueue.* and those of System V IPC belong to a container)",
                name,
            );
        }
    }
    Ok(())
}
