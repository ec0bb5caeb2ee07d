//! Starting one container.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::handle::Place;
use super::running::{Keeper, Running};
use super::stdio::{Ends, Stdio};
use super::{Joined, Runtime};
use crate::cgroup::Cgroups;
use crate::channel::{self, Failure, FailureKind, FromInit, FromKeeper, Raw};
use crate::error::{Result, RunnerError};
use crate::init::{HIDDEN_ARGUMENT, Inside, Outside};
use crate::net::Network;
use crate::setup::{Surroundings, joins, plan_inside, plan_outside};
use crate::spec::{ContainerSpec, Sharing};
use crate::sys::{self, ExecStrings};
use crate::userns::UserNamespace;

pub(super) fn spawn(
    runtime: &Runtime,
    spec: &ContainerSpec,
    user: &UserNamespace,
    (net, joined): (Option<BorrowedFd<'_>>, &Joined<'_>),
    stdio: Stdio,
) -> Result<Running> {
    if user.is_runners() != (spec.namespaces.user == Sharing::Host) {
        return Err(RunnerError::InvalidSpec {
            what: "user namespace (is not the one that the spec asks for)",
            value: format!("{:?}", spec.namespaces.user),
        });
    }
    let mut entrances = vec![user.fd()];
    for kind in joins(spec) {
        entrances.push(joined.of(kind)?);
    }
    let net = match spec.network {
        Network::Host | Network::Joined => None,
        Network::None => Some(user.isolated_network()?),
        Network::Private => Some(net.ok_or(RunnerError::NoPrivateNetwork)?),
    };
    // Before its init is started, which is where this process is.
    let hierarchies = runtime.hierarchies(&spec.limits);
    let keeper_error = |e| RunnerError::os("start the container's init", e);
    let stdio = if spec.terminal { Stdio::null() } else { stdio };
    let (ends, mut keeper) = match runtime.take_ahead(&stdio) {
        Some(started) => started,
        None => start_keeper(runtime, stdio).map_err(keeper_error)?,
    };
    let outside = Outside {
        ops: plan_outside(spec, user.ids()),
    };
    tell(&keeper.control, &outside, &entrances)?;
    // The new program loads and prepares the root meanwhile.
    let name = format!("box-{}-{}", runtime.config.owner, spec.id);
    let mut groups = Cgroups::create(&hierarchies, &name, &spec.limits, spec.limits_policy)?;
    groups.limit_further(&hierarchies, &name, &spec.limits, spec.limits_policy)?;
    let limited = groups.limit_devices(&hierarchies, &name, spec);
    let place = Place {
        hierarchies,
        name,
        shares_pids: spec.namespaces.shares_pids(),
    };
    let mut running = Running::new(groups, place);
    limited?;
    describe_inside(spec, (user, net), &keeper.control, &running)?;
    let [stdin, stdout, stderr] = ends;
    running.stdin = stdin.map(File::from);
    running.stdout = stdout.map(File::from);
    running.stderr = stderr.map(File::from);
    await_exec(&mut keeper, &mut running)?;
    running.keeper = Some(keeper);
    running.started = Instant::now();
    Ok(running)
}

/// Our ends of its streams, and the keeper.
pub(super) type Started = ([Option<OwnedFd>; 3], Keeper);

/// Starts the program again; it loads, and then waits to be told of a container. It ends by itself when
/// nobody has told it any and our end of its control socket is closed, however that comes.
pub(super) fn start_keeper(runtime: &Runtime, stdio: Stdio) -> std::io::Result<Started> {
    let (mut stdin, mut stdout, mut stderr) = (
        Ends::open(stdio.stdin, 0)?,
        Ends::open(stdio.stdout, 1)?,
        Ends::open(stdio.stderr, 2)?,
    );
    let (control, their_control) = UnixStream::pair()?;
    let (report, their_report) = UnixStream::pair()?;
    let fds = [
        stdin.raw(),
        stdout.raw(),
        stderr.raw(),
        their_control.as_raw_fd(),
        their_report.as_raw_fd(),
    ];
    let (name, argument) = (c"box", CString::new(HIDDEN_ARGUMENT)?);
    let args = [name, argument.as_c_str()];
    let (pid, _pidfd) = sys::spawn(&sys::Program {
        file: runtime.program.as_fd(),
        args: &ExecStrings::new(&args),
        env: &ExecStrings::new(&[]),
        fds: &fds,
        namespaces: 0,
    })?;
    let ours = [stdin.ours.take(), stdout.ours.take(), stderr.ours.take()];
    Ok((
        ours,
        Keeper {
            pid,
            control,
            report,
            first: None,
            reaped: false,
        },
    ))
}

