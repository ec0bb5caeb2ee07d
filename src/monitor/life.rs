//! What the threads of a monitor share: the container as it runs, its state, and that it has ended.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use box_runner::{ContainerSpec, Handle, Runtime, Terminal};
use box_store::Store;
use box_store::disk::Durability;

use super::outlet::Outlet;
use crate::containers::{self, Config, State, Status};
use crate::error::Failure;
use crate::executor::Ids;
use crate::logs::LogStream;

/// How long connections may take for their last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long clients may take to read what is theirs when the container has ended, as one that was stopped by its user.
const READING: Duration = Duration::from_secs(24 * 3600);

/// A container as long as somebody runs it.
pub(super) struct Life {
    pub(super) id: String,
    pub(super) config: Config,
    pub(super) outlet: Outlet,
    /// The user's command runs it, with its own streams.
    pub(super) is_foreground: bool,
    /// Until it is over: threads that still answer must not keep what is this process' own in the store.
    store: Mutex<Option<Store>>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    state: State,
    live: Option<Arc<Live>>,
    is_over: bool,
    /// The machine goes down, or whoever looks after it wants so: it ends for now, which is no wish of the user's.
    is_ending: bool,
    /// Somebody asked it to end, which is more than to kill it.
    is_asked: bool,
    connections: usize,
}

impl Inner {
    fn is_to_end(&self) -> bool {
        self.state.is_stopped || self.is_ending
    }
}

/// One start of it.
pub(super) struct Live {
    pub(super) handle: Handle,
    pub(super) runtime: Arc<Runtime>,
    pub(super) ids: Arc<Ids>,
    pub(super) spec: ContainerSpec,
    pub(super) stdin: Mutex<Option<File>>,
    pub(super) terminal: Option<Arc<Terminal>>,
}

