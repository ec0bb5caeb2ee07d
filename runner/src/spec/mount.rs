//! The mounts that a caller adds.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::{RootFs, check_rootfs, invalid};
use crate::error::RunnerError;

/// A mount the caller adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where, absolute inside the container; made when missing, symlinks followed inside the root only.
    pub target: PathBuf,
    /// Whether the container may not write to it.
    pub read_only: bool,
    /// What else is forbidden in it. Device nodes are in no mount of the caller but [`MountKind::Device`].
    pub limits: MountLimits,
}

impl Mount {
    /// A writable mount without further limits.
    pub fn new(kind: MountKind, target: impl Into<PathBuf>) -> Mount {
        Mount {
            kind,
            target: target.into(),
            read_only: false,
            limits: MountLimits::default(),
        }
    }
}

/// What is forbidden in a bind or an overlay, besides device nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountLimits {
    /// No program may be started from it.
    pub no_exec: bool,
    /// Set-user-ID bits and file capabilities mean nothing in it.
    pub no_suid: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the caller.
    Bind {
        /// Its path outside; a symlink as the last part is followed once, when it is opened.
        source: PathBuf,
        /// The file or directory below `source` that is meant, without `..`; empty for the whole. Whoever writes below `source` may
        /// change it at any time: a symlink is followed if it stays below, and nothing mounted there is entered.
        part: PathBuf,
        /// Whether what is mounted below it comes along.
        is_recursive: bool,
    },
    /// A fresh tmpfs: nosuid and nodev, and noexec unless `exec`.
    Tmpfs(Tmpfs),
    /// A device of the host, which becomes the container's root's. Where ids are not mapped it is the node itself, with the host's rights.
    Device {
        /// Its node; a symlink is followed once.
        source: PathBuf,
        /// What may be done with it; less than everything needs a devices controller of cgroup version 1.
        access: DeviceAccess,
    },
    /// A file or directory of an overlay of its own.
    Overlay {
        /// The overlay.
        layers: RootFs,
        /// Its path in the overlay, without `..`, empty for the whole; symlinks are followed inside the overlay only.
        source: PathBuf,
    },
    /// A small file, read-only, that is in memory alone.
    File {
        /// What it holds.
        content: FileContent,
        /// Its permissions.
        mode: u32,
        /// Its owner, as the container sees it.
        uid: u32,
        /// Its group, as the container sees it.
        gid: u32,
    },
}

impl MountKind {
    /// A bind of the whole with all that is mounted below.
    pub fn bind(source: impl Into<PathBuf>) -> MountKind {
        MountKind::Bind {
            source: source.into(),
            part: PathBuf::new(),
            is_recursive: true,
        }
    }
}

/// A tmpfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Most bytes it may hold; `None` is half the machine's memory, as the kernel has it.
    pub size: Option<u64>,
    /// Most files it may hold; `None` is as the kernel has it.
    pub inodes: Option<u64>,
    /// Permissions of its root directory, 0o1777 as usual.
    pub mode: u32,
    /// Owner of its root directory, as the container sees it.
    pub uid: u32,
    /// Group of its root directory, as the container sees it.
    pub gid: u32,
    /// Whether programs may be started from it.
    pub exec: bool,
}

impl Default for Tmpfs {
    /// Root's and writable for everybody, as /tmp is.
    fn default() -> Tmpfs {
        Tmpfs {
            size: None,
            inodes: None,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            exec: false,
        }
    }
}

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making further nodes of it. No container of another user namespace can, whatever is said here.
    pub make: bool,
}

impl DeviceAccess {
    /// Everything.
    pub const ALL: DeviceAccess = DeviceAccess {
        read: true,
        write: true,
        make: true,
    };

    /// Whether less than reading and writing is allowed.
    pub(crate) fn is_limited(self) -> bool {
        !(self.read && self.write)
    }
}

/// Bytes that are not shown by `Debug`: they may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct FileContent(pub Vec<u8>);

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Checks what can be checked without the kernel.
pub(super) fn check(mount: &Mount) -> Result<(), RunnerError> {
    let target = &mount.target;
    if !target.is_absolute() || climbs(target) || target == Path::new("/") {
        return invalid("mount target", target.display().to_string());
    }
    if target.starts_with("/proc") {
        return invalid("mount target (inside /proc)", target.display().to_string());
    }
    match &mount.kind {
        MountKind::Bind { source, .. } if !source.is_absolute() => {
            invalid("bind source (must be absolute)", source.display().to_string())
        }
        MountKind::Bind { part, .. } if part.is_absolute() || climbs(part) => invalid(
            "subpath (must be relative, without ..)",
            part.display().to_string(),
        ),
        MountKind::Device { source, .. } if !source.is_absolute() => {
            invalid("device (must be absolute)", source.display().to_string())
        }
        MountKind::Device { access, .. } if !(access.read || access.write) => {
            invalid("access to a device", "nothing")
        }
        MountKind::Overlay { layers, source } => {
            check_rootfs(layers)?;
            match climbs(source) {
                true => invalid("source of a mount (has ..)", source.display().to_string()),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn climbs(path: &Path) -> bool {
    path.components().any(|part| matches!(part, Component::ParentDir))
}
