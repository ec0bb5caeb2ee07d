//! What a container is: everything that its options and its image say, resolved once, when it is made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use box_runner::PortRequest;
use serde::{Deserialize, Serialize};

use crate::mounts::MountPlan;
use crate::resolv::Wishes;
use crate::values::{Ipc, LogOptions, NamespaceModes, Restart, Share};

/// The version of this description; another one is refused.
pub(crate) const VERSION: u32 = 1;

/// Kept as JSON in the container's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) version: u32,
    pub(crate) name: String,
    /// The image as it was named.
    pub(crate) image: String,
    pub(crate) image_id: String,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) hostname: String,
    pub(crate) tty: bool,
    /// Standard input stays open.
    pub(crate) interactive: bool,
    pub(crate) init: bool,
    pub(crate) network: Network,
    pub(crate) dns: Wishes,
    pub(crate) hosts: Vec<(String, IpAddr)>,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) no_new_privs: bool,
    pub(crate) seccomp: Seccomp,
    pub(crate) read_only: bool,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) process: ProcessOptions,
    pub(crate) limits: Limits,
    pub(crate) restart: Restart,
    /// The signal that asks it to end.
    pub(crate) stop_signal: i32,
    /// Seconds until it is killed then.
    pub(crate) stop_timeout: u64,
    pub(crate) health: Option<Health>,
    pub(crate) log: LogOptions,
    /// What descriptions of earlier versions don't say from here on is as usual.
    #[serde(default)]
    pub(crate) namespaces: NamespaceModes,
    #[serde(default)]
    pub(crate) privileged: bool,
    /// As they were given.
    #[serde(default)]
    pub(crate) security_opt: Vec<String>,
    #[serde(default)]
    pub(crate) system_paths: SystemPaths,
    #[serde(default)]
    pub(crate) label: Option<Label>,
    /// What else the host itself is called in its /etc/hosts.
    #[serde(default)]
    pub(crate) host_names: Vec<String>,
}

/// What of /proc and /sys is hidden or read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SystemPaths {
    #[default]
    Confined,
    Unconfined,
    Except(Vec<String>),
}

/// What a security module confines it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Label {
    /// A profile.
    AppArmor(String),
    /// A process' context, and its files'.
    SeLinux { process: String, files: String },
}

/// Which system calls are let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Seccomp {
    Default,
    Unconfined,
    /// Those of a profile, kept as it was read.
    Profile(String),
}

/// Which network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Network {
    None,
    Host,
    /// One of its own, with these ports of the host.
    Private {
        ports: Vec<PortRequest>,
        /// The named network that it is part of.
        #[serde(default)]
        network: Option<String>,
        /// What others there know it by, besides its name.
        #[serde(default)]
        aliases: Vec<String>,
    },
    /// That of the container with this id.
    Container(String),
}

impl Network {
    /// As the command line names it.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Host => "host".to_owned(),
            Self::Private {
                network: Some(name), ..
            } => name.clone(),
            Self::Private { .. } => "private".to_owned(),
            Self::Container(id) => format!("container:{id}"),
        }
    }
}

impl Config {
    /// The ids of the containers whose namespaces it joins, the same one maybe more than once.
    pub(crate) fn joins(&self) -> impl Iterator<Item = &str> {
        let of = &self.namespaces;
        let named = [
            match &self.network {
                Network::Container(id) => Some(id),
                _ => None,
            },
            match &of.pid {
                Share::Container(id) => Some(id),
                _ => None,
            },
            match &of.uts {
                Share::Container(id) => Some(id),
                _ => None,
            },
            match &of.ipc {
                Ipc::Container(id) => Some(id),
                _ => None,
            },
        ];
        named.into_iter().flatten().map(String::as_str)
    }

    /// What others in its named network know it by.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        if let Network::Private { aliases, .. } = &self.network {
            names.extend(aliases.iter().cloned());
        }
        if !names.contains(&self.hostname) {
            names.push(self.hostname.clone());
        }
        names
    }
}

impl Network {
    /// The named network that it is part of.
    pub(crate) fn named(&self) -> Option<&str> {
        match self {
            Self::Private { network, .. } => network.as_deref(),
            Self::None | Self::Host | Self::Container(_) => None,
        }
    }
}

/// For the process and what it sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessOptions {
    /// Resource, soft and hard limit.
    pub(crate) rlimits: Vec<(box_runner::Resource, u64, u64)>,
    pub(crate) shm_size: Option<u64>,
    pub(crate) groups: Vec<String>,
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) umask: Option<u32>,
}

/// What it may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) memory: Option<u64>,
    pub(crate) millicpus: Option<u64>,
    pub(crate) pids: Option<u64>,
    pub(crate) memory_swap: Option<Option<u64>>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    #[serde(default)]
    pub(crate) throttles: Vec<Throttle>,
    pub(crate) best_effort: bool,
}

/// A limit for a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Throttle {
    /// Its node; which device that is, is seen at each start.
    pub(crate) device: PathBuf,
    pub(crate) traffic: Traffic,
    /// A second.
    pub(crate) rate: u64,
}

/// What of a device's traffic is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Traffic {
    ReadBytes,
    WriteBytes,
    Reads,
    Writes,
}

/// How its health is checked; times are nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) args: Vec<OsString>,
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) start_period: u64,
    /// Between checks in the start period.
    pub(crate) start_interval: u64,
    pub(crate) retries: u32,
}
