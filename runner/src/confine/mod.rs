//! What a container is kept from: capabilities, system calls, paths.

mod caps;
pub(crate) mod paths;
pub(crate) mod seccomp;

pub use caps::Capabilities;
