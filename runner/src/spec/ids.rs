//! How a container's ids appear outside.

/// One run of ids: `len` ids from `container` on are those from `host` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdExtent {
    /// First id as the container sees it.
    pub container: u32,
    /// First id as the namespace of the runner sees it.
    pub host: u32,
    /// How many ids.
    pub len: u32,
}

/// How a container's user and group ids appear outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// The runs of users; the kernel takes at most 340.
    pub extents: Vec<IdExtent>,
    /// Those of groups, where they are others.
    pub groups: Option<Vec<IdExtent>>,
    /// Files of layers and bind mounts have, in the container too, the owners that they have outside: no mount is mapped. What is left to an
    /// ordinary user, who may map none.
    pub keeps_owners: bool,
}

impl IdMap {
    /// The map that gives the container `len` ids from 0 on, which are `host`… outside.
    pub fn range(host: u32, len: u32) -> IdMap {
        IdMap::of(vec![IdExtent {
            container: 0,
            host,
            len,
        }])
    }

    /// The map of these runs, for users and for groups.
    pub fn of(extents: Vec<IdExtent>) -> IdMap {
        IdMap {
            extents,
            ..IdMap::default()
        }
    }

    /// Whether mounts must be mapped for the container to see the owners that files have on the disk.
    pub fn maps_mounts(&self) -> bool {
        let is_same = |e: &IdExtent| e.container == e.host;
        !self.keeps_owners && !self.extents.iter().chain(self.groups()).all(is_same)
    }

    /// The runs of groups.
    pub fn groups(&self) -> &[IdExtent] {
        self.groups.as_deref().unwrap_or(&self.extents)
    }

    /// The outside id of the container's user `id`.
    pub fn to_host(&self, id: u32) -> Option<u32> {
        outside(&self.extents, id)
    }

    /// The outside id of the container's group `id`.
    pub fn group_to_host(&self, id: u32) -> Option<u32> {
        outside(self.groups(), id)
    }

    pub(crate) fn has_group(&self, id: u32) -> bool {
        self.group_to_host(id).is_some()
    }

    /// The texts of `/proc/<pid>/uid_map` and `gid_map`.
    pub(crate) fn kernel_texts(&self) -> (String, String) {
        (text(&self.extents), text(self.groups()))
    }
}

fn outside(extents: &[IdExtent], id: u32) -> Option<u32> {
    extents.iter().find_map(|e| {
        let offset = id.checked_sub(e.container).filter(|o| *o < e.len)?;
        e.host.checked_add(offset)
    })
}

fn text(extents: &[IdExtent]) -> String {
    extents
        .iter()
        .map(|e| format!("{} {} {}\n", e.container, e.host, e.len))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_maps_translate() {
        let map = IdMap::of(vec![
            IdExtent {
                container: 0,
                host: 1000,
                len: 1,
            },
            IdExtent {
                container: 1,
                host: 100_000,
                len: 65_535,
            },
        ]);
        assert_eq!(map.to_host(0), Some(1000));
        assert_eq!(map.to_host(1), Some(100_000));
        assert_eq!(map.to_host(65_536), None);
        assert!(map.maps_mounts() && !IdMap::range(0, 5).maps_mounts());
        let text = "0 1000 1\n1 100000 65535\n".to_owned();
        assert_eq!(map.kernel_texts(), (text.clone(), text));
        let other_groups = IdMap {
            groups: Some(IdMap::range(7, 5).extents),
            ..map.clone()
        };
        assert_eq!(
            (other_groups.to_host(1), other_groups.group_to_host(1)),
            (Some(100_000), Some(8))
        );
        let kept = IdMap {
            keeps_owners: true,
            ..map
        };
        assert!(!kept.maps_mounts());
    }
}
