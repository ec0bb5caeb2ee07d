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
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the caller, with all that is mounted below it.
    Bind {
        /// Its path outside; a symlink as the last part is followed once, when it is opened.
        source: PathBuf,
    },
    /// A fresh tmpfs: nosuid and nodev, and noexec unless `exec`.
    Tmpfs {
        /// Most bytes it may hold; `None` is half the machine's memory, as the kernel has it.
        size: Option<u64>,
        /// Permissions of its root directory, 0o1777 as usual.
        mode: u32,
        /// Whether programs may be started from it.
        exec: bool,
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
        MountKind::Bind { source } if !source.is_absolute() => {
            invalid("bind source (must be absolute)", source.display().to_string())
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
