//! The operations that only containers of a bundle need.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};

use super::{Command, Context, Done, bundle_mounts, exec, failed, join, refused};
use crate::channel::{self, Failure, FailureKind, FromInit, Raw};
use crate::hook::Hook;
use crate::setup::bundle::{BundleOp, Sets};
use crate::sys::{self, CapSets};
use crate::user;

pub(super) fn perform(ctx: &mut Context, op: BundleOp) -> Done {
    match op {
        BundleOp::Join { number, kind } => {
            let fd = ctx.bundle.joins.get(number).map(AsFd::as_fd);
            join(fd, kind, name_of(kind))
        }
        BundleOp::Enter { kinds } => enter(ctx, kinds),
        BundleOp::Unshare(kinds) => sys::unshare(kinds as u64).map_err(failed("make the last namespaces")),
        BundleOp::BecomeRoot => sys::set_ids(0, 0, &[]).map_err(failed("become the container's root")),
        BundleOp::Domainname(name) => rustix::system::setdomainname(name.as_bytes())
            .map_err(|e| failed("set the domain name")(e.into())),
        BundleOp::HoldProc => hold_proc(ctx),
        BundleOp::OpenLabel { path } => open_label(ctx, &path),
        BundleOp::WriteLabel(text) => write_label(ctx, &text),
        BundleOp::Prepared => prepared(ctx),
        BundleOp::Hooks { hooks, state } => run_hooks(&hooks, &state),
        BundleOp::FindCommand { args, env, cwd } => find_command(args, env, &cwd),
        BundleOp::WaitForStart => wait_for_start(ctx),
        BundleOp::User { uid, gid, groups } => become_user(ctx, uid, gid, &groups),
        BundleOp::Bounding(keep) => sys::limit_bounding_set(keep).map_err(failed("limit the bounding set")),
        BundleOp::Capabilities(sets) => capabilities(&sets),
        BundleOp::Seccomp { program, flags } => {
            let insn = |(code, jt, jf, k)| sys::BpfInsn { code, jt, jf, k };
            let program: Vec<sys::BpfInsn> = program.into_iter().map(insn).collect();
            sys::load_filter(&program, flags).map_err(failed("load the system call filter"))
        }
        BundleOp::KeepFds(kept) => sys::cloexec_from(3 + kept).map_err(failed("close descriptors")),
        other => perform_mount(ctx, other),
    }
}

fn perform_mount(ctx: &mut Context, op: BundleOp) -> Done {
    match op {
        BundleOp::OpenRoot { path } => bundle_mounts::open_root(ctx, &path),
        BundleOp::Bind {
            slot,
            source,
            recursive,
            change,
        } => bundle_mounts::bind(ctx, slot, &source, recursive, &change),
        BundleOp::SlaveMounts => bundle_mounts::slave(),
        BundleOp::AttachRoot { path } => bundle_mounts::attach_root(ctx, &path),
        BundleOp::CheckProc { slot } => bundle_mounts::check_proc(ctx, slot),
        BundleOp::Change { slot, change } => bundle_mounts::change(ctx, slot, &change),
        BundleOp::Node(node) => bundle_mounts::node(ctx, &node),
        BundleOp::Link { path, target } => bundle_mounts::link(ctx, &path, &target),
        BundleOp::ReadOnlyPath(path) => bundle_mounts::read_only_path(ctx, &path),
        BundleOp::MaskPath(path) => bundle_mounts::mask_path(ctx, &path),
        BundleOp::CopyUp { slot, from } => super::copy_up::fill(ctx, slot, &from),
        BundleOp::Console => console(ctx),
        other => Err(failed(format!("misplaced operation {other:?}"))(
            io::ErrorKind::InvalidInput.into(),
        )),
    }
}

fn name_of(kind: i32) -> &'static str {
    match kind {
        libc::CLONE_NEWNS => "mount",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWNET => "network",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWUSER => "user",
        _ => "cgroup",
    }
}

/// All at once, as the rights in them are those of the outside; hidden from the container's processes from here on.
fn enter(ctx: &Context, kinds: i32) -> Done {
    sys::set_undumpable().map_err(failed("hide from the container's processes"))?;
    if kinds == 0 {
        return Ok(());
    }
    sys::setns(ctx.entrance.as_fd(), kinds).map_err(failed("enter the container's namespaces"))
}

fn console(ctx: &mut Context) -> Done {
    exec::further_terminal(ctx)?;
    let slave = ctx.terminal.take().ok_or_else(|| refused("no terminal"))?;
    bundle_mounts::bind_console(ctx, &slave)?;
    ctx.terminal = Some(slave);
    Ok(())
}

fn hold_proc(ctx: &mut Context) -> Done {
    let open = || -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/proc", flags, Mode::empty())?;
        match super::mounts::is_proc(&fd)? {
            true => Ok(fd),
            false => Err(io::Error::other("it is no proc")),
        }
    };
    ctx.bundle.proc = Some(open().map_err(failed("open /proc"))?);
    Ok(())
}

/// Below the host's proc, with nothing mounted in the way (CVE-2019-16884, CVE-2025-52881).
fn open_label(ctx: &mut Context, path: &str) -> Done {
    let proc = ctx.bundle.proc.take().ok_or_else(|| refused("no proc"))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let opened = openat2(
        proc,
        path,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    );
    ctx.bundle.label = Some(opened.map_err(|e| failed(format!("open /proc/{path}"))(e.into()))?);
    Ok(())
}

