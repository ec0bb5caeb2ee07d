//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{DiffId, Digest, DigestError};
use crate::reference::ReferenceError;

/// An error of the store. Each variant says what failed and where; cures are in the text where one is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such container.
    #[error("no container {id}")]
    NoSuchContainer {
        /// What was asked for.
        id: String,
    },
    /// Others use the store all the time.
    #[error("others use the store at {} all the time, and it can't be swept meanwhile", path.display())]
    InUse {
        /// Where it is.
        path: PathBuf,
    },
    /// An operation of the file system failed.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// What was tried, as a verb ("read", "rename").
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store was made by a version of box with another format.
    #[error("{} holds a store of format {found}, this box understands format {understood}; use another --root", root.display())]
    Format {
        /// The store's root.
        root: PathBuf,
        /// The version found.
        found: String,
        /// The version this code understands.
        understood: u32,
    },
    /// The store was made by a process with other ids than this one has.
    #[error("{} {}", root.display(), match has_single_id {
        true => "is a store without subordinate ids: owners are recorded beside the files, and a process with more ids does not read it; use another --root (`box save` and `box load` carry images over), or remove it",
        false => "is a store of many ids, and this user has no subordinate ids; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME, or use another --root",
    })]
    OtherIds {
        /// The store's root.
        root: PathBuf,
        /// Whether it is the store that has a single id.
        has_single_id: bool,
    },
    /// Bytes are not those their digest promises.
    #[error("{what} is damaged: expected {expected}, found {found}; load or build it again")]
    Mismatch {
        /// What was read ("blob", "layer archive").
        what: &'static str,
        /// The digest it must have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// Something in the store can't be understood, though its checksum may be right.
    #[error("{what} {name} is damaged: {reason}")]
    Damaged {
        /// What it is ("image config", "name").
        what: &'static str,
        /// Which one.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob that something refers to is not there.
    #[error("blob {digest} is missing from the store; load or build the image again")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// A layer that an image refers to is not there.
    #[error("layer {diff_id} is missing from the store; load or build the image again")]
    MissingLayer {
        /// The layer.
        diff_id: DiffId,
    },
    /// Something is larger than the store accepts.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What it is.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The digest of a layer that was committed could not be computed.
    #[error("cannot finish layer: {source}")]
    Layer {
        /// Why; shared, since every holder of the layer is told.
        source: Arc<StoreError>,
    },
    /// An extended attribute whose name can't be written into a tar (it holds `=`).
    #[error("extended attribute {name:?} of {} can't be kept in a layer: its name holds '='", path.display())]
    XattrName {
        /// The entry, relative to the layer's root.
        path: PathBuf,
        /// The attribute.
        name: String,
    },
    /// A path in a rootfs leads through something that is no directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path, in the rootfs.
        path: PathBuf,
    },
    /// A path in a rootfs that has no entry.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The path, in the rootfs.
        path: PathBuf,
    },
    /// A device in a rootfs that would become one of the host.
    #[error("{} is a device; it is copied only with everything else as it is in the image", path.display())]
    Device {
        /// The path, in the rootfs.
        path: PathBuf,
    },
    /// More symbolic links than the kernel would follow, most likely a circle.
    #[error("too many symbolic links in {}", path.display())]
    TooManyLinks {
        /// The path, in the rootfs.
        path: PathBuf,
    },
    /// A path given for a layer holds `..`, is empty or is absolute.
    #[error("{} can't be written into a layer: it must be a plain relative path", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// An entry whose name means a removed one in a tar: elsewhere the layer would be another.
    #[error(
        "{} can't be kept in a layer: names that begin with `.wh.` mean removed files there; remove or rename it",
        path.display()
    )]
    WhiteoutName {
        /// The path, in the rootfs.
        path: PathBuf,
    },
    /// A short image id that several images share.
    #[error("image id {prefix} is ambiguous: it is the beginning of {count} ids; give more digits")]
    AmbiguousId {
        /// What was given.
        prefix: String,
        /// How many images match.
        count: usize,
    },
    /// The image is in use under other names.
    #[error("image {id} has more than one name ({}); remove them one by one, or use --force", names.join(", "))]
    SeveralNames {
        /// The image's id.
        id: String,
        /// All its names.
        names: Vec<String>,
    },
    /// A name that follows no rule of image references.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A text that is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A kind of record or lock with a name that can't be a directory's.
    #[error("{name:?} can't name a kind of record: expected 1 to 32 of a-z, 0-9 and -")]
    BadKind {
        /// The name.
        name: String,
    },
}

/// A path; the top of a tree, to which paths in it are relative, is `/`.
fn shown(path: &Path) -> std::path::Display<'_> {
    match path.as_os_str().is_empty() {
        true => Path::new("/").display(),
        false => path.display(),
    }
}

/// What most functions of this crate return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Adds what was tried, and on what, to a system error.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| StoreError::Io {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}
