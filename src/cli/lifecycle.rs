//! Options of the commands for containers that are there.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;
use crate::values::{BuildArg, Cpus, DetachKeys, Memory, Restart, SignalArg};

// `box ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also those that do not run.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print ids alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print whole ids and commands.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// The newest N, whatever they do.
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) last: Option<usize>,
    /// The newest one, whatever it does.
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Only those with id=, name=, label=NAME[=VALUE], status=, exited=CODE, ancestor=IMAGE or health= (may be repeated).
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) filter: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
}

// `box logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what comes, until the container has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N lines.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "all",
        allow_hyphen_values = true
    )]
    pub(crate) tail: String,
    /// Only what came since a time (RFC 3339) or a while ago (10m).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what came until a time (RFC 3339) or a while ago (10m).
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Print when each line came.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// The container, by name or id.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

// `box events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// What happened since a time (RFC 3339) or a while ago (10m), too; as far as it is kept.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only until a time; then end.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only what fits: container, event, image, label, network, type or volume=VALUE (may be repeated).
    #[arg(short, long = "filter", value_name = "NAME=VALUE")]
    pub(crate) filters: Vec<String>,
    /// How to print; json is one object a line.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
}

// `box exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Do not wait for the command; its output goes nowhere.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// Keep standard input open and pass it on.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Give the command every capability and system call; what it can do with them is bounded by the container's user ids.
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Set a variable; without =VALUE it is taken from the environment.
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<BuildArg>,
    /// Read variables from a file, one a line.
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// The working directory [default: the container's].
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// The user (and group), by name or number [default: the container's].
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// The container, by name or id.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// The command and its arguments.
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true
    )]
    pub(crate) command: Vec<OsString>,
}

// `box start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Show the container's output, and end as it ends.
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Pass standard input on.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// The keys that detach a terminal from the container.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// Start every container whose --restart says so; for a unit that runs when the machine has started.
    #[arg(long, conflicts_with_all = ["attach", "interactive", "containers"])]
    pub(crate) restart_policy: bool,
    /// The containers, by name or id.
    #[arg(value_name = "CONTAINER", required_unless_present = "restart_policy")]
    pub(crate) containers: Vec<String>,
}

// `box stop` and `box restart`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The signal that asks it to end [default: the container's].
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<SignalArg>,
    /// Seconds after which it is killed [default: the container's].
    #[arg(short = 't', long, alias = "timeout", value_name = "SECONDS")]
    pub(crate) time: Option<u64>,
    /// The containers, by name or id.
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

// `box kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Which signal.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub(crate) signal: SignalArg,
    /// The containers, by name or id.
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

// `box rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Also one that runs: it is killed.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// With the volumes that nobody named.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// The containers, by name or id.
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

// `box wait`, `pause`, `unpause`.
#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// The containers, by name or id.
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

// `box rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// The container, by name or id.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Its new name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

// `box attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not pass standard input on.
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// The keys that detach a terminal from the container.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// The container, by name or id.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

// `box top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// The container, by name or id.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

// `box port`.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// The container, by name or id.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Only those for this port of the container.
    #[arg(value_name = "PORT[/tcp|udp]")]
    pub(crate) port: Option<String>,
}

// `box stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Print once instead of again and again.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Print whole ids.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// The containers, by name or id [default: all that run].
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

// `box update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Memory limit, swap included (for example 512m or 2g).
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<Memory>,
    /// How many CPUs' worth of time (for example 1.5).
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<Cpus>,
    /// How many processes and threads at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pids_limit: Option<u64>,
    /// When it is started again by itself; counts from its next start on.
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<Restart>,
    /// The containers, by name or id.
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// `box container …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContainerAction {
    /// List containers.
    #[command(visible_alias = "list", alias = "ps")]
    Ls(PsArgs),
    /// Remove all containers that do not run.
    Prune(ContainerPruneArgs),
}

// `box container prune`.
#[derive(Debug, Args)]
pub(crate) struct ContainerPruneArgs {
    /// Do not ask (box never does; for scripts written for Docker).
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only those with label=NAME[=VALUE], or made until=TIME or a while ago (24h) (may be repeated).
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) filter: Vec<String>,
}
