//! The builder's port, implemented with the runner: a step's request becomes a container.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use box_builder::exec::{
    self, ExecError, ExecIo, ExecOutcome, ExecRequest, ExecStatus, Executor, Stream, Visit,
};
use box_runner::{
    ContainerSpec, Network, PrivateNetwork, Process, RunnerError, Running, Runtime, UserNamespace,
};

use crate::agent::Agent;
use crate::app::App;
use crate::error::Failure;
use crate::pump::pump;
use crate::ranges::IdRange;
use crate::resolv::Wishes;
use crate::step_mounts::{self, root_fs};
use crate::terminal::{Screen, Session, Window};
use crate::{etc, networks};

/// Host ids are the machine's; see `ranges`.
const RANGES: &str = "/run/box/ranges";

/// Runs the steps of one build: they share a user namespace and its range of ids.
pub(crate) struct ContainerExecutor<'a> {
    app: &'a App,
    shared: Mutex<Option<Shared>>,
    counter: AtomicU64,
    /// The user's terminal, for visits.
    seat: Option<(Screen, Window)>,
}

struct Shared {
    runtime: Arc<Runtime>,
    pages: BTreeSet<u32>,
    ids: Arc<Ids>,
}

/// A user namespace and the locks on its ids.
pub(crate) struct Ids {
    /// The namespace.
    pub(crate) namespace: UserNamespace,
    locks: Vec<OwnedFd>,
    /// The private network of a build's steps, made for the first that wants one.
    network: Mutex<Option<Arc<PrivateNetwork>>>,
}

impl Ids {
    /// A user namespace for files with ids in these pages.
    pub(crate) fn take(app: &App, runtime: &Runtime, pages: &BTreeSet<u32>) -> Result<Self, RunnerError> {
        if let Some(rootless) = &app.rootless {
            return Ok(Self::of(runtime.user_namespace(&rootless.ids)?, Vec::new()));
        }
        let range = IdRange::take(Path::new(RANGES), pages);
        let range = range.map_err(|source| RunnerError::Os {
            doing: format!("take container ids in {RANGES}"),
            source,
        })?;
        Ok(Self::of(runtime.user_namespace(range.map())?, range.into_locks()))
    }

    /// A user namespace that is there.
    pub(crate) fn of(namespace: UserNamespace, locks: Vec<OwnedFd>) -> Self {
        Self {
            namespace,
            locks,
            network: Mutex::default(),
        }
    }

    /// What keeps its ids from others, for those who share them.
    pub(crate) fn locks(&self) -> &[OwnedFd] {
        &self.locks
    }

    /// The network that all containers with these ids share.
    fn network(&self, runtime: &Runtime) -> Result<Arc<PrivateNetwork>, RunnerError> {
        let mut slot = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = slot.as_ref() {
            return Ok(network.clone());
        }
        let made = Arc::new(networks::make(
            runtime,
            &self.namespace,
            networks::Wanted::default(),
        )?);
        *slot = Some(made.clone());
        Ok(made)
    }
}

impl<'a> ContainerExecutor<'a> {
    /// Nothing is made before the first step that runs.
    pub(crate) fn new(app: &'a App) -> Self {
        Self {
            app,
            shared: Mutex::new(None),
            counter: AtomicU64::new(0),
            seat: None,
        }
    }

    /// With somebody at the terminal, if there is one, who may be let in.
    pub(crate) fn at_terminal(self, screen: Option<Screen>, window: &Window) -> Self {
        Self {
            seat: screen.map(|screen| (screen, window.clone())),
            ..self
        }
    }

    /// The runtime and the user namespace, made or widened to hold these pages of ids.
    fn shared(&self, pages: &BTreeSet<u32>) -> Result<(Arc<Runtime>, Arc<Ids>), ExecError> {
        let mut slot = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = slot.as_ref().filter(|shared| pages.is_subset(&shared.pages)) {
            return Ok((shared.runtime.clone(), shared.ids.clone()));
        }
        // Of steps side by side each has what the other needs, too: else they would take the namespace from each other by turns.
        let mut pages = pages.clone();
        let runtime = match slot.take() {
            Some(shared) => {
                pages.extend(&shared.pages);
                shared.runtime
            }
            None => Arc::new(
                self.app
                    .runtime(false)
                    .map_err(|failure| failed(FailureError(failure)))?,
            ),
        };
        runtime.start_ahead(box_runner::Stdio::captured());
        let ids = Arc::new(Ids::take(self.app, &runtime, &pages).map_err(exec_error)?);
        *slot = Some(Shared {
            runtime: runtime.clone(),
            pages,
            ids: ids.clone(),
        });
        Ok((runtime, ids))
    }

    fn spec(&self, request: &ExecRequest<'_>, private: Option<&PrivateNetwork>) -> ContainerSpec {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let process = Process {
            args: request.args.clone(),
            env: request.env.clone(),
            cwd: request.cwd.clone(),
            user: request.user.clone(),
        };
        let mut spec = ContainerSpec::new(
            format!("step{number}"),
            root_fs(request.dirs, true, false),
            process,
        );
        spec.hostname = request.hostname.clone();
        // su and sudo work in a build step, as in Docker.
        spec.no_new_privs = false;
        spec.network = match request.network {
            exec::NetworkMode::None => Network::None,
            exec::NetworkMode::Host => Network::Host,
            exec::NetworkMode::Private => Network::Private,
        };
        let seen = etc::Seen {
            network: spec.network,
            private,
            wishes: &Wishes::default(),
        };
        (spec.etc, _) = etc::files(&request.hostname, seen, request.hosts);
        spec.limits = box_runner::Limits {
            memory: request.limits.memory,
            millicpus: request.limits.millicpus,
            pids: request.limits.pids,
            time: request.limits.time,
            ..box_runner::Limits::default()
        };
        spec.limits_policy = match request.limits_policy {
            exec::LimitsPolicy::Enforce => box_runner::LimitsPolicy::Enforce,
            exec::LimitsPolicy::BestEffort => box_runner::LimitsPolicy::BestEffort,
        };
        spec
    }
}

