//! Where a container's output goes: into its log, and to whoever is attached.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::Frame;
use crate::containers::now;
use crate::logs::{LogStream, LogWriter};
use crate::values::LogOptions;

/// A client that takes nothing for so long is let go of, or it would stop the container.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ways out.
#[derive(Default)]
pub(super) struct Outlet {
    ways: Mutex<Ways>,
}

#[derive(Default)]
struct Ways {
    log: Option<LogWriter>,
    clients: Vec<UnixStream>,
    /// Why a part of the output is not in the log.
    lost: Option<String>,
}

impl Outlet {
    /// With a log, unless none is wanted.
    pub(super) fn new(path: &Path, options: LogOptions) -> std::io::Result<Self> {
        let log = match options.none {
            true => None,
            false => Some(LogWriter::open(path, options)?),
        };
        Ok(Self {
            ways: Mutex::new(Ways {
                log,
                ..Ways::default()
            }),
        })
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this client gets everything.
    pub(super) fn add(&self, client: UnixStream) {
        let _ = client.set_write_timeout(Some(PATIENCE));
        self.ways().clients.push(client);
    }

    /// Passes on what came.
    pub(super) fn take(&self, stream: LogStream, bytes: &[u8]) {
        let mut ways = self.ways();
        let logged = ways.log.as_mut().map(|log| log.take(stream, bytes, now()));
        ways.note(logged);
        let frame = match stream {
            LogStream::Stdout => Frame::Stdout(bytes.to_vec()),
            LogStream::Stderr => Frame::Stderr(bytes.to_vec()),
        };
        ways.clients.retain(|client| frame.write(client).is_ok());
    }

    /// Writes what did not end with a line; to be called when no more comes from this start of the container.
    pub(super) fn end_lines(&self) {
        let mut ways = self.ways();
        let logged = ways.log.as_mut().map(|log| log.finish(now()));
        ways.note(logged);
    }

    /// Tells every client that the container has ended, and lets go of them.
    pub(super) fn close(&self, code: i32) {
        for client in self.ways().clients.drain(..) {
            // It may have gone.
            let _ = Frame::Exit(code).write(&client);
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Why a part of the output is not in the log, if so.
    pub(super) fn lost(&self) -> Option<String> {
        self.ways().lost.clone()
    }
}

impl Ways {
    /// A log that can't be written must not stop the container; the loss is told with its state.
    fn note(&mut self, logged: Option<std::io::Result<()>>) {
        if let Some(Err(error)) = logged {
            self.lost
                .get_or_insert_with(|| format!("a part of its output could not be kept: {error}"));
        }
    }
}
