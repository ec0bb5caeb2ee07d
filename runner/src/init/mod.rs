//! The other side: the process that the runner starts afresh, and the container's first process.
//!
//! Lifecycle: the program starts again with [`HIDDEN_ARGUMENT`], reads an `Outside` and does
//! its operations in the runner's own namespaces, then reads an `Inside` and forks at its `Fork`. The parent of that fork
//! is the *keeper*: it stays outside, kills the container when the runner is gone, and reports how
//! it ended. The child is pid 1 of the container: it does the rest and execs the command.
//!
//! Everything here runs in a single-threaded process.

mod bundle;
mod bundle_mounts;
mod confine;
mod copy;
mod copy_up;
mod crowd;
pub(crate) mod detached;
mod exec;
mod keeper;
mod lock;
mod masks;
mod mounts;
mod overlay;
mod reaper;
mod shared;
mod sources;
mod targets;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use crate::channel::{Failure, FailureKind, Raw};
use crate::setup::{SetupOp, Slot};
use crate::{channel, private, sys, user};

/// The first argument that makes a program of this library the init of a container.
pub(crate) const HIDDEN_ARGUMENT: &str = "__box_container_init";

/// The descriptors the runner starts this process with, after the standard streams.
pub(crate) mod fds {
    pub(crate) const CONTROL: i32 = 3;
    pub(crate) const REPORT: i32 = 4;
}

/// The first part of a container's description. The user namespace comes along, or the first process of the container that is
/// entered; then the first processes of those containers whose namespaces are joined.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outside {
    pub(crate) ops: Vec<SetupOp>,
}

/// The second part. Descriptors that come along: the network namespace when `net`, then the cgroups
/// as told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Inside {
    pub(crate) ops: Vec<SetupOp>,
    pub(crate) net: bool,
    /// How many `tasks` files of cgroups version 1 come along.
    pub(crate) tasks: usize,
    /// Whether the directory of a cgroup of version 2 comes along.
    pub(crate) unified: bool,
    /// Milliseconds after which the keeper kills the container.
    pub(crate) time_limit: Option<u64>,
    /// `CLONE_NEW*` that its first process begins in; none for another process of a container that runs.
    pub(crate) namespaces: i32,
    /// Whether its processes don't end with the first one by themselves; then the directories of its cgroups, if it has any.
    pub(crate) crowd: Option<Vec<Raw>>,
}

/// To be called on the first line of `main`: when the program was started as the init of a
/// container it becomes that and never returns; otherwise this does nothing.
pub fn init_main_if_requested() {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == HIDDEN_ARGUMENT => match args.next().and_then(|kept| kept.into_string().ok())
        {
            Some(kept) => sys::exit_now(detached::main(&kept)),
            None => sys::exit_now(keeper::main()),
        },
        Some(first) if first == private::SWEEP_ARGUMENT => sys::exit_now(private::sweep_main(args)),
        Some(first) if first == private::PASTA_ARGUMENT => sys::exit_now(private::pasta_main(args)),
        _ => {}
    }
}

/// To be called at the start of `main`, after [`init_main_if_requested`]: undoes what a caller may have set against this
/// program. An ignored SIGCHLD would hide how a container ended; its open files reach no program started from here; what is
/// made is for the user alone, and not without the user's own rights either. Returns the file creation mask that was set.
pub fn clean_start() -> u32 {
    sys::default_child_signal();
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // The kernels without close_range(2) are too old for anything else here too.
    let _ = sys::cloexec_from(3);
    mask.as_raw_mode()
}

/// Lets go of the memory that only starting needed; for a process that waits for long.
pub fn settle() {
    // It is only less memory.
    let _ = sys::drop_text();
}

/// What the operations work on.
struct Context {
    /// The mounts made so far.
    slots: HashMap<Slot, OwnedFd>,
    /// What was attached to be locked: the n-th lies in the working directory under that number.
    locked: Vec<Slot>,
    /// The mounts of which only this file or directory is meant.
    inside: HashMap<Slot, Raw>,
    /// What the overlays were made of; the keeper's alone.
    layers: Vec<overlay::Layers>,
    /// The user namespace, or the first process of the container that is entered.
    entrance: OwnedFd,
    net: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
    unified: Option<OwnedFd>,
    /// Where the container's first process reports.
    report: Option<UnixStream>,
    /// Groups the user is to be in besides its own.
    extra_groups: Vec<String>,
    /// Set by SwitchUser.
    user: Option<user::User>,
    /// Set by Terminal: the slave side.
    terminal: Option<OwnedFd>,
    /// Of a container of a bundle, and what both kinds have: processes whose namespaces are joined, labels.
    bundle: detached::Bundle,
    /// Set by FindHostDevices.
    devices: Vec<shared::HostDevice>,
}

