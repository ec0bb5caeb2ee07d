//! What can go wrong, told so that the command line can add hints and exit codes.

use std::io;
use std::path::PathBuf;

use crate::hindrance;

/// Any failure of the runner. A command that merely fails is no error but an [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// The command is not in the container (exit code 127).
    #[error("{command}: not found in the container")]
    CommandNotFound {
        /// The command as given.
        command: String,
    },
    /// The command is there but can't be started (exit code 126).
    #[error("{command}: can't be executed in the container: {source}")]
    CommandNotExecutable {
        /// The command as given.
        command: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// USER or `--user` names somebody the root file system doesn't know, or an id outside the map.
    #[error("user {user:?}: {reason}")]
    NoSuchUser {
        /// The user as given.
        user: String,
        /// Why.
        reason: String,
    },
    /// A field of the spec makes no sense.
    #[error("bad {what}: {value:?}")]
    InvalidSpec {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The private network can't be made.
    #[error(
        "can't make a private network: {doing}: {source}; with --network host or --network none none is needed"
    )]
    PrivateNetwork {
        /// What was being done.
        doing: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// `pasta`, which an ordinary user's private network needs, is missing.
    #[error(
        "a private network of an ordinary user needs the program pasta; install it (apt-get install passt), or use --network host"
    )]
    NoPasta,
    /// `pasta` needs a device that the user may not open.
    #[error(
        "a private network of an ordinary user needs /dev/net/tun: {source}; as root: chmod 666 /dev/net/tun, or use --network host"
    )]
    NoTun {
        /// The kernel's reason.
        source: io::Error,
    },
    /// `pasta` did not do what it was started for.
    #[error("can't make a private network: pasta says: {said}; with --network host none is needed")]
    Pasta {
        /// Its message.
        said: String,
    },
    /// A container with a private network was started without one.
    #[error("the container is to be in a private network, and none was given")]
    NoPrivateNetwork,
    /// A port of the host can't be published.
    #[error(
        "port {port} of the host can't be published: {source}; choose another one, or none for any that is free"
    )]
    PortRefused {
        /// The address, port and protocol.
        port: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A limit was asked for that this machine or user can't enforce.
    #[error(
        "the {limit} limit can't be enforced: {reason}; run on a delegated cgroup, or with --limits=best-effort"
    )]
    LimitUnenforceable {
        /// `memory`, `cpus` or `pids`.
        limit: &'static str,
        /// Why not.
        reason: String,
    },
    /// A bind source is missing or can't be opened.
    #[error("bind source {}: {source}", path.display())]
    BindSource {
        /// The source.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The file system of a bind source knows no idmapped mounts.
    #[error("bind source {}: its file system can't be mapped to the container's ids ({source}); copy it to ext4, xfs, btrfs or tmpfs first", path.display())]
    BindNotMappable {
        /// The source.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A part of a bind source is missing, or a link leads out.
    #[error("{} of {}: {source}; a subpath must be there (make it first), and lead nowhere else", part.display(), of.display())]
    MountPart {
        /// The part.
        part: PathBuf,
        /// What it is a part of.
        of: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// What was given as a device is none.
    #[error("{} is no device; mount it as a volume (-v) if it is a file or directory", path.display())]
    NotADevice {
        /// Its path.
        path: PathBuf,
    },
    /// Access to a device that can't be limited.
    #[error("what may be done with {} can't be limited: {reason}; leave the access away (rwm), or run as root", path.display())]
    DeviceAccess {
        /// The device.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The kernel or an outer container forbids making namespaces or mounts.
    #[error("{step}: {source}; {cure}")]
    Forbidden {
        /// What was tried.
        step: String,
        /// The kernel's reason.
        source: io::Error,
        /// What can be done about it on this machine.
        cure: String,
    },
    /// A hook of a bundle failed.
    #[error("{reason}")]
    Hook {
        /// Which, and how.
        reason: String,
    },
    /// A bundle asks for what is not supported, or can't be had here.
    #[error("config.json: {field}: {reason}")]
    Bundle {
        /// The field, as `linux.seccomp`.
        field: String,
        /// Why it is refused.
        reason: String,
    },
    /// A step of making the container failed.
    #[error("can't set up the container: {step}: {source}")]
    Setup {
        /// The step, with the paths it was about.
        step: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A hostile or broken root file system: what is there is not what it must be.
    #[error("the root file system is refused: {what}")]
    RootFsRefused {
        /// What is wrong.
        what: String,
    },
    /// An ordinary user has no range of subordinate ids.
    #[error("no subordinate ids for {user} in {}; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}", file.display())]
    NoSubIds {
        /// The user's name.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: PathBuf,
    },
    /// A program of the distribution is missing.
    #[error("{tool} is not installed; install it first: apt-get install {package}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// `newuidmap` or `newgidmap` refused the ranges.
    #[error("{tool} refused to map the ids: {reason}")]
    MapRefused {
        /// The program.
        tool: &'static str,
        /// What is known of the cause.
        reason: String,
    },
    /// The container's keeper went away without saying why.
    #[error("the container's init ended early ({status})")]
    InitDied {
        /// How it ended.
        status: String,
    },
    /// The two sides of the runner disagree: a message was cut or not understood.
    #[error("bad message between runner and init: {what}")]
    Protocol {
        /// What was wrong.
        what: String,
    },
    /// A system call of the runner itself failed.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done, with the path.
        doing: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl RunnerError {
    /// With the cure for what this machine forbids.
    pub(crate) fn forbidden(step: impl Into<String>, source: io::Error) -> RunnerError {
        RunnerError::Forbidden {
            step: step.into(),
            source,
            cure: hindrance::cure(),
        }
    }

    pub(crate) fn os(doing: impl Into<String>, source: impl Into<io::Error>) -> RunnerError {
        RunnerError::Os {
            doing: doing.into(),
            source: source.into(),
        }
    }
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, RunnerError>;
