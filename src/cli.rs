//! The command line: Docker's words for Docker's things. Parsing only; nothing here touches the machine.
//!
//! What a command does is said at its word. A doc comment of its options' struct would take that one's place in its help, so those are
//! plain comments.

mod builds;
mod cache;
mod container;
mod content;
mod explain;
mod front;
mod gc;
mod image;
mod lifecycle;
mod limits;
mod lock;
mod mounts;
mod namespaces;
mod network;
mod networks;
mod oci;
mod output;
mod registry;
mod run;
mod shell;
mod volume;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::{BuildArg, HostArg, Memory};

pub(crate) use builds::{BuildAction, BuildCommand, BuildLogsArgs};
pub(crate) use cache::{CacheAction, CacheExportArgs, CacheImportArgs, CacheListArgs, CachePruneArgs};
pub(crate) use container::ProcessArgs;
pub(crate) use content::{CopyPlace, CpArgs, DiffArgs};
pub(crate) use explain::{
    ContextAction, ContextListArgs, ExplainMode, PlanArgs, SourceArgs, StepCacheArgs, TellArgs,
};
pub(crate) use front::{BuildContext, Call, FrontArgs, Method};
pub(crate) use gc::{CollectArgs, DfArgs, FsckArgs, GcArgs, PruneArgs};
pub(crate) use image::{HistoryArgs, ImagesArgs, InspectArgs, InspectType, RmiArgs, TagArgs};
pub(crate) use lifecycle::{
    AttachArgs, ContainerAction, ContainerPruneArgs, ContainersArgs, EventsArgs, ExecArgs, KillArgs,
    LogsArgs, PortArgs, PsArgs, RenameArgs, RmArgs, StartArgs, StatsArgs, StopArgs, TopArgs, UpdateArgs,
};
pub(crate) use limits::{LimitArgs, LimitsMode, MoreLimitArgs};
pub(crate) use lock::{HoldArgs, LockArgs};
pub(crate) use mounts::MountArgs;
pub(crate) use namespaces::NamespaceArgs;
pub(crate) use network::{Network, NetworkArgs, exposed, is_network_name};
pub(crate) use networks::{NetworkAction, NetworkListArgs};
pub(crate) use oci::{
    BundleArgs, LogFormat, OciCli, OciCommand, OciCreate, OciExec, OciGlobal, OciRun, OciWords,
};
pub(crate) use output::{ExportArgs, OutputKind, OutputSpec};
pub(crate) use registry::{LoginArgs, LogoutArgs, PullArgs, PullMode, PushArgs, RegistryArgs};
pub(crate) use run::{ContainerArgs, CreateArgs, HealthArgs, RunArgs};
pub(crate) use shell::ShellArgs;
pub(crate) use volume::{
    VolumeAction, VolumeCreateArgs, VolumeFilter, VolumeListArgs, VolumePruneArgs, VolumeRemoveArgs,
};

/// Builds layered images from a Boxfile, keeps them in a content-addressed store, and runs them, with no daemon.
#[derive(Debug, Parser)]
#[command(name = "box", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success; 1 a build step, an image or an input is at fault; \
125 box itself failed; 126 the command can't be executed; 127 the command was not found; \
128+N ended by signal N; otherwise the command's own.";

// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where images, layers and the build cache are kept [default: /var/lib/box for root, else $XDG_DATA_HOME/box].
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BOX_ROOT",
        hide_env_values = true
    )]
    pub(crate) root: Option<PathBuf>,
    /// The cgroup (as a path below the cgroup mount) under which containers get theirs [default: box's own].
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "BOX_CGROUP_PARENT",
        hide_env_values = true
    )]
    pub(crate) cgroup_parent: Option<PathBuf>,
}