/// Sends a part of the description. That the keeper has gone already is no error here: it has said
/// why, and that is read next.
pub(crate) fn tell<T: serde::Serialize>(
    control: &UnixStream,
    part: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<()> {
    match channel::send(control, part, fds) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        other => other.map_err(|e| RunnerError::os("describe the container to its init", e)),
    }
}

fn describe_inside(
    spec: &ContainerSpec,
    (user, net): (&UserNamespace, Option<BorrowedFd<'_>>),
    control: &UnixStream,
    running: &Running,
) -> Result<()> {
    let groups = &running.groups;
    let around = Surroundings {
        ids: user.ids().clone(),
        cgroups: running.place.hierarchies.view(groups),
    };
    let opening = |e| RunnerError::os("open the container's cgroups", e);
    let tasks = groups.tasks().map_err(opening)?;
    let unified = groups.unified().map_err(opening)?;
    let milliseconds = |t: Duration| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1);
    let inside = Inside {
        ops: plan_inside(spec, &around),
        net: net.is_some(),
        tasks: tasks.len(),
        unified: unified.is_some(),
        time_limit: spec.limits.time.map(milliseconds),
        namespaces: spec.namespaces.new_at_start(),
        crowd: (spec.namespaces.shares_pids()).then(|| groups.dirs().map(Raw::from).collect()),
    };
    let mut fds: Vec<BorrowedFd<'_>> = net.into_iter().collect();
    fds.extend(tasks.iter().map(AsFd::as_fd));
    fds.extend(unified.as_ref().map(AsFd::as_fd));
    tell(control, &inside, &fds)
}

/// Waits until the command runs, or until somebody says why it can't.
pub(super) fn await_exec(keeper: &mut Keeper, running: &mut Running) -> Result<()> {
    let garbled = |e: std::io::Error| RunnerError::Protocol { what: e.to_string() };
    match channel::recv::<FromKeeper>(&keeper.control).map_err(garbled)? {
        Some((FromKeeper::Spawned, fds)) => keeper.first = fds.into_iter().next(),
        Some((FromKeeper::Failed(failure), _)) => return Err(error(failure)),
        Some((FromKeeper::Exited { .. }, _)) | None => return Err(keeper.died()),
    }
    loop {
        match channel::recv::<FromInit>(&keeper.report).map_err(garbled)? {
            Some((FromInit::Failed(failure), _)) => return Err(error(failure)),
            Some((FromInit::Terminal, fds)) => {
                running.terminal = fds.into_iter().next().map(crate::pty::Terminal::new);
            }
            // Only bundles have more stages, and they are not started here.
            Some((FromInit::Prepared | FromInit::Ready, _)) => {}
            None => return Ok(()),
        }
    }
}

/// What the other side has told, as an error.
pub(crate) fn error(failure: Failure) -> RunnerError {
    let source = match failure.errno {
        Some(number) => std::io::Error::from_raw_os_error(number),
        None => std::io::ErrorKind::Other.into(),
    };
    let what = failure.what;
    match failure.kind {
        FailureKind::Setup => RunnerError::Setup { step: what, source },
        FailureKind::Forbidden => RunnerError::forbidden(what, source),
        FailureKind::BindSource => RunnerError::BindSource {
            path: what.into(),
            source,
        },
        FailureKind::BindNotMappable => RunnerError::BindNotMappable {
            path: what.into(),
            source,
        },
        FailureKind::MountPart => {
            let (part, of) = what.split_once('\n').unwrap_or((&what, ""));
            RunnerError::MountPart {
                part: part.into(),
                of: of.into(),
                source,
            }
        }
        FailureKind::NotADevice => RunnerError::NotADevice { path: what.into() },
        FailureKind::RootFsRefused => RunnerError::RootFsRefused { what },
        FailureKind::CommandNotFound => RunnerError::CommandNotFound { command: what },
        FailureKind::CommandNotExecutable => RunnerError::CommandNotExecutable {
            command: what,
            source,
        },
        FailureKind::Hook => RunnerError::Hook { reason: what },
        FailureKind::NoSuchUser => {
            let (user, reason) = what.split_once('\n').unwrap_or((&what, ""));
            RunnerError::NoSuchUser {
                user: user.to_owned(),
                reason: reason.to_owned(),
            }
        }
    }
}
