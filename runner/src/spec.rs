//! What a container is asked to be: plain data, checked once by [`ContainerSpec::validate`].
//!
//! Nothing here touches the kernel. The runner knows neither images nor the store: whoever calls it
//! says where the layers are and what to start.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

mod ids;
mod mount;
mod namespaces;
mod rlimit;
pub(crate) mod sysctl;
mod throttle;

pub use ids::{IdExtent, IdMap};
pub use mount::{DeviceAccess, FileContent, Mount, MountKind, MountLimits, Tmpfs};
pub use namespaces::{Label, Namespaces, Sharing, SystemPaths};
pub use rlimit::{Resource, Rlimit};
pub use throttle::{Throttle, Traffic};

use crate::confine::{Capabilities, seccomp};
use crate::error::RunnerError;
use crate::net::Network;

/// The directories an overlay is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFs {
    /// Read-only layers, the top-most first, as overlayfs wants them; at least one.
    pub lower: Vec<PathBuf>,
    /// Where changes go. It must lie in the same directory as `work`.
    pub upper: PathBuf,
    /// Overlayfs' own scratch directory, empty, beside `upper`.
    pub work: PathBuf,
    /// Keep overlay attributes as `user.overlay.*`; what an ordinary user needs.
    pub userxattr: bool,
    /// Never sync the upper directory; for builds, which sync once at the end.
    pub volatile: bool,
    /// Give the container its root read-only.
    pub read_only: bool,
}

/// The command of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The command and its arguments; the command is looked up in the container's PATH.
    pub args: Vec<OsString>,
    /// The whole environment, in order. HOME is added from the container's passwd when missing.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory, absolute; made when missing.
    pub cwd: PathBuf,
    /// `""`, `"user"`, `"user:group"`, `"uid"` or `"uid:gid"`; names are looked up in the root file system.
    pub user: String,
}

/// Files that are copied from within a container, instead of a command. What is copied goes as a tar over standard output or input; what fails
/// is told on standard error, with exit code 1.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FileCopy {
    /// Out of the container.
    Out {
        /// What, absolute.
        path: PathBuf,
        /// What it is called in the tar; empty: what is in the directory is copied without it.
        name: PathBuf,
        /// Follow a link at the end of the path.
        follow: bool,
        /// Who owns everything in the tar; then nothing is setuid or setgid. None: as it is.
        owner: Option<(u32, u32)>,
    },
    /// Into the container: a tar in which all paths begin with one same name.
    In {
        /// Where to: into a directory that is there, else under this name.
        dest: PathBuf,
        /// What it is called in a directory.
        name: PathBuf,
        /// Whether it is a directory.
        is_dir: bool,
    },
    /// A tar as it is into a directory that is there.
    Unpack {
        /// The directory.
        dest: PathBuf,
    },
}

/// Files bound over the image's own, kept on a tmpfs and so never in a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Content of `/etc/hosts`.
    pub hosts: Vec<u8>,
    /// Content of `/etc/hostname`.
    pub hostname: Vec<u8>,
}

/// Which system calls are let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default profile for the capabilities given.
    Default,
    /// All.
    Unconfined,
    /// Those that this profile lets through: JSON, of Docker's format or the runtime specification's.
    Profile(String),
}

/// What a container may use. `None` is no limit, but for `pids`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; swap is not given on top where the kernel can account it.
    pub memory: Option<u64>,
    /// Thousandths of a cpu: 500 is half a cpu.
    pub millicpus: Option<u64>,
    /// Most processes and threads; 2048 when not said.
    pub pids: Option<u64>,
    /// Wall time after which the container is killed.
    pub time: Option<Duration>,
    /// Bytes of memory and swap together; `Some(None)` is as much swap as there is.
    pub memory_swap: Option<Option<u64>>,
    /// Weight against other containers when the processors are busy: 2 to 262144, 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Which processors, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Which memory nodes, as `0-1`.
    pub cpuset_mems: Option<String>,
    /// Of block devices; the last one for a device and its traffic counts.
    pub throttles: Vec<Throttle>,
}

/// What happens when a limit can't be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsPolicy {
    /// The container is not started.
    Enforce,
    /// It runs without that limit.
    BestEffort,
}

