//! Archives as layers: each is unpacked once, and found again by its digest (records of kind `base`).

use std::fs::File;
use std::io::{self, Read, Seek};

use box_store::ApplyOptions;
use box_store::Store;
use box_store::digest::{DiffId, Digest, Hasher};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;

use crate::error::StepError;
use crate::exec::CancelToken;
use crate::files::{FileTree, FilesError};
use crate::progress::{Event, StepId};

use super::{Tools, Unpacked};

/// An opened archive.
pub(crate) struct Archive {
    pub(crate) file: File,
    pub(crate) size: u64,
    /// What it is called in errors.
    pub(crate) name: String,
}

fn base_key(digest: &Digest) -> Digest {
    Digest::of(format!("box base archive 1\n{digest}\n").as_bytes())
}

/// The layer that an archive with this digest was unpacked to.
///
/// # Errors
/// When the store can't be read.
pub(crate) fn known(store: &Store, digest: &Digest) -> Result<Option<Layer>, StoreError> {
    let record = store.get_record(&RecordKind::new("base")?, &base_key(digest))?;
    let diff_id = record.and_then(|record| serde_json::from_slice::<DiffId>(&record.bytes).ok());
    diff_id.map_or(Ok(None), |diff_id| store.layer(&diff_id))
}

/// Unpacks an archive, once for all that want it at the same time.
///
/// # Errors
/// When it can't be read or unpacked, or has another digest.
pub(crate) fn unpack(
    tools: &Tools<'_>,
    id: StepId,
    digest: Digest,
    open: impl FnOnce() -> Result<Archive, StepError>,
) -> Result<Unpacked, StepError> {
    let store = tools.store;
    if let Some(layer) = known(store, &digest)? {
        return Ok(Unpacked {
            layer,
            is_cached: true,
        });
    }
    let _lock = store.lock("base", &base_key(&digest))?;
    if let Some(layer) = known(store, &digest)? {
        return Ok(Unpacked {
            layer,
            is_cached: true,
        });
    }
    let archive = open()?;
    let layer = extract(tools, id, archive, digest)?;
    let diff_id = layer.diff_id()?;
    let bytes = serde_json::to_vec(&diff_id).unwrap_or_default();
    store.put_record(
        &RecordKind::new("base")?,
        &base_key(&digest),
        &bytes,
        &[diff_id.0],
    )?;
    Ok(Unpacked {
        layer,
        is_cached: false,
    })
}

fn extract(tools: &Tools<'_>, id: StepId, archive: Archive, digest: Digest) -> Result<Layer, StepError> {
    let Archive { mut file, size, name } = archive;
    file.rewind().map_err(|source| unreadable(&name, source))?;
    tools.events.event(Event::FetchStarted {
        id,
        what: &format!("unpacking {name}"),
        total: Some(size),
    });
    let mut reader = Checked {
        file,
        hasher: Hasher::new(),
        progress: |bytes| tools.events.event(Event::FetchProgress { id, bytes }),
        cancel: &tools.request.cancel,
    };
    let applied = tools.store.apply_archive(&mut reader, &ApplyOptions::default());
    tools.events.event(Event::FetchDone { id });
    if tools.request.cancel.is_cancelled() {
        return Err(StepError::Cancelled);
    }
    let layer = applied.map_err(|source| StepError::Archive {
        what: name.clone(),
        source,
    })?;
    // What follows the archive's end counts too.
    io::copy(&mut reader, &mut io::sink()).map_err(|source| unreadable(&name, source))?;
    if reader.hasher.finish() != digest {
        return Err(FilesError::Changed {
            path: name.into(),
            tree: tools.context.describe(),
        }
        .into());
    }
    Ok(layer)
}

fn unreadable(name: &str, source: io::Error) -> FilesError {
    FilesError::Io {
        action: "read",
        path: name.into(),
        tree: "the build".to_owned(),
        source,
    }
}

/// A file that is hashed and told of while it is read; reading ends when the build is cancelled.
struct Checked<'a, F> {
    file: File,
    hasher: Hasher,
    progress: F,
    cancel: &'a CancelToken,
}

impl<F: Fn(u64)> Read for Checked<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        (self.progress)(read as u64);
        Ok(read)
    }
}
