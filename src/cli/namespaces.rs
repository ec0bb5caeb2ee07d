//! Options of `box run` for the namespaces of a container, and for what opens it to its host.

use clap::Args;

use crate::values::{CgroupNs, Ipc, NamespaceModes, Share, Userns};

// Whose namespaces it has.
#[derive(Debug, Args)]
pub(crate) struct NamespaceArgs {
    /// Whose processes it sees: host, or container:NAME [default: its own].
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<Share>,
    /// Whose shared memory, semaphores and message queues it has: private, shareable (others may join), none (no /dev/shm), host
    /// or container:NAME [default: private].
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<Ipc>,
    /// Whose host name it has: host, or container:NAME [default: its own].
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<Share>,
    /// Which cgroups it sees [default: private].
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) cgroupns: Option<CgroupNs>,
    /// Its user ids: auto (root: a range of its own, as usual), host (root in it is the host's root; an ordinary user's are as
    /// usual), keep-id[:uid=UID,gid=GID] (an ordinary user has the same id in it) or ranges:INSIDE:OUTSIDE:COUNT[,…] (explicit runs).
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<Userns>,
    /// Open the container to its host: every capability and system call, nothing of /proc and /sys hidden or read-only, /sys and
    /// cgroups writable, no AppArmor or SELinux confinement; for root also the host's user ids (--userns=host) and all its devices. Whoever is root
    /// in such a container of root's is root on the host; in an ordinary user's it has no more than that user's rights.
    #[arg(long)]
    pub(crate) privileged: bool,
}

impl NamespaceArgs {
    /// As they are asked for.
    pub(crate) fn modes(&self) -> NamespaceModes {
        NamespaceModes {
            pid: self.pid.clone().unwrap_or_default(),
            ipc: self.ipc.clone().unwrap_or_default(),
            uts: self.uts.clone().unwrap_or_default(),
            host_cgroups: self.cgroupns == Some(CgroupNs::Host),
            user: self.userns.clone().unwrap_or_default(),
        }
    }
}
