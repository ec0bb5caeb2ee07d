//! Where blobs come from: an OCI layout, in a directory of someone's or staged from an archive.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use serde_json::Value;

use super::error::ArchiveError;
use crate::digest::Digest;
use crate::transfer::document::{self, DOCUMENT_LIMIT, wrong};

/// A layout to load from.
pub(super) trait Layout {
    /// `index.json`.
    fn index(&self) -> &[u8];

    /// A blob's file; `None` if it is not there.
    fn blob(&self, digest: &Digest) -> Result<Option<File>, ArchiveError>;
}

/// Opens the blob of a descriptor and compares its length.
pub(super) fn open(
    layout: &dyn Layout,
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<(Digest, File), ArchiveError> {
    let digest = document::digest(descriptor, what)?;
    let file = layout
        .blob(&digest)?
        .ok_or(ArchiveError::Missing { what, digest })?;
    let read = |source| ArchiveError::Read {
        path: PathBuf::from(digest.to_string()),
        source,
    };
    let (expected, found) = (descriptor.size(), file.metadata().map_err(read)?.len());
    match expected == found {
        true => Ok((digest, file)),
        false => Err(ArchiveError::Size {
            what,
            digest,
            expected,
            found,
        }),
    }
}

/// A small blob, whole and verified.
pub(super) fn read(
    layout: &dyn Layout,
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<(Digest, Vec<u8>), ArchiveError> {
    let (expected, file) = open(layout, descriptor, what)?;
    let path = PathBuf::from(expected.to_string());
    let bytes = read_document(file, &path, what)?;
    let found = Digest::of(&bytes);
    match found == expected {
        true => Ok((expected, bytes)),
        false => Err(ArchiveError::Blob { expected, found }),
    }
}

fn read_document(file: File, path: &Path, what: &str) -> Result<Vec<u8>, ArchiveError> {
    let limit = DOCUMENT_LIMIT;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|source| ArchiveError::Read {
        path: path.to_owned(),
        source,
    })?;
    match bytes.len() as u64 > limit {
        true => Err(ArchiveError::TooLarge {
            what: what.to_owned(),
            limit,
        }),
        false => Ok(bytes),
    }
}

/// Whether `oci-layout` says a version that is known.
pub(super) fn check_version(bytes: &[u8]) -> Result<(), ArchiveError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong("oci-layout", &e.to_string()))?;
    match value.get("imageLayoutVersion").and_then(Value::as_str) {
        Some(version) if version.starts_with("1.") => Ok(()),
        _ => Err(wrong("oci-layout", "its imageLayoutVersion is not 1.x").into()),
    }
}

/// A layout in a directory.
pub(super) struct Directory {
    path: PathBuf,
    dir: OwnedFd,
    index: Vec<u8>,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Directory, ArchiveError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty());
        let dir = dir.map_err(|e| ArchiveError::Read {
            path: path.to_owned(),
            source: e.into(),
        })?;
        let mut directory = Directory {
            path: path.to_owned(),
            dir,
            index: Vec::new(),
        };
        let version = directory.document("oci-layout")?;
        check_version(&version.ok_or(ArchiveError::NotOci("it has no oci-layout file"))?)?;
        let index = directory.document("index.json")?;
        directory.index = index.ok_or(ArchiveError::NotOci("it has no index.json"))?;
        Ok(directory)
    }

    fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let file = self.file(name)?;
        file.map(|file| read_document(file, &self.path.join(name), name))
            .transpose()
    }

    /// Only a regular file is opened to be read: a FIFO would wait for ever.
    fn file(&self, name: &str) -> Result<Option<File>, ArchiveError> {
        use rustix::io::Errno;
        let fail = |e: Errno| ArchiveError::Read {
            path: self.path.join(name),
            source: e.into(),
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // A layout may come from a stranger: its links must not lead out of it.
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = match rustix::fs::openat2(&self.dir, name, flags, Mode::empty(), beneath) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(fail)?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(fail)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some(File::from(fd))),
            _ => Err(ArchiveError::EntryKind {
                entry: name.to_owned(),
            }),
        }
    }
}

impl Layout for Directory {
    fn index(&self) -> &[u8] {
        &self.index
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>, ArchiveError> {
        self.file(&format!("blobs/sha256/{}", digest.hex()))
    }
}
