//! Bases that are root file system archives, in the context or behind a URL.
//!
//! Two kinds of records. `base` leads from an archive's digest to its layer, so that an archive is unpacked once. `fetch`
//! leads from a URL to the digest that it gave and to the server's validators: a URL without checksum is asked for again at
//! each build, and fetched only if it has changed; one with a checksum that is here is not even asked for.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use box_store::ApplyOptions;
use box_store::Store;
use box_store::digest::{DiffId, Digest, Hasher};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;
use box_store::transfer::Progress;
use box_store::transfer::http::{FetchOptions, Fetched, FetchedFile, Proxies, Validators};
use serde::{Deserialize, Serialize};

use crate::context::resolve;
use crate::error::StepError;
use crate::exec::CancelToken;
use crate::files::{EntryKind, FileTree, FilesError};
use crate::progress::{Event, EventSink, StepId};
use crate::steps::Tools;

/// A base's layer, and whether it was here.
pub(crate) struct Unpacked {
    pub(crate) layer: Layer,
    pub(crate) is_cached: bool,
}

/// The layer of an archive in the context.
///
/// # Errors
/// When it is not there, can't be read, or is not what its checksum says; when it can't be unpacked.
pub(crate) fn from_context(
    tools: &Tools<'_>,
    id: StepId,
    path: &str,
    checksum: Option<&Digest>,
) -> Result<Unpacked, StepError> {
    let context = tools.context;
    let not_found = || FilesError::NotFound {
        path: path.to_owned(),
        tree: context.describe(),
        ignored: false,
    };
    let (found, meta) = resolve(context, Path::new(path))?.ok_or_else(not_found)?;
    if meta.kind != EntryKind::File {
        return Err(StepError::NotAFile {
            what: path.to_owned(),
        });
    }
    let digest = context.facts(&found, &meta)?.digest;
    check(path, checksum, digest)?;
    let open = || {
        let file = context.open(&found, &meta)?;
        Ok(Archive {
            file,
            size: meta.size,
            name: path.to_owned(),
        })
    };
    unpack(tools, id, digest, open)
}

/// The layer of an archive behind a URL.
///
/// # Errors
/// When it can't be fetched, is not what its checksum says, or can't be unpacked.
pub(crate) fn from_url(
    tools: &Tools<'_>,
    id: StepId,
    url: &str,
    checksum: Option<&Digest>,
) -> Result<Unpacked, StepError> {
    if let Some(layer) = checksum.map_or(Ok(None), |digest| known(tools.store, digest))? {
        return Ok(Unpacked {
            layer,
            is_cached: true,
        });
    }
    let shown = without_credentials(url);
    let key = Digest::of(format!("box fetch\n{url}\n").as_bytes());
    let last = match checksum {
        Some(_) => None,
        None => last_fetch(tools.store, &key)?,
    };
    let last = match last {
        Some(last) => known(tools.store, &last.digest)?.map(|layer| (last, layer)),
        None => None,
    };
    let options = FetchOptions {
        checksum: checksum.copied(),
        validators: last.as_ref().map(|(last, _)| last.validators.clone()),
        proxies: proxies(tools),
        ..FetchOptions::default()
    };
    let progress = FetchEvents {
        events: tools.events,
        id,
        what: &shown,
        cancel: &tools.request.cancel,
    };
    match (tools.store.fetch_blocking(url, &options, &progress)?, last) {
        (Fetched::NotModified, Some((_, layer))) => Ok(Unpacked {
            layer,
            is_cached: true,
        }),
        // Only a server that was asked whether it changed may say that it did not.
        (Fetched::NotModified, None) => Err(FilesError::NotFound {
            path: shown,
            tree: "the server".to_owned(),
            ignored: false,
        }
        .into()),
        (Fetched::File(file), _) => {
            remember(tools.store, &key, &file)?;
            let (digest, size, name) = (file.digest, file.size, shown.clone());
            unpack(tools, id, digest, move || {
                Ok(Archive {
                    file: file.file,
                    size,
                    name,
                })
            })
        }
    }
}

#[derive(Serialize, Deserialize)]
struct LastFetch {
    digest: Digest,
    validators: Validators,
}

fn last_fetch(store: &Store, key: &Digest) -> Result<Option<LastFetch>, StoreError> {
    let record = store.get_record(&RecordKind::new("fetch")?, key)?;
    Ok(record.and_then(|record| serde_json::from_slice(&record.bytes).ok()))
}

fn remember(store: &Store, key: &Digest, file: &FetchedFile) -> Result<(), StoreError> {
    let last = LastFetch {
        digest: file.digest,
        validators: file.validators.clone(),
    };
    let bytes = serde_json::to_vec(&last).unwrap_or_default();
    store.put_record(&RecordKind::new("fetch")?, key, &bytes, &[])
}

fn proxies(tools: &Tools<'_>) -> Proxies {
    let proxy = |name: &str| {
        let request = tools.request;
        let either = [name.to_ascii_lowercase(), name.to_owned()];
        either
            .iter()
            .find_map(|name| request.build_args.get(name).or(request.proxies.get(name)))
            .cloned()
    };
    Proxies {
        http: proxy("HTTP_PROXY"),
        https: proxy("HTTPS_PROXY"),
        no_proxy: proxy("NO_PROXY"),
    }
}

/// A URL as it may be shown and kept: without user and password.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

fn check(what: &str, expected: Option<&Digest>, found: Digest) -> Result<(), StepError> {
    match expected {
        Some(expected) if *expected != found => Err(StepError::Checksum {
            what: what.to_owned(),
            expected: *expected,
            found,
        }),
        _ => Ok(()),
    }
}

/// An opened archive.
struct Archive {
    file: File,
    size: u64,
    name: String,
}

fn base_key(digest: &Digest) -> Digest {
    Digest::of(format!("box base archive 1\n{digest}\n").as_bytes())
}

/// The layer that an archive with this digest was unpacked to.
fn known(store: &Store, digest: &Digest) -> Result<Option<Layer>, StoreError> {
    let record = store.get_record(&RecordKind::new("base")?, &base_key(digest))?;
    let diff_id = record.and_then(|record| serde_json::from_slice::<DiffId>(&record.bytes).ok());
    diff_id.map_or(Ok(None), |diff_id| store.layer(&diff_id))
}

/// Unpacks an archive, once for all that want it at the same time.
fn unpack(
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

/// A transfer's progress as events of a build.
struct FetchEvents<'a> {
    events: &'a dyn EventSink,
    id: StepId,
    what: &'a str,
    cancel: &'a CancelToken,
}

impl Progress for FetchEvents<'_> {
    fn start(&self, total: Option<u64>) {
        self.events.event(Event::FetchStarted {
            id: self.id,
            what: &format!("fetching {}", self.what),
            total,
        });
    }

    fn advance(&self, bytes: u64) {
        self.events.event(Event::FetchProgress { id: self.id, bytes });
    }

    fn finish(&self) {
        self.events.event(Event::FetchDone { id: self.id });
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let cases = [
            ("https://u:p@host/a@b", "https://host/a@b"),
            ("https://u:p@x@host", "https://host"),
            ("https://host/a@b", "https://host/a@b"),
            ("https://host?x=a@b", "https://host?x=a@b"),
        ];
        for (url, expected) in cases {
            assert_eq!(without_credentials(url), expected);
        }
    }
}
