//! Which devices a container may use: by the devices controller of version 1, for containers that are given some of the host's.
//!
//! Those in the runner's own user namespace are held to the usual ones as well, with a program on version 2, as their root could make nodes with CAP_MKNOD.
//! Others need none of this: they have no device node but the harmless ones, and a user namespace in which no node can be made.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Cgroups, Hierarchies, device_program, resources, set, v1};
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
            let limited = limited.or_else(|_| self.load_devices(hierarchies, name, &devices));
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

    /// With version 2, where a program says what is allowed.
    fn load_devices(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
        devices: &[(&Path, DeviceAccess)],
    ) -> std::result::Result<(), String> {
        if self.v2.is_none() {
            let parent = hierarchies.parent.as_deref();
            let parent = parent.ok_or("no cgroup is delegated to this user")?;
            let hierarchy = hierarchies.v2.as_ref();
            let hierarchy = hierarchy.ok_or("this machine has no cgroups that could hold rules")?;
            self.v2 = Some(hierarchy.group(parent, name)?);
        }
        let group = self.v2.as_ref().ok_or("no group")?;
        let mut rules = vec![resources::parsed("a *:* rwm", false)?];
        for usual in USUAL.into_iter().chain(ANY_NODE) {
            rules.push(resources::parsed(usual, true)?);
        }
        for (path, access) in devices {
            rules.push(resources::parsed(&rule(path, *access)?, true)?);
        }
        device_program::load(&group.dir, &rules)
    }

    fn set_devices(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
        devices: &[(&Path, DeviceAccess)],
        further: &[&str],
    ) -> std::result::Result<(), String> {
        let parent = hierarchies.parent.as_deref();
        let parent = parent.ok_or("no cgroup is delegated to this user")?;
        let hierarchy = hierarchies.v1.iter().find(|h| h.has("devices"));
        let hierarchy = hierarchy.ok_or("this machine has no devices controller of cgroup version 1")?;
        let rules: std::result::Result<Vec<String>, String> =
            devices.iter().map(|(path, access)| rule(path, *access)).collect();
        let rules = rules?;
        let dir = v1::Group::join(&mut self.v1, hierarchy, parent, name)?
            .dir
            .clone();
        set(&dir, "devices.deny", "a")?;
        // Of a usual device that is named, too, what is said of it holds.
        let device = |rule: &str| rule.rsplit_once(' ').map(|(device, _)| device.to_owned());
        let is_named = |usual: &str| rules.iter().any(|rule| device(rule) == device(usual));
        let usual = USUAL.into_iter().filter(|usual| !is_named(usual));
        usual
            .chain(further.iter().copied())
            .chain(rules.iter().map(String::as_str))
            .try_for_each(|rule| set(&dir, "devices.allow", rule))
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
