//! `RUN --mount=`: written down when parsed, typed when its variables are known.

use thiserror::Error;

use super::word::Word;
use crate::source::{Span, Spanned};

/// A mount as written: `key` or `key=value` fields, whose values may hold variables (`from` may not).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// The whole flag.
    pub span: Span,
    /// Its fields in order.
    pub fields: Vec<MountField>,
    /// The value of `from`, which the graph needs early.
    pub from: Option<Spanned<String>>,
}

/// One field of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountField {
    /// In lower case.
    pub key: Spanned<String>,
    /// What follows `=`.
    pub value: Option<Word>,
}

/// A mount with its variables expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; relative ones join WORKDIR, and it is WORKDIR itself where unset (never `/`). Secrets and
    /// SSH sockets have defaults.
    pub target: Option<String>,
    /// Whether writing is refused. (Writes into a bind mount are thrown away.)
    pub read_only: bool,
}

/// What a mount mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the context, a stage, an image or a named context.
    Bind {
        /// Where from; unset: the context.
        from: Option<String>,
        /// The path in it; unset: its root.
        source: Option<String>,
    },
    /// A directory that outlives builds.
    Cache {
        /// Unset: the target.
        id: Option<String>,
        /// What it starts from.
        from: Option<String>,
        /// The path in that.
        source: Option<String>,
        /// Between builds at the same time.
        sharing: Sharing,
        /// Of the directory; default 0755.
        mode: Option<u32>,
        /// Default 0.
        uid: Option<u32>,
        /// Default 0.
        gid: Option<u32>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
        /// Podman's `tmpcopyup`: what the target holds is copied in.
        copy_up: bool,
    },
    /// A secret file or variable.
    Secret {
        /// Its name; unset: the last part of the target.
        id: Option<String>,
        /// The variable to set; without a target there is no file then.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Default 0400.
        mode: Option<u32>,
        /// Default 0.
        uid: Option<u32>,
        /// Default 0.
        gid: Option<u32>,
    },
    /// An SSH agent's socket.
    Ssh {
        /// Default `default`.
        id: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Default 0600.
        mode: Option<u32>,
        /// Default 0.
        uid: Option<u32>,
        /// Default 0.
        gid: Option<u32>,
    },
}

/// `sharing=` of a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Any number of writers.
    #[default]
    Shared,
    /// Each writer has one of its own.
    Private,
    /// One writer waits for the other.
    Locked,
}

/// What is wrong with a mount; `span` says which field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct MountError {
    /// What is wrong.
    pub message: String,
    /// The field, or the whole mount.
    pub span: Span,
    /// What was expected.
    pub expected: Option<String>,
    /// What was probably meant.
    pub suggestion: Option<String>,
}
