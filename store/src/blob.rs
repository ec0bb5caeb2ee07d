//! Blobs: files named by the digest of their content.
//!
//! A [`BlobWriter`] writes to `tmp/` and hashes as it goes; [`BlobWriter::commit`] publishes by rename, dropping it
//! leaves nothing. A published blob is complete by construction; it is verified again whenever it is read, since a disk
//! may err. Publishing a blob that is there replaces it, which mends a damaged one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::error::{IoContext, Result, StoreError};
use crate::root::Root;

/// What a record says of a blob that stands for something else: its OCI descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packed {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
}

/// Writes one blob; drop = abort.
#[derive(Debug)]
pub struct BlobWriter {
    root: Arc<Root>,
    file: File,
    path: Option<PathBuf>,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    pub(crate) fn new(root: &Arc<Root>) -> Result<BlobWriter> {
        let path = root.temp_path()?;
        let file = root.disk.create_file(&path)?;
        Ok(BlobWriter {
            root: Arc::clone(root),
            file,
            path: Some(path),
            hasher: Hasher::new(),
            size: 0,
        })
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Publishes the blob and gives its digest. With `expected`, anything else is refused and nothing published.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<Digest> {
        let found = std::mem::take(&mut self.hasher).finish();
        if let Some(&expected) = expected.filter(|&&expected| expected != found) {
            return Err(StoreError::Mismatch {
                what: "blob",
                expected,
                found,
            });
        }
        if let Some(path) = &self.path {
            self.root.disk.rename_into(path, &self.root.layout.blob(&found))?;
            self.root.wrote();
        }
        self.path = None;
        Ok(found)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = self.root.disk.remove_file(path);
        }
    }
}

/// Reads one blob and checks it: the read that reaches the end fails if the bytes are not those of the digest.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    expected: Digest,
    hasher: Option<Hasher>,
    size: u64,
}

impl BlobReader {
    pub(crate) fn open(root: &Root, digest: &Digest) -> Result<Option<BlobReader>> {
        let path = root.layout.blob(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.at("open", &path)?,
        };
        let size = file.metadata().at("read", &path)?.len();
        Ok(Some(BlobReader {
            file,
            expected: *digest,
            hasher: Some(Hasher::new()),
            size,
        }))
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if read > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..read]);
            }
        } else if let Some(hasher) = self.hasher.take().filter(|_| !buffer.is_empty()) {
            let found = hasher.finish();
            if found != self.expected {
                let error = StoreError::Mismatch {
                    what: "blob",
                    expected: self.expected,
                    found,
                };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(read)
    }
}

/// Reads a small blob whole, verified; none if it is not there.
pub(crate) fn read(root: &Root, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = root.disk.read(&root.layout.blob(digest), limit)? else {
        return Ok(None);
    };
    let found = Digest::of(&bytes);
    if found == *digest {
        Ok(Some(bytes))
    } else {
        Err(StoreError::Mismatch {
            what: "blob",
            expected: *digest,
            found,
        })
    }
}

/// Writes a small blob unless it is there, whole.
pub(crate) fn put(root: &Arc<Root>, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    if matches!(read(root, &digest, bytes.len() as u64), Ok(Some(_))) {
        return Ok(digest);
    }
    let mut writer = BlobWriter::new(root)?;
    writer.write_all(bytes).at("write blob to", root.layout.tmp())?;
    writer.commit(Some(&digest))
}
