//! Trees that COPY reads from: the build context, a stage, an image. One trait, so that selecting, hashing and writing
//! need to be said once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use box_store::digest::{Digest, Hasher};
use box_store::error::StoreError;

use crate::ignore::{IgnoreError, IgnoreRules};

/// A read-only tree of files. Paths are relative to its root, without `.` and `..`; empty for the root itself.
///
/// Contract: no method leaves the tree or blocks on a FIFO or device, whatever links and special files it holds.
pub trait FileTree: Sync {
    /// What it is called in errors (`the build context /src`).
    fn describe(&self) -> String;

    /// Whether owners mean something (a stage, an image) or not (the context, whose files become 0:0).
    fn keeps_owners(&self) -> bool;

    /// The entry at `path`, links in it not followed; none if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    fn lookup(&self, path: &Path) -> Result<Option<Meta>, FilesError>;

    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// When it can't be read.
    fn list(&self, path: &Path) -> Result<Vec<(OsString, Meta)>, FilesError>;

    /// Where a symbolic link leads, as it says.
    ///
    /// # Errors
    /// When it can't be read.
    fn read_link(&self, path: &Path) -> Result<PathBuf, FilesError>;

    /// The content of the regular file `path`, which was seen as `meta`.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if it is another file by now; when it can't be read.
    fn facts(&self, path: &Path, meta: &Meta) -> Result<Facts, FilesError>;

    /// The same, if it is known without reading the file.
    ///
    /// # Errors
    /// When what is known can't be read.
    fn known(&self, _path: &Path, _meta: &Meta) -> Result<Option<Facts>, FilesError> {
        Ok(None)
    }

    /// Attributes of an entry that is no regular file.
    ///
    /// # Errors
    /// When they can't be read.
    fn xattrs(&self, path: &Path, meta: &Meta) -> Result<Vec<Xattr>, FilesError>;

    /// Opens the regular file `path`.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if it is another file by now; when it can't be opened.
    fn open(&self, path: &Path, meta: &Meta) -> Result<File, FilesError>;

    /// The rules of what is not there for COPY.
    fn rules(&self) -> Option<&IgnoreRules> {
        None
    }
}

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket; never copied.
    Socket,
    /// A character device with its number.
    CharDevice(u64),
    /// A block device with its number.
    BlockDevice(u64),
}

/// What is known of an entry without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its type.
    pub kind: EntryKind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// How many names it has.
    pub links: u64,
    /// What tells it from others and from itself at other times.
    pub stamp: Stamp,
}

/// An inode at a time: if all of it is equal, its content is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Modification time, nanoseconds since 1970.
    pub modified: i128,
    /// Change time, nanoseconds since 1970.
    pub changed: i128,
}

/// An extended attribute: name and value.
pub type Xattr = (OsString, Vec<u8>);

/// What a regular file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of its content.
    pub digest: Digest,
    /// Attributes that a layer keeps, sorted.
    pub xattrs: Vec<Xattr>,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes of a file, by digest.
    File(Digest),
    /// The target of a link.
    Symlink(PathBuf),
    /// Nothing.
    Nothing,
}

/// An entry that is to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, relative to the selection's root; empty for the root itself.
    pub relative: PathBuf,
    /// What is known of it.
    pub meta: Meta,
    /// What it holds.
    pub content: Content,
    /// Its attributes, sorted.
    pub xattrs: Vec<Xattr>,
}

/// One source of a COPY, found: a file, or a directory with all in it that is not ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Its last name as written (that of a link, if it was one).
    pub name: OsString,
    /// Where it is in the tree.
    pub root: PathBuf,
    /// The root, then what is in it, each directory before its children.
    pub entries: Vec<Entry>,
}

impl Selection {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.entries
            .first()
            .is_some_and(|entry| entry.meta.kind == EntryKind::Directory)
    }

    /// Adds to a digest everything of it that a copy can show: names, types, modes, content, links, attributes, and
    /// owners and hard links where `owners` says so; no times. Of a directory what is in it is copied, not the directory itself,
    /// unless `shows_root` says so.
    pub fn hash_into(&self, hasher: &mut Hasher, owners: bool, shows_root: bool) {
        let is_directory = self.is_directory();
        hasher.update(&[u8::from(is_directory), u8::from(shows_root)]);
        hash_bytes(hasher, self.name.as_bytes());
        let entries = &self.entries[usize::from(is_directory && !shows_root)..];
        hasher.update(&(entries.len() as u64).to_le_bytes());
        let mut first: HashMap<(u64, u64), u64> = HashMap::new();
        for (entry, number) in entries.iter().zip(0u64..) {
            entry.hash_into(hasher, owners);
            if owners && entry.meta.links > 1 && entry.meta.kind == EntryKind::File {
                let stamp = &entry.meta.stamp;
                let same = *first.entry((stamp.device, stamp.inode)).or_insert(number);
                if same != number {
                    hasher.update(b"same file");
                    hasher.update(&same.to_le_bytes());
                }
            }
        }
    }
}

impl Entry {
    /// Adds to a digest everything of it that a copy can show.
    pub(crate) fn hash_into(&self, hasher: &mut Hasher, owners: bool) {
        hash_bytes(hasher, self.relative.as_os_str().as_bytes());
        let (letter, number) = match self.meta.kind {
            EntryKind::Directory => (b'd', 0),
            EntryKind::File => (b'f', 0),
            EntryKind::Symlink => (b'l', 0),
            EntryKind::Fifo => (b'p', 0),
            EntryKind::Socket => (b's', 0),
            EntryKind::CharDevice(number) => (b'c', number),
            EntryKind::BlockDevice(number) => (b'b', number),
        };
        hasher.update(&[letter, u8::from(owners)]);
        hasher.update(&number.to_le_bytes());
        hasher.update(&self.meta.mode.to_le_bytes());
        if owners {
            hasher.update(&self.meta.uid.to_le_bytes());
            hasher.update(&self.meta.gid.to_le_bytes());
        }
        match &self.content {
            Content::File(digest) => hasher.update(digest.as_bytes()),
            Content::Symlink(target) => hash_bytes(hasher, target.as_os_str().as_bytes()),
            Content::Nothing => {}
        }
        hasher.update(&(self.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &self.xattrs {
            hash_bytes(hasher, name.as_bytes());
            hash_bytes(hasher, value);
        }
    }
}

fn hash_bytes(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A source that is not there.
    #[error("{path} not found in {tree}{}", if *.ignored { ": the ignore file leaves it out" } else { "" })]
    NotFound {
        /// The path as it was looked for.
        path: String,
        /// Where.
        tree: String,
        /// Whether it is there, but ignored.
        ignored: bool,
    },
    /// A malformed wildcard.
    #[error("{pattern} is not a valid pattern: a '[' without ']', or a range without end")]
    Pattern {
        /// As written.
        pattern: String,
    },
    /// A file that was replaced or written while it was read.
    #[error("{} in {tree} changed while it was read; let it rest and build again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Where.
        tree: String,
    },
    /// More symbolic links than the kernel would follow.
    #[error("too many symbolic links in {} in {tree}", path.display())]
    TooManyLinks {
        /// The path as it was looked for.
        path: PathBuf,
        /// Where.
        tree: String,
    },
    /// The system's answer.
    #[error("cannot {action} {} in {tree}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The entry.
        path: PathBuf,
        /// Where.
        tree: String,
        /// The answer.
        source: io::Error,
    },
    /// A malformed ignore file.
    #[error("{name}: {source}")]
    Ignore {
        /// The ignore file.
        name: String,
        /// What is wrong with it.
        source: IgnoreError,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
