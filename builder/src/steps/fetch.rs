//! What is behind a URL, as a layer.
//!
//! Records of kind `fetch` lead from a URL to the digest that it gave and to the server's validators: a URL without checksum
//! is asked for again at each build, and fetched only if it has changed; one with a checksum that is here is not even asked
//! for.

use box_store::Store;
use box_store::digest::Digest;
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;
use box_store::transfer::Progress;
use box_store::transfer::http::{FetchOptions, Fetched, FetchedFile, Proxies, Validators};
use serde::{Deserialize, Serialize};

use crate::error::StepError;
use crate::exec::CancelToken;
use crate::files::FilesError;
use crate::progress::{Event, EventSink, StepId};

use super::{Tools, Unpacked};

/// The layer of what a URL gives. `known` finds it by the digest of the file, `make` makes it.
///
/// # Errors
/// When it can't be fetched, or is not what its checksum says; those of `make`.
pub(crate) fn layer(
    tools: &Tools<'_>,
    id: StepId,
    (url, checksum): (&str, Option<&Digest>),
    known: &dyn Fn(&Digest) -> Result<Option<Layer>, StoreError>,
    make: impl FnOnce(FetchedFile) -> Result<Unpacked, StepError>,
) -> Result<Unpacked, StepError> {
    if let Some(layer) = checksum.map_or(Ok(None), known)? {
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
        Some(last) => known(&last.digest)?.map(|layer| (last, layer)),
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
            make(file)
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
