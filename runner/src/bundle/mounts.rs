//! `mounts`, `linux.devices` and the paths that are masked, as operations.

use std::path::{Component, Path};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};

use super::options::Options;
use super::{Plan, invalid, refused};
use crate::cgroup::PlacedGroups;
use crate::channel::Raw;
use crate::error::Result;
use crate::setup::bundle::{BundleOp, MountChange, Node};
use crate::setup::{Links, Missing, SetupOp, Slot};
use crate::sys::attr;

/// Files below /proc that other tools are known to bind: what they show is no privilege.
const IN_PROC: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
];
/// File systems that a container may have made for it.
const FILE_SYSTEMS: [&str; 8] = [
    "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs",
];
/// Nodes that every container has.
const NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];
/// Slots of mounts that are not in the list: device nodes that are bound, and groups.
const FIRST_NODE: u32 = 1 << 16;
const FIRST_GROUP: u32 = 1 << 17;

fn bundle(op: BundleOp) -> SetupOp {
    SetupOp::Bundle(op)
}

/// The path below the root that a destination means: `..` leads nowhere but to the root there, as in the root itself.
fn destination(mount: &Mount) -> Result<String> {
    let path = mount.destination();
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => match name.to_str() {
                Some(name) => parts.push(name),
                None => return invalid("mounts", format!("{} is no text", path.display())),
            },
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    if parts.is_empty() {
        return invalid(
            "mounts",
            format!("destination {} is the root itself", path.display()),
        );
    }
    Ok(format!("/{}", parts.join("/")))
}

/// One mount of the list.
pub(super) fn mount(
    plan: &mut Plan,
    number: usize,
    mount: &Mount,
    groups: &PlacedGroups,
    label: Option<&str>,
) -> Result<()> {
    let target = destination(mount)?;
    let field = format!("mounts[{number}] ({target})");
    let options = mount.options().as_deref().unwrap_or_default();
    let options = match Options::parse(options) {
        Ok(options) => options,
        Err(reason) => return invalid(field, reason),
    };
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return refused(&format!("{field}: uidMappings"));
    }
    let slot = Slot::Mount(number as u32);
    let kind = mount.typ().as_deref().unwrap_or("none");
    let below_proc = target.starts_with("/proc/");
    if below_proc && !(IN_PROC.contains(&target.as_str()) && options.bind.is_some()) {
        return invalid(field, "nothing is mounted inside /proc");
    }
    // What the kernel shows of itself lies where it is expected, or not at all (CVE-2019-19921).
    let is_kernels =
        target == "/proc" || below_proc || matches!(kind, "proc" | "sysfs" | "cgroup" | "cgroup2");
    let links = if is_kernels { Links::Refuse } else { Links::Inside };
    let attach = SetupOp::Attach {
        slot,
        target: Raw::from(&target),
        missing: Missing::Make,
        links,
    };
    if options.bind.is_some() || kind == "bind" {
        let Some(source) = mount.source() else {
            return invalid(field, "a bind mount has no source");
        };
        plan.outside.push(bundle(BundleOp::Bind {
            slot,
            source: Raw::from(&plan.bundle.join(source)),
            recursive: options.bind.unwrap_or(true),
            change: options.change,
        }));
        plan.locked.push((slot, options.change));
        if target == "/proc" {
            plan.inside.push(bundle(BundleOp::CheckProc { slot }));
        }
        plan.inside.push(attach);
        return Ok(());
    }
    if !FILE_SYSTEMS.contains(&kind) {
        return refused(&format!("{field}: type {kind:?}"));
    }
    if target == "/proc" && kind != "proc" {
        return invalid(field, format!("{kind} on /proc"));
    }
    if options.copy_up && kind != "tmpfs" {
        return invalid(field, format!("option \"tmpcopyup\" of {kind}"));
    }
    match kind {
        "cgroup" | "cgroup2" => cgroups(plan, slot, attach, &options.change, groups),
        _ => file_system(plan, (slot, kind), attach, options, label),
    }
    Ok(())
}

