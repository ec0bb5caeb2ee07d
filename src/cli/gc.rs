//! `box gc`, `prune`, `df` and `fsck`.

use clap::Args;

use super::Format;
use crate::values::{Age, Memory};

// How a collection goes.
#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    /// How long to wait for other commands to be done with the store.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) wait: u64,
    /// Say what would go, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

// `box gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
}

// `box prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
    /// Only what was not used for this long (for example 24h or 30d).
    #[arg(long, value_name = "TIME")]
    pub(crate) older_than: Option<Age>,
    /// Only as much, the longest unused first, as it takes to have at most this on the disk (for example 10g).
    #[arg(long, value_name = "BYTES", conflicts_with = "older_than")]
    pub(crate) keep_storage: Option<Memory>,
}

// `box df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// How it is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
}

// `box fsck`.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Put aside what is damaged (until the next `box gc`), so that it is built or pulled again when it is needed.
    #[arg(long)]
    pub(crate) repair: bool,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
}
