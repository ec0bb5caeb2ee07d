//! The mounts of a container.

use super::ops::{Links, Missing, SetupOp, Slot, new_mount};
use super::{CgroupView, Surroundings, callers};
use crate::channel::Raw;
use crate::confine::paths;
use crate::net::Network;
use crate::spec::{ContainerSpec, IdMap};
use crate::sys::attr::{NODEV, NOEXEC, NOSUID, RDONLY};

/// Name, node of the host, and the numbers it must have.
const NODES: [(Slot, &str, &str, u32, u32); 6] = [
    (Slot::Null, "null", "/dev/null", 1, 3),
    (Slot::Zero, "zero", "/dev/zero", 1, 5),
    (Slot::Full, "full", "/dev/full", 1, 7),
    (Slot::Random, "random", "/dev/random", 1, 8),
    (Slot::Urandom, "urandom", "/dev/urandom", 1, 9),
    (Slot::Tty, "tty", "/dev/tty", 5, 0),
];

/// The console of a container without a terminal swallows what is written to it.
const SILENT_CONSOLE: (Slot, &str, &str, u32, u32) = (Slot::Console, "console", "/dev/null", 1, 3);

fn nodes(spec: &ContainerSpec) -> impl Iterator<Item = (Slot, &'static str, &'static str, u32, u32)> {
    NODES
        .into_iter()
        .chain((!spec.terminal).then_some(SILENT_CONSOLE))
}

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Everything of the host that the container gets, as detached clones.
pub(super) fn sources(spec: &ContainerSpec, ids: &IdMap) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::Overlay(callers::overlay(&spec.rootfs, ids))];
    ops.extend(callers::sources(&spec.mounts, ids));
    ops.extend(
        nodes(spec).map(|(slot, _, path, major, minor)| SetupOp::HostNode {
            slot,
            path: path.to_owned(),
            major,
            minor,
        }),
    );
    if spec.network == Network::Host {
        ops.push(SetupOp::HostSys);
    }
    ops
}

/// The root, /proc, /dev, /sys, the files of /etc and the caller's mounts.
pub(super) fn root_and_kernel_mounts(spec: &ContainerSpec, around: &Surroundings) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::AttachRoot];
    ops.extend(etc(spec));
    ops.extend(proc());
    ops.extend(sys(spec.network));
    ops.extend(cgroups(&around.cgroups));
    ops.extend(dev(spec, around));
    ops.extend(callers::attached(&spec.mounts));
    ops.push(SetupOp::MakeCwd(Raw::from(&spec.process.cwd)));
    if spec.rootfs.read_only {
        ops.push(SetupOp::SetAttrs {
            slot: Slot::Root,
            attrs: RDONLY,
        });
    }
    ops
}

fn attach(slot: Slot, target: &str) -> SetupOp {
    SetupOp::Attach {
        slot,
        target: Raw::from(target),
        missing: Missing::Make,
        links: Links::Refuse,
    }
}

/// The three files live on a tmpfs of which only they are bound.
fn etc(spec: &ContainerSpec) -> Vec<SetupOp> {
    let files = [
        ("resolv.conf", &spec.etc.resolv_conf),
        ("hosts", &spec.etc.hosts),
        ("hostname", &spec.etc.hostname),
    ];
    let mut ops = vec![new_mount(
        Slot::Etc,
        "tmpfs",
        &[("mode", "755"), ("size", "1m")],
        NOSUID | NODEV | NOEXEC,
    )];
    for (name, content) in files {
        let path = name.to_owned();
        ops.push(SetupOp::MakeFile {
            slot: Slot::Etc,
            path,
            content: Raw(content.clone()),
        });
        ops.push(SetupOp::BindEntry {
            from: Slot::Etc,
            path: name.to_owned(),
            target: Raw::from(&format!("/etc/{name}")),
            missing: Missing::MakeOrSkip,
        });
    }
    ops.push(SetupOp::Detach { slot: Slot::Etc });
    ops
}

fn proc() -> [SetupOp; 3] {
    [
        new_mount(Slot::Proc, "proc", &[], NOSUID | NODEV | NOEXEC),
        SetupOp::CheckProc,
        attach(Slot::Proc, "/proc"),
    ]
}

/// A fresh sysfs shows the network namespace, so that must be the container's own.
fn sys(network: Network) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if network != Network::Host {
        ops.push(new_mount(
            Slot::Sys,
            "sysfs",
            &[],
            RDONLY | NOSUID | NODEV | NOEXEC,
        ));
    }
    ops.push(attach(Slot::Sys, "/sys"));
    ops
}

