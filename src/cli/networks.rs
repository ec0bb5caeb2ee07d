//! Options of `box network`.

use clap::{Args, Subcommand};

use super::Format;

/// What is done with named networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkAction {
    /// Make one.
    Create(NetworkCreateArgs),
    /// List them.
    Ls(NetworkListArgs),
    /// Show some as JSON, with the containers that are in them.
    Inspect(NetworkInspectArgs),
    /// Remove some that nobody uses.
    Rm(NetworkRemoveArgs),
}

// `box network create`.
#[derive(Debug, Args)]
pub(crate) struct NetworkCreateArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

// `box network ls`.
#[derive(Debug, Args)]
pub(crate) struct NetworkListArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// Print names alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

// `box network inspect`.
#[derive(Debug, Args)]
pub(crate) struct NetworkInspectArgs {
    /// The networks.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

// `box network rm`.
#[derive(Debug, Args)]
pub(crate) struct NetworkRemoveArgs {
    /// The networks.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}
