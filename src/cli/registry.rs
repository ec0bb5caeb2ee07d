//! Registries: `box pull`, `push`, `login`, `logout`, and what `build` and `run` need for a pull.

use std::path::PathBuf;

use box_builder::request::Platform;
use box_store::transfer::Packing;
use clap::{ArgAction, Args, ValueEnum};

use super::ProgressMode;

// How a registry is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// Whether a registry must prove who it is; with false plain HTTP is taken, too. (On the loopback interface it always is.)
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) tls_verify: bool,
    /// Certificates to trust besides the system's (PEM).
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum PullMode {
    /// Where it is not in the store.
    #[default]
    Missing,
    /// Always: the registry is asked whether it has another one.
    Always,
    /// Never.
    Never,
}

// `box pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Which image of several to take [default: this machine's].
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Print the image id alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressMode,
    /// The images' names: [HOST/]REPOSITORY[:TAG|@DIGEST].
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

// `box push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// How layers are packed: gzip, zstd or none, with :LEVEL [default: as they were pulled or loaded, else gzip].
    #[arg(long, value_name = "HOW[:LEVEL]")]
    pub(crate) compression: Option<Packing>,
    /// Print nothing but the manifest's digest.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressMode,
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The name to push it under [default: its own].
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

// `box login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// The name.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// The password. Others on this machine can see it: rather use --password-stdin.
    #[arg(short, long, value_name = "PASSWORD")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input.
    #[arg(long, conflicts_with = "password")]
    pub(crate) password_stdin: bool,
    /// The registry's host [default: docker.io].
    #[arg(value_name = "HOST", default_value = "docker.io", hide_default_value = true)]
    pub(crate) host: String,
}

// `box logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry's host [default: docker.io].
    #[arg(value_name = "HOST", default_value = "docker.io", hide_default_value = true)]
    pub(crate) host: String,
}
