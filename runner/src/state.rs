//! Cleaning up after processes that were killed.
//!
//! Mounts and namespaces die with their last process; what can stay are cgroups, and in the rare
//! case that runner and keeper were killed at once, processes in them.

use std::path::Path;

use crate::cgroup::Hierarchies;
use crate::error::Result;

/// What was cleaned up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Groups removed.
    pub removed: u64,
    /// Groups that could not be removed.
    pub left: u64,
}

/// Kills and removes the cgroups of dead owners, looking where containers of this parent (see
/// [`RuntimeConfig::cgroup_parent`](crate::RuntimeConfig)) are. Cheap when there is nothing.
///
/// `owner_is_alive` is asked for each owner met; it must say `true` for owners it does not know,
/// since they may be those of another store.
pub fn reap(
    cgroup_parent: Option<&Path>,
    rootless: bool,
    owner_is_alive: &dyn Fn(&str) -> bool,
) -> Result<Reaped> {
    Ok(reap_in(
        &Hierarchies::find(cgroup_parent, rootless)?,
        owner_is_alive,
    ))
}

fn reap_in(hierarchies: &Hierarchies, owner_is_alive: &dyn Fn(&str) -> bool) -> Reaped {
    let mut reaped = Reaped::default();
    for group in hierarchies.existing() {
        if owner_is_alive(&group.owner) {
            continue;
        }
        match group.end() {
            Ok(()) => reaped.removed += 1,
            Err(_) => reaped.left += 1,
        }
    }
    reaped
}