fn file_system(
    plan: &mut Plan,
    (slot, kind): (Slot, &str),
    attach: SetupOp,
    options: Options,
    label: Option<&str>,
) {
    let change = options.change;
    let is_dev = matches!(&attach, SetupOp::Attach { target, .. } if target.0 == b"/dev");
    // Its nodes must be made first.
    let late = if is_dev || options.copy_up {
        change.set & attr::RDONLY
    } else {
        0
    };
    let mut data = options.data;
    if let Some(label) = label.filter(|_| matches!(kind, "tmpfs" | "mqueue" | "devpts" | "ramfs")) {
        data.push(("context".to_owned(), Some(label.to_owned())));
    }
    plan.inside.push(SetupOp::NewMount {
        slot,
        fs: kind.to_owned(),
        options: data,
        attrs: (change.set | change.set_all) & !late,
    });
    if kind == "proc" {
        plan.inside.push(bundle(BundleOp::CheckProc { slot }));
    }
    if let (true, SetupOp::Attach { target, .. }) = (options.copy_up, &attach) {
        let from = target.clone();
        plan.inside.push(bundle(BundleOp::CopyUp { slot, from }));
    }
    plan.inside.push(attach);
    let after = |set| MountChange {
        set,
        propagation: change.propagation,
        propagation_all: change.propagation_all,
        ..MountChange::default()
    };
    if change.propagation != 0 {
        plan.inside.push(bundle(BundleOp::Change {
            slot,
            change: after(0),
        }));
    }
    if late != 0 {
        plan.late.push(bundle(BundleOp::Change {
            slot,
            change: after(late),
        }));
    }
}

/// The container's own groups alone, whatever its cgroup namespace.
fn cgroups(plan: &mut Plan, slot: Slot, attach: SetupOp, change: &MountChange, groups: &PlacedGroups) {
    let no_devices = MountChange {
        set: attr::NOSUID | attr::NODEV | attr::NOEXEC | change.set,
        ..MountChange::default()
    };
    let v1: Vec<_> = groups.groups.iter().filter(|group| !group.is_unified).collect();
    if v1.is_empty() {
        if let Some(group) = groups.unified() {
            plan.outside.push(bundle(BundleOp::Bind {
                slot,
                source: Raw::from(&group.dir),
                recursive: false,
                change: no_devices,
            }));
            plan.locked.push((slot, no_devices));
            plan.inside.push(attach);
        }
        return;
    }
    let option = |(key, value): (&str, &str)| (key.to_owned(), Some(value.to_owned()));
    plan.inside.push(SetupOp::NewMount {
        slot,
        fs: "tmpfs".to_owned(),
        options: [("mode", "755"), ("size", "64k")].map(option).to_vec(),
        attrs: attr::NOSUID | attr::NODEV | attr::NOEXEC,
    });
    plan.inside.push(attach);
    for (number, group) in groups.groups.iter().enumerate() {
        let own = Slot::Mount(FIRST_GROUP + number as u32);
        plan.outside.push(bundle(BundleOp::Bind {
            slot: own,
            source: Raw::from(&group.dir),
            recursive: false,
            change: no_devices,
        }));
        plan.locked.push((own, no_devices));
        plan.inside.push(SetupOp::MakeDir {
            slot,
            path: group.name(),
            mode: 0o755,
        });
        plan.inside.push(SetupOp::AttachIn {
            slot: own,
            on: slot,
            path: group.name(),
        });
        // Programs look for each controller by its own name.
        if group.controllers.len() > 1 {
            for controller in group.controllers.iter().filter(|name| **name != group.name()) {
                plan.inside.push(SetupOp::MakeLink {
                    slot,
                    path: controller.clone(),
                    target: group.name(),
                });
            }
        }
    }
    let change = MountChange {
        set: change.set & attr::RDONLY,
        ..MountChange::default()
    };
    plan.inside.push(bundle(BundleOp::Change { slot, change }));
}

