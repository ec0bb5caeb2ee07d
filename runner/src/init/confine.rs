//! The operations that take privileges away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::{Context, Done, failed, refused};
use crate::channel::{Failure, FailureKind, Raw};
use crate::confine::{Capabilities, seccomp as filter};
use crate::setup::RlimitOp;
use crate::spec::Resource;
use crate::{sys, user};

/// The standard streams that are pipes get an owner the container knows, or it could not open
/// /dev/stdout again.
pub(super) fn give_pipes(uid: u32) -> Done {
    each_pipe(
        |stream| match rustix::fs::fchown(stream, owner(uid), group(uid)) {
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(e) => Err(failed("change the owner of a pipe")(e.into())),
        },
    )
}

fn owner(uid: u32) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(gid))
}

fn each_pipe(mut change: impl FnMut(BorrowedFd<'_>) -> Done) -> Done {
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    for stream in streams {
        let stat = fstat(stream).map_err(|e| failed("standard stream")(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            change(stream)?;
        }
    }
    Ok(())
}

pub(super) fn rlimits(limits: &[RlimitOp]) -> Done {
    limits.iter().try_for_each(|limit| {
        set_rlimit(limit).map_err(failed(format!("set the {:?} limit", limit.resource)))
    })
}

/// Less than it is needs a right that the container does not have.
pub(super) fn oom_score(score: i32) -> Done {
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(failed("set the OOM score"))
}

/// Only root has a right to that, and not everywhere.
pub(super) fn raise_rlimits(limits: &[RlimitOp]) -> Done {
    limits.iter().try_for_each(|limit| {
        let number = number(limit.resource);
        let raise = || match sys::rlimit(number)? {
            (_, hard) if hard >= limit.hard => Ok(()),
            (soft, _) => sys::set_rlimit(number, soft, limit.hard),
        };
        raise().map_err(|e: io::Error| Failure {
            // Not what a container in a container lacks.
            kind: FailureKind::Setup,
            what: format!(
                "raise the hard {:?} limit to {}, which is higher than box's own",
                limit.resource, limit.hard
            ),
            errno: e.raw_os_error(),
        })
    })
}

fn set_rlimit(limit: &RlimitOp) -> io::Result<()> {
    let number = number(limit.resource);
    match sys::set_rlimit(number, limit.soft, limit.hard) {
        Err(e) if limit.clamp && e.raw_os_error() == Some(libc::EPERM) => {
            let (_, hard) = sys::rlimit(number)?;
            sys::set_rlimit(number, limit.soft.min(hard), hard)
        }
        other => other,
    }
}

fn number(resource: Resource) -> u32 {
    match resource {
        Resource::As => libc::RLIMIT_AS,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Cpu => libc::RLIMIT_CPU,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Locks => libc::RLIMIT_LOCKS,
        Resource::Memlock => libc::RLIMIT_MEMLOCK,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Nproc => libc::RLIMIT_NPROC,
        Resource::Rss => libc::RLIMIT_RSS,
        Resource::Rtprio => libc::RLIMIT_RTPRIO,
        Resource::Rttime => libc::RLIMIT_RTTIME,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING,
        Resource::Stack => libc::RLIMIT_STACK,
    }
}

/// Version 1: this thread moves itself, which needs no global lock. Version 2 was done by clone.
pub(super) fn join_cgroups(ctx: &Context) -> Done {
    for tasks in &ctx.tasks {
        rustix::io::write(tasks, b"0").map_err(|e| failed("enter a cgroup")(e.into()))?;
    }
    Ok(())
}

/// A change of ids forgets the signal at the keeper's death, so it is asked for again.
pub(super) fn become_root() -> Done {
    sys::set_ids(0, 0, &[])
        .and_then(|()| sys::die_with_parent())
        .map_err(failed("become the container's root"))
}

pub(super) fn unshare(kinds: libc::c_int) -> Done {
    sys::unshare(kinds as u64).map_err(failed("make the cgroup and ipc namespaces"))
}

pub(super) fn switch_user(ctx: &mut Context, text: &str) -> Done {
    let unknown = |reason: String| Failure {
        kind: FailureKind::NoSuchUser,
        what: format!("{text}\n{reason}"),
        errno: None,
    };
    let user = user::lookup(text, &ctx.extra_groups).map_err(unknown)?;
    let has_single_id = sys::are_groups_fixed();
    if has_single_id && !(user.uid == 0 && user.gid == 0 && ctx.extra_groups.is_empty()) {
        return Err(unknown(format!(
            "of its ids {}:{} and groups {:?} only 0:0 is there; {}",
            user.uid,
            user.gid,
            user.groups,
            crate::rootless::SINGLE_ID
        )));
    }
    if let Some(terminal) = &ctx.terminal {
        rustix::fs::fchown(terminal.as_fd(), owner(user.uid), None)
            .map_err(|e| failed("give the terminal to the user")(e.into()))?;
    }
    each_pipe(|stream| {
        // Only what `give_pipes` made ours can be given on.
        let _ = rustix::fs::fchown(stream, owner(user.uid), group(user.gid));
        Ok(())
    })?;
    sys::keep_caps().map_err(failed("keep capabilities"))?;
    sys::set_ids(user.uid, user.gid, &user.groups).map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => unknown(format!(
            "of its ids {}:{} and groups {:?} one is outside the container's range",
            user.uid, user.gid, user.groups
        )),
        _ => failed(format!("become user {text:?}"))(e),
    })?;
    ctx.user = Some(user);
    sys::die_with_parent().map_err(failed("die with the keeper"))
}

/// The kernel tells a directory outside the root as `(unreachable)` (CVE-2024-21626).
pub(super) fn chdir(path: &Raw) -> Done {
    let fail = || failed(format!("enter the working directory {path}"));
    rustix::process::chdir(path.as_path()).map_err(|e| fail()(e.into()))?;
    let cwd = rustix::process::getcwd(Vec::new()).map_err(|e| fail()(e.into()))?;
    match cwd.to_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(refused(format!(
            "the working directory {path} is outside the root"
        ))),
    }
}

pub(super) fn regain_caps() -> Done {
    sys::permitted_caps()
        .and_then(sys::set_caps)
        .map_err(failed("regain capabilities"))
}

pub(super) fn capabilities(caps: Capabilities) -> Done {
    sys::clear_ambient().map_err(failed("clear ambient capabilities"))?;
    let permitted = sys::permitted_caps().map_err(failed("read capabilities"))?;
    sys::set_caps(caps.bits() & permitted).map_err(failed("drop capabilities"))
}

pub(super) fn seccomp(caps: Capabilities) -> Done {
    sys::load_seccomp(&filter::build(caps)).map_err(failed("load the system call filter"))
}
