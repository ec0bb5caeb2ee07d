//! The runner's own side: starting containers, signalling and awaiting them.
//!
//! Lifecycle: [`Runtime`] once per command; [`Runtime::user_namespace`] once per build or
//! container; [`Runtime::spawn`] gives a [`Running`], whose [`wait`](Running::wait) consumes it.
//! Any thread may spawn and any may wait: nothing depends on which thread started a container.

mod exec;
mod handle;
pub(crate) mod program;
mod running;
pub(crate) mod spawn;
mod stdio;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

pub use handle::{Handle, ProcessInfo, Stats};
pub use running::{Outcome, Running, Status, Usage};
pub use stdio::{Stdio, Stream};

use crate::cgroup::Hierarchies;
use crate::error::{Result, RunnerError};
use crate::private::{NetworkRequest, PrivateNetwork};
use crate::spec::{ContainerSpec, IdMap, Limits};
use crate::systemd::Systemd;
use crate::userns::UserNamespace;
use spawn::Started;
use stdio::Kinds;

/// What a command tells the runner once.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// The program that is started again as the containers' init; it must call
    /// [`init_main_if_requested`](crate::init_main_if_requested) first of all. Normally `/proc/self/exe`.
    pub program: PathBuf,
    /// A name no other living process uses; letters and digits. Part of cgroup names, so that what
    /// a killed process left can be told from what is in use.
    pub owner: String,
    /// Whether this is an ordinary user's, after [`enter_user_namespace`](crate::enter_user_namespace).
    pub rootless: bool,
    /// A cgroup (a path below each hierarchy's root) to make the containers' groups in.
    pub cgroup_parent: Option<PathBuf>,
    /// Whoever is asked for a cgroup where groups are not the caller's to make.
    pub systemd: Option<Systemd>,
    /// Containers are kept: paused, changed and looked at later. So they have groups even where no limit needs them.
    pub is_keeping: bool,
}

/// The containers whose namespaces are joined, by the descriptors of their first processes (see [`Handle::first_process`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct Joined<'a> {
    /// For [`Network::Joined`](crate::Network::Joined).
    pub network: Option<BorrowedFd<'a>>,
    /// Whose processes are seen.
    pub pid: Option<BorrowedFd<'a>>,
    /// Whose IPC and /dev/shm are shared.
    pub ipc: Option<BorrowedFd<'a>>,
    /// Whose host name is shared.
    pub uts: Option<BorrowedFd<'a>>,
}

impl<'a> Joined<'a> {
    /// For a kind (`CLONE_NEW*`) that is to be joined.
    fn of(&self, kind: i32) -> Result<BorrowedFd<'a>> {
        let (given, name) = match kind {
            libc::CLONE_NEWNET => (self.network, "network"),
            libc::CLONE_NEWPID => (self.pid, "pid"),
            libc::CLONE_NEWIPC => (self.ipc, "ipc"),
            _ => (self.uts, "uts"),
        };
        given.ok_or_else(|| RunnerError::InvalidSpec {
            what: "container to join (none is given)",
            value: name.to_owned(),
        })
    }
}

/// Starts containers. Cheap to make; share it between threads.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
    hierarchies: Hierarchies,
    /// The same after systemd was asked for a scope.
    scoped: Mutex<Option<Hierarchies>>,
    /// The program as a detached read-only mount of its own.
    program: OwnedFd,
    /// An init that was started ahead of its container.
    ahead: Mutex<Option<(Kinds, Started)>>,
}

impl Runtime {
    /// Looks at the machine and opens the program.
    pub fn new(config: RuntimeConfig) -> Result<Runtime> {
        let good = |c: char| c.is_ascii_alphanumeric();
        if config.owner.is_empty() || config.owner.len() > 64 || !config.owner.chars().all(good) {
            return Err(RunnerError::InvalidSpec {
                what: "owner",
                value: config.owner,
            });
        }
        let hierarchies = Hierarchies::find(config.cgroup_parent.as_deref(), config.rootless)?;
        let program = program::open(&config.program)?;
        Ok(Runtime {
            config,
            hierarchies,
            scoped: Mutex::default(),
            program,
            ahead: Mutex::default(),
        })
    }

