//! What can go wrong with an archive, named by the entry it went wrong at.

use std::fmt;
use std::io;

use crate::digest::{DiffId, Digest};
use crate::error::StoreError;

/// Why an archive could not be made into a layer. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The input could not be read or decompressed.
    #[error("cannot read the archive after {offset} bytes (uncompressed): {source}")]
    Read {
        /// How far the uncompressed stream was read.
        offset: u64,
        /// What the input said.
        source: io::Error,
    },
    /// The archive ends in the middle.
    #[error("the archive is cut off after {offset} bytes (uncompressed): {missing}")]
    Truncated {
        /// How far the uncompressed stream was read.
        offset: u64,
        /// What should have come.
        missing: &'static str,
    },
    /// A header that is none.
    #[error("the archive is damaged, or no tar archive, at byte {offset} (uncompressed): {problem}")]
    Damaged {
        /// Where the header starts.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The input is an archive of another kind.
    #[error("this is {kind}, not a tar archive")]
    NotTar {
        /// What it looks like.
        kind: &'static str,
    },
    /// One entry is refused.
    #[error("entry `{entry}`: {problem}")]
    Entry {
        /// The name, as the archive gives it.
        entry: EntryName,
        /// Why.
        problem: Problem,
    },
    /// A limit of [`super::Limits`] was reached.
    #[error(
        "the archive has more than {limit} {unit}; it was not unpacked (raise the limit if it is meant to)"
    )]
    TooMuch {
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The layer's uncompressed bytes are not those that its image promises.
    #[error(
        "the layer is damaged, or not the one of this image: its uncompressed digest should be {expected} and is {found}"
    )]
    DiffId {
        /// What the image's config says.
        expected: DiffId,
        /// What the bytes give.
        found: DiffId,
    },
    /// The layer's bytes, as they are, are not those that its manifest promises.
    #[error("the layer is damaged: its digest should be {expected} and is {found}")]
    Blob {
        /// What the manifest says.
        expected: Digest,
        /// What the bytes give.
        found: Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system refused a part of an entry.
    #[error("entry `{entry}`: cannot {action}: {source}{}", hint(action, source))]
    Write {
        /// The name, as the archive gives it.
        entry: EntryName,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The cure, where one is known.
fn hint(action: &str, source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc_errno::EPERM) if action.starts_with("make the device") => {
            " (an ordinary user cannot make device nodes: build as root, or take the node out of the archive)"
        }
        Some(libc_errno::EINVAL) if action.starts_with("set the owner") => {
            " (the id is outside of the ids that this user was given in /etc/subuid and /etc/subgid)"
        }
        _ => "",
    }
}

