//! The runner of box: namespaces, cgroups, mounts and processes, and nothing of images.
//!
//! Layout: a [`ContainerSpec`] is turned into a flat list of operations (`setup`, pure), sent over
//! a pipe (`channel`) to a freshly started process (`init`), which executes them; `parent` starts,
//! signals and awaits it. `userns`, `cgroup`, `confine`, `user` and `pty` are what those two use,
//! `sys` is the only unsafe code.
//!
//! A program that uses this crate calls [`init_main_if_requested`] on the first line of `main`, and [`clean_start`] on the
//! second.

pub mod bundle;
mod cgroup;
mod channel;
mod confine;
mod error;
mod hindrance;
mod hook;
mod init;
mod mapping;
mod net;
mod netlink;
mod parent;
mod private;
mod pty;
mod rootless;
mod setup;
mod spec;
mod state;
mod sys;
mod systemd;
mod user;
mod userns;

pub use channel::{recv as receive_message, send as send_message};
pub use confine::Capabilities;
pub use error::{Result, RunnerError};
pub use hook::Hook;
pub use init::{clean_start, init_main_if_requested, settle};
pub use net::Network;
pub use parent::{
    Handle, Joined, Outcome, ProcessInfo, Running, Runtime, RuntimeConfig, Stats, Status, Stdio, Stream,
    Usage,
};
pub use private::{
    HostPort, MappedPort, NetAddress, NetworkMember, NetworkRequest, PortRequest, PrivateNetwork, Protocol,
    network_members, reap_networks,
};
pub use pty::{RawMode, Terminal};
pub use rootless::{
    Rootless, SINGLE_ID, enter_user_namespace, has_all_ids, join_user_namespace, needs_user_namespace,
};
pub use spec::{
    ContainerSpec, DeviceAccess, EtcFiles, FileContent, FileCopy, IdExtent, IdMap, Label, Limits,
    LimitsPolicy, Mount, MountKind, MountLimits, Namespaces, Process, Resource, Rlimit, RootFs, Seccomp,
    Sharing, SystemPaths, Throttle, Tmpfs, Traffic,
};
pub use state::{Reaped, reap};
pub use systemd::{BusAddress, Systemd};
pub use userns::UserNamespace;