fn cgroups(view: &CgroupView) -> Vec<SetupOp> {
    const ATTRS: u64 = RDONLY | NOSUID | NODEV | NOEXEC;
    let at = |slot, on, path: &str| SetupOp::AttachIn {
        slot,
        on,
        path: path.to_owned(),
    };
    let hierarchies = match view {
        CgroupView::Unified => {
            return vec![
                new_mount(Slot::Cgroup, "cgroup2", &[], ATTRS),
                at(Slot::Cgroup, Slot::Sys, "fs/cgroup"),
            ];
        }
        CgroupView::None => &[][..],
        CgroupView::Legacy(hierarchies) => hierarchies,
    };
    let mut ops = vec![
        new_mount(
            Slot::Cgroup,
            "tmpfs",
            &[("mode", "755"), ("size", "64k")],
            NOSUID | NODEV | NOEXEC,
        ),
        at(Slot::Cgroup, Slot::Sys, "fs/cgroup"),
    ];
    for (number, (name, controllers)) in hierarchies.iter().enumerate() {
        let slot = Slot::Hierarchy(number as u8);
        let options: Vec<(&str, &str)> = controllers.iter().map(|c| (c.as_str(), "")).collect();
        ops.push(SetupOp::MakeDir {
            slot: Slot::Cgroup,
            path: name.clone(),
            mode: 0o755,
        });
        ops.push(new_mount(slot, "cgroup", &options, ATTRS));
        ops.push(at(slot, Slot::Cgroup, name));
    }
    ops.push(SetupOp::SetAttrs {
        slot: Slot::Cgroup,
        attrs: RDONLY,
    });
    ops
}

fn dev(spec: &ContainerSpec, around: &Surroundings) -> Vec<SetupOp> {
    let mut ops = vec![
        new_mount(
            Slot::Dev,
            "tmpfs",
            &[("mode", "755"), ("size", "64k")],
            NOSUID | NOEXEC,
        ),
        attach(Slot::Dev, "/dev"),
    ];
    for (slot, name, ..) in nodes(spec) {
        ops.push(SetupOp::MakeFile {
            slot: Slot::Dev,
            path: name.to_owned(),
            content: Raw::default(),
        });
        ops.push(SetupOp::AttachIn {
            slot,
            on: Slot::Dev,
            path: name.to_owned(),
        });
    }
    for (name, target) in LINKS {
        let (path, target) = (name.to_owned(), target.to_owned());
        ops.push(SetupOp::MakeLink {
            slot: Slot::Dev,
            path,
            target,
        });
    }
    ops.extend(dev_mounts(spec.shm_size, around));
    ops
}

fn dev_mounts(shm_size: Option<u64>, around: &Surroundings) -> Vec<SetupOp> {
    const ATTRS: u64 = NOSUID | NODEV | NOEXEC;
    const TTY_GROUP: u32 = 5;
    let mut pts = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if around.ids.contains(TTY_GROUP) {
        pts.push(("gid", "5"));
    }
    let shm_size = shm_size.map_or_else(|| "64m".to_owned(), |bytes| bytes.to_string());
    let shm = [("mode", "1777"), ("size", shm_size.as_str())];
    let mounts = [
        (
            "pts",
            new_mount(Slot::DevPts, "devpts", &pts, NOSUID | NOEXEC),
            Slot::DevPts,
        ),
        (
            "mqueue",
            new_mount(Slot::Mqueue, "mqueue", &[], ATTRS),
            Slot::Mqueue,
        ),
        ("shm", new_mount(Slot::Shm, "tmpfs", &shm, ATTRS), Slot::Shm),
    ];
    let place = |(name, mount, slot): (&str, SetupOp, Slot)| {
        let path = name.to_owned();
        let make = SetupOp::MakeDir {
            slot: Slot::Dev,
            path: path.clone(),
            mode: 0o755,
        };
        [
            make,
            mount,
            SetupOp::AttachIn {
                slot,
                on: Slot::Dev,
                path,
            },
        ]
    };
    mounts.into_iter().flat_map(place).collect()
}

/// What is hidden and what is read-only of /proc and /sys.
pub(super) fn confined_paths() -> Vec<SetupOp> {
    let read_only = |path: &&str| SetupOp::ReadOnlyPath {
        slot: Slot::Proc,
        path: path.to_string(),
    };
    let mask = |slot| {
        move |path: &&str| SetupOp::MaskPath {
            slot,
            path: path.to_string(),
        }
    };
    let empty = [("size", "4k"), ("nr_inodes", "1"), ("mode", "755")];
    let mut ops: Vec<SetupOp> = paths::READ_ONLY_PROC.iter().map(read_only).collect();
    ops.push(new_mount(
        Slot::Empty,
        "tmpfs",
        &empty,
        RDONLY | NOSUID | NODEV | NOEXEC,
    ));
    ops.extend(paths::MASKED_PROC.iter().map(mask(Slot::Proc)));
    ops.extend(paths::MASKED_SYS.iter().map(mask(Slot::Sys)));
    ops.push(SetupOp::MaskEach {
        slot: Slot::Sys,
        dir: "devices/system/cpu".into(),
        prefix: "cpu".into(),
        child: "thermal_throttle".into(),
    });
    ops
}
