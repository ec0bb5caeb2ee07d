//! A stream comes out of packs: the list first, then what it names, some requests ahead of whoever reads.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::backend::{Backend, Object};
use super::error::RemoteError;
use super::pack::{Chunk, Stored, read_list};

/// Bytes that are asked for at once, and what may lie between two chunks without being worth a request of its own.
const REQUEST: u64 = 512 << 10;
const GAP: u64 = 32 << 10;
/// Chunks of one request (the same one may come many times).
const MAX_CHUNKS: usize = 4096;
/// Requests at the same time, and how many may be ahead of the reader.
const THREADS: usize = 3;
const AHEAD: usize = 4;

/// Gives `act` the stream. What goes wrong with the stream is told rather than what `act` makes of that.
pub(super) fn with_stream<R>(
    backend: &dyn Backend,
    stored: &Stored,
    limit: u64,
    cancelled: &(dyn Fn() -> bool + Sync),
    act: impl FnOnce(&mut dyn Read) -> R,
) -> Result<R, RemoteError> {
    let chunks = chunks(backend, stored, limit)?;
    let requests = requests(&chunks);
    let window = Window::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(requests.len()) {
            scope.spawn(|| window.work(backend, &requests, cancelled));
        }
        let mut stream = Stream {
            chunks: &chunks,
            requests: &requests,
            window: &window,
            request: 0,
            next: 0,
            bytes: Vec::new(),
            plain: Vec::new(),
            at: 0,
            error: None,
        };
        let result = act(&mut stream);
        let error = stream.error.take();
        window.stop();
        match error {
            Some(error) => Err(error),
            None => Ok(result),
        }
    })
}

/// What a stream is made of.
pub(super) fn chunks(backend: &dyn Backend, stored: &Stored, limit: u64) -> Result<Vec<Chunk>, RemoteError> {
    let list = &stored.list;
    if !list.is_list() {
        return Err(RemoteError::damaged("a list", "it is too long"));
    }
    let bytes = read(backend, &list.pack, list.at.into(), list.packed.into())?;
    read_list(list, &bytes, limit)
}

fn read(backend: &dyn Backend, pack: &Object, at: u64, length: u64) -> Result<Vec<u8>, RemoteError> {
    let bytes = backend.read(pack, at, length)?;
    let bytes = bytes.ok_or(RemoteError::Missing { digest: pack.digest })?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(RemoteError::damaged(
            format!("pack {}", pack.digest),
            "it is cut off",
        )),
    }
}

/// A part of a pack, and the chunks (by number) that are in it.
struct Request {
    pack: Object,
    range: Range<u64>,
    chunks: Range<usize>,
}

fn requests(chunks: &[Chunk]) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        let (start, end) = (u64::from(chunk.at), u64::from(chunk.at) + u64::from(chunk.packed));
        if let Some(last) = requests.last_mut() {
            let is_within = last.range.start <= start && end <= last.range.end;
            let follows = last.range.end <= start && start - last.range.end <= GAP;
            let is_short = end.saturating_sub(last.range.start) <= REQUEST && last.chunks.len() < MAX_CHUNKS;
            if last.pack == chunk.pack && is_short && (is_within || follows) {
                last.range.end = last.range.end.max(end);
                last.chunks.end = number + 1;
                continue;
            }
        }
        requests.push(Request {
            pack: chunk.pack,
            range: start..end,
            chunks: number..number + 1,
        });
    }
    requests
}

/// What was asked for and not read yet.
#[derive(Default)]
struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next to be asked for, and the next to be read.
    asked: usize,
    read: usize,
    ready: BTreeMap<usize, Result<Vec<u8>, RemoteError>>,
    is_over: bool,
}

impl Window {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    fn work(&self, backend: &dyn Backend, requests: &[Request], cancelled: &(dyn Fn() -> bool + Sync)) {
        while let Some(number) = self.take(requests.len()) {
            let Request { pack, range, .. } = &requests[number];
            let bytes = match cancelled() {
                true => Err(RemoteError::Cancelled),
                false => read(backend, pack, range.start, range.end - range.start),
            };
            self.state().ready.insert(number, bytes);
            self.changed.notify_all();
        }
    }

    /// The next request, when there is room for its answer.
    fn take(&self, count: usize) -> Option<usize> {
        let mut state = self.state();
        while !state.is_over && state.asked < count && state.asked >= state.read + AHEAD {
            state = self.wait(state);
        }
        (!state.is_over && state.asked < count).then(|| {
            state.asked += 1;
            state.asked - 1
        })
    }

    fn answer(&self, number: usize) -> Result<Vec<u8>, RemoteError> {
        let mut state = self.state();
        state.read = number;
        self.changed.notify_all();
        loop {
            match state.ready.remove(&number) {
                Some(bytes) => return bytes,
                None => state = self.wait(state),
            }
        }
    }
}

struct Stream<'a> {
    chunks: &'a [Chunk],
    requests: &'a [Request],
    window: &'a Window,
    /// The next request, and the next chunk.
    request: usize,
    next: usize,
    /// Of the last request.
    bytes: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    error: Option<RemoteError>,
}

impl Stream<'_> {
    /// Unpacks the next chunk; says whether there was one.
    fn advance(&mut self) -> Result<bool, RemoteError> {
        let Some(chunk) = self.chunks.get(self.next) else {
            return Ok(false);
        };
        let ended = |request: &Request| !request.chunks.contains(&self.next);
        if self.request == 0 || ended(&self.requests[self.request - 1]) {
            self.bytes = self.window.answer(self.request)?;
            self.request += 1;
        }
        let start = u64::from(chunk.at) - self.requests[self.request - 1].range.start;
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let is_same = self.next > 0 && self.chunks[self.next - 1].digest == chunk.digest;
        if !is_same {
            self.plain = chunk.open(&self.bytes[start..start + chunk.packed as usize])?;
        }
        self.at = 0;
        self.next += 1;
        Ok(true)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    let text = error.to_string();
                    self.error = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let rest = &self.plain[self.at..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
