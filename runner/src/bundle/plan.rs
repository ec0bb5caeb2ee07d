//! From a bundle's config.json to the operations that make the container: what is asked for and not supported is refused here.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, Process, Spec};

use super::namespaces::Namespaces;
use super::{Plan, Request, invalid, mounts, options, process, refused};
use crate::cgroup::PlacedGroups;
use crate::channel::Raw;
use crate::error::Result;
use crate::hook::Hook;
use crate::rootless::has_all_ids;
use crate::setup::bundle::{BundleOp, MountChange};
use crate::setup::{SetupOp, Slot};
use crate::spec::sysctl;
use crate::sys::attr;

/// No honest bundle has more mounts or devices.
const MOST: usize = 4096;

/// The parts of a config.json that must be there.
pub(super) struct Parts<'a> {
    pub(super) root: PathBuf,
    pub(super) process: &'a Process,
    pub(super) linux: &'a Linux,
    pub(super) namespaces: Namespaces,
}

/// Checks all that can be checked without making anything.
pub(super) fn parts<'a>(request: &Request<'a>) -> Result<Parts<'a>> {
    let spec: &'a Spec = request.spec;
    if !spec.version().starts_with("1.") {
        return invalid(
            "ociVersion",
            format!("{:?}: version 1 is supported", spec.version()),
        );
    }
    let Some(root) = spec.root() else {
        return invalid("root", "is missing");
    };
    let Some(process) = spec.process() else {
        return invalid("process", "is missing");
    };
    let Some(linux) = spec.linux() else {
        return invalid("linux", "is missing");
    };
    if spec.vm().is_some() {
        return refused("vm");
    }
    process::check(process)?;
    check_label(process)?;
    let namespaces = Namespaces::of(linux)?;
    check_linux(linux)?;
    check_names(spec, &namespaces)?;
    check_sysctls(linux, &namespaces)?;
    Ok(Parts {
        root: request.bundle.join(root.path()),
        process,
        linux,
        namespaces,
    })
}

fn check_linux(linux: &Linux) -> Result<()> {
    let unsupported = [
        (
            "linux.netDevices",
            linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()),
        ),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
        (
            "linux.timeOffsets",
            linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()),
        ),
    ];
    if let Some((field, _)) = unsupported.iter().find(|(_, is_asked)| *is_asked) {
        return refused(field);
    }
    let is_labelled = linux
        .mount_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty());
    if is_labelled && !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return invalid("linux.mountLabel", "this machine has no SELinux");
    }
    match linux.rootfs_propagation().as_deref() {
        Some(name) if !name.is_empty() && options::propagation(name).is_none() => {
            invalid("linux.rootfsPropagation", format!("{name:?} is none"))
        }
        _ => Ok(()),
    }
}

fn check_label(process: &Process) -> Result<()> {
    let is_given = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    let read = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if is_given(process.apparmor_profile()) && read.trim() != "Y" {
        return invalid("process.apparmorProfile", "this machine has no AppArmor");
    }
    if is_given(process.selinux_label()) && !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return invalid("process.selinuxLabel", "this machine has no SELinux");
    }
    Ok(())
}

/// A name of the machine would otherwise be changed for everybody.
fn check_names(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else {
            continue;
        };
        if !namespaces.is_own(libc::CLONE_NEWUTS) {
            return invalid(field, "needs a uts namespace that is not the host's");
        }
        if name.len() > 64 || name.contains('\0') {
            return invalid(field, "is longer than 64 bytes");
        }
    }
    Ok(())
}

fn check_sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name) {
        let path = sysctl::path(name);
        let is_plain = |part: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            !part.is_empty() && part != "." && part != ".." && part.chars().all(good)
        };
        let kind = match path.as_str() {
            "kernel/domainname" | "kernel/hostname" => libc::CLONE_NEWUTS,
            path if path.starts_with("net/") => libc::CLONE_NEWNET,
            path if sysctl::OF_IPC.contains(&path) || path.starts_with("fs/mqueue/") => libc::CLONE_NEWIPC,
            _ => 0,
        };
        if kind == 0 || !path.split('/').all(is_plain) {
            return invalid(
                format!("linux.sysctl ({name})"),
                "belongs to no namespace of a container",
            );
        }
        if !namespaces.is_own(kind) {
            return invalid(
                format!("linux.sysctl ({name})"),
                "needs a namespace that is not the host's",
            );
        }
    }
    Ok(())
}

