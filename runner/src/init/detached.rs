//! The keeper of a container of a bundle: it makes the container's first process and goes.
//!
//! Whoever manages such containers expects the first process to become a child of its own: the keeper's end hands it over.
//! Until the runner says that all went well, though, the keeper stays, and kills what it has made when the runner is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::{Context, failed, first_process, perform, refused, report};
use crate::channel::{self, Failure, FromKeeper};
use crate::setup::SetupOp;
use crate::sys::{self, Fork};

/// What the runner tells the keeper. Descriptors that come along, in this order: the entrance (the user namespace, or the container's
/// first process), the namespaces to be joined, the `tasks` files, the directory of the cgroup of version 2, the socket of the start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Detached {
    /// Done in the keeper.
    pub(crate) outside: Vec<SetupOp>,
    /// Done in the container's first process.
    pub(crate) inside: Vec<SetupOp>,
    /// `CLONE_NEW*` that the first process begins in.
    pub(crate) namespaces: u64,
    pub(crate) joins: usize,
    pub(crate) tasks: usize,
    pub(crate) unified: bool,
    pub(crate) start: bool,
}

/// What a context holds for containers of a bundle.
#[derive(Default)]
pub(super) struct Bundle {
    pub(super) joins: Vec<OwnedFd>,
    /// Where whoever starts the container connects.
    pub(super) start: Option<OwnedFd>,
    /// The host's proc.
    pub(super) proc: Option<OwnedFd>,
    /// Where the label of the process is written.
    pub(super) label: Option<OwnedFd>,
}

/// Runs the keeper and gives its exit code. After the standard streams `kept` descriptors are the container's.
pub(crate) fn main(kept: &str) -> i32 {
    sys::block_signals();
    rustix::process::umask(Mode::empty());
    let Ok(kept) = kept.parse::<i32>() else {
        return 125;
    };
    let (Ok(control), Ok(report)) = (sys::inherited_fd(3 + kept), sys::inherited_fd(4 + kept)) else {
        return 125;
    };
    let control = UnixStream::from(control);
    match make(&control, UnixStream::from(report)) {
        Ok(()) => 0,
        Err(failure) => {
            // When the runner is gone nobody is left to tell.
            let _ = channel::send(&control, &FromKeeper::Failed(failure), &[]);
            125
        }
    }
}

fn make(control: &UnixStream, report_to: UnixStream) -> Result<(), Failure> {
    let told = failed("read the container's description");
    let Some((detached, fds)) = channel::recv::<Detached>(control).map_err(told)? else {
        return Ok(());
    };
    let Detached {
        outside,
        inside,
        namespaces,
        ..
    } = &detached;
    let mut ctx =
        context(&detached, fds, report_to).ok_or_else(|| refused("descriptors of the description"))?;
    outside.iter().cloned().try_for_each(|op| perform(&mut ctx, op))?;
    let unified = ctx.unified.as_ref().map(AsFd::as_fd);
    match sys::fork_into(*namespaces, unified).map_err(failed("make the namespaces"))? {
        Fork::Child => {
            let failure = first_process(&mut ctx, inside.clone());
            report(ctx.report.as_ref(), failure);
            sys::exit_now(125)
        }
        Fork::Parent { pid, pidfd } => {
            drop(ctx);
            hand_over(control, pid, &pidfd)
        }
    }
}

/// Goes when the runner says so; without a word from it, the container goes, too.
fn hand_over(control: &UnixStream, pid: i32, pidfd: &OwnedFd) -> Result<(), Failure> {
    let is_told = channel::send(control, &FromKeeper::Spawned, &[pidfd.as_fd()]).is_ok();
    if is_told {
        let mut fds = [PollFd::new(control, PollFlags::IN | PollFlags::RDHUP)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(|e| failed("poll")(e.into()))?;
        if matches!(channel::recv::<()>(control), Ok(Some(_))) {
            return Ok(());
        }
    }
    // It may have ended already.
    let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
    let _ = sys::wait_for(pid, false);
    Ok(())
}

fn context(told: &Detached, received: Vec<OwnedFd>, report: UnixStream) -> Option<Context> {
    let mut received = received.into_iter();
    let entrance = received.next()?;
    let joins: Vec<OwnedFd> = received.by_ref().take(told.joins).collect();
    let tasks: Vec<OwnedFd> = received.by_ref().take(told.tasks).collect();
    let unified = if told.unified {
        Some(received.next()?)
    } else {
        None
    };
    let start = if told.start { Some(received.next()?) } else { None };
    let is_whole = joins.len() == told.joins && tasks.len() == told.tasks;
    is_whole.then_some(Context {
        slots: Default::default(),
        locked: Vec::new(),
        inside: Default::default(),
        layers: Vec::new(),
        entrance,
        net: None,
        tasks,
        unified,
        report: Some(report),
        extra_groups: Vec::new(),
        user: None,
        terminal: None,
        devices: Vec::new(),
        bundle: Bundle {
            joins,
            start,
            proc: None,
            label: None,
        },
    })
}
