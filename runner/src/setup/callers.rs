//! What the caller brings: the root file system's layers, and further mounts.

use std::path::Path;

use super::ops::{Links, Missing, Overlay, SetupOp, Slot, new_mount};
use crate::channel::Raw;
use crate::spec::{IdMap, Mount, MountKind, RootFs};
use crate::sys::attr::{NODEV, NOEXEC, NOSUID, RDONLY};

/// The directory of the container's own that upper and work lie in.
pub(super) fn directory(rootfs: &RootFs) -> Raw {
    rootfs.upper.parent().map(Raw::from).unwrap_or_default()
}

pub(super) fn overlay(rootfs: &RootFs, ids: &IdMap) -> Overlay {
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
        attrs: 0,
        inside: Raw::default(),
        lower: rootfs.lower.iter().map(Raw::from).collect(),
        dir: directory(rootfs),
        upper: name(&rootfs.upper),
        work: name(&rootfs.work),
        idmapped_root: (!ids.is_identity()).then(|| ids.to_host(0)).flatten(),
        flags,
    }
}

/// What comes from outside the container, as detached mounts.
pub(super) fn sources(mounts: &[Mount], ids: &IdMap) -> impl Iterator<Item = SetupOp> {
    mounts.iter().zip(0..).filter_map(|(mount, index)| {
        let slot = Slot::Mount(index);
        let read_only = if mount.read_only { RDONLY } else { 0 };
        match &mount.kind {
            MountKind::Bind { source } => Some(SetupOp::BindSource {
                slot,
                source: Raw::from(source),
                idmapped: !ids.is_identity(),
                attrs: NODEV | read_only,
            }),
            MountKind::Overlay { layers, source } => Some(SetupOp::Overlay(Overlay {
                slot,
                attrs: read_only,
                inside: Raw::from(source),
                ..overlay(layers, ids)
            })),
            MountKind::Tmpfs { .. } | MountKind::File { .. } => None,
        }
    })
}

/// Those with shorter targets first, so that none hides another by accident.
pub(super) fn attached(mounts: &[Mount]) -> Vec<SetupOp> {
    let mut sorted: Vec<(u32, &Mount)> = (0..).zip(mounts).collect();
    sorted.sort_by_key(|(_, m)| m.target.components().count());
    let mut ops = Vec::new();
    for (index, mount) in sorted {
        let slot = Slot::Mount(index);
        match &mount.kind {
            MountKind::Tmpfs { size, mode, exec } => {
                ops.push(tmpfs(slot, *size, *mode, *exec, mount.read_only));
            }
            MountKind::File {
                content,
                mode,
                uid,
                gid,
            } => {
                ops.extend(file(slot, &mount.target, &content.0, (*mode, *uid, *gid)));
                continue;
            }
            MountKind::Bind { .. } | MountKind::Overlay { .. } => {}
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

fn tmpfs(slot: Slot, size: Option<u64>, mode: u32, exec: bool, read_only: bool) -> SetupOp {
    let (mode, size) = (format!("{mode:o}"), size.map(|s| s.to_string()));
    let mut options = vec![("mode", mode.as_str())];
    if let Some(size) = &size {
        options.push(("size", size));
    }
    let attrs = NOSUID | NODEV | if exec { 0 } else { NOEXEC } | if read_only { RDONLY } else { 0 };
    new_mount(slot, "tmpfs", &options, attrs)
}