mod libc_errno {
    use rustix::io::Errno;
    pub(super) const EPERM: i32 = Errno::PERM.raw_os_error();
    pub(super) const EINVAL: i32 = Errno::INVAL.raw_os_error();
}

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// `..` in a name.
    #[error("the name contains `..`, which could lead out of the layer")]
    DotDot,
    /// `..` in a hard link's target that leads somewhere.
    #[error("the hard link's target `{0}` contains `..`, which could lead out of the layer")]
    LinkDotDot(EntryName),
    /// No name, or one that means the root, for what is no directory.
    #[error("the name is empty or means the root directory, which only a directory can be")]
    Root,
    /// A NUL in a name.
    #[error("the {0} contains a NUL byte")]
    Nul(&'static str),
    /// A name that is too long.
    #[error("the {what} is longer than {limit} bytes")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Too many directories in each other.
    #[error("it is more than {0} directories deep")]
    TooDeep(usize),
    /// A parent is a symbolic link.
    #[error(
        "its parent `{0}` is a symbolic link, and entries are not written through links (to replace the link, the archive must list the directory before what is in it)"
    )]
    ThroughSymlink(EntryName),
    /// A parent is a link that does not lead to a directory of this layer.
    #[error("its parent `{0}` is a symbolic link that does not lead to a directory of this layer")]
    BrokenParentLink(EntryName),
    /// A parent is no directory.
    #[error("its parent `{0}` is not a directory")]
    ParentNotDirectory(EntryName),
    /// A directory of the user would have to be removed for it.
    #[error("there is a directory of this name; it was left alone")]
    OverDirectory,
    /// A file of the user would have to be removed for a directory.
    #[error("there is something of this name that is no directory; it was left alone")]
    OverFile,
    /// A hard link to what is not there.
    #[error("the hard link's target `{0}` is not in this layer, or comes after it")]
    LinkTargetMissing(EntryName),
    /// A hard link to what no link may be made to.
    #[error("the hard link's target `{0}` is neither a regular file nor a symbolic link of this layer")]
    LinkTargetKind(EntryName),
    /// A hard link to itself.
    #[error("it is a hard link to itself")]
    LinkToSelf,
    /// A link without target.
    #[error("it is a link without a target")]
    NoLinkTarget,
    /// A whiteout of nothing, `.`, `..` or another whiteout.
    #[error("it is an invalid whiteout: `{0}` is not a name that could be removed")]
    InvalidWhiteout(EntryName),
    /// A whiteout of the wrong type.
    #[error("its name makes it a whiteout, but it is not an empty regular file")]
    WhiteoutKind,
    /// A directory named as a whiteout is.
    #[error("its parent `{0}` has a whiteout's name and cannot be a directory")]
    BelowWhiteout(EntryName),
    /// A name that a layer cannot hold.
    #[error(
        "names that begin with `.wh.` mean removed files in layers, so that a root file system with such a name cannot be made into one"
    )]
    WhiteoutName,
    /// The node overlayfs understands as removed.
    #[error("a character device 0:0 means a removed file to overlayfs and cannot be in an archive")]
    WhiteoutDevice,
    /// An id out of range.
    #[error("its {what} {value} does not fit in 32 bits")]
    IdRange {
        /// Which id.
        what: &'static str,
        /// Its value.
        value: i128,
    },
    /// A header field that is no number.
    #[error("its {0} is not a number")]
    NotANumber(&'static str),
    /// A number that is out of range.
    #[error("its {0} is out of range")]
    Range(&'static str),
    /// Data where none can be.
    #[error("it is a {kind} with {size} bytes of data, which tools read differently")]
    DataOnNonFile {
        /// Which type.
        kind: &'static str,
        /// How much.
        size: u64,
    },
    /// Two sizes.
    #[error("its header says {header} bytes and its PAX header {pax}, so that tools read different archives")]
    ConflictingSizes {
        /// The header's.
        header: u64,
        /// The PAX header's.
        pax: u64,
    },
    /// Two different values for one thing.
    #[error("its {0} is given twice, differently")]
    Conflict(&'static str),
    /// Two extension headers of a kind.
    #[error("it has two {0} headers")]
    TwoHeaders(&'static str),
    /// A malformed PAX header.
    #[error("its PAX header is malformed: {0}")]
    BadPax(&'static str),
    /// A global PAX header that changes what follows.
    #[error("a global PAX header sets `{0}` for all that follows, which tools read differently")]
    GlobalPax(EntryName),
    /// A sparse map that is wrong.
    #[error("its sparse map is malformed: {0}")]
    BadSparse(&'static str),
    /// Type flag that is not known.
    #[error("its type {} is not known", type_flag(*.0))]
    UnknownType(u8),
    /// A regular file whose name ends in a slash.
    #[error("it is a regular file whose name ends in `/`, which tools read differently")]
    FileWithSlash,
}

fn type_flag(flag: u8) -> String {
    format!("`{}` (0x{flag:02x})", flag.escape_ascii())
}

/// A name out of an archive: bytes that may be anything, shown without control characters and not too long.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryName(Vec<u8>);

impl EntryName {
    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> EntryName {
        EntryName(bytes.into())
    }

    /// The bytes as the archive has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let cut = &self.0[..self.0.len().min(SHOWN)];
        for chunk in cut.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c.is_control() {
                    true => write!(f, "{}", c.escape_default())?,
                    false => write!(f, "{c}")?,
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        f.write_str(if self.0.len() > SHOWN { "…" } else { "" })
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