impl Context {
    fn slot(&self, slot: Slot) -> io::Result<BorrowedFd<'_>> {
        self.slots
            .get(&slot)
            .map(AsFd::as_fd)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Closes what leads to places outside of the container; nothing is set up any more.
    fn let_go(&mut self) {
        self.tasks.clear();
        (self.net, self.unified) = (None, None);
        self.bundle = detached::Bundle::default();
    }
}

type Done = Result<(), Failure>;

/// Turns a kernel error into a failure of the named step.
fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let what = what.into();
    move |e| {
        let kind = match e.raw_os_error() {
            Some(libc::EPERM) => FailureKind::Forbidden,
            _ => FailureKind::Setup,
        };
        Failure {
            kind,
            what,
            errno: e.raw_os_error(),
        }
    }
}

fn refused(what: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::RootFsRefused,
        what: what.into(),
        errno: None,
    }
}

/// One operation. `Fork` and `Exec` are not among them: the keeper and the first process do those.
fn perform(ctx: &mut Context, op: SetupOp) -> Done {
    match op {
        SetupOp::Overlay(overlay) => overlay::make(ctx, &overlay),
        SetupOp::BindSource {
            slot,
            source,
            part,
            recursive,
            idmapped,
            attrs,
        } => {
            let clone = sources::bind(&source, &part, recursive)?;
            mounts::bind_source(ctx, slot, (&source, clone), idmapped, attrs)
        }
        SetupOp::HostDevice { slot, source, owner } => sources::host_device(ctx, slot, &source, owner),
        SetupOp::HostNode {
            slot,
            path,
            major,
            minor,
            read_only,
        } => mounts::host_node(ctx, slot, &path, (major, minor), read_only),
        SetupOp::HostSys => mounts::host_sys(ctx),
        SetupOp::HostTree {
            slot,
            path,
            attrs,
            may_be_missing,
        } => shared::host_tree(ctx, slot, &path, attrs, may_be_missing),
        SetupOp::SharedShm { number } => shared::shm(ctx, number),
        SetupOp::FindHostDevices => shared::find_devices(ctx),
        SetupOp::GivePipes { uid } => confine::give_pipes(uid),
        SetupOp::Rlimits(limits) => confine::rlimits(&limits),
        SetupOp::RaiseRlimits(limits) => confine::raise_rlimits(&limits),
        SetupOp::LockMounts(on) => lock::attach(ctx, on.as_path()),
        SetupOp::JoinUser => join(Some(ctx.entrance.as_fd()), libc::CLONE_NEWUSER, "user"),
        SetupOp::Hide => sys::set_undumpable().map_err(failed("hide from other containers' processes")),
        SetupOp::JoinOf { number, kind } => shared::join(ctx, number, kind),
        SetupOp::EnterContainer { kinds } => enter(ctx.entrance.as_fd(), kinds),
        SetupOp::JoinNet => join(ctx.net.as_ref().map(AsFd::as_fd), libc::CLONE_NEWNET, "network"),
        SetupOp::JoinCgroups => confine::join_cgroups(ctx),
        SetupOp::Unshare { kinds } => confine::unshare(kinds),
        SetupOp::BecomeRoot => confine::become_root(),

        SetupOp::SessionKeyring => sys::new_session_keyring().map_err(failed("new session keyring")),
        SetupOp::Hostname(name) => {
            rustix::system::sethostname(name.as_bytes()).map_err(|e| failed("set the host name")(e.into()))
        }
        SetupOp::Loopback => sys::loopback_up().map_err(failed("bring up loopback")),
        SetupOp::Sysctl {
            name,
            value,
            is_required,
        } => mounts::sysctl(ctx, &name, &value, is_required),
        SetupOp::OomScore(score) => confine::oom_score(score),
        SetupOp::Terminal => exec::terminal(ctx),
        SetupOp::FurtherTerminal => exec::further_terminal(ctx),
        SetupOp::Umask(mask) => {
            rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mask));
            Ok(())
        }
        SetupOp::Bundle(op) => bundle::perform(ctx, op),
        other => perform_confinement(ctx, other),
    }
}

fn perform_confinement(ctx: &mut Context, op: SetupOp) -> Done {
    match op {
        SetupOp::BoundingSet(caps) => {
            sys::limit_bounding_set(caps.bits()).map_err(failed("limit the bounding set"))
        }
        SetupOp::ExtraGroups(groups) => {
            ctx.extra_groups = groups;
            Ok(())
        }
        SetupOp::SwitchUser(text) => confine::switch_user(ctx, &text),
        SetupOp::Chdir(path) => confine::chdir(&path),
        SetupOp::RegainCaps => confine::regain_caps(),
        SetupOp::Seccomp(caps) => confine::seccomp(caps),
        SetupOp::Capabilities(caps) => confine::capabilities(caps),
        SetupOp::NoNewPrivs => sys::set_no_new_privs().map_err(failed("set no_new_privs")),
        SetupOp::CloseFds => sys::cloexec_from(3).map_err(failed("close descriptors")),
        other => perform_mount(ctx, other),
    }
}