/// Everything the runner needs to know to start one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Unique among the owner's living containers; letters, digits, `_`, `.` and `-`. Part of cgroup names.
    pub id: String,
    /// Its root file system.
    pub rootfs: RootFs,
    /// What is started.
    pub process: Process,
    /// What is done instead of starting a command. (Its user and working directory count.)
    pub copy: Option<FileCopy>,
    /// Its host name, at most 64 bytes.
    pub hostname: String,
    /// Give it a terminal of its own; see [`Running::take_terminal`](crate::Running::take_terminal).
    pub terminal: bool,
    /// Put a small init of ours at pid 1 that passes signals on and reaps orphans.
    pub init: bool,
    /// The capabilities root has in it.
    pub caps: Capabilities,
    /// Forbid gaining privileges by set-user-ID programs and file capabilities.
    pub no_new_privs: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Mounts of the caller, attached in the order of their targets' depth.
    pub mounts: Vec<Mount>,
    /// The files of `/etc` that belong to the container, not to the image.
    pub etc: EtcFiles,
    /// Its network.
    pub network: Network,
    /// Which of its other namespaces are its own.
    pub namespaces: Namespaces,
    /// What of /proc and /sys is hidden or read-only.
    pub system_paths: SystemPaths,
    /// Give it /sys and its cgroups writable; in the runner's own user namespace also every device of the host, and the use of nodes
    /// wherever they are. Capabilities, the filter and [`SystemPaths`] are said apart.
    pub privileged: bool,
    /// What a security module of the kernel is told of the command.
    pub label: Option<Label>,
    /// What it may use.
    pub limits: Limits,
    /// What happens when a limit can't be enforced.
    pub limits_policy: LimitsPolicy,
    /// Limits of setrlimit(2) that differ from core 0 and nofile 1024:524288.
    pub rlimits: Vec<Rlimit>,
    /// The file creation mask, 0o022 as usual.
    pub umask: u32,
    /// Groups that the process is in, besides those of its user: names of the root file system's, or numbers.
    pub groups: Vec<String>,
    /// Bytes that /dev/shm may hold; 64 MiB when not said.
    pub shm_size: Option<u64>,
    /// Whether there is no /dev/shm at all.
    pub no_shm: bool,
    /// Kernel parameters of the container's own namespaces: name (with dots or slashes) and value.
    pub sysctls: Vec<(String, String)>,
    /// How readily the kernel ends it when memory runs out, from -1000 (not at all) to 1000.
    pub oom_score_adj: Option<i32>,
}

impl ContainerSpec {
    /// The default container of a root file system and a command: no network, Podman's capabilities,
    /// Docker's filter, no_new_privs on.
    pub fn new(id: impl Into<String>, rootfs: RootFs, process: Process) -> ContainerSpec {
        let id = id.into();
        ContainerSpec {
            hostname: id.chars().take(64).collect(),
            id,
            rootfs,
            process,
            copy: None,
            terminal: false,
            init: false,
            caps: Capabilities::default(),
            no_new_privs: true,
            seccomp: Seccomp::Default,
            mounts: Vec::new(),
            etc: EtcFiles::default(),
            network: Network::None,
            namespaces: Namespaces::default(),
            system_paths: SystemPaths::Confined,
            privileged: false,
            label: None,
            limits: Limits::default(),
            limits_policy: LimitsPolicy::Enforce,
            rlimits: Vec::new(),
            umask: 0o022,
            groups: Vec::new(),
            shm_size: None,
            no_shm: false,
            sysctls: Vec::new(),
            oom_score_adj: None,
        }
    }

    /// Checks what can be checked without the kernel.
    pub fn validate(&self) -> Result<(), RunnerError> {
        check_id(&self.id)?;
        check_rootfs(&self.rootfs)?;
        check_process(&self.process)?;
        check_hostname(&self.hostname)?;
        check_limits(&self.limits)?;
        namespaces::check(self)?;
        sysctl::check(self)?;
        if let Seccomp::Profile(text) = &self.seccomp {
            seccomp::docker::compile_text(text, self.caps)
                .or_else(|reason| invalid("profile of system calls", reason))?;
        }
        if let Some(size) = self.shm_size.filter(|size| !(1..=1 << 62).contains(size)) {
            return invalid("size of /dev/shm", size.to_string());
        }
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return invalid("OOM score (-1000 to 1000)", score.to_string());
        }
        self.mounts.iter().try_for_each(mount::check)
    }
}

fn invalid<T>(what: &'static str, value: impl Into<String>) -> Result<T, RunnerError> {
    Err(RunnerError::InvalidSpec {
        what,
        value: value.into(),
    })
}

fn check_id(id: &str) -> Result<(), RunnerError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.chars().all(good) {
        return invalid("container id", id);
    }
    Ok(())
}

fn check_rootfs(rootfs: &RootFs) -> Result<(), RunnerError> {
    if rootfs.lower.is_empty() || rootfs.lower.len() > 500 {
        return invalid("number of layers (1 to 500)", rootfs.lower.len().to_string());
    }
    if rootfs.upper.parent().is_none() || rootfs.upper.parent() != rootfs.work.parent() {
        return invalid(
            "upper directory (must lie beside work)",
            rootfs.upper.display().to_string(),
        );
    }
    Ok(())
}

