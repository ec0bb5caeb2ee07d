//! The mounts of a container.

use super::ops::{Links, Missing, SetupOp, Slot, new_mount};
use super::{CgroupView, Surroundings, callers};
use crate::channel::Raw;
use crate::confine::paths;
use crate::net::Network;
use crate::spec::{ContainerSpec, IdMap, Label, Sharing, SystemPaths};
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

/// Whether nodes of devices may be used wherever they are, and all of the host's are there.
fn has_devices(spec: &ContainerSpec) -> bool {
    spec.privileged && spec.namespaces.user == Sharing::Host
}

/// Everything of the host, or of a container that is joined, that the container gets, as detached clones. `ipc` is the number of the
/// container whose IPC it shares.
pub(super) fn sources(spec: &ContainerSpec, ids: &IdMap, ipc: Option<usize>) -> Vec<SetupOp> {
    let nodev = if has_devices(spec) { 0 } else { NODEV };
    let mut root = callers::overlay(&spec.rootfs, ids, nodev);
    if let Some(Label::SeLinux { files, .. }) = &spec.label {
        root.flags.push(format!("context={files}"));
    }
    let mut ops = vec![SetupOp::Overlay(root)];
    ops.extend(callers::sources(&spec.mounts, ids, nodev));
    // With the host's users its nodes would be the container's to change: it makes its own, and of the host's only hides behind one.
    let is_at_home = spec.namespaces.user == Sharing::Host;
    let needed = nodes(spec).filter(|(slot, ..)| !is_at_home || *slot == Slot::Null);
    ops.extend(needed.map(|(slot, _, path, major, minor)| SetupOp::HostNode {
        slot,
        path: path.to_owned(),
        major,
        minor,
        read_only: is_at_home,
    }));
    if spec.network == Network::Host && !spec.privileged {
        ops.push(SetupOp::HostSys);
    }
    ops.extend(host_trees(spec));
    ops.extend(ipc.map(|number| SetupOp::SharedShm { number }));
    if has_devices(spec) {
        ops.push(SetupOp::FindHostDevices);
    }
    ops
}

/// File systems that only the host can mount, for namespaces that are the host's.
fn host_trees(spec: &ContainerSpec) -> Vec<SetupOp> {
    const ATTRS: u64 = NOSUID | NODEV | NOEXEC;
    let of = &spec.namespaces;
    let tree = |slot, path: &str, attrs, may_be_missing| SetupOp::HostTree {
        slot,
        path: path.to_owned(),
        attrs,
        may_be_missing,
    };
    let writable = if spec.privileged { 0 } else { RDONLY };
    let mut ops = Vec::new();
    if spec.network == Network::Host && spec.privileged {
        ops.push(tree(Slot::Sys, "/sys", ATTRS, false));
    }
    if of.pid == Sharing::Host {
        ops.push(tree(Slot::Proc, "/proc", ATTRS, false));
    }
    if of.cgroup == Sharing::Host {
        ops.push(tree(Slot::Cgroup, "/sys/fs/cgroup", ATTRS | writable, true));
    }
    if of.ipc == Sharing::Host {
        ops.push(tree(Slot::Mqueue, "/dev/mqueue", ATTRS, true));
        if !spec.no_shm {
            ops.push(tree(Slot::Shm, "/dev/shm", ATTRS, true));
        }
    }
    ops
}

/// The root, /proc, /dev, /sys, the files of /etc and the caller's mounts.
pub(super) fn root_and_kernel_mounts(spec: &ContainerSpec, around: &Surroundings) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::AttachRoot];
    ops.extend(etc(spec));
    ops.extend(proc(spec));
    ops.extend(sys(spec));
    ops.extend(cgroups(spec, &around.cgroups));
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

/// Of a pid namespace that is the host's, it is the host's as well, found before.
fn proc(spec: &ContainerSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if spec.namespaces.pid != Sharing::Host {
        ops.push(new_mount(Slot::Proc, "proc", &[], NOSUID | NODEV | NOEXEC));
    }
    ops.extend([SetupOp::CheckProc, attach(Slot::Proc, "/proc")]);
    ops
}

fn read_only(spec: &ContainerSpec) -> u64 {
    let attrs = NOSUID | NODEV | NOEXEC;
    if spec.privileged { attrs } else { attrs | RDONLY }
}

/// A fresh sysfs shows the network namespace, so that must not be the host's.
fn sys(spec: &ContainerSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if spec.network != Network::Host {
        ops.push(new_mount(Slot::Sys, "sysfs", &[], read_only(spec)));
    }
    ops.push(attach(Slot::Sys, "/sys"));
    ops
}

