//! Which devices a container may use: by the devices controller of version 1, for containers that are given some of the host's.
//!
//! Those in the runner's own user namespace are held to the usual ones as well, with a program on version 2, as their root could make nodes with CAP_MKNOD.
//! Others need none of this: they have no device node but the harmless ones, and a user namespace in which no node can be made.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Cgroups, Hierarchies, device_program, set, v1};
use crate::error::{Result, RunnerError};
use crate::spec::{ContainerSpec, DeviceAccess, MountKind, Sharing};

/// What every container has: null, zero, full, random, urandom, tty, console, ptmx and terminals.
pub(super) const USUAL: [&str; 9] = [
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// With the right to make nodes some of any device can be made, as in every runtime; using one is another matter.
const ANY_NODE: [&str; 2] = ["c *:* m", "b *:* m"];

impl Cgroups {
    /// Allows the devices among these mounts, each as far as is said, and no others. Where there is no such controller, devices that may
    /// be read and written are given without it; one that may not is an error.
    pub(crate) fn limit_devices(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
        spec: &ContainerSpec,
    ) -> Result<()> {
        let is_at_home = spec.namespaces.user == Sharing::Host;
        if is_at_home && spec.privileged {
            return Ok(());
        }
        let devices = spec.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Device { source, access } => Some((source.as_path(), *access)),
            _ => None,
        });
        let devices: Vec<(&Path, DeviceAccess)> = devices.collect();
        if is_at_home {
            let limited = self.set_devices(hierarchies, name, &devices, &ANY_NODE);
            return limited.map_err(|reason| {
                RunnerError::os(
                    "limit the devices of a container with the host's users",
                    std::io::Error::other(reason),
                )
            });
        }
        if devices.is_empty() {
            return Ok(());
        }
        let limited = devices.iter().find(|(_, access)| access.is_limited());
        match (self.set_devices(hierarchies, name, &devices, &[]), limited) {
            (Err(reason), Some((path, _))) => Err(RunnerError::DeviceAccess {
                path: (*path).to_owned(),
                reason,
            }),
            _ => Ok(()),
        }
    }

    fn set_devices(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
        devices: &[(&Path, DeviceAccess)],
        further: &[&str],
    ) -> std::result::Result<(), String> {
        let parent = hierarchies.parent()?;
        let rules: std::result::Result<Vec<String>, String> =
            devices.iter().map(|(path, access)| rule(path, *access)).collect();
        let rules = rules?;
        // Of a usual device that is named, too, what is said of it holds.
        let device = |rule: &str| rule.rsplit_once(' ').map(|(device, _)| device.to_owned());
        let is_named = |usual: &str| rules.iter().any(|rule| device(rule) == device(usual));
        let usual = USUAL.into_iter().filter(|usual| !is_named(usual));
        let allowed: Vec<&str> = usual
            .chain(further.iter().copied())
            .chain(rules.iter().map(String::as_str))
            .collect();
        if let Some(hierarchy) = hierarchies.v1.iter().find(|h| h.has("devices")) {
            let group = v1::Group::join(&mut self.v1, hierarchy, parent, name)?;
            set(&group.dir, "devices.deny", "a")?;
            return allowed
                .into_iter()
                .try_for_each(|rule| set(&group.dir, "devices.allow", rule));
        }
        device_program::attach(&self.join_unified(hierarchies, name)?.dir, &allowed)
    }
}

/// If another device is put in the place of this one before the container gets it, that one is not allowed.
fn rule(path: &Path, access: DeviceAccess) -> std::result::Result<String, String> {
    let metadata = fs::metadata(path).map_err(|e| format!("look at {}: {e}", path.display()))?;
    let kind = if metadata.file_type().is_block_device() {
        'b'
    } else {
        'c'
    };
    let (major, minor) = (
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    );
    let letters = [(access.read, 'r'), (access.write, 'w'), (access.make, 'm')];
    let letters: String = letters.iter().filter(|(is, _)| *is).map(|(_, c)| *c).collect();
    Ok(format!("{kind} {major}:{minor} {letters}"))
}
