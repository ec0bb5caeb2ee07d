//! Containers of an ordinary user: made from a user namespace of the user's own, in which they may be.

use std::fs;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};

use super::of_runner;
use crate::error::Failure;
use crate::user_files;

/// Goes where the container can be made: for root nowhere, for others into their own user and mount namespace, as `box run` does. The ids of
/// the host that the bundle names become those that they have there.
///
/// # Errors
/// When the bundle asks for no user namespace of its own, or for ids that the user was not granted.
pub(super) fn enter(spec: &mut Spec) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let is_new_user = |linux: &oci_spec::runtime::Linux| {
        linux.namespaces().iter().flatten().any(|namespace| {
            namespace.typ() == LinuxNamespaceType::User
                && namespace
                    .path()
                    .as_ref()
                    .is_none_or(|path| path.as_os_str().is_empty())
        })
    };
    if !spec.linux().as_ref().is_some_and(is_new_user) {
        return Err(Failure::own(
            "linux.namespaces: an ordinary user's container needs a user namespace of its own",
        )
        .hint("add {\"type\": \"user\"}, linux.uidMappings and linux.gidMappings to config.json"));
    }
    user_files::with_umask(box_runner::enter_user_namespace).map_err(|e| of_runner(&e))?;
    let Some(linux) = spec.linux_mut() else {
        return Ok(());
    };
    translate("uid", linux.uid_mappings_mut())?;
    translate("gid", linux.gid_mappings_mut())
}

fn translate(kind: &str, mappings: &mut Option<Vec<LinuxIdMapping>>) -> Result<(), Failure> {
    let path = format!("/proc/self/{kind}_map");
    let own = fs::read_to_string(&path).map_err(|e| Failure::own(format!("{path}: {e}")))?;
    for mapping in mappings.iter_mut().flatten() {
        let (host, size) = (mapping.host_id(), mapping.size());
        let inside = inside(&own, host, size).ok_or_else(|| {
            Failure::own(format!(
                "linux.{kind}Mappings: the user may not map {size} ids from {host} on"
            ))
            .hint(format!(
                "the user's own id and those of /etc/sub{kind} can be mapped (newuidmap and newgidmap must be installed for the latter)"
            ))
        })?;
        let translated = LinuxIdMappingBuilder::default()
            .container_id(mapping.container_id())
            .host_id(inside)
            .size(size);
        *mapping = translated.build().map_err(|e| Failure::own(e.to_string()))?;
    }
    Ok(())
}

/// What these ids of the parent namespace are in one with this map; none if they are not all in one line of it.
fn inside(map: &str, host: u32, size: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers: Vec<u32> = line
            .split_whitespace()
            .map(|n| n.parse().ok())
            .collect::<Option<_>>()?;
        let &[inside, outside, length] = numbers.as_slice() else {
            return None;
        };
        let offset = host.checked_sub(outside)?;
        let is_whole = u64::from(offset) + u64::from(size) <= u64::from(length);
        is_whole.then(|| inside.checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn ids_are_found_in_the_own_map() {
        let map = "         0       1001          1\n         1     100000      65536\n";
        assert_eq!(inside(map, 1001, 1), Some(0));
        assert_eq!(inside(map, 100_000, 65_536), Some(1));
        assert_eq!(inside(map, 165_535, 1), Some(65_536));
        for (host, size) in [
            (0, 1),
            (1001, 2),
            (99_999, 1),
            (100_000, 65_537),
            (165_535, 2),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(inside(map, host, size), None, "{host} {size}");
        }
    }
}
