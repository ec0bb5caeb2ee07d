//! The runner's own side: starting containers, signalling and awaiting them.
//!
//! Lifecycle: [`Runtime`] once per command; [`Runtime::user_namespace`] once per build or
//! container; [`Runtime::spawn`] gives a [`Running`], whose [`wait`](Running::wait) consumes it.
//! Any thread may spawn and any may wait: nothing depends on which thread started a container.

mod program;
mod running;
mod spawn;
mod stdio;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use running::{Killer, Outcome, Running, Status, Usage};
pub use stdio::{Stdio, Stream};

use crate::cgroup::Hierarchies;
use crate::error::{Result, RunnerError};
use crate::spec::{ContainerSpec, IdMap};
use crate::userns::UserNamespace;

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
}

/// Starts containers. Cheap to make; share it between threads.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
    hierarchies: Hierarchies,
    /// The program as a detached read-only mount of its own.
    program: OwnedFd,
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
            program,
        })
    }

    /// Makes the user namespace that containers are spawned in.
    pub fn user_namespace(&self, ids: &IdMap) -> Result<UserNamespace> {
        UserNamespace::new(ids)
    }

    /// Starts a container; when this returns its command has been started.
    pub fn spawn(&self, spec: &ContainerSpec, user: &UserNamespace, stdio: Stdio) -> Result<Running> {
        spec.validate()?;
        spawn::spawn(self, spec, user, stdio)
    }
}
