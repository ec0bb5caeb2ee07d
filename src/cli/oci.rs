//! The words of `box oci`, which are those of other runtimes, and of `box bundle`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

// What stands for `box oci` among the commands; its own words are parsed apart, since its --root is another one.
#[derive(Debug, Args)]
pub(crate) struct OciWords {
    /// `box oci --help` tells more.
    #[arg(value_name = "WORDS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<OsString>,
}

// `box bundle`.
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The directory to be made.
    #[arg(value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
}

/// Containers of a runtime bundle, by the words of other runtimes.
#[derive(Debug, Parser)]
#[command(
    name = "box oci",
    bin_name = "box oci",
    version,
    disable_help_subcommand = true
)]
pub(crate) struct OciCli {
    #[command(flatten)]
    pub(crate) global: OciGlobal,
    #[command(subcommand)]
    pub(crate) command: OciCommand,
}

// Options before the command.
#[derive(Debug, Args)]
pub(crate) struct OciGlobal {
    /// Where the state of containers is kept [default: /run/box-oci, for others than root $XDG_RUNTIME_DIR/box-oci].
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// A file that errors are written to, besides standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// How they are written.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) log_format: LogFormat,
    /// Refused: cgroups are made without systemd.
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Taken and without meaning: there is nothing more to be told.
    #[arg(long)]
    pub(crate) debug: bool,
}

/// How errors are written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum OciCommand {
    /// Make a container that waits for its start.
    Create(OciCreate),
    /// Start its command.
    Start {
        /// The container.
        id: String,
    },
    /// Print how it is doing.
    State {
        /// The container.
        id: String,
    },
    /// Send it a signal.
    Kill {
        /// To all its processes.
        #[arg(short, long)]
        all: bool,
        /// The container.
        id: String,
        /// By name or number.
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Stop its processes where they are.
    Pause {
        /// The container.
        id: String,
    },
    /// Let them go on.
    Resume {
        /// The container.
        id: String,
    },
    /// Remove what is left of it.
    Delete {
        /// Kill it first; one that is not there is no error.
        #[arg(short, long)]
        force: bool,
        /// The container.
        id: String,
    },
    /// Make a container and start it.
    Run(OciRun),
    /// Start another process in it.
    Exec(OciExec),
    /// List containers.
    #[command(alias = "ps-all")]
    List {
        /// How.
        #[arg(short, long, value_enum, default_value_t, value_name = "HOW")]
        format: super::Format,
        /// Ids alone.
        #[arg(short, long)]
        quiet: bool,
    },
    /// List its processes, by their numbers outside.
    Ps {
        /// How.
        #[arg(short, long, value_enum, default_value_t, value_name = "HOW")]
        format: super::Format,
        /// The container.
        id: String,
    },
    /// Print what is supported, as the specification has it.
    Features,
}

// `create`, and what `run` has of it.
#[derive(Debug, Args)]
pub(crate) struct OciCreate {
    /// The bundle.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// A file for the number of the container's process.
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// A socket that the terminal is sent to.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// How many descriptors after the standard streams the container gets.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// No session keyring of its own.
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Its id.
    pub(crate) id: String,
}

// `run`.
#[derive(Debug, Args)]
pub(crate) struct OciRun {
    #[command(flatten)]
    pub(crate) create: OciCreate,
    /// Leave it running.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Leave what is left of it.
    #[arg(long)]
    pub(crate) keep: bool,
}

// `exec`.
#[derive(Debug, Args)]
pub(crate) struct OciExec {
    /// The process, as config.json has it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// A file for its number.
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// A socket that its terminal is sent to.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// With a terminal, as --process says, too.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Do not wait for its end.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// How many descriptors after the standard streams it gets.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// The container.
    pub(crate) id: String,
    /// A command, with the rest as the container's own process has it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}
