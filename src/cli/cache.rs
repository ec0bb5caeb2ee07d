//! Options of `box cache`.

use clap::{Args, Subcommand};

use super::Format;

/// What is done with caches.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheAction {
    /// List them: id, size, when they were last used.
    Ls(CacheListArgs),
    /// Remove some, or all. One that a build uses stays.
    Prune(CachePruneArgs),
}

/// `box cache ls`.
#[derive(Debug, Args)]
pub(crate) struct CacheListArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
}

/// `box cache prune`.
#[derive(Debug, Args)]
pub(crate) struct CachePruneArgs {
    /// Remove all.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// The caches, by id.
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
}
