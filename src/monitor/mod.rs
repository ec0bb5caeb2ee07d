//! Whoever runs a container: it starts it, keeps its output, answers those who ask, starts it again, and notes how it ended.
//!
//! For a container in the background this is a process of its own, the program started again with [`HIDDEN_ARGUMENT`]; for one that is removed at
//! its end and runs in the foreground it is the user's command itself. When it dies, the container dies with it, and everybody sees
//! that by the lock that it held as an owner in the store.

mod client;
mod health;
mod home;
mod joins;
mod launch;
mod life;
mod message;
mod outlet;
mod serve;
mod streams;
mod supervise;

pub(crate) use client::{Connection, connect, connect_in, failure_of};
pub(crate) use home::home;
pub(crate) use launch::{EXIT_RUNS, HIDDEN_ARGUMENT, launch, main};
pub(crate) use message::{Exec, Figures, Frame, Process, Reply, Request};
pub(crate) use supervise::{Io, Supervisor, exit_code};