/// A container that runs, and what serves it.
struct Started {
    running: Running,
    runtime: Arc<Runtime>,
    _agents: Vec<Agent>,
}

impl ContainerExecutor<'_> {
    fn start(&self, request: &ExecRequest<'_>, terminal: bool) -> Result<Started, ExecError> {
        let (runtime, ids) = self.shared(&request.id_pages)?;
        let network = match request.network {
            exec::NetworkMode::Private => Some(ids.network(&runtime).map_err(exec_error)?),
            _ => None,
        };
        let mut spec = self.spec(request, network.as_deref());
        let (mounts, agents) = step_mounts::mounts(request).map_err(failed)?;
        (spec.mounts, spec.terminal) = (mounts, terminal);
        let stdio = match terminal {
            true => box_runner::Stdio::null(),
            false => box_runner::Stdio::captured(),
        };
        let network = network.as_deref().map(PrivateNetwork::namespace);
        let running = runtime.spawn_in(&spec, &ids.namespace, network, stdio);
        Ok(Started {
            running: running.map_err(exec_error)?,
            runtime,
            _agents: agents,
        })
    }
}

impl Executor for ContainerExecutor<'_> {
    fn run(&self, request: &ExecRequest<'_>, io: ExecIo<'_>) -> Result<ExecOutcome, ExecError> {
        let Started {
            mut running,
            runtime,
            _agents,
        } = self.start(request, false)?;
        // While this step runs the next one's init loads.
        runtime.start_ahead(box_runner::Stdio::captured());
        let killer = running.handle();
        let hook = io.cancel.on_cancel(move || drop(killer.kill()));
        let (stdout, stderr) = (running.take_stdout(), running.take_stderr());
        // The pipes end with the container, whose time limit others hold.
        let outputs = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)];
        let outputs = outputs
            .into_iter()
            .filter_map(|(pipe, stream)| Some((pipe?, stream)));
        pump(outputs.collect(), None, |stream, bytes| {
            (io.output)(stream, bytes)
        });
        let outcome = running.wait().map_err(exec_error);
        drop(hook);
        if io.cancel.is_cancelled() {
            return Err(ExecError::Cancelled);
        }
        outcome.map(exec_outcome)
    }

    fn visit(&self, request: &ExecRequest<'_>, visit: Visit<'_>) -> Result<ExecStatus, ExecError> {
        let Some((screen, window)) = &self.seat else {
            return Err(ExecError::NoTerminal);
        };
        let Started {
            mut running, _agents, ..
        } = self.start(request, true)?;
        let killer = running.handle();
        let hook = visit.cancel.on_cancel(move || drop(killer.kill()));
        let terminal = running.take_terminal().ok_or(ExecError::NoTerminal)?;
        (visit.opened)();
        let session = Session::on_screen(terminal, *screen).map_err(exec_error)?;
        window.show(Some(session.terminal()));
        let outcome = running.wait().map_err(exec_error);
        window.show(None);
        session.finish();
        drop(hook);
        if visit.cancel.is_cancelled() {
            return Err(ExecError::Cancelled);
        }
        Ok(exec_outcome(outcome?).status)
    }
}

fn exec_outcome(outcome: box_runner::Outcome) -> ExecOutcome {
    let usage = outcome.usage;
    ExecOutcome {
        status: match outcome.status {
            box_runner::Status::Exited(code) => ExecStatus::Exited(code),
            box_runner::Status::Signaled(signal) => ExecStatus::Signaled(signal),
        },
        oom_killed: outcome.oom_killed,
        timed_out: outcome.timed_out,
        usage: exec::Usage {
            wall: usage.wall,
            cpu_user: Some(usage.cpu_user),
            cpu_system: Some(usage.cpu_system),
            peak_memory: usage.peak_memory,
            io_read: Some(usage.io_read),
            io_written: Some(usage.io_written),
        },
    }
}

fn exec_error(error: RunnerError) -> ExecError {
    match error {
        RunnerError::CommandNotFound { command } => ExecError::CommandNotFound { command },
        RunnerError::CommandNotExecutable { command, source } => ExecError::CommandNotExecutable {
            command,
            reason: source.to_string(),
        },
        RunnerError::LimitUnenforceable { limit, reason } => ExecError::LimitUnenforceable {
            limit: limit.to_owned(),
            reason,
        },
        other => failed(other),
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ExecError {
    ExecError::Failed {
        source: Box::new(error),
    }
}

/// A failure of the command line's own making, as an error's cause.
#[derive(Debug)]
struct FailureError(Failure);

impl std::fmt::Display for FailureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.message())
    }
}

impl std::error::Error for FailureError {}

/// Arguments as the runner takes them.
pub(crate) fn os_strings(texts: &[String]) -> Vec<OsString> {
    texts.iter().map(OsString::from).collect()
}