fn write_label(ctx: &mut Context, text: &str) -> Done {
    let label = ctx.bundle.label.take().ok_or_else(|| refused("no label"))?;
    File::from(label)
        .write_all(text.as_bytes())
        .map_err(failed(format!("set the label {text:?}")))
}

fn report(ctx: &Context) -> Result<&UnixStream, Failure> {
    ctx.report.as_ref().ok_or_else(|| refused("nobody to tell"))
}

fn prepared(ctx: &Context) -> Done {
    let fail = || failed("wait for the hooks");
    let report = report(ctx)?;
    channel::send(report, &FromInit::Prepared, &[]).map_err(fail())?;
    match channel::recv::<()>(report).map_err(fail())? {
        Some(_) => Ok(()),
        None => Err(refused("its maker is gone")),
    }
}

fn run_hooks(hooks: &[Hook], state: &str) -> Done {
    // In the container's pid namespace the process has another number, which is what its own hooks know it by.
    let state = state.replace(
        "\"@pid@\"",
        &rustix::process::getpid().as_raw_nonzero().to_string(),
    );
    hooks.iter().try_for_each(|hook| {
        hook.run(&state).map_err(|reason| Failure {
            kind: FailureKind::Hook,
            what: reason,
            errno: None,
        })
    })
}

/// One that is not there is told when the container is created, as the callers of runtimes expect.
fn find_command(args: Vec<Raw>, env: Vec<Raw>, cwd: &Raw) -> Done {
    rustix::process::chdir(cwd.as_path()).map_err(|e| failed(format!("enter {cwd}"))(e.into()))?;
    let command = Command {
        args,
        env,
        init: false,
    };
    let found = exec::find(&command);
    rustix::process::chdir("/").map_err(|e| failed("enter /")(e.into()))?;
    found.map_or(Ok(()), Err)
}

/// Whoever asks how it is doing connects and says nothing. A signal that ends programs ends this one, too: it is what the container
/// is meanwhile.
fn wait_for_start(ctx: &mut Context) -> Done {
    let fail = || failed("wait for the start");
    sys::set_undumpable().map_err(fail())?;
    channel::send(report(ctx)?, &FromInit::Ready, &[]).map_err(fail())?;
    ctx.report = None;
    let listener = ctx.bundle.start.take().ok_or_else(|| refused("no socket"))?;
    let listener = UnixListener::from(listener);
    let signals = sys::signal_descriptor().map_err(fail())?;
    loop {
        let mut both = [
            PollFd::new(&listener, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut both, None)).map_err(|e| fail()(e.into()))?;
        if !both[1].revents().is_empty() {
            end_if_told(&signals).map_err(fail())?;
        }
        if both[0].revents().is_empty() {
            continue;
        }
        let (connection, _) = listener.accept().map_err(fail())?;
        if let Ok(Some(_)) = channel::recv::<()>(&connection) {
            ctx.report = Some(connection);
            return Ok(());
        }
    }
}

fn end_if_told(signals: &OwnedFd) -> io::Result<()> {
    const INFO: usize = 128;
    let mut info = [0u8; INFO];
    rustix::io::retry_on_intr(|| rustix::io::read(signals, &mut info))?;
    let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
    let harmless = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    if harmless.contains(&number) {
        return Ok(());
    }
    sys::exit_now(128 + number)
}

fn become_user(ctx: &mut Context, uid: u32, gid: u32, groups: &[u32]) -> Done {
    let unknown = |reason: String| Failure {
        kind: FailureKind::NoSuchUser,
        what: format!("{uid}:{gid}\n{reason}"),
        errno: None,
    };
    // For its home alone; a passwd that can't be read gives none.
    ctx.user = user::lookup(&format!("{uid}:{gid}"), &[]).ok();
    if let Some(terminal) = &ctx.terminal {
        let owner = Some(rustix::fs::Uid::from_raw(uid));
        rustix::fs::fchown(terminal, owner, None)
            .map_err(|e| failed("give the terminal to the user")(e.into()))?;
    }
    give_streams(uid);
    sys::keep_caps().map_err(failed("keep capabilities"))?;
    sys::set_ids(uid, gid, groups).map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => unknown("one of the ids is not mapped in the user namespace".to_owned()),
        _ => failed(format!("become user {uid}:{gid}"))(e),
    })
}

/// Pipes and terminals become the user's, so that /dev/stdout can be opened; what can't be given is used as it is.
fn give_streams(uid: u32) {
    use rustix::fs::FileType;
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let is_pipe = fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

fn capabilities(sets: &Sets) -> Done {
    let fail = || failed("set the capabilities");
    let available = sys::permitted_caps().map_err(fail())?;
    let permitted = sets.permitted & available;
    let kept = CapSets {
        effective: sets.effective & permitted,
        permitted,
        inheritable: sets.inheritable & available,
    };
    sys::clear_ambient().map_err(fail())?;
    sys::set_cap_sets(&kept).map_err(fail())?;
    for capability in
        (0..64u32).filter(|bit| sets.ambient & kept.permitted & kept.inheritable & (1 << bit) != 0)
    {
        sys::raise_ambient(capability).map_err(fail())?;
    }
    Ok(())
}
