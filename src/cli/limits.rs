//! Limits of containers and steps.

use clap::{Args, ValueEnum};

use crate::values::{Cpus, Memory};

/// What happens to a limit that can't be enforced here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LimitsMode {
    /// The command fails.
    #[default]
    Enforce,
    /// It goes on without that limit.
    BestEffort,
}

/// cgroup limits, spelled as Docker does.
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
