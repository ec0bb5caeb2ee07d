//! `process` of a bundle: what is checked of it, and the operations that make it.

use oci_spec::runtime::{Capabilities, LinuxSeccomp, PosixRlimitType, Process};

use super::{invalid, refused};
use crate::channel::Raw;
use crate::confine;
use crate::error::Result;
use crate::setup::bundle::{BundleOp, Sets};
use crate::setup::{RlimitOp, SetupOp};
use crate::spec::Resource;

/// Refuses what makes no sense or is not supported.
pub(super) fn check(process: &Process) -> Result<()> {
    match process.args().as_deref() {
        None | Some([]) => return invalid("process.args", "is missing or empty"),
        Some([first, ..]) if first.is_empty() => return invalid("process.args", "begins with an empty one"),
        Some(_) => {}
    }
    if !process.cwd().is_absolute() {
        return invalid("process.cwd", "must be an absolute path");
    }
    let texts = process.args().iter().chain(process.env()).flatten();
    if texts.into_iter().any(|text| text.contains('\0')) {
        return invalid("process", "an argument or variable has a NUL byte");
    }
    if let Some(score) = process
        .oom_score_adj()
        .filter(|score| !(-1000..=1000).contains(score))
    {
        return invalid(
            "process.oomScoreAdj",
            format!("{score} is not within -1000 and 1000"),
        );
    }
    if process.user().umask().is_some_and(|umask| umask > 0o777) {
        return invalid("process.user.umask", "is more than 0777");
    }
    let unsupported = [
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ];
    match unsupported.iter().find(|(_, is_asked)| *is_asked) {
        Some((field, _)) => refused(field),
        None => rlimits(process).map(drop),
    }
}

fn rlimits(process: &Process) -> Result<Vec<RlimitOp>> {
    let mut ops: Vec<RlimitOp> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let resource = resource(limit.typ());
        if ops.iter().any(|op| op.resource == resource) {
            return invalid("process.rlimits", format!("{:?} is there twice", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            return invalid(
                "process.rlimits",
                format!("{:?}: soft is more than hard", limit.typ()),
            );
        }
        ops.push(RlimitOp {
            resource,
            soft: limit.soft(),
            hard: limit.hard(),
            clamp: false,
        });
    }
    Ok(ops)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// What the keeper does for the process while it has the rights to.
pub(super) fn outside(process: &Process) -> Result<Vec<SetupOp>> {
    let limits = rlimits(process)?;
    let mut ops = Vec::new();
    if !limits.is_empty() {
        ops.push(SetupOp::RaiseRlimits(limits));
    }
    ops.extend(process.oom_score_adj().map(SetupOp::OomScore));
    ops.extend(label(process).map(|_| SetupOp::Bundle(BundleOp::HoldProc)));
    Ok(ops)
}

/// That the command is there, as far as can be said before the start.
pub(super) fn find(process: &Process) -> SetupOp {
    let raw = |list: &Option<Vec<String>>| list.iter().flatten().map(Raw::from).collect();
    SetupOp::Bundle(BundleOp::FindCommand {
        args: raw(process.args()),
        env: raw(process.env()),
        cwd: Raw::from(process.cwd()),
    })
}

/// User, rights and the exec itself, the filter as late as it may be loaded.
pub(super) fn privileges(
    process: &Process,
    seccomp: Option<&LinuxSeccomp>,
    kept_fds: u32,
) -> Result<Vec<SetupOp>> {
    let user = process.user();
    let sets = sets(process);
    let mut ops = vec![
        SetupOp::Umask(user.umask().unwrap_or(0o022)),
        SetupOp::Bundle(BundleOp::Bounding(sets.bounding)),
        SetupOp::Bundle(BundleOp::User {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
        }),
        SetupOp::Chdir(Raw::from(process.cwd())),
    ];
    let limits = rlimits(process)?;
    if !limits.is_empty() {
        ops.push(SetupOp::Rlimits(limits));
    }
    let label = label(process);
    ops.extend(label.map(|(_, text)| SetupOp::Bundle(BundleOp::WriteLabel(text))));
    ops.extend([SetupOp::Bundle(BundleOp::KeepFds(kept_fds)), SetupOp::RegainCaps]);
    let filter = match seccomp {
        None => None,
        Some(profile) => match confine::seccomp::profile::compile(profile) {
            Ok(filter) => {
                let insns = filter.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
                Some(SetupOp::Bundle(BundleOp::Seccomp {
                    program: insns,
                    flags: filter.flags,
                }))
            }
            Err(reason) => return invalid("linux.seccomp", reason),
        },
    };
    let caps = SetupOp::Bundle(BundleOp::Capabilities(sets));
    if process.no_new_privileges() == Some(true) {
        ops.extend([caps, SetupOp::NoNewPrivs]);
        ops.extend(filter);
    } else {
        ops.extend(filter);
        ops.push(caps);
    }
    let raw = |list: &Option<Vec<String>>| list.iter().flatten().map(Raw::from).collect();
    ops.push(SetupOp::Exec {
        args: raw(process.args()),
        env: raw(process.env()),
        init: false,
    });
    Ok(ops)
}

/// The file that the label of the process is written to, and what is written.
pub(super) fn label(process: &Process) -> Option<(&'static str, String)> {
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    match (given(process.apparmor_profile()), given(process.selinux_label())) {
        (Some(profile), _) => Some(("thread-self/attr/apparmor/exec", format!("exec {profile}"))),
        (None, Some(label)) => Some(("thread-self/attr/exec", label)),
        (None, None) => None,
    }
}

fn sets(process: &Process) -> Sets {
    let Some(caps) = process.capabilities() else {
        return Sets::default();
    };
    Sets {
        bounding: bits(caps.bounding()),
        effective: bits(caps.effective()),
        permitted: bits(caps.permitted()),
        inheritable: bits(caps.inheritable()),
        ambient: bits(caps.ambient()),
    }
}

fn bits(caps: &Option<Capabilities>) -> u64 {
    let mut set = confine::Capabilities::NONE;
    for cap in caps.iter().flatten() {
        // Every name of that type is known here, too; one that is not gives nothing.
        let _ = set.add(&cap.to_string());
    }
    set.bits()
}