    /// Where the groups of a container with these limits are made. Where systemd rules, it is asked for a scope when the
    /// first container needs it: that takes some milliseconds.
    fn hierarchies(&self, limits: &Limits) -> Hierarchies {
        let Some(systemd) = &self.config.systemd else {
            return self.hierarchies.clone();
        };
        let mut scoped = self.scoped.lock().unwrap_or_else(PoisonError::into_inner);
        let is_needed = self.config.is_keeping || limits.need_group();
        if scoped.is_none() && is_needed && self.hierarchies.is_ruled_by(systemd) {
            // An init that was started before is not moved with this process.
            let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            *ahead = None;
            *scoped = Some(self.hierarchies.in_scope(systemd, &self.config.owner));
        }
        scoped.as_ref().unwrap_or(&self.hierarchies).clone()
    }

    /// Makes the user namespace that containers are spawned in.
    pub fn user_namespace(&self, ids: &IdMap) -> Result<UserNamespace> {
        UserNamespace::new(ids)
    }

    /// Starts the init of a container to come, so that it loads while the caller does something else. The
    /// next [`Runtime::spawn`] with streams of the same kinds uses it; otherwise it ends with the runtime.
    pub fn start_ahead(&self, stdio: Stdio) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(kinds)) = (&*ahead, Kinds::of(&stdio)) {
            // It is only a head start; what is wrong is told when the container is started.
            *ahead = spawn::start_keeper(self, stdio)
                .ok()
                .map(|started| (kinds, started));
        }
    }

    fn take_ahead(&self, stdio: &Stdio) -> Option<Started> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds = Kinds::of(stdio)?;
        ahead
            .take_if(|(ready, _)| *ready == kinds)
            .map(|(_, started)| started)
    }

    /// Starts a container; when this returns its command has been started.
    pub fn spawn(&self, spec: &ContainerSpec, user: &UserNamespace, stdio: Stdio) -> Result<Running> {
        spec.validate()?;
        spawn::spawn(self, spec, user, (None, &Joined::default()), stdio)
    }

    /// The same for one that is in a private network: with [`Network::Private`](crate::Network::Private) it is started in this
    /// network namespace, which must belong to the user namespace; otherwise that is left alone.
    pub fn spawn_in(
        &self,
        spec: &ContainerSpec,
        user: &UserNamespace,
        network: Option<BorrowedFd<'_>>,
        stdio: Stdio,
    ) -> Result<Running> {
        spec.validate()?;
        spawn::spawn(self, spec, user, (network, &Joined::default()), stdio)
    }

    /// The same for one that joins namespaces of other containers, all of which are in this user namespace.
    pub fn spawn_joined(
        &self,
        spec: &ContainerSpec,
        user: &UserNamespace,
        (network, joined): (Option<BorrowedFd<'_>>, &Joined<'_>),
        stdio: Stdio,
    ) -> Result<Running> {
        spec.validate()?;
        spawn::spawn(self, spec, user, (network, joined), stdio)
    }

    /// Makes a private network for containers in this user namespace.
    pub fn private_network(&self, user: &UserNamespace, request: &NetworkRequest) -> Result<PrivateNetwork> {
        PrivateNetwork::join(self.program.as_fd(), self.config.rootless, user, request)
    }

    /// Starts another process in a running container; `spec` is the container's own with another
    /// [`process`](ContainerSpec::process) (and terminal). Dropping or losing what is returned kills that process; what it
    /// has started itself stays until the container ends.
    pub fn exec(
        &self,
        container: &Handle,
        spec: &ContainerSpec,
        user: &UserNamespace,
        stdio: Stdio,
    ) -> Result<Running> {
        spec.validate()?;
        exec::exec(self, container, spec, user, stdio)
    }
}
