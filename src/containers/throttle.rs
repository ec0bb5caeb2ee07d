//! Limits of block devices: from the options to what is kept, and from there to the devices that are meant.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::config::{Throttle, Traffic};
use crate::cli::MoreLimitArgs;
use crate::error::Failure;

/// What is asked for.
pub(super) fn asked(args: &MoreLimitArgs) -> Vec<Throttle> {
    let of = |device: &Path, traffic, rate| Throttle {
        device: device.to_owned(),
        traffic,
        rate,
    };
    let read = args
        .device_read_bps
        .iter()
        .map(|one| of(&one.0, Traffic::ReadBytes, one.1));
    let written = args
        .device_write_bps
        .iter()
        .map(|one| of(&one.0, Traffic::WriteBytes, one.1));
    let reads = args
        .device_read_iops
        .iter()
        .map(|one| of(&one.0, Traffic::Reads, one.1));
    let writes = args
        .device_write_iops
        .iter()
        .map(|one| of(&one.0, Traffic::Writes, one.1));
    read.chain(written).chain(reads).chain(writes).collect()
}

/// The devices as they are now.
pub(super) fn found(wanted: &[Throttle]) -> Result<Vec<box_runner::Throttle>, Failure> {
    wanted.iter().map(throttle).collect()
}

fn throttle(wanted: &Throttle) -> Result<box_runner::Throttle, Failure> {
    let path = &wanted.device;
    let failed = |reason: &dyn std::fmt::Display| {
        Failure::own(format!("cannot limit the device {}: {reason}", path.display()))
            .hint("name the node of a whole block device (lsblk lists them)")
    };
    let node = std::fs::metadata(path).map_err(|e| failed(&e))?;
    if !node.file_type().is_block_device() {
        return Err(failed(&"it is no block device"));
    }
    let (major, minor) = (
        nix::sys::stat::major(node.rdev()),
        nix::sys::stat::minor(node.rdev()),
    );
    Ok(box_runner::Throttle {
        device: (
            u32::try_from(major).map_err(|e| failed(&e))?,
            u32::try_from(minor).map_err(|e| failed(&e))?,
        ),
        traffic: match wanted.traffic {
            Traffic::ReadBytes => box_runner::Traffic::ReadBytes,
            Traffic::WriteBytes => box_runner::Traffic::WriteBytes,
            Traffic::Reads => box_runner::Traffic::Reads,
            Traffic::Writes => box_runner::Traffic::Writes,
        },
        rate: wanted.rate,
    })
}
