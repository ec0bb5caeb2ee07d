//! `box build logs`.

use clap::{Args, Subcommand};

use super::{BuildArgs, Format};

// Build an image from a Boxfile (or Containerfile, or Dockerfile), or show the logs of builds.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct BuildCommand {
    #[command(subcommand)]
    pub(crate) action: Option<BuildAction>,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

// What is done with builds that were.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildAction {
    /// Show the log of a build, or list the logs that are kept. (A context of this name is written ./logs.)
    Logs(BuildLogsArgs),
}

// `box build logs`.
#[derive(Debug, Args)]
pub(crate) struct BuildLogsArgs {
    /// List the builds whose logs are kept.
    #[arg(short, long, conflicts_with = "build")]
    pub(crate) list: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// The build, by its number [default: the newest].
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<u64>,
}
