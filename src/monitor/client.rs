//! Asking whoever runs a container.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use box_runner::{receive_message, send_message};

use super::message::{Reply, Request};
use super::serve::SOCKET;
use crate::app::App;
use crate::containers::Container;
use crate::error::{EXIT_INPUT, Failure};

/// A line to whoever runs a container.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
}

/// Connects to whoever runs it. None if nobody does.
pub(crate) fn connect(app: &App, container: &Container) -> Result<Option<Connection>, Failure> {
    if !container.state.is_active() {
        return Ok(None);
    }
    connect_in(&app.store.container_dir(&container.id)?)
}

/// The same for the container of this directory, whatever its state says.
pub(crate) fn connect_in(dir: &Path) -> Result<Option<Connection>, Failure> {
    let connected = std::fs::File::open(dir).and_then(|dir| {
        // By way of an open directory: the name of a socket may not be as long as a path.
        UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
    });
    match connected {
        Ok(stream) => Ok(Some(Connection { stream })),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(Failure::own(format!(
            "cannot reach whoever runs the container of {}: {e}",
            dir.display()
        ))),
    }
}

impl Connection {
    /// Asks, and takes the answer with the descriptors that come along. None if it ended meanwhile.
    pub(crate) fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Option<(Reply, Vec<OwnedFd>)>, Failure> {
        self.tell(request, fds)?;
        self.answer()
    }

    /// Says something that needs no answer, or whose answer comes later.
    pub(crate) fn tell(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        match send_message(&self.stream, request, fds) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(lost(&e)),
            _ => Ok(()),
        }
    }

    /// The next answer. None if whoever runs the container is gone.
    pub(crate) fn answer(&self) -> Result<Option<(Reply, Vec<OwnedFd>)>, Failure> {
        match receive_message::<Reply>(&self.stream).map_err(|e| lost(&e))? {
            Some((Reply::Failed { message, hint, code }, _)) => Err(failure_of(message, hint, code)),
            other => Ok(other),
        }
    }
}

/// A failure as it was told.
pub(crate) fn failure_of(message: String, hint: Option<String>, code: u8) -> Failure {
    let failure = Failure::new(if code == 0 { EXIT_INPUT } else { code }, message);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::own(format!("the line to whoever runs the container broke: {error}"))
}
