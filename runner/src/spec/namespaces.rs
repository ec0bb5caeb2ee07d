//! Which namespaces a container has of its own, and what opens it further to its host.

use super::{ContainerSpec, invalid};
use crate::error::RunnerError;
use crate::net::Network;

/// Whose a namespace is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// The container's own.
    #[default]
    Own,
    /// The runner's.
    Host,
    /// Another container's, whose first process is given at the start (see [`Joined`](crate::Joined)). Both must have one user namespace.
    Joined,
}

/// The namespaces of a container, but for its mounts, which are always its own, and its [`Network`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Its users: the user namespace given at the start ([`Sharing::Own`]), or the runner's.
    pub user: Sharing,
    /// Its processes.
    pub pid: Sharing,
    /// System V IPC and message queues, and with them /dev/shm.
    pub ipc: Sharing,
    /// Its host name.
    pub uts: Sharing,
    /// Its view of the cgroups; none that could be joined.
    pub cgroup: Sharing,
}

impl Namespaces {
    /// Whether its first process is not the first of a pid namespace, so that others don't end with it by themselves.
    pub(crate) fn shares_pids(&self) -> bool {
        self.pid != Sharing::Own
    }

    /// `CLONE_NEW*` that its first process begins in.
    pub(crate) fn new_at_start(&self) -> i32 {
        let own = |sharing, kind| if sharing == Sharing::Own { kind } else { 0 };
        libc::CLONE_NEWNS | own(self.pid, libc::CLONE_NEWPID) | own(self.uts, libc::CLONE_NEWUTS)
    }

    /// `CLONE_NEW*` that it makes once it is in its cgroups and root of its user namespace.
    pub(crate) fn new_inside(&self) -> i32 {
        let own = |sharing, kind| if sharing == Sharing::Own { kind } else { 0 };
        own(self.cgroup, libc::CLONE_NEWCGROUP) | own(self.ipc, libc::CLONE_NEWIPC)
    }

    /// `CLONE_NEW*` of those that are not the runner's.
    pub(crate) fn apart(&self, network: Network) -> i32 {
        let apart = |sharing, kind| if sharing == Sharing::Host { 0 } else { kind };
        let of_network = if network == Network::Host {
            Sharing::Host
        } else {
            Sharing::Own
        };
        libc::CLONE_NEWNS
            | apart(self.user, libc::CLONE_NEWUSER)
            | apart(self.pid, libc::CLONE_NEWPID)
            | apart(self.ipc, libc::CLONE_NEWIPC)
            | apart(self.uts, libc::CLONE_NEWUTS)
            | apart(self.cgroup, libc::CLONE_NEWCGROUP)
            | apart(of_network, libc::CLONE_NEWNET)
    }
}

/// What of the kernel's file systems is hidden or read-only in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SystemPaths {
    /// What Docker hides and protects, and a little more.
    #[default]
    Confined,
    /// Nothing.
    Unconfined,
    /// As confined, but for these paths and what lies below them.
    Except(Vec<String>),
}

impl SystemPaths {
    /// Whether the path, below `/proc/` or `/sys/`, is left open.
    pub(crate) fn opens(&self, path: &str) -> bool {
        let is_below = |open: &String| {
            let rest = path.strip_prefix(open.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self {
            SystemPaths::Confined => false,
            SystemPaths::Unconfined => true,
            SystemPaths::Except(paths) => paths.iter().any(is_below),
        }
    }
}

/// What a security module confines a command by, from its exec on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// An AppArmor profile that is loaded.
    AppArmor(String),
    /// An SELinux context of the process, and the one that the files of its root file system are seen with.
    SeLinux {
        /// As `system_u:system_r:container_t:s0`.
        process: String,
        /// As `system_u:object_r:container_file_t:s0`.
        files: String,
    },
}

impl Label {
    /// Where the kernel takes it, below /proc, and in which words (the man page of apparmor_change_onexec, and selinux's setexeccon).
    pub(crate) fn attribute(&self) -> (&'static str, String) {
        match self {
            Label::AppArmor(profile) => ("thread-self/attr/apparmor/exec", format!("exec {profile}")),
            Label::SeLinux { process, .. } => ("thread-self/attr/exec", process.clone()),
        }
    }
}

/// Refuses what makes no sense together.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), RunnerError> {
    let of = &spec.namespaces;
    if of.user == Sharing::Joined || of.cgroup == Sharing::Joined {
        return invalid(
            "namespaces",
            "the user and the cgroup namespace are none to be joined",
        );
    }
    if let SystemPaths::Except(paths) = &spec.system_paths
        && let Some(path) = paths.iter().find(|path| !path.starts_with('/'))
    {
        return invalid("path to be unmasked (must be absolute)", path);
    }
    let is_bad = |text: &str| text.is_empty() || text.contains(['\0', '\n']);
    match &spec.label {
        Some(Label::AppArmor(profile)) if is_bad(profile) => invalid("AppArmor profile", profile),
        Some(Label::SeLinux { process, files }) if is_bad(process) || is_bad(files) => {
            invalid("SELinux label", process)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_paths() {
        let check = |open: &[&str], path: &str, expect: bool| {
            let paths = SystemPaths::Except(open.iter().map(|path| (*path).to_owned()).collect());
            assert_eq!(paths.opens(path), expect, "{open:?} {path}");
        };
        check(&["/proc/kcore"], "/proc/kcore", true);
        check(&["/proc/kcore"], "/proc/keys", false);
        check(&["/proc/k"], "/proc/kcore", false);
        check(&["/sys/"], "/sys/firmware", true);
        check(&[], "/proc/kcore", false);
        assert!(SystemPaths::Unconfined.opens("/proc/kcore") && !SystemPaths::Confined.opens("/proc/kcore"));
    }

    #[test]
    fn kinds() {
        let own = Namespaces::default();
        assert_eq!(own.new_inside(), libc::CLONE_NEWCGROUP | libc::CLONE_NEWIPC);
        assert!(own.apart(Network::None) & libc::CLONE_NEWNET != 0);
        assert!(own.apart(Network::Host) & libc::CLONE_NEWNET == 0 && !own.shares_pids());
        let host = Namespaces {
            user: Sharing::Host,
            pid: Sharing::Host,
            ipc: Sharing::Joined,
            uts: Sharing::Host,
            cgroup: Sharing::Host,
        };
        assert_eq!(host.new_at_start(), libc::CLONE_NEWNS);
        assert_eq!(host.new_inside(), 0);
        assert_eq!(host.apart(Network::Host), libc::CLONE_NEWNS | libc::CLONE_NEWIPC);
        assert!(host.shares_pids());
    }

    /// Where the kernel reads them, and what it reads there.
    #[test]
    fn labels_are_written_where_the_kernel_takes_them() {
        let profile = Label::AppArmor("docker-default".into());
        let exec = ("thread-self/attr/apparmor/exec", "exec docker-default".to_owned());
        assert_eq!(profile.attribute(), exec);
        let process = "system_u:system_r:container_t:s0".to_owned();
        let label = Label::SeLinux {
            process: process.clone(),
            files: "system_u:object_r:container_file_t:s0".into(),
        };
        assert_eq!(label.attribute(), ("thread-self/attr/exec", process));
    }
}
