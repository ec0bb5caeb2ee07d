//! Cleaning up after processes that were killed.
//!
//! Mounts and namespaces die with their last process; what can stay are cgroups, and in the rare
//! case that runner and keeper were killed at once, processes in them.

use crate::cgroup::Hierarchies;
use crate::error::Result;
use crate::parent::Runtime;

/// What was cleaned up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Groups removed.
    pub removed: u64,
    /// Groups that could not be removed.
    pub left: u64,
}

/// Kills and removes the cgroups of dead owners.
///
/// `owner_is_alive` is asked for each owner met; it must say `true` for owners it does not know,
/// since they may be those of another store.
pub fn reap(runtime: &Runtime, owner_is_alive: &dyn Fn(&str) -> bool) -> Reaped {
    reap_in(runtime.hierarchies(), owner_is_alive)
}

/// As [`reap`], before there is a runtime: looks where root's containers are.
pub fn reap_default(owner_is_alive: &dyn Fn(&str) -> bool) -> Result<Reaped> {
    Ok(reap_in(&Hierarchies::find(None, false)?, owner_is_alive))
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
