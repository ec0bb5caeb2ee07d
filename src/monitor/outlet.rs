//! Where a container's output goes: into its log, and to whoever is attached.
//!
//! Each client has a queue and a thread of its own. One that does not read stops the container when its queue is full, as with Docker, but
//! neither the log nor the end: when the container has ended, what is queued is kept for the client as long as the monitor lives.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::message::Frame;
use crate::containers::now;
use crate::logs::{LogStream, LogWriter};
use crate::values::LogOptions;

/// How much is queued for a client, in bytes.
const QUEUE: usize = 1 << 20;

/// The ways out.
pub(super) struct Outlet {
    ways: Mutex<Ways>,
}

#[derive(Default)]
struct Ways {
    log: Option<LogWriter>,
    clients: Vec<Arc<Client>>,
    /// Why a part of the output is not in the log.
    lost: Option<String>,
}

struct Client {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// No more comes; or nobody reads any more.
    is_closed: bool,
    is_gone: bool,
    /// The container has ended: nobody waits for room.
    is_unbounded: bool,
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
    pub(super) fn add(&self, line: UnixStream) {
        let client = Arc::new(Client {
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let writing = Arc::clone(&client);
        if super::serve::thread("client", move || writing.write_all(&line)).is_ok() {
            self.ways().clients.push(client);
        }
    }

    /// Passes on what came.
    pub(super) fn take(&self, stream: LogStream, bytes: &[u8]) {
        let mut ways = self.ways();
        let logged = ways.log.as_mut().map(|log| log.take(stream, bytes, now()));
        ways.note(logged);
        ways.clients.retain(|client| !client.queue().is_gone);
        let clients = ways.clients.clone();
        // Who attaches or asks meanwhile must not wait for the slowest.
        drop(ways);
        for client in clients {
            client.push(match stream {
                LogStream::Stdout => Frame::Stdout(bytes.to_vec()),
                LogStream::Stderr => Frame::Stderr(bytes.to_vec()),
            });
        }
    }

    /// The container has ended: what still comes is not much, and waits for nobody.
    pub(super) fn hurry(&self) {
        for client in &self.ways().clients {
            client.queue().is_unbounded = true;
            client.changed.notify_all();
        }
    }

    /// Writes what did not end with a line; to be called when no more comes from this start of the container.
    pub(super) fn end_lines(&self) {
        let mut ways = self.ways();
        let logged = ways.log.as_mut().map(|log| log.finish(now()));
        ways.note(logged);
        for client in &ways.clients {
            client.queue().is_unbounded = false;
        }
    }

    /// Tells every client that the container has ended.
    pub(super) fn close(&self, code: i32) {
        for client in &self.ways().clients {
            let mut queue = client.queue();
            queue.is_unbounded = true;
            queue.frames.push_back(Frame::Exit(code));
            queue.is_closed = true;
            client.changed.notify_all();
        }
    }

    /// Waits until every client has got what is theirs, or is gone, at most so long.
    pub(super) fn until_read(&self, longest: Duration) {
        let end = Instant::now() + longest;
        for client in self.ways().clients.clone() {
            let mut queue = client.queue();
            while !queue.is_gone {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let waited = client.changed.wait_timeout(queue, left);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Why a part of the output is not in the log, if so.
    pub(super) fn lost(&self) -> Option<String> {
        self.ways().lost.clone()
    }
}

impl Client {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: Frame) {
        let mut queue = self.queue();
        while queue.bytes > QUEUE && !queue.is_gone && !queue.is_unbounded {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        self.changed.notify_all();
    }

    /// Writes what is queued until no more comes, or nobody reads.
    fn write_all(&self, line: &UnixStream) {
        let mut queue = self.queue();
        loop {
            let Some(frame) = queue.frames.pop_front() else {
                if queue.is_closed {
                    break;
                }
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.bytes = queue.bytes.saturating_sub(frame.len());
            self.changed.notify_all();
            drop(queue);
            let written = frame.write(line);
            queue = self.queue();
            if written.is_err() {
                break;
            }
        }
        queue.is_gone = true;
        queue.frames.clear();
        drop(queue);
        // It may have gone.
        let _ = line.shutdown(std::net::Shutdown::Both);
        self.changed.notify_all();
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
