//! The user namespace of an ordinary user's containers.
//!
//! Every command makes one for itself. Namespaces can be shared only below one and the same of them, so a command that starts a container
//! goes where a container of this store is already. Containers that were the first at the same moment are in different ones.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use box_runner::send_message;

use super::client::{Connection, connect_in};
use super::message::{Reply, Request};

/// How long a monitor may take to answer; one that was stopped never does.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many are asked that don't answer.
const MOST: usize = 4;

/// That of a container of the store with this root that somebody runs.
pub(crate) fn home(root: &Path) -> Option<OwnedFd> {
    use std::os::unix::fs::MetadataExt;
    // Of another user's store nothing is asked.
    let owner = root.metadata().ok()?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let entries = std::fs::read_dir(root.join("containers")).ok()?;
    // The eldest first, so that all agree.
    let mut dirs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.sort_by_key(|dir| {
        dir.join(super::serve::SOCKET)
            .metadata()
            .and_then(|m| m.modified())
            .ok()
    });
    let connected = dirs.iter().filter_map(|dir| connect_in(dir).ok().flatten());
    connected.take(MOST).find_map(|connection| ask(&connection))
}

/// Answers one that asks for it.
pub(super) fn answer(stream: &UnixStream) {
    if let Ok(own) = std::fs::File::open("/proc/self/ns/user") {
        // Whoever asked may have gone.
        let _ = send_message(stream, &Reply::Done, &[own.as_fd()]);
    }
}

fn ask(connection: &Connection) -> Option<OwnedFd> {
    connection.stream.set_read_timeout(Some(PATIENCE)).ok()?;
    match connection.ask(&Request::Home, &[]) {
        Ok(Some((Reply::Done, fds))) => fds.into_iter().next(),
        _ => None,
    }
}
