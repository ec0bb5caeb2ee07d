//! The command line: Docker's words for Docker's things. Parsing only; nothing here touches the machine.

mod cache;
mod container;
mod content;
mod front;
mod gc;
mod limits;
mod network;
mod output;
mod registry;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::{BuildArg, HostArg, Memory, TmpfsMount, Volume};

pub(crate) use cache::{CacheAction, CacheListArgs, CachePruneArgs};
pub(crate) use container::ProcessArgs;
pub(crate) use content::{CpArgs, DiffArgs};
pub(crate) use front::{BuildContext, Call, FrontArgs, Method};
pub(crate) use gc::{CollectArgs, DfArgs, FsckArgs, GcArgs, PruneArgs};
pub(crate) use limits::{LimitArgs, LimitsMode};
pub(crate) use network::{Network, NetworkArgs, exposed};
pub(crate) use output::{ExportArgs, OutputKind, OutputSpec};
pub(crate) use registry::{LoginArgs, LogoutArgs, PullArgs, PullMode, PushArgs, RegistryArgs};

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

/// Options of every command.
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

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Boxfile (or Containerfile, or Dockerfile).
    Build(Box<BuildArgs>),
    /// Run a command in a new container.
    Run(Box<RunArgs>),
    /// Make an image of a root file system archive (tar; plain or gz, xz, zst, bz2), a file, a URL or - for stdin.
    Import(ImportArgs),
    /// Load images from an OCI or Docker archive.
    Load(LoadArgs),
    /// Save images to an archive that is OCI's and Docker's at once.
    Save(SaveArgs),
    /// Write an image's root file system as a tar.
    Export(ExportArgs),
    /// Copy files from an image.
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
    /// Show an image's configuration as JSON.
    Inspect(InspectArgs),
    /// Show the steps that made an image.
    History(HistoryArgs),
    /// Remove what no image and no build cache needs any more.
    Gc(GcArgs),
    /// Remove images without a name and the build cache, or a part of it.
    Prune(PruneArgs),
    /// Show how much there is on the disk.
    Df(DfArgs),
    /// Read everything in the store, and say what is damaged.
    Fsck(FsckArgs),
    /// List or remove the caches of RUN --mount=type=cache.
    #[command(subcommand)]
    Cache(CacheAction),
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

/// `box build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The Boxfile, - for standard input [default: Boxfile, Containerfile or Dockerfile in the context].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
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
    /// Run every step, whatever the cache holds.
    #[arg(long)]
    pub(crate) no_cache: bool,
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
    /// Write the image id to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
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
    /// The build context: a directory, the URL of an archive or a Boxfile, a git repository (URL.git#REF:SUBDIR), or - for an archive or
    /// a Boxfile on standard input.
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: PathBuf,
}

/// `box run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Remove the container when it ends.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep standard input open and pass it on.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; without =VALUE it is taken from the environment.
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<BuildArg>,
    /// Read variables from a file, one a line.
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// The working directory.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// The user (and group), by name or number.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// What to run instead of the image's ENTRYPOINT; empty for none.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// A name for the container.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The container's host name [default: the container's id].
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Bind a directory or file of the host into the container.
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volumes: Vec<Volume>,
    /// Mount an empty tmpfs.
    #[arg(long, value_name = "TARGET[:size=BYTES,mode=OCTAL]")]
    pub(crate) tmpfs: Vec<TmpfsMount>,
    /// Another line of /etc/hosts (may be repeated); an IPv6 address may stand in brackets.
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub(crate) hosts: Vec<HostArg>,
    #[command(flatten)]
    pub(crate) net: NetworkArgs,
    #[command(flatten)]
    pub(crate) limit: LimitArgs,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    /// Give the command one more capability (ALL for every one).
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability away (ALL for every one).
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Mount the root file system read-only.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// no-new-privileges[=true|false] or seccomp=unconfined.
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// When the image is pulled.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) pull: PullMode,
    /// Run an init as process 1 that forwards signals and reaps zombies.
    #[arg(long)]
    pub(crate) init: bool,
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The command and its arguments, instead of the image's CMD.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// `box import`.
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

/// `box load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The archive [default: standard input].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Print the image ids alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `box save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Where to write the archive [default: standard output, if that is no terminal].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The images, by name or id.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// `box images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// Print ids alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print whole ids.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only those of this name; without a tag, of all tags.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `box rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove an image by its id even if it has several names.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The images, by name or id.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// `box tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Its new name.
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

/// `box inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The images, by name or id.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// `box history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// Print whole commands.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}
