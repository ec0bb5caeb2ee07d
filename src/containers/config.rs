//! What a container is: everything that its options and its image say, resolved once, when it is made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use box_runner::PortRequest;
use serde::{Deserialize, Serialize};

use crate::mounts::MountPlan;
use crate::resolv::Wishes;
use crate::values::{LogOptions, Restart};

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
}

impl Network {
    /// As the command line names it.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::None => "none",
            Self::Host => "host",
            Self::Private {
                network: Some(name), ..
            } => name,
            Self::Private { .. } => "private",
        }
    }
}

impl Config {
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
            Self::None | Self::Host => None,
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
