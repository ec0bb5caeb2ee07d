//! Options of `box run` and `box create`.

use std::path::PathBuf;

use clap::Args;

use super::{
    LimitArgs, MoreLimitArgs, MountArgs, NamespaceArgs, NetworkArgs, ProcessArgs, PullMode, RegistryArgs,
};
use crate::error::Failure;
use crate::values::{BuildArg, GoDuration, HostArg, LogOptions, Memory, Restart};

// `box run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Let it run in the background and print its id.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The keys that detach a terminal from the container.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: crate::values::DetachKeys,
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

// `box create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

// What a container is to be.
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    /// Remove the container when it ends.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Remove a container that has the name already, also a running one.
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
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
    /// A label of the container (may be repeated).
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    pub(crate) labels: Vec<String>,
    /// Read labels from a file, one a line.
    #[arg(long = "label-file", value_name = "FILE")]
    pub(crate) label_files: Vec<PathBuf>,
    /// The working directory.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// The user (and group), by name or number.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// What to run instead of the image's ENTRYPOINT; empty for none.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// A name for the container [default: one made up].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The container's host name [default: the container's id].
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    #[command(flatten)]
    pub(crate) mount: MountArgs,
    /// All volumes and bound directories of another container (may be repeated).
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub(crate) volumes_from: Vec<String>,
    /// Another line of /etc/hosts (may be repeated); an IPv6 address may stand in brackets, host-gateway is the host itself.
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub(crate) hosts: Vec<HostArg>,
    #[command(flatten)]
    pub(crate) net: NetworkArgs,
    #[command(flatten)]
    pub(crate) namespaces: NamespaceArgs,
    #[command(flatten)]
    pub(crate) limit: LimitArgs,
    #[command(flatten)]
    pub(crate) more_limits: MoreLimitArgs,
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
    /// no-new-privileges[=true|false]; seccomp=FILE (a profile of Docker's format), unconfined or builtin; systempaths=unconfined (nothing
    /// of /proc and /sys is hidden or read-only); unmask=ALL|PATH[:PATH] (only these are not); apparmor=PROFILE|unconfined;
    /// label=disable|user:…|role:…|type:…|level:… (SELinux).
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// When it is started again by itself: no, on-failure[:N], always or unless-stopped. Across a boot of the machine this needs
    /// `box start --restart-policy`, see the README.
    #[arg(long, value_name = "POLICY", conflicts_with = "rm")]
    pub(crate) restart: Option<Restart>,
    /// The signal that asks it to end [default: the image's, else SIGTERM].
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds after which it is killed then [default: 10].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
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

// How the container's health is checked; what is not given is the image's.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// A command (for /bin/sh -c) that succeeds while the container is healthy; none for no check.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks [default: 30s].
    #[arg(long, value_name = "TIME")]
    pub(crate) health_interval: Option<GoDuration>,
    /// Time after which a check has failed [default: 30s].
    #[arg(long, value_name = "TIME")]
    pub(crate) health_timeout: Option<GoDuration>,
    /// Time at the start in which failures do not count.
    #[arg(long, value_name = "TIME")]
    pub(crate) health_start_period: Option<GoDuration>,
    /// Time between two checks at the start [default: 5s].
    #[arg(long, value_name = "TIME")]
    pub(crate) health_start_interval: Option<GoDuration>,
    /// How many failures in a row make it unhealthy [default: 3].
    #[arg(long, value_name = "N")]
    pub(crate) health_retries: Option<u32>,
    /// Do not check the health, whatever the image says.
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}

impl HealthArgs {
    /// Whether a time or a number is asked for.
    pub(crate) fn is_any(&self) -> bool {
        let times = [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
        ];
        self.health_retries.is_some() || times.iter().any(Option::is_some)
    }
}

// What is kept of the container's output.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Where output is kept: local (in the store; json-file means the same), or none.
    #[arg(long, value_name = "DRIVER", default_value = "local")]
    pub(crate) log_driver: String,
    /// max-size=BYTES [default: 64m] or max-file=N [default: 2] (may be repeated).
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) log_opt: Vec<String>,
}

impl LogArgs {
    /// Each one understood or refused.
    pub(crate) fn options(&self) -> Result<LogOptions, Failure> {
        let mut options = LogOptions::default();
        match self.log_driver.as_str() {
            "local" | "json-file" | "k8s-file" => {}
            "none" => options.none = true,
            other => {
                return Err(Failure::own(format!("there is no log driver {other:?}"))
                    .hint("local keeps the output in the store, none keeps nothing"));
            }
        }
        for option in &self.log_opt {
            let wrong = || {
                Failure::own(format!("the log option {option:?} is not understood"))
                    .hint("write max-size=BYTES or max-file=N")
            };
            match option.split_once('=') {
                Some(("max-size", value)) => {
                    options.max_size = value.parse::<Memory>().map_err(|_| wrong())?.0.max(4096);
                }
                Some(("max-file", value)) => {
                    let count = value.parse().ok().filter(|count| (1..=1000).contains(count));
                    options.max_files = count.ok_or_else(wrong)?;
                }
                _ => return Err(wrong()),
            }
        }
        Ok(options)
    }
}
