//! Limits of containers and steps.

use clap::{Args, ValueEnum};

use crate::values::{Cpus, DeviceBytes, DeviceOperations, Memory};

/// What happens to a limit that can't be enforced here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LimitsMode {
    /// The command fails.
    #[default]
    Enforce,
    /// It goes on without that limit.
    BestEffort,
}

// cgroup limits, spelled as Docker does.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LimitArgs {
    /// Memory limit, swap included (for example 512m or 2g).
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<Memory>,
    /// How many CPUs' worth of time (for example 1.5).
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<Cpus>,
    /// How many processes and threads at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pids_limit: Option<u64>,
    /// What happens to a limit that can't be enforced here.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) limits: LimitsMode,
}

// Limits of containers that steps don't have.
#[derive(Debug, Clone, Args)]
pub(crate) struct MoreLimitArgs {
    /// Memory and swap together; -1 for as much swap as there is [default: no swap].
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, requires = "memory")]
    pub(crate) memory_swap: Option<Swap>,
    /// Weight against other containers when the processors are busy (2 to 262144; 1024 is usual).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    pub(crate) cpu_shares: Option<u64>,
    /// Which processors, for example 0-2,4.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Which memory nodes, for example 0.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes a second that are read from a block device, at most (may be repeated; what is in memory is not counted).
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_read_bps: Vec<DeviceBytes>,
    /// Bytes a second that are written to a block device, at most (may be repeated).
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_write_bps: Vec<DeviceBytes>,
    /// Reads a second from a block device, at most (may be repeated).
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_read_iops: Vec<DeviceOperations>,
    /// Writes a second to a block device, at most (may be repeated).
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_write_iops: Vec<DeviceOperations>,
}

/// `--memory-swap`; none for as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swap(pub(crate) Option<u64>);

impl std::str::FromStr for Swap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-1" => Ok(Self(None)),
            _ => text.parse::<Memory>().map(|memory| Self(Some(memory.0))),
        }
    }
}
