//! What a step has mounted besides its rootfs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use box_store::snapshot::OverlayDirs;

/// One mount of a step.
#[derive(Clone, Debug)]
pub struct ExecMount {
    /// What is mounted.
    pub kind: ExecMountKind,
    /// Where, absolute in the rootfs. The mount point is there; links in it are followed inside the rootfs only.
    pub target: PathBuf,
    /// Whether the step may not write to it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum ExecMountKind {
    /// A file or directory of layers; what is written goes to the upper directory.
    Layers {
        /// The layers and the upper directory.
        dirs: OverlayDirs,
        /// Its path in them, relative; empty for the whole.
        source: PathBuf,
        /// Whether the upper directory will be mounted again, so that it must be left as overlayfs wants it.
        is_kept: bool,
    },
    /// A directory of the store, whose files have the owners that the step sees.
    Directory(PathBuf),
    /// An empty file system in memory.
    Tmpfs {
        /// Its most bytes.
        size: Option<u64>,
        /// Permissions of its root.
        mode: u32,
    },
    /// A file that is in memory alone.
    File {
        /// What it holds.
        content: Secret,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A socket whose connections are passed on to another one outside.
    Socket {
        /// The one outside.
        agent: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Bytes that nothing shows: neither `Debug` nor the output of a step.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// A secret with these bytes.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes.into())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
