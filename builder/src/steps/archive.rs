//! Archives as layers: each is unpacked once, and found again by its digest (records of kind `base`).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use box_store::digest::{DiffId, Digest, Hasher};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;
use box_store::{AppliedArchive, ApplyOptions, Store};
use serde::{Deserialize, Serialize};

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
    Digest::of(format!("box base archive 2\n{digest}\n").as_bytes())
}

/// An archive that was unpacked.
pub(crate) struct UnpackedArchive {
    pub(crate) layer: Layer,
    /// Directories that it does not list, sorted; relative to the root.
    pub(crate) implied: Vec<PathBuf>,
    is_cached: bool,
}

impl UnpackedArchive {
    /// As the layer alone.
    pub(crate) fn into_layer(self) -> Unpacked {
        Unpacked {
            layer: self.layer,
            is_cached: self.is_cached,
        }
    }
}

/// What the record keeps. Directories are in it as bytes, since a name need not be UTF-8.
#[derive(Serialize, Deserialize)]
struct Record {
    diff_id: DiffId,
    implied: Vec<Vec<u8>>,
}

/// What an archive with this digest was unpacked to.
///
/// # Errors
/// When the store can't be read.
pub(crate) fn known(store: &Store, digest: &Digest) -> Result<Option<UnpackedArchive>, StoreError> {
    let record = store.get_record(&RecordKind::new("base")?, &base_key(digest))?;
    let record = record.and_then(|record| serde_json::from_slice::<Record>(&record.bytes).ok());
    let Some(Record { diff_id, implied }) = record else {
        return Ok(None);
    };
    let implied = implied
        .into_iter()
        .map(|path| OsString::from_vec(path).into())
        .collect();
    let layer = store.layer(&diff_id)?;
    Ok(layer.map(|layer| UnpackedArchive {
        layer,
        implied,
        is_cached: true,
    }))
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
) -> Result<UnpackedArchive, StepError> {
    let store = tools.store;
    if let Some(known) = known(store, &digest)? {
        return Ok(known);
    }
    if tools.is_forecast {
        return Err(StepError::OnlyBuilt {
            what: "an archive that was not unpacked yet".to_owned(),
        });
    }
    let _lock = tools.lock(id, ("base", &base_key(&digest)), || Ok(()))?;
    if let Some(known) = known(store, &digest)? {
        return Ok(known);
    }
    let AppliedArchive { layer, implied } = extract(tools, id, open()?, digest)?;
    let diff_id = layer.diff_id()?;
    let paths = implied.iter().map(|path| path.as_os_str().as_bytes().to_vec());
    let record = Record {
        diff_id,
        implied: paths.collect(),
    };
    let bytes = serde_json::to_vec(&record).unwrap_or_default();
    store.put_record(
        &RecordKind::new("base")?,
        &base_key(&digest),
        &bytes,
        &[diff_id.0],
    )?;
    Ok(UnpackedArchive {
        layer,
        implied,
        is_cached: false,
    })
}

fn extract(
    tools: &Tools<'_>,
    id: StepId,
    archive: Archive,
    digest: Digest,
) -> Result<AppliedArchive, StepError> {
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
        cancel: tools.cancel,
    };
    let applied = tools
        .store
        .apply_archive_listing(&mut reader, &ApplyOptions::default());
    tools.events.event(Event::FetchDone { id });
    if tools.cancel.is_cancelled() {
        return Err(StepError::Cancelled);
    }
    let applied = applied.map_err(|source| StepError::Archive {
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
    Ok(applied)
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