impl Life {
    pub(super) fn new(
        store: Store,
        container: (&str, Config),
        outlet: Outlet,
        is_foreground: bool,
        state: State,
    ) -> Self {
        let (id, config) = container;
        Self {
            id: id.to_owned(),
            config,
            outlet,
            is_foreground,
            store: Mutex::new(Some(store)),
            inner: Mutex::new(Inner {
                state,
                live: None,
                is_over: false,
                is_ending: false,
                is_asked: false,
                connections: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it prints goes where it should.
    pub(super) fn pass_on(&self, stream: LogStream, bytes: &[u8]) {
        let mut own: Box<dyn Write> = match (self.is_foreground, stream) {
            (false, _) => return self.outlet.take(stream, bytes),
            (true, LogStream::Stdout) => Box::new(std::io::stdout()),
            (true, LogStream::Stderr) => Box::new(std::io::stderr()),
        };
        // Where nobody reads, the container goes on, as with Docker.
        let _ = own.write_all(bytes).and_then(|()| own.flush());
    }

    /// Notes that something happened to the container, as long as it is not over.
    pub(super) fn note(&self, action: &str, further: &[(&str, &str)]) {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*store {
            containers::note(store, action, &self.id, &self.config, further);
        }
    }

    /// The container as it runs now.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.inner().live.clone()
    }

    pub(super) fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// Changes the state, here and on the disk.
    pub(super) fn set(&self, durability: Durability, change: impl FnOnce(&mut State)) -> Result<(), Failure> {
        let mut inner = self.inner();
        change(&mut inner.state);
        self.write(&inner.state, durability)
    }

    fn write(&self, state: &State, durability: Durability) -> Result<(), Failure> {
        let bytes = containers::bytes(state)?;
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        match &*store {
            Some(store) => Ok(store.set_container_state(&self.id, &bytes, durability)?),
            None => Ok(()),
        }
    }

    /// It runs. Says no, and nothing is noted, if it was asked to end meanwhile.
    pub(super) fn begin(&self, live: Live) -> Result<bool, Failure> {
        let mut inner = self.inner();
        if inner.is_to_end() {
            return Ok(false);
        }
        let state = &mut inner.state;
        state.status = Status::Running;
        state.pid = live.handle.pid().unwrap_or(0);
        state.started = containers::now();
        state.error.clear();
        state.oom_killed = false;
        self.write(&inner.state, Durability::Later)?;
        inner.live = Some(Arc::new(live));
        self.note("start", &[]);
        Ok(true)
    }

    /// It does not run any more, for now, or for good: of one that goes then nothing is written. What can't be written, on a full disk, is
    /// written at the end, or not at all.
    pub(super) fn pause_between(&self, goes: bool, change: impl FnOnce(&mut State)) {
        let mut inner = self.inner();
        inner.live = None;
        inner.state.pid = 0;
        inner.state.finished = containers::now();
        change(&mut inner.state);
        if !goes {
            let _ = self.write(&inner.state, Durability::Later);
        }
        if inner.state.oom_killed {
            self.note("oom", &[]);
        }
        self.note("die", &[("exitCode", &inner.state.exit_code.to_string())]);
        drop(inner);
        self.changed.notify_all();
    }

    /// Waits until it is asked to end, at most so long; says whether it was.
    pub(super) fn is_stopped_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        self.wait_until(Some(end), Inner::is_to_end)
    }

    /// It is over: nothing of it is left but what is kept.
    pub(super) fn finish(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut State),
    ) -> Result<(), Failure> {
        let mut inner = self.inner();
        self.over(&mut inner, change);
        self.write(&inner.state, durability)
    }

    /// The same for one of which nothing is to be kept.
    pub(super) fn finish_unwritten(&self) {
        self.over(&mut self.inner(), |_| {});
    }

    fn over(&self, inner: &mut Inner, change: impl FnOnce(&mut State)) {
        if std::mem::take(&mut inner.is_asked) {
            self.note("stop", &[]);
        }
        inner.live = None;
        inner.state.owner = None;
        inner.state.pid = 0;
        inner.state.status = Status::Exited;
        change(&mut inner.state);
    }

    /// Lets everybody know that it is over, and waits for their last words.
    pub(super) fn close(&self) {
        drop(self.store.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.inner().is_over = true;
        self.changed.notify_all();
        self.outlet.close(self.state().exit_code);
        self.outlet.until_read(READING);
        let end = Instant::now() + LAST_WORDS;
        self.wait_until(Some(end), |inner| inner.connections == 0);
    }

    /// Whether it was asked to end.
    pub(super) fn is_to_end(&self) -> bool {
        self.inner().is_to_end()
    }

    /// It ends for now.
    pub(super) fn end_for_now(&self) {
        self.inner().is_ending = true;
        self.changed.notify_all();
    }

    /// Somebody asks it to end, or kills it: it is not started again. Where that can't be written, on a full disk, it counts all the same.
    pub(super) fn ask_to_stop(&self, is_asked: bool) {
        self.inner().is_asked |= is_asked;
        let _ = self.set(Durability::Later, |state| state.is_stopped = true);
        self.changed.notify_all();
    }

    /// Waits until this start of it has ended; says whether it has.
    pub(super) fn has_ended_within(&self, time: Duration) -> bool {
        self.wait_until(Instant::now().checked_add(time), |inner| inner.live.is_none())
    }

    /// Waits until it is over; its exit code, and why, if it did not end by itself.
    pub(super) fn wait(&self) -> (i32, String) {
        self.wait_until(None, |inner| inner.is_over);
        let state = self.state();
        (state.exit_code, state.error)
    }

    fn wait_until(&self, end: Option<Instant>, is_so: impl Fn(&Inner) -> bool) -> bool {
        let mut inner = self.inner();
        while !is_so(&inner) {
            let Some(end) = end else {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// A connection begins (1) or ends (-1).
    pub(super) fn count(&self, change: isize) {
        let mut inner = self.inner();
        inner.connections = inner.connections.saturating_add_signed(change);
        drop(inner);
        self.changed.notify_all();
    }
}