/// The hooks of one point, as they are run.
fn hooks(hooks: &Option<Vec<oci_spec::runtime::Hook>>) -> Result<Vec<Hook>> {
    hooks.iter().flatten().map(hook).collect()
}

/// A hook of a config.json, checked.
pub(super) fn hook(hook: &oci_spec::runtime::Hook) -> Result<Hook> {
    if !hook.path().is_absolute() {
        return invalid(
            "hooks",
            format!("the path {} must be absolute", hook.path().display()),
        );
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(seconds),
            _ => {
                return invalid(
                    "hooks",
                    format!("a timeout of {seconds} s; it must be more than 0"),
                );
            }
        },
    };
    let variable = |text: &String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(Hook {
        path: hook.path().clone(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().iter().flatten().filter_map(variable).collect(),
        timeout,
    })
}

/// The whole list. `state` is what hooks inside read, with `"@pid@"` in the place of the process' number.
pub(super) fn plan(
    request: &Request<'_>,
    parts: &Parts<'_>,
    groups: &PlacedGroups,
    state: &str,
) -> Result<Plan> {
    let spec = request.spec;
    let mut plan = Plan {
        bundle: request.bundle.to_owned(),
        ..Plan::default()
    };
    let has_user = parts.namespaces.has_user();
    let root = Raw::from(&parts.root);
    plan.outside
        .push(bundle(BundleOp::OpenRoot { path: root.clone() }));
    plan.outside.push(SetupOp::HostNode {
        slot: Slot::Null,
        path: "/dev/null".to_owned(),
        major: 1,
        minor: 3,
        // It hides what is masked; the container's /dev is another matter.
        read_only: true,
    });
    let label = parts
        .linux
        .mount_label()
        .as_deref()
        .filter(|label| !label.is_empty());
    let all = spec.mounts().as_deref().unwrap_or_default();
    let devices = parts.linux.devices().as_deref().unwrap_or_default();
    if all.len().max(devices.len()) > MOST {
        return invalid("mounts", format!("more than {MOST} of them, or of devices"));
    }
    for (number, mount) in all.iter().enumerate() {
        mounts::mount(&mut plan, number, mount, groups, label)?;
    }
    // In a directory of the host nothing is made; what is there is what it gets.
    if !mounts::binds_dev(all) {
        mounts::devices(&mut plan, devices, has_user || !has_all_ids())?;
    }
    let mounted = std::mem::take(&mut plan.inside);
    entering(request, parts, &mut plan)?;
    plan.inside.push(bundle(BundleOp::AttachRoot { path: root }));
    plan.inside.extend(mounted);
    plan.inside.append(&mut plan.late);
    let create_container = hooks(&spec.hooks().as_ref().and_then(|h| h.create_container().clone()))?;
    identity(spec, parts, &mut plan);
    let process = parts.process;
    plan.inside.push(SetupOp::MakeCwd(Raw::from(process.cwd())));
    plan.inside.extend(process::label(process).map(|(path, _)| {
        bundle(BundleOp::OpenLabel {
            path: path.to_owned(),
        })
    }));
    plan.inside.push(bundle(BundleOp::Prepared));
    let hooks_of = |hooks: Vec<Hook>, status: &str| {
        (!hooks.is_empty()).then(|| {
            bundle(BundleOp::Hooks {
                hooks,
                state: state.replace("@status@", status),
            })
        })
    };
    plan.inside.extend(hooks_of(create_container, "creating"));
    plan.inside.push(SetupOp::PivotRoot);
    finish(request, parts, &mut plan)?;
    let start_container = hooks(&spec.hooks().as_ref().and_then(|h| h.start_container().clone()))?;
    plan.inside.push(bundle(BundleOp::WaitForStart));
    plan.inside.extend(hooks_of(start_container, "created"));
    let seccomp = parts.linux.seccomp().as_ref();
    plan.inside
        .extend(process::privileges(process, seccomp, request.kept_fds)?);
    Ok(plan)
}