fn check_process(process: &Process) -> Result<(), RunnerError> {
    match process.args.first() {
        None => return invalid("command", "(empty)"),
        Some(first) if first.is_empty() => return invalid("command", "(empty)"),
        Some(_) => {}
    }
    if !process.cwd.is_absolute() {
        return invalid(
            "working directory (must be absolute)",
            process.cwd.display().to_string(),
        );
    }
    let texts = process
        .args
        .iter()
        .chain(process.env.iter().flat_map(|(k, v)| [k, v]));
    for text in texts {
        if text.as_bytes().contains(&0) {
            return invalid("argument or variable (has a NUL byte)", text.to_string_lossy());
        }
    }
    match process
        .env
        .iter()
        .find(|(k, _)| k.is_empty() || k.as_bytes().contains(&b'='))
    {
        Some((name, _)) => invalid("variable's name", name.to_string_lossy()),
        None => Ok(()),
    }
}

fn check_hostname(hostname: &str) -> Result<(), RunnerError> {
    if hostname.is_empty() || hostname.len() > 64 || hostname.contains(['\0', '/', '\n']) {
        return invalid("host name", hostname);
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), RunnerError> {
    let zero = |limit: Option<u64>| limit == Some(0);
    if zero(limits.memory) || zero(limits.millicpus) || zero(limits.pids) {
        return invalid("limit", "0");
    }
    if let Some(Some(both)) = limits.memory_swap
        && limits.memory.is_none_or(|memory| memory > both)
    {
        return invalid(
            "limit of memory and swap together (must not be smaller than that of memory)",
            both.to_string(),
        );
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| !(2..=262_144).contains(shares)) {
        return invalid("share of the processors (2 to 262144)", shares.to_string());
    }
    let is_list =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '-'));
    for list in limits.cpuset_cpus.iter().chain(&limits.cpuset_mems) {
        if !is_list(list) {
            return invalid(
                "list of processors or memory nodes (write for example 0-2,4)",
                list,
            );
        }
    }
    if limits.throttles.iter().any(|throttle| throttle.rate == 0) {
        return invalid("limit of a device (must not be nothing)", "0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut ContainerSpec), good: bool) {
        let rootfs = RootFs {
            lower: vec!["/l".into()],
            upper: "/s/upper".into(),
            work: "/s/work".into(),
            userxattr: false,
            volatile: true,
            read_only: false,
        };
        let process = Process {
            args: vec!["true".into()],
            env: vec![],
            cwd: "/".into(),
            user: String::new(),
        };
        let mut spec = ContainerSpec::new("c1", rootfs, process);
        change(&mut spec);
        assert_eq!(spec.validate().is_ok(), good, "{spec:?}");
    }

    #[test]
    fn specs_are_checked() {
        check(|_| {}, true);
        check(|s| s.id = "../x".into(), false);
        check(|s| s.id = "a/b".into(), false);
        check(|s| s.hostname = "x".repeat(65), false);
        check(|s| s.process.args.clear(), false);
        check(|s| s.process.cwd = "x".into(), false);
        check(|s| s.process.env.push(("A=B".into(), "".into())), false);
        check(|s| s.rootfs.work = "/elsewhere/work".into(), false);
        check(|s| s.rootfs.lower.clear(), false);
        check(|s| s.limits.memory = Some(0), false);
        check(|s| s.network = Network::Private, true);
        check(|s| s.shm_size = Some(0), false);
        check(|s| s.oom_score_adj = Some(1001), false);
        let sysctl = |name: &str| vec![(name.to_owned(), "1".to_owned())];
        for (name, good) in [
            ("net.core.somaxconn", true),
            ("net/ipv4/conf/eth0.1/forwarding", true),
            ("net.ipv4.conf.eth0/1.forwarding", true),
            ("net./../kernel.core_pattern", false),
            ("kernel.shmmax", true),
            ("fs.mqueue.msg_max", true),
            ("kernel.core_pattern", false),
            ("kernel.shmmax/../core_pattern", false),
            ("net/../kernel/core_pattern", false),
            ("vm.overcommit_memory", false),
            ("net..x", false),
            ("", false),
        ] {
            check(|s| s.sysctls = sysctl(name), good);
        }
        let on_host = |s: &mut ContainerSpec| {
            s.network = Network::Host;
            s.sysctls = sysctl("net.core.somaxconn");
        };
        check(on_host, false);
        let mount = |target: &str| Mount::new(MountKind::Tmpfs(Tmpfs::default()), target);
        check(|s| s.mounts.push(mount("/data")), true);
        check(|s| s.mounts.push(mount("/data/../etc")), false);
        check(|s| s.mounts.push(mount("/")), false);
        check(|s| s.mounts.push(mount("/proc/sys")), false);
        let part = |part: &str| {
            let kind = MountKind::Bind {
                source: "/data".into(),
                part: part.into(),
                is_recursive: true,
            };
            Mount::new(kind, "/data")
        };
        check(|s| s.mounts.push(part("a/b")), true);
        check(|s| s.mounts.push(part("a/../../b")), false);
        check(|s| s.mounts.push(part("/a")), false);
    }
}
