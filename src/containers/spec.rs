//! From a container's description to what the runner takes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use box_runner::{
    Capabilities, ContainerSpec, EtcFiles, FileCopy, LimitsPolicy, PrivateNetwork, Process, Rlimit, RootFs,
    Seccomp,
};
use box_store::Layer;

use super::config::{self, Config, Network};
use super::throttle;
use crate::error::{EXIT_BOX, Failure};
use crate::etc;

/// What the runner is asked for, but for the mounts, which are opened apart. `id` is unique among the owner's containers.
pub(crate) fn spec(
    config: &Config,
    id: &str,
    root_fs: RootFs,
    private: Option<&PrivateNetwork>,
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
    spec.hostname.clone_from(&config.hostname);
    spec.caps = capabilities(&config.cap_add, &config.cap_drop)?;
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
    }
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

/// The default capabilities, first fewer, then more.
fn capabilities(add: &[String], drop: &[String]) -> Result<Capabilities, Failure> {
    let mut caps = Capabilities::default();
    let dropped = drop.iter().try_for_each(|name| caps.drop(name));
    let added = dropped.and_then(|()| add.iter().try_for_each(|name| caps.add(name)));
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
