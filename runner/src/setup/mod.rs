//! From a spec to the flat list of operations that makes the container: pure, no system calls.
//!
//! The order is that of the security contract and must not be changed lightly: descriptors of host
//! things first, locked by the kernel, then the user namespace, then everything inside it, root and masks by descriptor,
//! privileges dropped last.

pub(crate) mod bundle;
mod callers;
mod mounts;
mod ops;

pub(crate) use ops::{Links, Missing, Overlay, RlimitOp, SetupOp, Slot};

use crate::channel::Raw;
use crate::confine::{Capabilities, seccomp};
use crate::net::Network;
use crate::spec::{ContainerSpec, IdMap, Resource, Rlimit, Seccomp, Sharing, SystemPaths};

/// What the list depends on besides the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The ids of the container's user namespace.
    pub(crate) ids: IdMap,
    /// How the container sees its cgroups.
    pub(crate) cgroups: CgroupView,
}

/// How the container sees its cgroups below /sys/fs/cgroup, always read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CgroupView {
    /// Not at all.
    None,
    /// The one hierarchy of version 2.
    Unified,
    /// One directory for each hierarchy of version 1: its name and its controllers.
    Legacy(Vec<(String, Vec<String>)>),
}

/// The first part, done in the namespaces of the runner; it needs to know nothing of cgroups, so it
/// can be done while those are made.
pub(crate) fn plan_outside(spec: &ContainerSpec, ids: &IdMap) -> Vec<SetupOp> {
    let mut ops = mounts::sources(spec, ids, joins(spec).position(|kind| kind == libc::CLONE_NEWIPC));
    if spec.label.is_some() {
        ops.push(SetupOp::Bundle(bundle::BundleOp::HoldProc));
    }
    if let Some(uid) = ids.to_host(0) {
        ops.push(SetupOp::GivePipes { uid });
    }
    ops.extend(limits_outside(spec));
    ops.push(SetupOp::LockMounts(callers::directory(&spec.rootfs)));
    ops
}

fn limits_outside(spec: &ContainerSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::Rlimits(default_rlimits(&spec.rlimits))];
    if !spec.rlimits.is_empty() {
        ops.push(SetupOp::RaiseRlimits(asked_rlimits(&spec.rlimits)));
    }
    ops.extend(spec.oom_score_adj.map(SetupOp::OomScore));
    ops
}

/// `CLONE_NEW*` of the namespaces that are other containers', in the order in which the first processes of those come along.
pub(crate) fn joins(spec: &ContainerSpec) -> impl Iterator<Item = i32> {
    let of = &spec.namespaces;
    let network = match spec.network {
        Network::Joined => Sharing::Joined,
        _ => Sharing::Own,
    };
    let all = [
        (network, libc::CLONE_NEWNET),
        (of.ipc, libc::CLONE_NEWIPC),
        (of.uts, libc::CLONE_NEWUTS),
        (of.pid, libc::CLONE_NEWPID),
    ];
    all.into_iter()
        .filter(|(sharing, _)| *sharing == Sharing::Joined)
        .map(|(_, kind)| kind)
}

/// The second part: into the namespaces and all that is done there.
pub(crate) fn plan_inside(spec: &ContainerSpec, around: &Surroundings) -> Vec<SetupOp> {
    let mut ops = entering(spec);
    ops.extend(mounts::root_and_kernel_mounts(spec, around));
    ops.extend(identity(spec));
    ops.push(SetupOp::PivotRoot);
    if spec.system_paths != SystemPaths::Unconfined {
        ops.extend(mounts::confined_paths(&spec.system_paths));
    }
    if spec.terminal {
        ops.push(SetupOp::Terminal);
    }
    ops.extend(privileges(spec));
    ops.push(exec(spec));
    ops
}

/// The first part of another process in a running container; `spec` is the container's with that process.
pub(crate) fn plan_exec_outside(spec: &ContainerSpec, ids: &IdMap) -> Vec<SetupOp> {
    let mut ops: Vec<SetupOp> = ids
        .to_host(0)
        .map(|uid| SetupOp::GivePipes { uid })
        .into_iter()
        .collect();
    if spec.label.is_some() && spec.copy.is_none() {
        ops.push(SetupOp::Bundle(bundle::BundleOp::HoldProc));
    }
    ops.extend(limits_outside(spec));
    ops
}

/// The second part of it.
pub(crate) fn plan_exec_inside(spec: &ContainerSpec) -> Vec<SetupOp> {
    let kinds = spec.namespaces.apart(spec.network);
    let mut ops = vec![
        SetupOp::EnterContainer { kinds },
        SetupOp::Fork,
        SetupOp::JoinCgroups,
        SetupOp::BecomeRoot,
        SetupOp::SessionKeyring,
    ];
    ops.extend(open_label(spec));
    if spec.terminal {
        ops.push(SetupOp::FurtherTerminal);
    }
    ops.extend(privileges(spec));
    ops.push(exec(spec));
    ops
}

