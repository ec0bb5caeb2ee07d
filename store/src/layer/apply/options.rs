//! What an extraction is told, and what it tells.

use std::collections::BTreeSet;

use super::pax::Time;

/// How much an archive may ask for. Beyond that, [`ApplyError::TooMuch`] or [`Problem::TooLong`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Entries, at most.
    pub max_entries: u64,
    /// Bytes of the uncompressed archive, and of the files in it (holes counted), at most.
    pub max_expanded: u64,
    /// Bytes of a name and of a link's target; the kernel takes 4095.
    pub max_path: usize,
    /// Names in a path.
    pub max_depth: usize,
    /// Bytes of one PAX or GNU extension header.
    pub max_header: usize,
    /// Bytes of the value of one extended attribute; the kernel takes 65536.
    pub max_xattr: usize,
}

impl Default for Limits {
    /// 4 million entries, 64 GiB, 512 directories deep, and for the rest what the kernel takes (headers: 1 MiB).
    fn default() -> Limits {
        Limits {
            max_entries: 4_000_000,
            max_expanded: 64 << 30,
            max_path: 4095,
            max_depth: 512,
            max_header: 1 << 20,
            max_xattr: 64 << 10,
        }
    }
}

/// Which kind of archive it is; that decides what some names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A root file system: no whiteouts, no entries through symbolic links, the end mark must be there.
    Rootfs,
    /// A layer of an image. An entry below a symbolic link of the same layer is put where the link leads inside of
    /// the layer, as every runtime does; its digest protects it, so that a missing end mark does not matter.
    Layer {
        /// Which name overlayfs looks for on directories that hide what is below.
        opaque_xattr: &'static str,
    },
}

/// How to extract.
#[derive(Debug, Clone)]
pub(crate) struct Extract<'a> {
    pub(crate) source: Source,
    pub(crate) limits: &'a Limits,
    /// Whether it goes into a directory of the user: what is there is replaced by a like thing alone, and only when the new one is whole.
    pub(crate) is_into_users: bool,
    /// For layers that box made: entries with the layer's logical time get the time of the import.
    pub(crate) retime: Option<Retime>,
}

/// Entries with exactly the time `from` get the time `to`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retime {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// What came out, beside the tree.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// What the archive says of the root directory itself, if it lists it. It is not set on disk.
    pub(crate) root: Option<RootAttrs>,
    /// Directories that hold entries but are none themselves, sorted; relative to the root.
    pub(crate) implied: Vec<Vec<u8>>,
    /// Times on disk that are at or after the import's second, though the archive gives them.
    pub(crate) late: BTreeSet<Time>,
    /// Directories that hide what is below, sorted; the root is the empty name. (Overlayfs does not heed the root's.)
    pub(crate) opaque: Vec<Vec<u8>>,
}

/// Of the root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootAttrs {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Sorted by name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
