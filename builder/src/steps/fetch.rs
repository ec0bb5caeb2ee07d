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
use crate::url::without_credentials;

use super::{Tools, Unpacked};

/// Finds the layer of a file with this digest; what the server said of it is known if the URL was fetched before.
pub(crate) type Known<'a> = dyn Fn(&Digest, Option<&Validators>) -> Result<Option<Layer>, StoreError> + 'a;

/// The layer of what a URL gives. `make` makes it.
///
/// # Errors
/// When it can't be fetched, or is not what its checksum says; those of `make`.
pub(crate) fn layer(
    tools: &Tools<'_>,
    id: StepId,
    (url, checksum): (&str, Option<&Digest>),
    known: &Known<'_>,
    make: impl FnOnce(FetchedFile) -> Result<Unpacked, StepError>,
) -> Result<Unpacked, StepError> {
    let shown = without_credentials(url);
    let key = Digest::of(format!("box fetch\n{url}\n").as_bytes());
    // Of several that want it at once one fetches it; the others then ask whether it has changed.
    let _once = match tools.is_forecast {
        true => None,
        false => Some(tools.lock(id, ("fetch", &key), || Ok(()))?),
    };
    let last = last_fetch(tools.store, &key)?.filter(|last| checksum.is_none_or(|sum| *sum == last.digest));
    let validators = last.as_ref().map(|last| &last.validators);
    let digest = checksum.or(last.as_ref().map(|last| &last.digest));
    let layer = digest.map_or(Ok(None), |digest| known(digest, validators))?;
    if let (Some(_), Some(layer)) = (checksum, &layer) {
        return Ok(Unpacked {
            layer: layer.clone(),
            is_cached: true,
        });
    }
    if tools.is_forecast {
        return Err(StepError::OnlyBuilt {
            what: format!("what {shown} gives: a build asks for it"),
        });
    }
    let last = last.zip(layer);
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
        cancel: tools.cancel,
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

/// What a URL gave.
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
