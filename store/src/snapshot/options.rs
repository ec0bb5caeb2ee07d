//! What a snapshot is asked for, and what it gives: plain data.

use std::path::PathBuf;

use crate::root::OverlayXattrs;

/// The directories of an overlay mount, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayDirs {
    /// The lowers, top first (as overlayfs wants them), the fix-up lower included. Symbolic links are fine to follow.
    pub lower: Vec<PathBuf>,
    /// The upper.
    pub upper: PathBuf,
    /// The work directory.
    pub work: PathBuf,
    /// Which attributes the mount must use (`userxattr` for [`OverlayXattrs::User`]).
    pub overlay_xattrs: OverlayXattrs,
}

/// What becomes of times in the canonical tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mtimes {
    /// What the step wrote has the layer's logical time: equal builds are equal.
    #[default]
    Logical,
    /// Real times, in whole seconds, as Docker does: builds are not reproducible.
    Real,
}

/// Something that must exist for the runner to mount over, without ever entering a layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MountStub {
    /// A directory, by its path in the rootfs.
    Directory(PathBuf),
    /// A file, by its path in the rootfs.
    File(PathBuf),
}

/// How a snapshot is prepared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrepareOptions {
    /// What must exist to be mounted over.
    pub mount_stubs: Vec<MountStub>,
    /// What becomes of times.
    pub mtimes: Mtimes,
    /// No canonical time of the new layer is later than this, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
}

impl PrepareOptions {
    /// The stubs that every container of the runner needs.
    pub fn standard_stubs() -> Vec<MountStub> {
        let dirs = ["/proc", "/sys", "/dev"].map(|path| MountStub::Directory(path.into()));
        let files =
            ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"].map(|path| MountStub::File(path.into()));
        dirs.into_iter().chain(files).collect()
    }
}
