//! Networks: none, the host's, or one of its own with a way out, which the room `private` makes.
//!
//! A network namespace belongs to the user namespace it was made in; only then may the container
//! bring up its loopback and see a sysfs of its own.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::error::{Result, RunnerError};
use crate::sys::NamespaceHolder;

/// Which network the container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A network namespace with nothing but loopback.
    None,
    /// The caller's own network.
    Host,
    /// A network of its own with a way out: the namespace given at the start.
    Private,
    /// That of another container, whose first process is given at the start (see [`Joined`](crate::Joined)).
    Joined,
}

/// A new network namespace with nothing but loopback, belonging to this user namespace; to the runner's own without one.
pub(crate) fn isolated(user: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let holder = NamespaceHolder::new_in(user, libc::CLONE_NEWNET as u64)
        .map_err(|source| RunnerError::forbidden("make a network namespace", source))?;
    let path = format!("/proc/{}/ns/net", holder.pid());
    let file = File::open(&path).map_err(|e| RunnerError::os(format!("open {path}"), e))?;
    Ok(file.into())
}
