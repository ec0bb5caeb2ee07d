//! How a container is doing: written by whoever runs it, and true only as long as that one lives.

use std::net::IpAddr;

use box_runner::{MappedPort, PrivateNetwork};
use serde::{Deserialize, Serialize};

/// The exit code of a container whose keeper was killed with it: as if it had got SIGKILL.
const KILLED: i32 = 137;

/// Kept as JSON in the container's directory. Times are nanoseconds since 1970, 0 for never.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// Who runs it, or is about to, by its id in the store.
    pub(crate) owner: Option<String>,
    pub(crate) pid: i32,
    pub(crate) started: i64,
    pub(crate) finished: i64,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    /// Why it could not be started, or did not end by itself.
    pub(crate) error: String,
    /// How often it was started again by itself.
    pub(crate) restarts: u32,
    /// Somebody asked it to end.
    pub(crate) is_stopped: bool,
    pub(crate) health: Option<HealthState>,
    /// The private network that it has, or had.
    #[serde(default)]
    pub(crate) network: Option<NetworkState>,
}

/// What a private network has given it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkState {
    /// Its addresses, each with the length of its prefix.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    pub(crate) ports: Vec<MappedPort>,
}

impl NetworkState {
    pub(crate) fn of(network: &PrivateNetwork) -> Self {
        let addresses = network.addresses().iter();
        Self {
            addresses: addresses.map(|own| (own.address, own.prefix_len)).collect(),
            ports: network.ports().to_vec(),
        }
    }
}

/// Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

/// What the checks of its health say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthState {
    pub(crate) status: HealthStatus,
    pub(crate) failing: u32,
    /// The last five checks, the newest last.
    pub(crate) log: Vec<HealthCheck>,
}

/// Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) exit_code: i32,
    pub(crate) output: String,
}

impl State {
    /// Whether somebody runs it, if what is written is true.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused | Status::Restarting)
    }

    /// Whether somebody who lives is about to run it.
    pub(crate) fn is_taken(&self) -> bool {
        self.status == Status::Created && self.owner.is_some()
    }

    /// What is so if whoever wrote this is dead or not.
    pub(crate) fn seen(mut self, is_alive: impl Fn(&str) -> bool, is_transient: bool) -> Self {
        let alive = self.owner.as_deref().is_some_and(is_alive);
        if self.is_taken() && !alive && !is_transient {
            self.owner = None;
        }
        if (self.is_active() || self.is_taken()) && !alive {
            self.status = Status::Exited;
            self.exit_code = KILLED;
            self.pid = 0;
            "its monitor was killed, or the machine went down".clone_into(&mut self.error);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_monitor_wrote_is_not_believed() {
        let state = State {
            status: Status::Running,
            owner: Some("a".into()),
            pid: 7,
            ..State::default()
        };
        assert_eq!(state.clone().seen(|_| true, false), state);
        let seen = state.seen(|_| false, false);
        assert_eq!((seen.status, seen.exit_code, seen.pid), (Status::Exited, 137, 0));
        let created = State::default();
        assert_eq!(created.clone().seen(|_| false, true), created);
        let about_to_run = State {
            owner: Some("a".into()),
            ..State::default()
        };
        assert_eq!(about_to_run.clone().seen(|_| true, true).status, Status::Created);
        assert_eq!(about_to_run.clone().seen(|_| false, true).status, Status::Exited);
        assert_eq!(about_to_run.seen(|_| false, false), State::default());
    }
}
