//! Options of `box cache`.

use clap::{Args, Subcommand};

use super::{Format, RegistryArgs};
use crate::values::{CacheFrom, CacheTo};

/// What is done with caches.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheAction {
    /// List them: id, size, when they were last used.
    Ls(CacheListArgs),
    /// Remove some, or all. One that a build uses stays.
    Prune(CachePruneArgs),
    /// Put the whole build cache of the store into a cache elsewhere: all steps, and with cache-mounts=true these caches.
    Export(CacheExportArgs),
    /// Bring in all that a cache elsewhere holds.
    Import(CacheImportArgs),
}

// `box cache export`.
#[derive(Debug, Args)]
pub(crate) struct CacheExportArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Where to, as for box build --cache-to: type=local,dest=DIR, type=registry,ref=NAME or type=s3,bucket=NAME.
    #[arg(value_name = "CACHE")]
    pub(crate) to: CacheTo,
}

// `box cache import`.
#[derive(Debug, Args)]
pub(crate) struct CacheImportArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Where from, as for box build --cache-from: type=local,src=DIR, type=registry,ref=NAME or type=s3,bucket=NAME.
    #[arg(value_name = "CACHE")]
    pub(crate) from: CacheFrom,
}

// `box cache ls`.
#[derive(Debug, Args)]
pub(crate) struct CacheListArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
}

// `box cache prune`.
#[derive(Debug, Args)]
pub(crate) struct CachePruneArgs {
    /// Remove all.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// The caches, by id.
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
}
