//! Options of `box run` for what is mounted into a container.

use clap::Args;

use crate::values::{DeviceArg, MountFlag, RunSecretArg, TmpfsArg, VolumeArg};

// What is mounted.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// Mount a volume (by name, or a new one without any), or a directory or file of the host; options: ro, O (changes are thrown away), nocopy,
    /// noexec, nosuid, bind (may be repeated).
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub(crate) volumes: Vec<VolumeArg>,
    /// Mount something: type=bind|volume|tmpfs|image,source=…,target=…,readonly (may be repeated).
    #[arg(long = "mount", value_name = "KEY=VALUE,…")]
    pub(crate) mounts: Vec<MountFlag>,
    /// Mount an empty tmpfs; options: size=, mode=, uid=, gid=, nr_inodes=, exec, ro (may be repeated).
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(crate) tmpfs: Vec<TmpfsArg>,
    /// A secret as a file in memory, /run/secrets/NAME if no target= is given (may be repeated).
    #[arg(
        long = "secret",
        value_name = "id=NAME[,src=FILE|,env=VARIABLE][,target=PATH,uid=,gid=,mode=]"
    )]
    pub(crate) secrets: Vec<RunSecretArg>,
    /// Give the container a device of the host (may be repeated).
    #[arg(long = "device", value_name = "HOST[:CONTAINER][:rwm]")]
    pub(crate) devices: Vec<DeviceArg>,
}
