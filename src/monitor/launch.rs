//! The process in the background: starting it, and what it does first.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use box_runner::{IdExtent, IdMap, Rootless, receive_message, send_message};

use super::message::{Reply, Start};
use super::supervise::{Io, Supervisor};
use crate::app::App;
use crate::containers;
use crate::error::{EXIT_BOX, Failure};

/// The first argument that makes this program a monitor.
pub(crate) const HIDDEN_ARGUMENT: &str = "__box_monitor";

/// What a monitor says with its failure when there was another one.
pub(crate) const EXIT_RUNS: u8 = 124;

/// Starts a monitor for a container. When this returns the container's command runs. With `attach` the connection goes on with frames.
pub(crate) fn launch(app: &App, id: &str, attach: bool) -> Result<UnixStream, Failure> {
    let failed = |e: std::io::Error| Failure::own(format!("cannot start the container's monitor: {e}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut monitor = Command::new("/proc/self/exe");
    monitor
        .arg(HIDDEN_ARGUMENT)
        // For those who look at the machine's processes; what it does is said over the line.
        .arg(app.store.layout().root())
        .arg(containers::short(id))
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // It leaves this session at once and is never waited for: when this command ends it is the machine's.
    let _child = monitor.spawn().map_err(failed)?;
    drop(monitor);
    let ids = |rootless: &Rootless| {
        let extents = rootless.ids.extents.iter();
        (rootless.user, extents.map(|e| (e.container, e.len)).collect())
    };
    let start = Start {
        root: app.store.layout().root().to_owned(),
        cgroup_parent: app.cgroup_parent().map(ToOwned::to_owned),
        rootless: app.rootless.as_ref().map(ids),
        id: id.to_owned(),
        owner: app.store.owner()?.as_str().to_owned(),
        attach,
    };
    send_message(&ours, &start, &[]).map_err(failed)?;
    match receive_message::<Reply>(&ours).map_err(failed)? {
        Some((Reply::Started, _)) => Ok(ours),
        Some((Reply::Failed { message, hint, code }, _)) => Err(super::failure_of(message, hint, code)),
        _ => Err(Failure::own(
            "the container's monitor ended before the container ran",
        )),
    }
}

/// The monitor's whole life; its exit code.
pub(crate) fn main() -> u8 {
    // Nothing of the user's terminal reaches it. It fails only for one that leads a session already.
    let _ = nix::unistd::setsid();
    // Before there is any other thread; they are taken when the container runs.
    if crate::signals::hold().is_err() {
        return EXIT_BOX;
    }
    let Ok(line) = std::io::stdin().as_fd().try_clone_to_owned() else {
        return EXIT_BOX;
    };
    let line = UnixStream::from(line);
    let null = std::fs::File::open("/dev/null");
    if null.and_then(|null| Ok(nix::unistd::dup2_stdin(&null)?)).is_err() {
        return EXIT_BOX;
    }
    match keep(&line) {
        Ok(()) => 0,
        Err(failure) => {
            let reply = Reply::Failed {
                message: failure.message().to_owned(),
                hint: failure.cure().map(ToOwned::to_owned),
                code: failure.code,
            };
            // When it was started well, nobody listens any more; the state tells.
            let _ = send_message(&line, &reply, &[]);
            failure.code
        }
    }
}

fn keep(line: &UnixStream) -> Result<(), Failure> {
    let told = receive_message::<Start>(line).map_err(|e| Failure::own(e.to_string()))?;
    let Some((start, _)) = told else { return Ok(()) };
    let extent = |&(first, len): &(u32, u32)| IdExtent {
        container: first,
        host: first,
        len,
    };
    let rootless = start.rootless.as_ref().map(|(user, ids)| Rootless {
        ids: IdMap::of(ids.iter().map(extent).collect()),
        user: *user,
    });
    let app = App::open_in(&start.root, rootless, start.cgroup_parent)?;
    let lock = containers::lock(&app, &start.id)?;
    let container = containers::find(&app, &start.id)?;
    let is_anothers = container.state.is_taken() && container.state.owner.as_ref() != Some(&start.owner);
    if container.state.is_active() || is_anothers {
        return Err(Failure::new(
            EXIT_RUNS,
            "the container runs already, or is about to",
        ));
    }
    let attached = match start.attach {
        true => Some(line.try_clone().map_err(|e| Failure::own(e.to_string()))?),
        false => None,
    };
    let supervisor = Supervisor::new(&app, &container, Io::Kept(attached))?;
    let started = || {
        drop(lock);
        // Whoever started it may be gone; it runs all the same.
        let _ = send_message(line, &Reply::Started, &[]);
        if !start.attach {
            let _ = line.shutdown(std::net::Shutdown::Both);
        }
        Ok(())
    };
    supervisor.run(started).map(drop)
}