/// What to do. Options are put together for the command that is named alone: for all of them that takes a millisecond.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Build an image from a Boxfile (or Containerfile, or Dockerfile).
    Build(Box<BuildCommand>),
    /// Say which steps of a build are in the cache, and why others are not; build nothing.
    Plan(Box<PlanArgs>),
    /// Write down what a Boxfile's bases, URLs and git references stand for, so that every build has the same.
    Lock(Box<LockArgs>),
    /// Show what a build context holds, and what is ignored.
    #[command(subcommand)]
    Context(ContextAction),
    /// Run a command in a new container.
    Run(Box<RunArgs>),
    /// Make a container that is started later.
    Create(Box<CreateArgs>),
    /// Start containers that do not run.
    Start(StartArgs),
    /// List containers.
    Ps(PsArgs),
    /// Show what a container has printed.
    Logs(LogsArgs),
    /// Run another command in a container that runs.
    Exec(ExecArgs),
    /// Connect to a container that runs.
    Attach(AttachArgs),
    /// Ask containers to end, and kill those that do not.
    Stop(StopArgs),
    /// Stop containers and start them again.
    Restart(StopArgs),
    /// Send containers a signal.
    Kill(KillArgs),
    /// Stop all processes of containers where they are.
    Pause(ContainersArgs),
    /// Let paused containers go on.
    Unpause(ContainersArgs),
    /// Wait until containers have ended, and print their exit codes.
    Wait(ContainersArgs),
    /// Remove containers with all that they wrote.
    Rm(RmArgs),
    /// Give a container another name.
    Rename(RenameArgs),
    /// Show the ports of the host that lead to a container.
    Port(PortArgs),
    /// Show the processes of a container.
    Top(TopArgs),
    /// Show what containers use.
    Stats(StatsArgs),
    /// Change limits and the restart policy of containers.
    Update(UpdateArgs),
    /// List containers, or remove those that do not run.
    #[command(subcommand)]
    Container(ContainerAction),
    /// Make an image of a root file system archive (tar; plain or gz, xz, zst, bz2), a file, a URL or - for stdin.
    Import(ImportArgs),
    /// Load images from an OCI or Docker archive.
    Load(LoadArgs),
    /// Save images to an archive that is OCI's and Docker's at once.
    Save(SaveArgs),
    /// Write an image's root file system as a tar.
    Export(ExportArgs),
    /// Copy files from a container or an image, and into a container.
    Cp(CpArgs),
    /// Show how two images, or two layers, differ.
    Diff(DiffArgs),
    /// Pull images from a registry.
    Pull(PullArgs),
    /// Push an image to a registry.
    Push(PushArgs),
    /// Log in at a registry.
    Login(LoginArgs),
    /// Log out of a registry.
    Logout(LogoutArgs),
    /// List images.
    Images(ImagesArgs),
    /// Remove images, by name or id.
    Rmi(RmiArgs),
    /// Give an image another name.
    Tag(TagArgs),
    /// Show a container's or an image's configuration as JSON.
    Inspect(InspectArgs),
    /// Show the steps that made an image.
    History(HistoryArgs),
    /// Show what happens to containers, images, volumes and networks, as it happens.
    Events(EventsArgs),
    /// Remove what no image and no build cache needs any more.
    Gc(GcArgs),
    /// Remove images without a name and the build cache, or a part of it.
    Prune(PruneArgs),
    /// Show how much there is on the disk.
    Df(DfArgs),
    /// Read everything in the store, and say what is damaged.
    Fsck(FsckArgs),
    /// List or remove the caches of RUN --mount=type=cache; put the build cache elsewhere, or bring it in.
    #[command(subcommand)]
    Cache(CacheAction),
    /// Make, list, show or remove volumes: directories that outlive containers.
    #[command(subcommand)]
    Volume(VolumeAction),
    /// Make, list, show or remove networks whose containers know each other by name.
    #[command(subcommand)]
    Network(NetworkAction),
    /// Be the runtime of other tools: create, start, state, kill and delete containers of a runtime bundle.
    Oci(OciWords),
    /// Write an image as a runtime bundle: a root file system and a config.json.
    Bundle(BundleArgs),
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ProgressMode {
    /// tty where standard error is a terminal, else plain.
    #[default]
    Auto,
    /// A live display.
    Tty,
    /// Lines, as they come.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing but errors.
    Quiet,
}

/// Which modification times the layers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum MtimesMode {
    /// Times that are the same for every build: equal inputs give equal digests.
    #[default]
    Logical,
    /// The clock's, as Docker's; digests then differ from build to build.
    Real,
}

// `box build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// A name for the image (may be repeated).
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(crate) tags: Vec<String>,
    /// Build up to this stage and no further.
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A value for an ARG; without =VALUE it is taken from the environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<BuildArg>,
    /// A label of the image, over those of the Boxfile; without =VALUE an empty one.
    #[arg(long = "label", value_name = "NAME[=VALUE]")]
    pub(crate) labels: Vec<BuildArg>,
    #[command(flatten)]
    pub(crate) cache: StepCacheArgs,
    /// Another line of /etc/hosts for RUN (may be repeated); an IPv6 address may stand in brackets.
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub(crate) hosts: Vec<HostArg>,
    /// The network of RUN steps: private, none or host [default: private].
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<Network>,
    #[command(flatten)]
    pub(crate) limit: LimitArgs,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressMode,
    /// Print the image id alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) tell: TellArgs,
    /// Write the result somewhere, too: a directory for its root file system, or type=local|tar|oci|docker,dest=PLACE (may be repeated).
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub(crate) outputs: Vec<OutputSpec>,
    /// Which modification times the layers carry.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pub(crate) mtimes: MtimesMode,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// When images that are not in the store, or all, are pulled.
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "always", require_equals = true, value_name = "WHEN")]
    pub(crate) pull: PullMode,
    #[command(flatten)]
    pub(crate) front: FrontArgs,
    #[command(flatten)]
    pub(crate) shell: ShellArgs,
}

impl BuildArgs {
    /// How progress is shown.
    pub(crate) fn shown(&self) -> ProgressMode {
        match self.quiet {
            true => ProgressMode::Quiet,
            false => self.progress,
        }
    }
}

// `box import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Refuse an archive whose SHA-256 is another.
    #[arg(long, value_name = "sha256:HEX")]
    pub(crate) checksum: Option<String>,
    /// Refuse an archive that unpacks to more than this.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_size: Option<Memory>,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressMode,
    /// The archive: a file, an http(s) URL, or - for standard input.
    #[arg(value_name = "FILE|URL|-")]
    pub(crate) source: String,
    /// A name for the image.
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
}

// `box load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The archive [default: standard input].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Print the image ids alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

// `box save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Where to write the archive [default: standard output, if that is no terminal].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The images, by name or id.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The help of a command begins with what the list of commands says of it.
    #[test]
    fn helps_say_what_commands_do() {
        let all = Cli::command();
        for command in all.get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let asked = Cli::try_parse_from(["box", command.get_name(), "--help"]);
            let help = asked.err().map(|help| help.to_string()).unwrap_or_default();
            let words: Vec<&str> = help.split_whitespace().collect();
            let is_said = !about.is_empty() && words.join(" ").starts_with(&about);
            assert!(is_said, "{about:?}: {help}");
        }
    }
}
