//! From a container's description to what the runner takes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use box_runner::{
    Capabilities, ContainerSpec, EtcFiles, FileCopy, LimitsPolicy, PrivateNetwork, Process, Rlimit, RootFs,
    Seccomp, Sharing, UserNamespace,
};
use box_store::Layer;

use super::config::{self, Config, Network, SystemPaths};
use super::throttle;
use crate::error::{EXIT_BOX, Failure};
use crate::etc;
use crate::values::{Ipc, NamespaceModes, Share};

/// What the runner is asked for, but for the mounts, which are opened apart. `id` is unique among the owner's containers.
pub(crate) fn spec(
    config: &Config,
    id: &str,
    root_fs: RootFs,
    (users, private): (&UserNamespace, Option<&PrivateNetwork>),
) -> Result<ContainerSpec, Failure> {
    let process = Process {
        args: config.args.clone(),
        env: config.env.clone(),
        cwd: config.cwd.clone(),
        user: config.user.clone(),
    };
    let mut spec = ContainerSpec::new(id, root_fs, process);
    spec.terminal = config.tty;
    spec.init = config.init;
    spec.network = mode(config);
    (spec.etc, _) = etc_files(config, private);
    add_host_names(&mut spec.etc, config, private)?;
    spec.hostname.clone_from(&config.hostname);
    spec.caps = capabilities(config)?;
    isolate(&mut spec, config);
    spec.namespaces.user = match users.is_runners() {
        true => Sharing::Host,
        false => Sharing::Own,
    };
    spec.no_new_privs = config.no_new_privs;
    spec.seccomp = match &config.seccomp {
        config::Seccomp::Default => Seccomp::Default,
        config::Seccomp::Unconfined => Seccomp::Unconfined,
        config::Seccomp::Profile(text) => Seccomp::Profile(text.clone()),
    };
    spec.limits = limits(config)?;
    if config.limits.best_effort {
        spec.limits_policy = LimitsPolicy::BestEffort;
    }
    let process = &config.process;
    let rlimit = |&(resource, soft, hard): &(_, u64, u64)| Rlimit { resource, soft, hard };
    spec.rlimits = process.rlimits.iter().map(rlimit).collect();
    spec.shm_size = process.shm_size;
    spec.groups.clone_from(&process.groups);
    spec.sysctls.clone_from(&process.sysctls);
    spec.oom_score_adj = process.oom_score_adj;
    if let Some(mask) = process.umask {
        spec.umask = mask;
    }
    Ok(spec)
}

fn mode(config: &Config) -> box_runner::Network {
    match config.network {
        Network::None => box_runner::Network::None,
        Network::Host => box_runner::Network::Host,
        Network::Private { .. } => box_runner::Network::Private,
        Network::Container(_) => box_runner::Network::Joined,
    }
}

fn isolate(spec: &mut ContainerSpec, config: &Config) {
    spec.namespaces = namespaces(&config.namespaces);
    spec.no_shm = config.namespaces.ipc == Ipc::None;
    spec.privileged = config.privileged;
    spec.system_paths = match &config.system_paths {
        SystemPaths::Confined => box_runner::SystemPaths::Confined,
        SystemPaths::Unconfined => box_runner::SystemPaths::Unconfined,
        SystemPaths::Except(paths) => box_runner::SystemPaths::Except(paths.clone()),
    };
    spec.label = config.label.as_ref().map(|label| match label {
        config::Label::AppArmor(profile) => box_runner::Label::AppArmor(profile.clone()),
        config::Label::SeLinux { process, files } => box_runner::Label::SeLinux {
            process: process.clone(),
            files: files.clone(),
        },
    });
}

fn namespaces(modes: &NamespaceModes) -> box_runner::Namespaces {
    let sharing = |share: &Share| match share {
        Share::Own => Sharing::Own,
        Share::Host => Sharing::Host,
        Share::Container(_) => Sharing::Joined,
    };
    box_runner::Namespaces {
        user: Sharing::Own,
        pid: sharing(&modes.pid),
        uts: sharing(&modes.uts),
        ipc: match modes.ipc {
            Ipc::Private | Ipc::Shareable | Ipc::None => Sharing::Own,
            Ipc::Host => Sharing::Host,
            Ipc::Container(_) => Sharing::Joined,
        },
        cgroup: match modes.host_cgroups {
            true => Sharing::Host,
            false => Sharing::Own,
        },
    }
}