/// Others' namespaces are joined before the container's user namespace: with the rights of the outside.
fn entering(spec: &ContainerSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if spec.namespaces.shares_pids() {
        ops.push(SetupOp::Hide);
    }
    ops.extend(
        joins(spec)
            .enumerate()
            .map(|(number, kind)| SetupOp::JoinOf { number, kind }),
    );
    if spec.namespaces.user == Sharing::Own {
        ops.push(SetupOp::JoinUser);
    }
    if matches!(spec.network, Network::None | Network::Private) {
        ops.push(SetupOp::JoinNet);
    }
    ops.extend([SetupOp::Fork, SetupOp::JoinCgroups, SetupOp::BecomeRoot]);
    match spec.namespaces.new_inside() {
        0 => {}
        kinds => ops.push(SetupOp::Unshare { kinds }),
    }
    ops.extend([
        SetupOp::SessionKeyring,
        SetupOp::PrivateMounts,
        SetupOp::TakeLocked,
    ]);
    ops.extend(open_label(spec));
    ops
}

/// By the host's proc, before anything of the container could stand in its place.
fn open_label(spec: &ContainerSpec) -> Option<SetupOp> {
    let label = spec.label.as_ref().filter(|_| spec.copy.is_none())?;
    let path = label.attribute().0.to_owned();
    Some(SetupOp::Bundle(bundle::BundleOp::OpenLabel { path }))
}

fn default_rlimits(asked: &[Rlimit]) -> Vec<RlimitOp> {
    let defaults = [(Resource::Core, 0, 0), (Resource::Nofile, 1024, 524_288)];
    let kept = defaults
        .into_iter()
        .filter(|(r, ..)| asked.iter().all(|a| a.resource != *r));
    kept.map(|(resource, soft, hard)| RlimitOp {
        resource,
        soft,
        hard,
        clamp: true,
    })
    .collect()
}

/// Of several for one resource the last.
fn asked_rlimits(asked: &[Rlimit]) -> Vec<RlimitOp> {
    let mut ops: Vec<RlimitOp> = Vec::with_capacity(asked.len());
    for limit in asked {
        ops.retain(|op| op.resource != limit.resource);
        ops.push(RlimitOp {
            resource: limit.resource,
            soft: limit.soft,
            hard: limit.hard,
            clamp: false,
        });
    }
    ops
}

/// Host name, network and the kernel's parameters.
fn identity(spec: &ContainerSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if spec.namespaces.uts == Sharing::Own {
        ops.push(SetupOp::Hostname(spec.hostname.clone()));
    }
    if matches!(spec.network, Network::None | Network::Private) {
        ops.push(SetupOp::Loopback);
        ops.push(SetupOp::Sysctl {
            name: "net/ipv4/ip_unprivileged_port_start".into(),
            value: "0".into(),
            is_required: false,
        });
    }
    ops.extend(spec.sysctls.iter().map(|(name, value)| SetupOp::Sysctl {
        name: crate::spec::sysctl::path(name),
        value: value.clone(),
        is_required: true,
    }));
    ops
}

/// User and privileges. Without no_new_privs only CAP_SYS_ADMIN may load a filter, so it is loaded
/// before that is dropped; with it, loading comes last.
fn privileges(spec: &ContainerSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::Umask(spec.umask), SetupOp::BoundingSet(spec.caps)];
    if !spec.groups.is_empty() {
        ops.push(SetupOp::ExtraGroups(spec.groups.clone()));
    }
    ops.extend([
        SetupOp::SwitchUser(spec.process.user.clone()),
        SetupOp::Chdir(Raw::from(&spec.process.cwd)),
    ]);
    if !spec.rlimits.is_empty() {
        // Not earlier: a small one would stop the setting up itself.
        ops.push(SetupOp::Rlimits(asked_rlimits(&spec.rlimits)));
    }
    if let Some(label) = spec.label.as_ref().filter(|_| spec.copy.is_none()) {
        let text = label.attribute().1;
        ops.push(SetupOp::Bundle(bundle::BundleOp::WriteLabel(text)));
    }
    ops.extend([SetupOp::CloseFds, SetupOp::RegainCaps]);
    let filter = match &spec.seccomp {
        Seccomp::Default => Some(SetupOp::Seccomp(spec.caps)),
        Seccomp::Unconfined => None,
        Seccomp::Profile(text) => profile(text, spec.caps),
    };
    let caps = SetupOp::Capabilities(spec.caps);
    if spec.no_new_privs {
        ops.extend([caps, SetupOp::NoNewPrivs]);
        ops.extend(filter);
    } else {
        ops.extend(filter);
        ops.push(caps);
    }
    ops
}

/// A caller's profile. It compiled when the spec was checked; one that does not lets nothing through.
fn profile(text: &str, caps: Capabilities) -> Option<SetupOp> {
    let filter = seccomp::docker::compile_text(text, caps).ok();
    let (program, flags) = filter.map_or((Vec::new(), 0), |filter| (filter.program, filter.flags));
    Some(SetupOp::Bundle(bundle::BundleOp::Seccomp {
        program: program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect(),
        flags,
    }))
}

fn exec(spec: &ContainerSpec) -> SetupOp {
    if let Some(copy) = &spec.copy {
        return SetupOp::Copy(copy.clone());
    }
    let variable = |(name, value): &(std::ffi::OsString, std::ffi::OsString)| {
        let mut text = Raw::from(name);
        text.0.push(b'=');
        text.0.extend(Raw::from(value).0);
        text
    };
    SetupOp::Exec {
        args: spec.process.args.iter().map(Raw::from).collect(),
        env: spec.process.env.iter().map(variable).collect(),
        init: spec.init,
    }
}

#[cfg(test)]
mod tests;
