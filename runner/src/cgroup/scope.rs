//! Where groups are made: a place of the caller's, what is delegated, or a scope of systemd's.

use std::path::{Path, PathBuf};

use super::Hierarchies;
use crate::spec::Limits;
use crate::systemd::{self, Systemd};

impl Hierarchies {
    /// The cgroup that containers get theirs below.
    pub(super) fn parent(&self) -> Result<&Path, String> {
        self.parent.as_deref().ok_or_else(|| {
            let nothing = "no cgroup is delegated to this user";
            match &self.refusal {
                Some(reason) => format!("{nothing}, and {reason}"),
                None => nothing.to_owned(),
            }
        })
    }

    /// Whether groups would be where this systemd rules alone, or nowhere. Only of version 2 it hands cgroups over.
    pub(crate) fn is_ruled_by(&self, systemd: &Systemd) -> bool {
        let is_its = |parent: &PathBuf| match parent.as_os_str().is_empty() {
            true => !systemd.is_users,
            false => systemd::is_its_own(parent),
        };
        self.v1.is_empty() && self.v2.is_some() && !self.is_chosen && self.parent.as_ref().is_none_or(is_its)
    }

    /// The same, with groups in a scope that this process was moved into; without one they stay where they are.
    pub(crate) fn in_scope(&self, systemd: &Systemd, owner: &str) -> Hierarchies {
        let mut moved = self.clone();
        if let Some(tree) = &self.v2 {
            match systemd.enter_scope(&tree.dir, owner) {
                Ok(scope) => moved.parent = Some(scope),
                Err(reason) => moved.refusal = Some(reason),
            }
        }
        moved
    }
}

impl Limits {
    /// Whether one of them is kept by a cgroup.
    pub(crate) fn need_group(&self) -> bool {
        let with_none = Limits {
            time: self.time,
            ..Limits::default()
        };
        *self != with_none
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::BusAddress;

    #[test]
    fn who_rules() {
        let tree = "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let check = |mounts: &str, parent: Option<&str>, is_users, expected| {
            let mut found = Hierarchies::parse(mounts);
            found.parent = parent.map(PathBuf::from);
            let systemd = Systemd {
                bus: BusAddress::Path("/bus".into()),
                is_users,
            };
            assert_eq!(found.is_ruled_by(&systemd), expected, "{parent:?} {is_users}");
            found.is_chosen = true;
            assert!(!found.is_ruled_by(&systemd));
        };
        check(tree, None, true, true);
        check(tree, Some(""), false, true);
        check(tree, Some(""), true, false);
        check(tree, Some("ann"), true, false);
        check(
            tree,
            Some("user.slice/user-1.slice/user@1.service/app.slice"),
            true,
            true,
        );
        let hybrid = format!("{tree}36 24 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
        check(&hybrid, None, true, false);
        check("", None, true, false);
    }
}