/// Whether /dev is a directory of the host.
pub(super) fn binds_dev(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        let is_bind = |option: &String| matches!(option.as_str(), "bind" | "rbind");
        let is_bound =
            mount.options().iter().flatten().any(is_bind) || mount.typ().as_deref() == Some("bind");
        is_bound && destination(mount).is_ok_and(|target| target == "/dev")
    })
}

/// The nodes and links that every container has, and those asked for.
pub(super) fn devices(plan: &mut Plan, asked: &[LinuxDevice], in_user_namespace: bool) -> Result<()> {
    let mut nodes: Vec<Node> = NODES
        .iter()
        .map(|(path, major, minor)| usual(path, (*major, *minor)))
        .collect();
    for device in asked {
        let node = asked_node(device)?;
        nodes.retain(|usual| usual.path != node.path);
        nodes.push(node);
    }
    for (number, node) in nodes.into_iter().enumerate() {
        if !in_user_namespace {
            plan.inside.push(bundle(BundleOp::Node(node)));
            continue;
        }
        // No node can be made in a user namespace, so the host's own are bound.
        let slot = Slot::Mount(FIRST_NODE + number as u32);
        if node.kind == libc::S_IFIFO {
            return invalid("linux.devices", "a FIFO together with a user namespace");
        }
        plan.outside.push(SetupOp::HostDevice {
            slot,
            source: node.path.clone(),
            owner: None,
        });
        plan.inside.push(SetupOp::Attach {
            slot,
            target: node.path,
            missing: Missing::Make,
            links: Links::Inside,
        });
    }
    for (path, target) in LINKS {
        plan.inside.push(link(path, target));
    }
    plan.inside.push(link("/dev/ptmx", "pts/ptmx"));
    Ok(())
}

fn link(path: &str, target: &str) -> SetupOp {
    bundle(BundleOp::Link {
        path: Raw::from(path),
        target: target.to_owned(),
    })
}

fn usual(path: &str, device: (u32, u32)) -> Node {
    Node {
        path: Raw::from(path),
        kind: libc::S_IFCHR,
        device,
        mode: 0o666,
        owner: (0, 0),
    }
}

fn asked_node(device: &LinuxDevice) -> Result<Node> {
    let field = format!("linux.devices ({})", device.path().display());
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return invalid(field, "has no type"),
    };
    let path = device.path();
    if !path.is_absolute()
        || path.components().any(|part| part == Component::ParentDir)
        || path == Path::new("/")
    {
        return invalid(field, "the path must be absolute and without ..");
    }
    let number = |n: i64| u32::try_from(n);
    let (Ok(major), Ok(minor)) = (number(device.major()), number(device.minor())) else {
        return invalid(field, "major and minor are no numbers of a device");
    };
    Ok(Node {
        path: Raw::from(path),
        kind,
        device: (major, minor),
        mode: device.file_mode().unwrap_or(0o666) & 0o777,
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    })
}

/// What is hidden and what is read-only.
pub(super) fn confined(masked: &[String], read_only: &[String]) -> Result<Vec<SetupOp>> {
    let mut ops = Vec::new();
    let check = |field: &str, path: &str| match Path::new(path).is_absolute() {
        true => Ok(Raw::from(path)),
        false => invalid(field, format!("{path:?} is no absolute path")),
    };
    for path in read_only {
        ops.push(bundle(BundleOp::ReadOnlyPath(check(
            "linux.readonlyPaths",
            path,
        )?)));
    }
    if !masked.is_empty() {
        let options = [("size", "4k"), ("nr_inodes", "1"), ("mode", "755")];
        ops.push(SetupOp::NewMount {
            slot: Slot::Empty,
            fs: "tmpfs".to_owned(),
            options: options
                .map(|(key, value)| (key.to_owned(), Some(value.to_owned())))
                .to_vec(),
            attrs: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
        });
    }
    for path in masked {
        ops.push(bundle(BundleOp::MaskPath(check("linux.maskedPaths", path)?)));
    }
    Ok(ops)
}
