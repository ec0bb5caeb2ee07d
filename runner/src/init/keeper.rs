//! The keeper: outside the container, single-threaded, holding nothing but two sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::crowd::{self, Crowd};
use super::{Context, Inside, Outside, failed, fds, first_process, perform, report};
use crate::channel::{self, Failure, FromKeeper, Raw};
use crate::setup::SetupOp;
use crate::sys::{self, Ended, Fork};

/// Containers that end sooner are not worth making the keeper smaller for.
const SOON: Duration = Duration::from_secs(1);

/// Runs the keeper and gives its exit code; a code other than 0 is told in words on the channel.
pub(super) fn main() -> i32 {
    sys::block_signals();
    // What is made for the container has the modes asked for, whatever the caller's mask.
    rustix::process::umask(Mode::empty());
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
    // Not later: it is the container's when that is entered.
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("open /dev/null")(e.into()))?;
    let told = failed("read the container's description");
    let Some((outside, fds)) = channel::recv::<Outside>(control).map_err(told)? else {
        return Ok(());
    };
    let mut ctx = context(fds, report_to).ok_or_else(missing)?;
    outside.ops.into_iter().try_for_each(|op| perform(&mut ctx, op))?;
    let told = failed("read the container's description");
    let Some((inside, fds)) = channel::recv::<Inside>(control).map_err(told)? else {
        return Ok(());
    };
    let container = Container {
        namespaces: inside.namespaces as u64,
        crowd: inside.crowd.clone(),
        time_limit: inside.time_limit.map(Duration::from_millis),
        null,
    };
    let mut before = inside.ops.clone();
    take_descriptors(&mut ctx, &inside, fds).ok_or_else(missing)?;
    let fork_at = before.iter().position(|op| *op == SetupOp::Fork);
    let inside = before.split_off(fork_at.unwrap_or(before.len()));
    before.into_iter().try_for_each(|op| perform(&mut ctx, op))?;
    fork(control, ctx, inside.into_iter().skip(1).collect(), container)
}

/// What the keeper needs to make the first process and to stay with it.
struct Container {
    namespaces: u64,
    crowd: Option<Vec<Raw>>,
    time_limit: Option<Duration>,
    null: OwnedFd,
}

fn missing() -> Failure {
    failed("descriptors of the description")(io::ErrorKind::NotFound.into())
}

/// Makes the container's first process, and stays with it.
fn fork(
    control: &UnixStream,
    mut ctx: Context,
    inside: Vec<SetupOp>,
    container: Container,
) -> Result<(), Failure> {
    let layers = std::mem::take(&mut ctx.layers);
    let unified = ctx.unified.as_ref().map(AsFd::as_fd);
    let line = crowd::line(container.crowd.as_ref()).map_err(failed("make a socket"))?;
    let forked = sys::fork_into(container.namespaces, unified).map_err(failed("make the namespaces"))?;
    match forked {
        Fork::Child => {
            sys::die_with_parent().map_err(failed("die with the keeper"))?;
            drop(layers);
            let told = crowd::tell(line).map_err(failed("tell of its mount namespace"));
            let failure = match told {
                Ok(()) => first_process(&mut ctx, inside),
                Err(failure) => failure,
            };
            report(ctx.report.as_ref(), failure);
            sys::exit_now(125)
        }
        Fork::Parent { pid, pidfd } => {
            drop(ctx);
            let crowd = Crowd::of(container.crowd, line).map_err(failed("find the container's processes"));
            let watched = crowd.and_then(|crowd| {
                let_go_of_streams(&container.null).map_err(failed("let go of the streams"))?;
                watch(control, (pid, &pidfd), crowd.as_ref(), container.time_limit)
            });
            if watched.is_err() {
                // Nobody else can end it now; it fails only when the container is gone already.
                let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
                let _ = sys::wait_for(pid, false);
            }
            watched
        }
    }
}

/// The container's pipes end when the container closes them, not when the keeper ends.
fn let_go_of_streams(null: &OwnedFd) -> io::Result<()> {
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(rustix::stdio::dup2_stderr(null)?)
}

fn context(received: Vec<OwnedFd>, report: UnixStream) -> Option<Context> {
    let mut received = received.into_iter();
    let entrance = received.next()?;
    let bundle = super::detached::Bundle {
        joins: received.collect(),
        ..Default::default()
    };
    Some(Context {
        slots: Default::default(),
        locked: Vec::new(),
        inside: Default::default(),
        layers: Vec::new(),
        entrance,
        net: None,
        tasks: Vec::new(),
        unified: None,
        report: Some(report),
        extra_groups: Vec::new(),
        user: None,
        terminal: None,
        bundle,
        devices: Vec::new(),
    })
}

fn take_descriptors(ctx: &mut Context, inside: &Inside, received: Vec<OwnedFd>) -> Option<()> {
    let mut received = received.into_iter();
    ctx.net = if inside.net { Some(received.next()?) } else { None };
    ctx.tasks = received.by_ref().take(inside.tasks).collect();
    ctx.unified = if inside.unified {
        Some(received.next()?)
    } else {
        None
    };
    (ctx.tasks.len() == inside.tasks).then_some(())
}

/// Waits for the container's end, for its time to be up, or for the runner's end; the last two it
/// answers by killing the container.
fn watch(
    control: &UnixStream,
    (pid, pidfd): (i32, &OwnedFd),
    crowd: Option<&Crowd>,
    limit: Option<Duration>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let told = channel::send(control, &FromKeeper::Spawned, &[pidfd.as_fd()]);
    let mut event = if told.is_ok() {
        Event::Nothing
    } else {
        Event::RunnerGone
    };
    let mut is_settled = false;
    while event == Event::Nothing {
        let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
        let soon = SOON.min(left.unwrap_or(SOON));
        let wait = if is_settled { left } else { Some(soon) };
        event = next_event(control, pidfd, wait).map_err(failed("poll"))?;
        if event == Event::TimeUp && !is_settled && left != Some(soon) {
            super::settle();
            (is_settled, event) = (true, Event::Nothing);
        }
    }
    if event != Event::ContainerGone {
        sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).map_err(failed("kill"))?;
    }
    let ended = sys::wait_for(pid, false).map_err(failed("wait"))?;
    if let Some(crowd) = crowd {
        crowd.end();
    }
    match ended {
        Some(ended) => channel::send(control, &exited(ended, event == Event::TimeUp), &[]).or(Ok(())),
        None => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Nothing,
    ContainerGone,
    RunnerGone,
    TimeUp,
}

fn next_event(control: &UnixStream, pidfd: &OwnedFd, left: Option<Duration>) -> io::Result<Event> {
    let timeout = left.map(|left| Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    });
    let mut both = [
        PollFd::new(pidfd, PollFlags::IN),
        PollFd::new(control, PollFlags::IN | PollFlags::RDHUP),
    ];
    let ready = rustix::io::retry_on_intr(|| poll(&mut both, timeout.as_ref()))?;
    Ok(match both.map(|fd| !fd.revents().is_empty()) {
        _ if ready == 0 => Event::TimeUp,
        [true, _] => Event::ContainerGone,
        [_, true] => Event::RunnerGone,
        _ => Event::Nothing,
    })
}

fn exited(ended: Ended, timed_out: bool) -> FromKeeper {
    FromKeeper::Exited {
        timed_out,
        status: ended.status,
        user_us: ended.user_us,
        system_us: ended.system_us,
        blocks_in: ended.blocks_in,
        blocks_out: ended.blocks_out,
        max_rss_kib: ended.max_rss_kib,
    }
}
