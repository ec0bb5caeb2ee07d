//! Starting a container, waiting for its end, starting it again where that is wanted, and leaving nothing behind.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use box_runner::{Mount, Outcome, PrivateNetwork, RunnerError, Running, Runtime};
use box_store::OverlayDirs;
use box_store::disk::Durability;

use super::joins::Donors;
use super::life::{Life, Live};
use super::outlet::Outlet;
use super::streams::{Attempt, stdio};
use super::{health, serve};
use crate::app::App;
use crate::containers::{self, Container, NetworkState, Status};
use crate::error::{EXIT_BOX, Failure, runner_failure};
use crate::executor::Ids;
use crate::logs;
use crate::mounts::{self, MountGuard};
use crate::terminal::{self, Session};
use crate::values::{LogOptions, Restart};
use crate::{signals, step_mounts, ui};

/// How long to wait before it is started again: the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A start that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

const NO_SERVERS: &str = "note: the host's name servers are on its loopback, where the container can't reach them; \
                          give one with --dns, or use --network host";

/// Where output goes and input comes from.
pub(crate) enum Io {
    /// The streams of this process, which is the user's command; nothing is kept.
    Own,
    /// The log and those who attach; this one from the start.
    Kept(Option<UnixStream>),
}

/// A container that is about to run, and what it holds on to as long as it does.
pub(crate) struct Supervisor<'a> {
    app: &'a App,
    life: Arc<Life>,
    io: Io,
    runtime: Arc<Runtime>,
    ids: Arc<Ids>,
    /// Those whose namespaces it joins, as they were at the last start.
    donors: Option<Donors>,
    pages: BTreeSet<u32>,
    dirs: OverlayDirs,
    /// And what they need.
    mounts: (Vec<Mount>, MountGuard),
    network: Option<PrivateNetwork>,
    is_transient: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) oom_killed: bool,
    /// Bytes, where a cgroup accounts it.
    pub(crate) peak_memory: Option<u64>,
}

impl<'a> Supervisor<'a> {
    /// Takes what the container needs. Nobody else may change or start it meanwhile.
    pub(crate) fn new(app: &'a App, container: &Container, io: Io) -> Result<Self, Failure> {
        let runtime = Arc::new(app.runtime(matches!(io, Io::Kept(_)))?);
        if let Io::Own = io {
            // The container's init loads while the rest is made ready.
            runtime.start_ahead(stdio(&io, &container.config));
        }
        let layers = container.layers(app)?;
        let plan = &container.config.mounts;
        let pages: BTreeSet<u32> =
            containers::id_pages(layers.iter().chain(&mounts::image_layers(app, plan)?));
        let donors = Donors::find(app, &container.config)?;
        let ids = match &donors {
            Some(donors) => donors.ids(&pages)?,
            None => containers::ids(app, &runtime, &container.config.namespaces.user, &pages)?,
        };
        let dirs = containers::dirs(app, container, &layers)?;
        let opening = mounts::Opening {
            layers: &layers,
            is_fleeting: container.is_transient,
        };
        let mounts = mounts::open(app, plan, &opening)?;
        let network = containers::network(app, &runtime, &ids.namespace, &container.config)?;
        if let (Io::Own, (_, true)) = (&io, containers::etc_files(&container.config, network.as_ref())) {
            ui::note(NO_SERVERS);
        }
        let options = match io {
            Io::Own => LogOptions {
                none: true,
                ..container.config.log
            },
            Io::Kept(_) => container.config.log,
        };
        let log = app.store.container_dir(&container.id)?.join(logs::FILE);
        let outlet = Outlet::new(&log, options)
            .map_err(|e| Failure::own(format!("cannot write the log {}: {e}", log.display())))?;
        let mut state = container.state.clone();
        state.owner = Some(app.store.owner()?.as_str().to_owned());
        state.is_stopped = false;
        state.restarts = 0;
        state.health = None;
        state.network = network.as_ref().map(NetworkState::of);
        let is_foreground = matches!(io, Io::Own);
        let described = (container.id.as_str(), container.config.clone());
        let life = Life::new(app.store.clone(), described, outlet, is_foreground, state);
        if let Io::Kept(_) = &io {
            // From now on it is this process', not the one's that made it.
            life.set(Durability::Later, |_| {})?;
        }
        Ok(Self {
            app,
            life: Arc::new(life),
            io,
            runtime,
            ids: Arc::new(ids),
            donors,
            pages,
            dirs,
            mounts,
            network,
            is_transient: container.is_transient,
        })
    }