fn cgroups(spec: &ContainerSpec, view: &CgroupView) -> Vec<SetupOp> {
    let attrs = read_only(spec);
    let at = |slot, on, path: &str| SetupOp::AttachIn {
        slot,
        on,
        path: path.to_owned(),
    };
    if spec.namespaces.cgroup == Sharing::Host {
        return vec![at(Slot::Cgroup, Slot::Sys, "fs/cgroup")];
    }
    let hierarchies = match view {
        CgroupView::Unified => {
            return vec![
                new_mount(Slot::Cgroup, "cgroup2", &[], attrs),
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
        ops.push(new_mount(slot, "cgroup", &options, attrs));
        ops.push(at(slot, Slot::Cgroup, name));
    }
    if !spec.privileged {
        ops.push(SetupOp::SetAttrs {
            slot: Slot::Cgroup,
            attrs: RDONLY,
        });
    }
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
    for (slot, name, _, major, minor) in nodes(spec) {
        if spec.namespaces.user == Sharing::Host {
            ops.push(SetupOp::MakeNode {
                slot: Slot::Dev,
                path: name.to_owned(),
                major,
                minor,
            });
            continue;
        }
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
    ops.extend(dev_mounts(spec, around));
    if has_devices(spec) {
        ops.push(SetupOp::MakeHostDevices { slot: Slot::Dev });
    }
    ops
}

fn dev_mounts(spec: &ContainerSpec, around: &Surroundings) -> Vec<SetupOp> {
    const ATTRS: u64 = NOSUID | NODEV | NOEXEC;
    const TTY_GROUP: u32 = 5;
    let mut pts = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if around.ids.has_group(TTY_GROUP) {
        pts.push(("gid", "5"));
    }
    let shm_size = spec
        .shm_size
        .map_or_else(|| "64m".to_owned(), |bytes| bytes.to_string());
    let shm = [("mode", "1777"), ("size", shm_size.as_str())];
    let ipc = spec.namespaces.ipc;
    let mqueue = (ipc != Sharing::Host).then(|| new_mount(Slot::Mqueue, "mqueue", &[], ATTRS));
    // That of the host or of another container was found before.
    let shm = (ipc == Sharing::Own).then(|| new_mount(Slot::Shm, "tmpfs", &shm, ATTRS));
    let mut mounts = vec![
        (
            "pts",
            Some(new_mount(Slot::DevPts, "devpts", &pts, NOSUID | NOEXEC)),
            Slot::DevPts,
        ),
        ("mqueue", mqueue, Slot::Mqueue),
    ];
    if !spec.no_shm {
        mounts.push(("shm", shm, Slot::Shm));
    }
    let place = |(name, mount, slot): (&str, Option<SetupOp>, Slot)| {
        let path = name.to_owned();
        let mut ops = vec![SetupOp::MakeDir {
            slot: Slot::Dev,
            path: path.clone(),
            mode: 0o755,
        }];
        ops.extend(mount);
        ops.push(SetupOp::AttachIn {
            slot,
            on: Slot::Dev,
            path,
        });
        ops
    };
    mounts.into_iter().flat_map(place).collect()
}

/// What is hidden and what is read-only of /proc and /sys.
pub(super) fn confined_paths(open: &SystemPaths) -> Vec<SetupOp> {
    let is_closed = |top: &'static str| move |path: &&&str| !open.opens(&format!("{top}{path}"));
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
    let protected = paths::READ_ONLY_PROC.iter().filter(is_closed("/proc/"));
    let mut ops: Vec<SetupOp> = protected.map(read_only).collect();
    ops.push(new_mount(
        Slot::Empty,
        "tmpfs",
        &empty,
        RDONLY | NOSUID | NODEV | NOEXEC,
    ));
    let of_proc = paths::MASKED_PROC.iter().filter(is_closed("/proc/"));
    ops.extend(of_proc.map(mask(Slot::Proc)));
    let of_sys = paths::MASKED_SYS.iter().filter(is_closed("/sys/"));
    ops.extend(of_sys.map(mask(Slot::Sys)));
    if !open.opens("/sys/devices/system/cpu") {
        ops.push(SetupOp::MaskEach {
            slot: Slot::Sys,
            dir: "devices/system/cpu".into(),
            prefix: "cpu".into(),
            child: "thermal_throttle".into(),
        });
    }
    ops
}
