//! What of the specification is supported, for whoever asks.

use crate::confine::Capabilities;

/// Lists of what is supported, by the specification's names.
#[derive(Debug, Clone)]
pub struct Supported {
    /// Of the mounts.
    pub mount_options: Vec<String>,
    /// Of the capabilities.
    pub capabilities: Vec<String>,
    /// What a system call filter may do.
    pub seccomp_actions: &'static [&'static str],
    /// What it may compare.
    pub seccomp_operators: &'static [&'static str],
}

/// What is supported.
pub fn supported() -> Supported {
    Supported {
        mount_options: super::options::names(),
        capabilities: Capabilities::names().map(|name| format!("CAP_{name}")).collect(),
        seccomp_actions: &[
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        seccomp_operators: &[
            "SCMP_CMP_NE",
            "SCMP_CMP_LT",
            "SCMP_CMP_LE",
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_MASKED_EQ",
        ],
    }
}
