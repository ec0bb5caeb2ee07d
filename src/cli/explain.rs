//! Options that say what a build reads and takes from the cache, and how that is explained.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::{BuildArgs, Format};
use crate::error::Failure;

// What a build reads.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The Boxfile, - for standard input [default: Boxfile, Containerfile or Dockerfile in the context].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The build context: a directory, the URL of an archive or a Boxfile, a git repository (URL.git#REF:SUBDIR), or - for an archive or
    /// a Boxfile on standard input.
    #[arg(value_name = "CONTEXT", required = true)]
    pub(crate) context: Option<PathBuf>,
}

impl SourceArgs {
    /// The context, which is left out only where a word stands for another command.
    pub(crate) fn context(&self) -> Result<&Path, Failure> {
        let context = self.context.as_deref();
        context.ok_or_else(|| {
            Failure::own("a build needs a context").hint("box build . builds the directory you are in")
        })
    }
}

// Where what was built is told.
#[derive(Debug, Args)]
pub(crate) struct TellArgs {
    /// Write the image id to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write the image's digests, and what each step cost, to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Write a page (HTML) that tells the build to this file, also of one that fails: when which step ran and why, what it used, and what
    /// the layers hold.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

// What a build takes from the cache.
#[derive(Debug, Args)]
pub(crate) struct StepCacheArgs {
    /// Run every step, whatever the cache holds.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages, by name or number (may be repeated).
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Say of each step whether it is in the cache, and if not, what differs from its nearest earlier run; =json as one JSON object
    /// a step, on standard error.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "text", require_equals = true, value_name = "HOW")]
    pub(crate) explain: Option<ExplainMode>,
}

/// How a build is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainMode {
    /// In words, along with the progress.
    Text,
    /// One JSON object a line.
    Json,
}

// `box plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "It takes all options of `box build`; those that say what becomes of the image, or how progress is shown, change nothing here."
)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
}

/// What is done with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextAction {
    /// List the files, those that are ignored with the line that ignores them, and the largest.
    Ls(ContextListArgs),
}

// `box context ls`.
#[derive(Debug, Args)]
pub(crate) struct ContextListArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// How many of the largest files are named.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) largest: usize,
}
