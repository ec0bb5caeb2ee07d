//! The operations that only containers of a bundle need.

use serde::{Deserialize, Serialize};

use super::ops::Slot;
use crate::channel::Raw;
use crate::hook::Hook;

/// What is changed of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountChange {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    /// The same of all that is mounted below it, too.
    pub(crate) set_all: u64,
    pub(crate) clear_all: u64,
    /// `MS_PRIVATE` and so on; 0 is none.
    pub(crate) propagation: u64,
    pub(crate) propagation_all: bool,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) path: Raw,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub(crate) kind: u32,
    pub(crate) device: (u32, u32),
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
}

/// The five sets, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BundleOp {
    /// A detached clone of the root file system, which must be a directory and no link.
    OpenRoot {
        path: Raw,
    },
    /// A detached clone of a file or directory of the host.
    Bind {
        slot: Slot,
        source: Raw,
        recursive: bool,
        change: MountChange,
    },
    /// Joins the namespace whose descriptor came along under this number.
    Join {
        number: usize,
        kind: i32,
    },
    /// Enters these namespaces of the container's first process, whose descriptor is the entrance.
    Enter {
        kinds: i32,
    },
    Unshare(i32),
    /// Root of the user namespace.
    BecomeRoot,
    /// Nothing mounted from now on shows outside.
    SlaveMounts,
    /// Mounts the root where it lies, if that is still the same directory.
    AttachRoot {
        path: Raw,
    },
    /// That a mount is really a proc file system.
    CheckProc {
        slot: Slot,
    },
    Change {
        slot: Slot,
        change: MountChange,
    },
    /// Fills a mount that is not attached yet with what lies below the root at its place.
    CopyUp {
        slot: Slot,
        from: Raw,
    },
    Node(Node),
    /// A link below the root, unless something is there already.
    Link {
        path: Raw,
        target: String,
    },
    ReadOnlyPath(Raw),
    MaskPath(Raw),
    Domainname(String),
    /// The keeper's: holds the host's proc, which no container can have changed, for the next one.
    HoldProc,
    /// Opens where the label is written that the process gets at its exec.
    OpenLabel {
        path: String,
    },
    WriteLabel(String),
    /// Tells that the namespaces are there, and waits for leave to go on.
    Prepared,
    Hooks {
        hooks: Vec<Hook>,
        state: String,
    },
    /// A terminal of the container's devpts; /dev/console, too.
    Console,
    /// That the command is there, as far as can be said now.
    FindCommand {
        args: Vec<Raw>,
        env: Vec<Raw>,
        cwd: Raw,
    },
    WaitForStart,
    User {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    Bounding(u64),
    Capabilities(Sets),
    /// A compiled filter: code, both jumps and the operand of each instruction; and the flags.
    Seccomp {
        program: Vec<(u16, u8, u8, u32)>,
        flags: u64,
    },
    /// Closes all descriptors at exec but the standard streams and as many after them.
    KeepFds(u32),
}