    /// Runs it until it is over. `started` is called when its command runs.
    pub(crate) fn run(mut self, started: impl FnOnce() -> Result<(), Failure>) -> Result<Ended, Failure> {
        serve::serve(&self.life, &self.app.store.container_dir(&self.life.id)?)?;
        let first = self.start(0).map_err(|error| {
            let failure = runner_failure(&error);
            self.failed_to_start(&failure);
            failure
        })?;
        let Some((running, attempt)) = first else {
            return self.end();
        };
        if let Err(failure) = self.forward_signals(&running, &attempt).and_then(|()| started()) {
            drop((running, attempt));
            self.failed_to_start(&failure);
            return Err(failure);
        }
        // A sweep may go on meanwhile; without room for the locks it has to wait.
        let rest = self.app.store.rest(&self.mounts.1.held(&self.dirs)).ok();
        let mut next = Some((running, attempt));
        let mut peak_memory = None;
        let mut pause = FIRST_PAUSE;
        for number in 1.. {
            let Some((running, attempt)) = next.take() else {
                break;
            };
            let begun = Instant::now();
            let outcome = self.wait(running, attempt)?;
            peak_memory = outcome.usage.peak_memory;
            if begun.elapsed() > GOOD {
                pause = FIRST_PAUSE;
            }
            if !self.is_again(&outcome, number) || self.life.is_stopped_within(pause) {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            next = self.start(number).unwrap_or_else(|error| {
                let message = runner_failure(&error).message().to_owned();
                // Without room on the disk the old state stays; the end is told all the same.
                let _ = self.life.set(Durability::Later, |state| state.error = message);
                None
            });
        }
        drop(rest);
        Ok(Ended {
            peak_memory,
            ..self.end()?
        })
    }

    /// Where this is the user's command, its signals are the container's. Otherwise they are for the monitor: it ends its container in order.
    fn forward_signals(&self, running: &Running, attempt: &Attempt) -> Result<(), Failure> {
        match self.io {
            Io::Own => {
                let terminal = attempt.session.as_ref().map(Session::terminal);
                terminal::forward_signals(running.handle(), terminal)
            }
            Io::Kept(_) => {
                let life = Arc::clone(&self.life);
                let heed = move |signal| serve::heed(&life, signal);
                signals::take(heed).map_err(|e| Failure::of(EXIT_BOX, &e))
            }
        }
    }

    /// Those that it joins may be others than before, or the same ones started again.
    fn join_again(&mut self) -> Result<(), Failure> {
        let Some(donors) = Donors::find(self.app, &self.life.config)? else {
            return Ok(());
        };
        self.ids = Arc::new(donors.ids(&self.pages)?);
        self.donors = Some(donors);
        if self.network.take().is_some() {
            // It belongs to the user namespace that it had before.
            self.network =
                containers::network(self.app, &self.runtime, &self.ids.namespace, &self.life.config)?;
            let state = self.network.as_ref().map(NetworkState::of);
            self.life.set(Durability::Later, |of| of.network = state)?;
        }
        Ok(())
    }

    fn start(&mut self, number: u32) -> Result<Option<(Running, Attempt)>, RunnerError> {
        if number > 0 {
            self.join_again().map_err(|failure| RunnerError::Os {
                doing: "join the other container again".into(),
                source: std::io::Error::other(failure.message().to_owned()),
            })?;
        }
        let config = &self.life.config;
        let root_fs = step_mounts::root_fs(&self.dirs, self.is_transient, config.read_only);
        let id = match number {
            0 => containers::short(&self.life.id).to_owned(),
            _ => format!("{}.{number}", containers::short(&self.life.id)),
        };
        let failed = |failure: Failure| RunnerError::Os {
            doing: "keep the container's state".into(),
            source: std::io::Error::other(failure.message().to_owned()),
        };
        let around = (&self.ids.namespace, self.network.as_ref());
        let mut spec = containers::spec(config, &id, root_fs, around).map_err(failed)?;
        spec.mounts.clone_from(&self.mounts.0);
        let network = self.network.as_ref().map(PrivateNetwork::namespace);
        let joined = self.donors.as_ref().map(|donors| {
            donors.apply(&mut spec);
            donors.joined()
        });
        let mut running = self.runtime.spawn_joined(
            &spec,
            &self.ids.namespace,
            (network, &joined.unwrap_or_default()),
            stdio(&self.io, config),
        )?;
        let mut attempt = Attempt::default();
        let terminal = running.take_terminal();
        let terminal = match (&self.io, terminal) {
            (Io::Own, Some(terminal)) => {
                attempt.session = Some(Session::attach(terminal, config.interactive)?);
                None
            }
            (_, terminal) => terminal.map(Arc::new),
        };
        attempt.take_outputs(&mut running, terminal.as_deref())?;
        if let Io::Own = self.io {
            attempt.take_input(&mut running);
        }
        let live = Live {
            handle: running.handle(),
            runtime: Arc::clone(&self.runtime),
            ids: Arc::clone(&self.ids),
            spec,
            stdin: Mutex::new(running.take_stdin()),
            terminal,
        };
        Ok(self
            .life
            .begin(live)
            .map_err(failed)?
            .then_some((running, attempt)))
    }

    /// Waits for the end of one start of it.
    fn wait(&mut self, running: Running, attempt: Attempt) -> Result<Outcome, Failure> {
        if let Io::Kept(client) = &mut self.io
            && let Some(client) = client.take()
        {
            serve::attach(&self.life, client);
        }
        let checks = health::watch(&self.life);
        let streams = attempt.join(&self.life);
        if let Io::Kept(_) = self.io {
            box_runner::settle();
        }
        let outcome = running.wait();
        streams.finish();
        self.life.outlet.end_lines();
        let outcome = outcome.map_err(|e| runner_failure(&e));
        let will_restart = outcome.as_ref().is_ok_and(|outcome| self.may_be_again(outcome));
        let is_to_end = self.life.is_to_end();
        let goes = self.is_transient && !will_restart;
        self.life.pause_between(goes, |state| {
            if let Ok(outcome) = &outcome {
                state.exit_code = outcome.status.code();
                state.oom_killed = outcome.oom_killed;
            }
            if will_restart && !is_to_end {
                state.status = Status::Restarting;
            }
        });
        if let Some(checks) = checks {
            let _ = checks.join();
        }
        outcome.inspect_err(|failure| self.failed_to_start(failure))
    }

    fn may_be_again(&self, outcome: &Outcome) -> bool {
        match self.life.config.restart {
            Restart::No => false,
            Restart::OnFailure(_) => outcome.status.code() != 0,
            Restart::Always | Restart::UnlessStopped => true,
        }
    }

    fn is_again(&self, outcome: &Outcome, number: u32) -> bool {
        let enough =
            matches!(self.life.config.restart, Restart::OnFailure(most) if most > 0 && number > most);
        let is_again = self.may_be_again(outcome) && !enough && !self.life.is_to_end();
        if is_again {
            // The number is for people.
            let _ = self.life.set(Durability::Later, |state| state.restarts = number);
        }
        is_again
    }

    /// It is over: the state says so, or nothing of it is left.
    fn end(&mut self) -> Result<Ended, Failure> {
        // Volumes and networks that go do so before anybody is told that it is over.
        drop(std::mem::take(&mut self.mounts.1));
        self.network = None;
        let lost = self.life.outlet.lost();
        let ended = match self.is_transient {
            true => {
                self.life.finish_unwritten();
                let removed = containers::remove(&self.app.store, &self.life.id, Some(&self.life.config));
                // Once it is gone its state is nobody's concern.
                removed
                    .map(drop)
                    .or_else(|_| self.life.finish(Durability::Later, |_| {}))
            }
            false => self.life.finish(Durability::Now, |state| {
                if let (true, Some(lost)) = (state.error.is_empty(), lost) {
                    state.error = lost;
                }
            }),
        };
        self.life.close();
        ended.map(|()| {
            let state = self.life.state();
            Ended {
                code: state.exit_code,
                oom_killed: state.oom_killed,
                peak_memory: None,
            }
        })
    }

    fn failed_to_start(&self, failure: &Failure) {
        let removed = match self.is_transient {
            true => containers::remove(&self.app.store, &self.life.id, Some(&self.life.config)).map(drop),
            false => Ok(()),
        };
        // The failure itself is told; that it could not be noted, too, is of less weight.
        let _ = removed;
        let _ = self.life.finish(Durability::Later, |state| {
            state.exit_code = i32::from(failure.code);
            failure.message().clone_into(&mut state.error);
            state.finished = containers::now();
        });
        self.life.close();
    }
}

/// What the exit code of box is when the container's is this.
pub(crate) fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(EXIT_BOX)
}