fn perform_mount(ctx: &mut Context, op: SetupOp) -> Done {
    match op {
        SetupOp::PrivateMounts => mounts::private(),
        SetupOp::TakeLocked => lock::take(ctx),
        SetupOp::AttachRoot => mounts::attach_root(ctx),
        SetupOp::NewMount {
            slot,
            fs,
            options,
            attrs,
        } => mounts::new_mount(ctx, slot, &fs, &options, attrs),
        SetupOp::CheckProc => mounts::check_proc(ctx),
        SetupOp::MakeDir { slot, path, mode } => mounts::make_dir(ctx, slot, &path, mode),
        SetupOp::MakeFile { slot, path, content } => mounts::make_file(ctx, slot, &path, &content.0),
        SetupOp::SetOwner {
            slot,
            path,
            mode,
            uid,
            gid,
        } => mounts::set_owner(ctx, slot, &path, mode, (uid, gid)),
        SetupOp::MakeNode {
            slot,
            path,
            major,
            minor,
        } => shared::make_node(ctx, slot, &path, (major, minor)),
        SetupOp::MakeHostDevices { slot } => shared::make_devices(ctx, slot),
        SetupOp::MakeLink { slot, path, target } => mounts::make_link(ctx, slot, &path, &target),
        SetupOp::Attach {
            slot,
            target,
            missing,
            links,
        } => mounts::attach(ctx, slot, &target, missing, links),
        SetupOp::AttachIn { slot, on, path } => mounts::attach_in(ctx, slot, on, &path),
        SetupOp::BindEntry {
            from,
            path,
            target,
            missing,
        } => mounts::bind_entry(ctx, from, &path, &target, missing),
        SetupOp::Detach { slot } => mounts::detach(ctx, slot),
        SetupOp::SetAttrs { slot, attrs } => mounts::set_attrs(ctx, slot, attrs),
        SetupOp::MakeCwd(path) => mounts::make_cwd(ctx, &path),
        SetupOp::PivotRoot => mounts::pivot(ctx),
        SetupOp::ReadOnlyPath { slot, path } => masks::read_only_path(ctx, slot, &path),
        SetupOp::MaskPath { slot, path } => masks::mask_path(ctx, slot, &path),
        SetupOp::MaskEach {
            slot,
            dir,
            prefix,
            child,
        } => masks::mask_each(ctx, slot, &dir, &prefix, &child),
        other => Err(failed(format!("misplaced operation {other:?}"))(
            io::ErrorKind::InvalidInput.into(),
        )),
    }
}

fn join(namespace: Option<BorrowedFd<'_>>, kind: libc::c_int, name: &str) -> Done {
    let fd = namespace.ok_or_else(|| failed(format!("{name} namespace"))(io::ErrorKind::NotFound.into()))?;
    sys::setns(fd, kind).map_err(failed(format!("join the {name} namespace")))
}

/// All at once: the rights in them are those of the outside, until the user namespace is entered with them. From here on no process of the
/// container may look into this one.
fn enter(first: BorrowedFd<'_>, kinds: libc::c_int) -> Done {
    sys::set_undumpable().map_err(failed("hide from the container's processes"))?;
    sys::setns(first, kinds).map_err(|e| match e.raw_os_error() {
        Some(libc::ESRCH) => refused("the container has ended"),
        _ => failed("enter the container's namespaces")(e),
    })
}

/// The last operation of a list.
struct Command {
    args: Vec<Raw>,
    env: Vec<Raw>,
    init: bool,
}

/// The container's first process; never returns but by failing.
fn first_process(ctx: &mut Context, ops: Vec<SetupOp>) -> Failure {
    for op in ops {
        match op {
            SetupOp::Copy(copy) => {
                // That it has begun is told as by a command: by the end of the reports.
                ctx.report = None;
                ctx.slots.clear();
                sys::reset_signals();
                sys::exit_now(copy::run(&copy))
            }
            SetupOp::Exec { args, env, init } => return exec::run(ctx, Command { args, env, init }),
            op => match perform(ctx, op) {
                Ok(()) => {}
                Err(failure) => return failure,
            },
        }
    }
    failed("operations without a command")(io::ErrorKind::InvalidInput.into())
}

fn report(to: Option<&UnixStream>, failure: Failure) {
    let Some(to) = to else {
        return;
    };
    // When the runner is gone nobody is left to tell.
    let _ = channel::send(to, &channel::FromInit::Failed(failure), &[]);
}
