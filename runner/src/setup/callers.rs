//! What the caller brings: the root file system's layers, and further mounts.

use std::path::Path;

use super::ops::{Links, Missing, Overlay, SetupOp, Slot, new_mount};
use crate::channel::Raw;
use crate::spec::{IdMap, Mount, MountKind, RootFs, Tmpfs};
use crate::sys::attr::{NODEV, NOEXEC, NOSUID, RDONLY};

/// The directory of the container's own that upper and work lie in.
pub(super) fn directory(rootfs: &RootFs) -> Raw {
    rootfs.upper.parent().map(Raw::from).unwrap_or_default()
}

/// `attrs` are those of the mount.
pub(super) fn overlay(rootfs: &RootFs, ids: &IdMap, attrs: u64) -> Overlay {
    let name = |p: &std::path::Path| p.file_name().map(Raw::from).unwrap_or_default();
    let mut flags = Vec::new();
    if rootfs.volatile {
        flags.push("volatile".to_owned());
    }
    if rootfs.userxattr {
        flags.push("userxattr".to_owned());
    }
    Overlay {
        slot: Slot::Root,
        attrs,
        inside: Raw::default(),
        lower: rootfs.lower.iter().map(Raw::from).collect(),
        dir: directory(rootfs),
        upper: name(&rootfs.upper),
        work: name(&rootfs.work),
        idmapped_root: ids.maps_mounts().then(|| ids.to_host(0)).flatten(),
        flags,
    }
}

/// What comes from outside the container, as detached mounts; `nodev` is that attribute, or 0 where nodes may be used.
pub(super) fn sources(mounts: &[Mount], ids: &IdMap, nodev: u64) -> impl Iterator<Item = SetupOp> {
    mounts.iter().zip(0..).filter_map(move |(mount, index)| {
        let slot = Slot::Mount(index);
        let attrs = nodev | attrs(mount);
        match &mount.kind {
            MountKind::Bind {
                source,
                part,
                is_recursive,
            } => Some(SetupOp::BindSource {
                slot,
                source: Raw::from(source),
                part: Raw::from(part),
                recursive: *is_recursive,
                idmapped: ids.maps_mounts(),
                attrs,
            }),
            MountKind::Overlay { layers, source } => Some(SetupOp::Overlay(Overlay {
                slot,
                inside: Raw::from(source),
                ..overlay(layers, ids, attrs)
            })),
            MountKind::Device { source, .. } => Some(SetupOp::HostDevice {
                slot,
                source: Raw::from(source),
                owner: ids.maps_mounts().then(|| ids.to_host(0)).flatten(),
            }),
            MountKind::Tmpfs(_) | MountKind::File { .. } => None,
        }
    })
}

fn attrs(mount: &Mount) -> u64 {
    let forbidden = [
        (mount.read_only, RDONLY),
        (mount.limits.no_exec, NOEXEC),
        (mount.limits.no_suid, NOSUID),
    ];
    forbidden
        .iter()
        .map(|(is, attr)| if *is { *attr } else { 0 })
        .sum()
}

/// Those with shorter targets first, so that none hides another by accident.
pub(super) fn attached(mounts: &[Mount]) -> Vec<SetupOp> {
    let mut sorted: Vec<(u32, &Mount)> = (0..).zip(mounts).collect();
    sorted.sort_by_key(|(_, m)| m.target.components().count());
    let mut ops = Vec::new();
    for (index, mount) in sorted {
        let slot = Slot::Mount(index);
        match &mount.kind {
            MountKind::Tmpfs(of) => ops.push(tmpfs(slot, of, mount.read_only)),
            MountKind::File {
                content,
                mode,
                uid,
                gid,
            } => {
                ops.extend(file(slot, &mount.target, &content.0, (*mode, *uid, *gid)));
                continue;
            }
            MountKind::Bind { .. } | MountKind::Overlay { .. } | MountKind::Device { .. } => {}
        }
        let target = Raw::from(&mount.target);
        ops.push(SetupOp::Attach {
            slot,
            target,
            missing: Missing::Make,
            links: Links::Inside,
        });
    }
    ops
}

/// A file on a tmpfs of its own, of which only it is bound. One that may be executed is a program of the caller's.
fn file(slot: Slot, target: &Path, content: &[u8], (mode, uid, gid): (u32, u32, u32)) -> [SetupOp; 6] {
    const NAME: &str = "file";
    let noexec = if mode & 0o111 == 0 { NOEXEC } else { 0 };
    [
        new_mount(
            slot,
            "tmpfs",
            &[("mode", "755"), ("size", "1m")],
            NOSUID | NODEV | noexec,
        ),
        SetupOp::MakeFile {
            slot,
            path: NAME.to_owned(),
            content: Raw(content.to_vec()),
        },
        SetupOp::SetOwner {
            slot,
            path: NAME.to_owned(),
            mode,
            uid,
            gid,
        },
        SetupOp::SetAttrs { slot, attrs: RDONLY },
        SetupOp::BindEntry {
            from: slot,
            path: NAME.to_owned(),
            target: Raw::from(target),
            missing: Missing::Make,
        },
        SetupOp::Detach { slot },
    ]
}

fn tmpfs(slot: Slot, of: &Tmpfs, read_only: bool) -> SetupOp {
    let mut options = vec![("mode", format!("{:o}", of.mode))];
    options.extend(of.size.map(|size| ("size", size.to_string())));
    options.extend(of.inodes.map(|inodes| ("nr_inodes", inodes.to_string())));
    let ids = [("uid", of.uid), ("gid", of.gid)].into_iter();
    options.extend(
        ids.filter(|(_, id)| *id != 0)
            .map(|(key, id)| (key, id.to_string())),
    );
    let options: Vec<(&str, &str)> = options
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let attrs = NOSUID | NODEV | if of.exec { 0 } else { NOEXEC } | if read_only { RDONLY } else { 0 };
    new_mount(slot, "tmpfs", &options, attrs)
}
