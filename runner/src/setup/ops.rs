//! The operations a container is made of. The order of the list is the order of execution.

use serde::{Deserialize, Serialize};

use super::bundle::BundleOp;
use crate::channel::Raw;
use crate::confine::Capabilities;
use crate::spec::{FileCopy, Resource};

/// A mount that an operation made and a later one uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Slot {
    Root,
    Proc,
    Sys,
    Dev,
    DevPts,
    Shm,
    Mqueue,
    Etc,
    Null,
    Zero,
    Full,
    Random,
    Urandom,
    Tty,
    Console,
    Cgroup,
    Hierarchy(u8),
    Empty,
    /// The n-th of the spec's mounts.
    Mount(u32),
}

/// What happens when a mount target is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Missing {
    /// It is an error.
    Fail,
    /// Make what the mount's own kind needs, directory or file.
    Make,
    /// As `Make`; where even that fails, leave the mount out.
    MakeOrSkip,
}

/// How symlinks on the way to a mount target are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Links {
    /// Followed, never out of the root.
    Inside,
    /// The root file system is refused.
    Refuse,
}

/// An overlay, made in the namespaces of the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overlay {
    pub(crate) slot: Slot,
    /// Attributes of the mount.
    pub(crate) attrs: u64,
    /// The file or directory in it that is meant; empty for the whole.
    pub(crate) inside: Raw,
    pub(crate) lower: Vec<Raw>,
    /// The directory that `upper` and `work` lie in.
    pub(crate) dir: Raw,
    pub(crate) upper: Raw,
    pub(crate) work: Raw,
    /// The outside ids of the container's root, when the layers are to be mapped.
    pub(crate) idmapped_root: Option<u32>,
    /// Further flags: `volatile`, `userxattr`; and options with a value, `context=…`.
    pub(crate) flags: Vec<String>,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RlimitOp {
    pub(crate) resource: Resource,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
    /// Take what can be had where the hard limit can't be raised so far.
    pub(crate) clamp: bool,
}