fn bundle(op: BundleOp) -> SetupOp {
    SetupOp::Bundle(op)
}

/// Into the namespaces.
fn entering(request: &Request<'_>, parts: &Parts<'_>, plan: &mut Plan) -> Result<()> {
    let namespaces = &parts.namespaces;
    plan.outside.extend(process::outside(parts.process)?);
    if namespaces.has_user() {
        // What comes from outside is locked against the container's own root.
        plan.outside.push(SetupOp::LockMounts(Raw::from(request.dir)));
    }
    for (number, (kind, _)) in namespaces.joined.iter().enumerate() {
        plan.outside.push(bundle(BundleOp::Join { number, kind: *kind }));
    }
    if namespaces.is_new(libc::CLONE_NEWUSER) {
        plan.outside.push(SetupOp::JoinUser);
    }
    plan.inside.push(SetupOp::JoinCgroups);
    if namespaces.has_user() {
        plan.inside.push(bundle(BundleOp::BecomeRoot));
    }
    if namespaces.is_new(libc::CLONE_NEWCGROUP) {
        plan.inside.push(bundle(BundleOp::Unshare(libc::CLONE_NEWCGROUP)));
    }
    if request.own_keyring {
        plan.inside.push(SetupOp::SessionKeyring);
    }
    plan.inside.push(bundle(BundleOp::SlaveMounts));
    if namespaces.has_user() {
        plan.inside.push(SetupOp::TakeLocked);
        for (slot, change) in plan.locked.iter().filter(|(_, change)| change.propagation != 0) {
            let change = MountChange {
                propagation: change.propagation,
                propagation_all: change.propagation_all,
                ..MountChange::default()
            };
            plan.inside.push(bundle(BundleOp::Change { slot: *slot, change }));
        }
    }
    Ok(())
}

fn identity(spec: &Spec, parts: &Parts<'_>, plan: &mut Plan) {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    plan.inside.extend(given(spec.hostname()).map(SetupOp::Hostname));
    plan.inside
        .extend(given(spec.domainname()).map(|name| bundle(BundleOp::Domainname(name))));
    if parts.namespaces.is_new(libc::CLONE_NEWNET) {
        plan.inside.push(SetupOp::Loopback);
    }
    let sysctls = parts.linux.sysctl().iter().flatten();
    let mut sysctls: Vec<(&String, &String)> = sysctls.collect();
    sysctls.sort();
    if sysctls.is_empty() {
        return;
    }
    // Of its own, attached nowhere: nothing of the root file system can stand in its place (CVE-2025-52881).
    plan.inside.push(SetupOp::NewMount {
        slot: Slot::Proc,
        fs: "proc".to_owned(),
        options: Vec::new(),
        attrs: attr::NOSUID | attr::NODEV | attr::NOEXEC,
    });
    plan.inside.push(SetupOp::CheckProc);
    plan.inside
        .extend(sysctls.into_iter().map(|(name, value)| SetupOp::Sysctl {
            name: sysctl::path(name),
            value: value.clone(),
            is_required: true,
        }));
}

/// What is done in the new root before the start is waited for.
fn finish(request: &Request<'_>, parts: &Parts<'_>, plan: &mut Plan) -> Result<()> {
    let linux = parts.linux;
    let list = |paths: &Option<Vec<String>>| paths.clone().unwrap_or_default();
    if parts.process.terminal() == Some(true) {
        plan.inside.push(bundle(BundleOp::Console));
    }
    plan.inside.extend(mounts::confined(
        &list(linux.masked_paths()),
        &list(linux.readonly_paths()),
    )?);
    let mut change = MountChange::default();
    if request
        .spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly() == Some(true))
    {
        change.set = attr::RDONLY;
    }
    let propagation = linux
        .rootfs_propagation()
        .as_deref()
        .and_then(options::propagation);
    if let Some((kind, all)) = propagation {
        (change.propagation, change.propagation_all) = (kind, all);
    }
    plan.inside.push(bundle(BundleOp::Change {
        slot: Slot::Root,
        change,
    }));
    plan.inside.push(process::find(parts.process));
    Ok(())
}
