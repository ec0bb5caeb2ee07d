//! The keeper: outside the container, single-threaded, holding nothing but two sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};

use super::{Context, Start, failed, fds, first_process, perform, report};
use crate::channel::{self, Failure, FromKeeper};
use crate::setup::SetupOp;
use crate::sys::{self, Ended, Fork};

const NAMESPACES: libc::c_int = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;

/// Runs the keeper and gives its exit code; a code other than 0 is told in words on the channel.
pub(super) fn main() -> i32 {
    sys::block_signals();
    let (Ok(control), Ok(report)) = (sys::inherited_fd(fds::CONTROL), sys::inherited_fd(fds::REPORT)) else {
        return 125;
    };
    let control = UnixStream::from(control);
    match keep(&control, UnixStream::from(report)) {
        Ok(()) => 0,
        Err(failure) => {
            // When the runner is gone nobody is left to tell.
            let _ = channel::send(&control, &FromKeeper::Failed(failure), &[]);
            125
        }
    }
}

fn keep(control: &UnixStream, report_to: UnixStream) -> Result<(), Failure> {
    let received = channel::recv::<Start>(control).map_err(failed("read the container's description"))?;
    let Some((start, received)) = received else {
        return Ok(());
    };
    let mut ops = start.ops;
    let fork_at = ops
        .iter()
        .position(|op| *op == SetupOp::Fork)
        .unwrap_or(ops.len());
    let inside = ops.split_off(fork_at);
    let mut ctx = context((start.net, start.tasks, start.unified), received, report_to)
        .ok_or_else(|| failed("descriptors of the description")(io::ErrorKind::NotFound.into()))?;
    for op in ops {
        perform(&mut ctx, op)?;
    }
    let unified = ctx.unified.as_ref().map(AsFd::as_fd);
    let forked = sys::fork_into(NAMESPACES as u64, unified).map_err(failed("make the namespaces"))?;
    match forked {
        Fork::Child => {
            let failure = first_process(&mut ctx, inside.into_iter().skip(1).collect());
            report(ctx.report.as_ref(), failure);
            sys::exit_now(125)
        }
        Fork::Parent { pid, pidfd } => {
            drop(ctx);
            watch(control, pid, &pidfd)
        }
    }
}

fn context(
    (net, tasks, unified): (bool, usize, bool),
    received: Vec<OwnedFd>,
    report: UnixStream,
) -> Option<Context> {
    let mut received = received.into_iter();
    let userns = received.next()?;
    let net = if net { Some(received.next()?) } else { None };
    let tasks: Vec<OwnedFd> = received.by_ref().take(tasks).collect();
    let unified = if unified { Some(received.next()?) } else { None };
    Some(Context {
        slots: Default::default(),
        userns,
        net,
        tasks,
        unified,
        report: Some(report),
        user: None,
        terminal: None,
    })
}

/// Waits for the container's end, or for the runner's, which it answers by killing the container.
fn watch(control: &UnixStream, pid: i32, pidfd: &OwnedFd) -> Result<(), Failure> {
    let told = channel::send(control, &FromKeeper::Spawned, &[pidfd.as_fd()]);
    let mut runner_lives = told.is_ok();
    while runner_lives {
        let mut both = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(control, PollFlags::IN | PollFlags::RDHUP),
        ];
        rustix::io::retry_on_intr(|| poll(&mut both, None)).map_err(|e| failed("poll")(e.into()))?;
        if !both[0].revents().is_empty() {
            break;
        }
        runner_lives = both[1].revents().is_empty();
    }
    if !runner_lives {
        sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).map_err(failed("kill"))?;
    }
    let ended = sys::wait_for(pid, false).map_err(failed("wait"))?;
    match ended {
        Some(ended) => channel::send(control, &exited(ended), &[]).or(Ok(())),
        None => Ok(()),
    }
}

fn exited(ended: Ended) -> FromKeeper {
    FromKeeper::Exited {
        status: ended.status,
        user_us: ended.user_us,
        system_us: ended.system_us,
        blocks_in: ended.blocks_in,
        blocks_out: ended.blocks_out,
        max_rss_kib: ended.max_rss_kib,
    }
}