/// For a process that only looks at the files of a container that does not run: nothing of others' is shared.
pub(crate) fn alone(spec: &mut ContainerSpec) {
    spec.namespaces = box_runner::Namespaces {
        user: spec.namespaces.user,
        ..box_runner::Namespaces::default()
    };
    spec.network = box_runner::Network::None;
    (spec.no_shm, spec.privileged, spec.label) = (false, false, None);
    spec.system_paths = box_runner::SystemPaths::Confined;
    spec.sysctls.clear();
}

/// For a process with every right in the container's user namespace.
pub(crate) fn open(spec: &mut ContainerSpec) {
    spec.caps = Capabilities::ALL;
    (spec.no_new_privs, spec.seccomp, spec.label) = (false, Seccomp::Unconfined, None);
}

/// Names of the host itself, where the container reaches it.
fn add_host_names(
    etc: &mut EtcFiles,
    config: &Config,
    private: Option<&PrivateNetwork>,
) -> Result<(), Failure> {
    let Some(first) = config.host_names.first() else {
        return Ok(());
    };
    let address = match (&config.network, private) {
        (Network::Host, _) => Some(std::net::IpAddr::from([127, 0, 0, 1])),
        (_, Some(private)) => private.gateway(),
        // Nobody runs in it.
        (Network::Private { .. }, None) => return Ok(()),
        _ => None,
    };
    let address = address.ok_or_else(|| {
        Failure::own(format!("--add-host {first}:host-gateway: the container reaches the host by no address"))
            .hint("root's private networks have one, and --network host; otherwise write an address that the host is known by")
    })?;
    for name in &config.host_names {
        etc.hosts.extend(format!("{address}\t{name}\n").into_bytes());
    }
    Ok(())
}

/// Its files of `/etc`, and whether the host has name servers that it can't reach.
pub(crate) fn etc_files(config: &Config, private: Option<&PrivateNetwork>) -> (EtcFiles, bool) {
    let seen = etc::Seen {
        network: mode(config),
        private,
        wishes: &config.dns,
    };
    etc::files(&config.hostname, seen, &config.hosts)
}

/// Its limits as the runner takes them.
pub(crate) fn limits(config: &Config) -> Result<box_runner::Limits, Failure> {
    Ok(box_runner::Limits {
        memory: config.limits.memory,
        millicpus: config.limits.millicpus,
        pids: config.limits.pids,
        time: None,
        memory_swap: config.limits.memory_swap,
        cpu_shares: config.limits.cpu_shares,
        cpuset_cpus: config.limits.cpuset_cpus.clone(),
        cpuset_mems: config.limits.cpuset_mems.clone(),
        throttles: throttle::found(&config.limits.throttles)?,
    })
}

/// The default capabilities, or all; first fewer, then more.
fn capabilities(config: &Config) -> Result<Capabilities, Failure> {
    let mut caps = match config.privileged {
        true => Capabilities::ALL,
        false => Capabilities::default(),
    };
    let dropped = config.cap_drop.iter().try_for_each(|name| caps.drop(name));
    let added = dropped.and_then(|()| config.cap_add.iter().try_for_each(|name| caps.add(name)));
    added.map(|()| caps).map_err(|e| Failure::of(EXIT_BOX, &e))
}

/// The pages of ids that the layers' files use.
pub(crate) fn id_pages<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> BTreeSet<u32> {
    layers
        .into_iter()
        .flat_map(|layer| layer.id_pages().iter().copied())
        .collect()
}

/// Makes it a process that copies: it has a root's rights in the container, whatever the container's command may do.
pub(crate) fn copy_instead(spec: &mut ContainerSpec, copy: FileCopy) {
    spec.copy = Some(copy);
    spec.caps = Capabilities::default();
    spec.terminal = false;
    spec.init = false;
    spec.umask = 0;
    spec.rlimits.clear();
    spec.oom_score_adj = None;
    spec.groups.clear();
    spec.process = Process {
        args: vec!["copy".into()],
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        user: "0:0".to_owned(),
    };
}
