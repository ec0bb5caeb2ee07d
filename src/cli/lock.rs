//! `box lock`, and what a build may look at and must hold to.

use clap::Args;

use box_builder::request::Platform;

use super::{BuildContext, ProgressMode, RegistryArgs, SourceArgs};
use crate::values::BuildArg;

// What a build may look at, and what it must hold to.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// Refuse whatever Boxfile.lock does not have: bases, URLs and commits are those of the lock, or the build fails.
    #[arg(long)]
    pub(crate) locked: bool,
    /// Ask nobody and fetch nothing: what is not in the store is an error. The network of RUN is another matter: --network none forbids it.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Build twice, without cache and at different times, and name the files that differ; exit code 1 if any does. The image is that of the
    /// first build.
    #[arg(long, conflicts_with_all = ["check", "call"])]
    pub(crate) check_reproducible: bool,
}

// `box lock`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is locked stays as it is; what is new in the Boxfile is added. The lock is FILE.lock beside the Boxfile; `box build` honours it where it is \
                  there, and no COPY sees it. Other targets, platforms and build arguments may need more: run it with each."
)]
pub(crate) struct LockArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Make the lock anew: ask for everything again, and leave out what this build does not need.
    #[arg(long)]
    pub(crate) update: bool,
    /// Lock what this stage needs, and no further [default: the last stage].
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A value for an ARG; without =VALUE it is taken from the environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<BuildArg>,
    /// What the image is for.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// A context by name, as for `box build`.
    #[arg(long = "build-context", value_name = "NAME=PLACE")]
    pub(crate) build_contexts: Vec<BuildContext>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressMode,
}