/// One step. Those before [`SetupOp::Fork`] are done by the keeper in the runner's namespaces,
/// those after it by the container's first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetupOp {
    /// The root file system, or another overlay, detached.
    Overlay(Overlay),
    /// A detached clone of a file or directory outside, or of what lies at `part` below it.
    BindSource {
        slot: Slot,
        source: Raw,
        part: Raw,
        recursive: bool,
        idmapped: bool,
        attrs: u64,
    },
    /// A detached clone of a device node, checked to be this character device.
    HostNode {
        slot: Slot,
        path: String,
        major: u32,
        minor: u32,
        read_only: bool,
    },
    /// A device of the host, checked to be one: a node of its own that belongs to this outside id, or a clone of the host's.
    HostDevice {
        slot: Slot,
        source: Raw,
        owner: Option<u32>,
    },
    /// A detached read-only clone of the runner's own /sys.
    HostSys,
    /// A detached clone of another of the runner's own trees of the kernel, with what is mounted below; where there is none, an empty
    /// directory if it may be missing.
    HostTree {
        slot: Slot,
        path: String,
        attrs: u64,
        may_be_missing: bool,
    },
    /// The /dev/shm of the container whose first process came along under this number, detached.
    SharedShm {
        number: usize,
    },
    /// Looks which devices the runner has in its /dev.
    FindHostDevices,
    /// Gives pipes among the standard streams to this outside id.
    GivePipes {
        uid: u32,
    },
    Rlimits(Vec<RlimitOp>),
    /// Attaches everything made so far on this directory, in a mount namespace of the runner's user namespace, and enters
    /// it: the container's namespace becomes a copy of it, in which the kernel locks what a mount forbids.
    LockMounts(Raw),
    JoinUser,
    JoinNet,
    /// Keeps this process, and those that it forks, from others that share a namespace with it.
    Hide,
    /// Joins a namespace of the process that came along under this number.
    JoinOf {
        number: usize,
        kind: i32,
    },
    /// Enters these namespaces (`CLONE_NEW*`) of a running container; instead of the joins above.
    EnterContainer {
        kinds: i32,
    },
    /// New mount, pid and uts namespaces, as many of them as the container has of its own; what follows runs as the first process in them.
    Fork,

    /// Enters the container's own cgroups.
    JoinCgroups,
    /// Root of the user namespace, no supplementary groups.
    BecomeRoot,
    /// New cgroup and ipc namespaces, rooted in those cgroups and owned by that root.
    Unshare {
        kinds: i32,
    },
    SessionKeyring,
    /// No mount made from now on shows outside.
    PrivateMounts,
    /// Takes the locked copies of what `LockMounts` attached.
    TakeLocked,
    /// Mounts the root over the old one, not yet entered.
    AttachRoot,
    /// A new file system, detached.
    NewMount {
        slot: Slot,
        fs: String,
        options: Vec<(String, Option<String>)>,
        attrs: u64,
    },
    /// That the mount is really a proc file system.
    CheckProc,
    MakeDir {
        slot: Slot,
        path: String,
        mode: u32,
    },
    MakeFile {
        slot: Slot,
        path: String,
        content: Raw,
    },
    MakeLink {
        slot: Slot,
        path: String,
        target: String,
    },
    /// A node of a character device.
    MakeNode {
        slot: Slot,
        path: String,
        major: u32,
        minor: u32,
    },
    /// Nodes of the devices that were found, but for names that are there already.
    MakeHostDevices {
        slot: Slot,
    },
    /// Gives an entry of a mount that we made its permissions and its owner.
    SetOwner {
        slot: Slot,
        path: String,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// Attaches a detached mount below the root.
    Attach {
        slot: Slot,
        target: Raw,
        missing: Missing,
        links: Links,
    },
    /// Attaches a detached mount on an entry of another mount that we made.
    AttachIn {
        slot: Slot,
        on: Slot,
        path: String,
    },
    /// Binds an entry of a mount that we made below the root.
    BindEntry {
        from: Slot,
        path: String,
        target: Raw,
        missing: Missing,
    },
    /// Unmounts an attached mount; binds of its entries stay.
    Detach {
        slot: Slot,
    },
    SetAttrs {
        slot: Slot,
        attrs: u64,
    },
    Hostname(String),
    Loopback,
    /// Writes below /proc/sys, by the descriptor of /proc.
    Sysctl {
        name: String,
        value: String,
        /// Otherwise one the kernel doesn't have is left out.
        is_required: bool,
    },
    /// Hard limits that are to be higher than they are, while there may be a right to that.
    RaiseRlimits(Vec<RlimitOp>),
    /// The keeper's, before it gives up its rights, and so the container's.
    OomScore(i32),
    /// Makes the working directory when missing.
    MakeCwd(Raw),
    /// Enters the root and detaches the old one.
    PivotRoot,
    ReadOnlyPath {
        slot: Slot,
        path: String,
    },
    MaskPath {
        slot: Slot,
        path: String,
    },
    /// Masks `dir/<prefix>*/child`.
    MaskEach {
        slot: Slot,
        dir: String,
        prefix: String,
        child: String,
    },
    /// A terminal of the container's own devpts, as /dev/console and the standard streams.
    Terminal,
    /// The same in a container that runs, whose /dev nobody can be sure of: no /dev/console.
    FurtherTerminal,
    Umask(u32),
    BoundingSet(Capabilities),
    /// The groups that the user is in besides its own.
    ExtraGroups(Vec<String>),
    /// Looks the user up in the root file system and becomes it; keeps the capabilities for now.
    SwitchUser(String),
    /// Enters the working directory; one outside the root is refused.
    Chdir(Raw),
    /// Makes the kept capabilities effective again.
    RegainCaps,
    Seccomp(Capabilities),
    Capabilities(Capabilities),
    NoNewPrivs,
    /// No descriptor but the standard streams survives exec.
    CloseFds,
    /// What only containers of a bundle need.
    Bundle(BundleOp),
    /// Instead of the command.
    Copy(FileCopy),
    Exec {
        args: Vec<Raw>,
        env: Vec<Raw>,
        init: bool,
    },
}

/// A new file system, its options without a value given as empty.
pub(super) fn new_mount(slot: Slot, fs: &str, options: &[(&str, &str)], attrs: u64) -> SetupOp {
    let option =
        |(key, value): &(&str, &str)| (key.to_string(), (!value.is_empty()).then(|| value.to_string()));
    SetupOp::NewMount {
        slot,
        fs: fs.into(),
        options: options.iter().map(option).collect(),
        attrs,
    }
}
