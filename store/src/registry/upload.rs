//! One blob goes to a registry.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Body, Method, Url};

use super::client::{Ask, Client, location, shown};
use super::error::RegistryError;
use super::options::TransferProgress;
use super::push::has;
use super::session::lock;
use crate::blob::BlobReader;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::Store;
use crate::transfer::Progress;

/// Bytes that are sent at once.
const CHUNK: usize = 256 << 10;
const BYTES: &str = "application/octet-stream";

/// How a blob came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Was,
    Mounted,
    Sent,
}

/// A blob that is to be there.
pub(super) struct Upload<'s> {
    pub(super) store: &'s Store,
    pub(super) client: &'s Client<'s>,
    pub(super) progress: &'s dyn TransferProgress,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Upload<'_> {
    /// Sends it, unless it is there, or in another repository (`place`) from where it can be mounted.
    pub(super) fn run(&self, place: Option<&str>) -> Result<Delivery, RegistryError> {
        let session = self.client.session();
        let blob = session.of_repository(&format!("blobs/{}", self.digest));
        if has(self.client, &blob, "*/*")? {
            return Ok(Delivery::Was);
        }
        let mut url = session.of_repository("blobs/uploads/");
        if let Some(place) = place {
            url.query_pairs_mut()
                .append_pair("mount", &self.digest.to_string())
                .append_pair("from", place);
        }
        let Some(to) = self.begin(url)? else {
            return Ok(Delivery::Mounted);
        };
        let bar = self.progress.blob(&self.digest, self.size);
        let sent = self.upload(to, bar.as_ref());
        bar.finish();
        sent.map(|()| Delivery::Sent)
    }

    /// Begins an upload; none if the blob was mounted instead.
    fn begin(&self, url: Url) -> Result<Option<Url>, RegistryError> {
        let nothing = || Ok(Body::from(Vec::new()));
        let mut ask = Ask::new(Method::POST, url.clone(), &[201, 202]).header(CONTENT_LENGTH, "0");
        ask.body = Some(&nothing);
        let response = self.client.ask(&ask)?;
        if response.status().as_u16() == 201 {
            return Ok(None);
        }
        let to = location(&url, &response).ok_or_else(|| RegistryError::Protocol {
            url: shown(&url),
            problem: "it does not say where to send the blob".to_owned(),
        })?;
        Ok(Some(to))
    }

    /// Sends the blob; one that breaks off goes on where the registry says that it has got, or begins anew.
    fn upload(&self, mut to: Url, bar: &dyn Progress) -> Result<(), RegistryError> {
        let retries = self.client.session().options.limits.retries;
        let (mut failures, mut from) = (0, 0);
        loop {
            bar.start(Some(self.size));
            bar.advance(from);
            let error = match self.send(&to, from, bar) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            failures += 1;
            if !error.is_temporary() || failures > retries {
                return Err(error);
            }
            let pause = self.client.pause(&error, failures);
            self.client.runtime().block_on(pause)?;
            (to, from) = match self.status(&to)? {
                Some((to, from)) if from <= self.size => (to, from),
                _ => {
                    let url = self.client.session().of_repository("blobs/uploads/");
                    match self.begin(url)? {
                        Some(to) => (to, 0),
                        None => return Ok(()),
                    }
                }
            };
        }
    }

    /// One attempt: the whole blob with one request; or the rest of it, and then the end.
    fn send(&self, to: &Url, from: u64, bar: &dyn Progress) -> Result<(), RegistryError> {
        let nothing = || Ok(Body::from(Vec::new()));
        let mut to = to.clone();
        if from > 0 && from < self.size {
            let ask = Ask::new(Method::PATCH, to.clone(), &[202, 204])
                .header(CONTENT_TYPE, BYTES)
                .header(CONTENT_RANGE, &format!("{from}-{}", self.size - 1))
                .header(CONTENT_LENGTH, &(self.size - from).to_string());
            let response = self.with_body(ask, from, bar)?;
            to = location(&to, &response).unwrap_or(to);
        }
        to.query_pairs_mut()
            .append_pair("digest", &self.digest.to_string());
        let mut ask = Ask::new(Method::PUT, to, &[201, 204]).header(CONTENT_TYPE, BYTES);
        if from == 0 {
            ask = ask.header(CONTENT_LENGTH, &self.size.to_string());
            return self.with_body(ask, 0, bar).map(drop);
        }
        ask = ask.header(CONTENT_LENGTH, "0");
        ask.body = Some(&nothing);
        self.client.ask_once(&ask).map(drop)
    }

    /// Asks with the blob's bytes from there on as the body, as long as they go on.
    fn with_body(
        &self,
        ask: Ask<'_>,
        from: u64,
        bar: &dyn Progress,
    ) -> Result<reqwest::Response, RegistryError> {
        let sent = Arc::new(AtomicU64::new(0));
        let body = || self.body(from, &sent);
        let last = Mutex::new((0, Instant::now()));
        let patience = self.client.session().options.limits.patience;
        let url = shown(&ask.url);
        let watch = || {
            let now = sent.load(Ordering::Relaxed);
            let mut last = lock(&last);
            if now > last.0 {
                bar.advance(now - last.0);
                *last = (now, Instant::now());
            }
            match last.1.elapsed() > patience {
                true => Err(RegistryError::Broken {
                    url: url.clone(),
                    reason: format!("nothing was taken for {} s", patience.as_secs()),
                }),
                false => Ok(()),
            }
        };
        let ask = Ask {
            method: ask.method,
            url: ask.url,
            headers: ask.headers,
            body: Some(&body),
            watch: Some(&watch),
            expected: ask.expected,
        };
        let response = self.client.ask_once(&ask)?;
        watch()?;
        Ok(response)
    }

    /// How far an upload has got; none if the registry knows nothing of it.
    fn status(&self, to: &Url) -> Result<Option<(Url, u64)>, RegistryError> {
        let ask = Ask::new(Method::GET, to.clone(), &[204, 400, 404, 405]);
        let response = self.client.ask(&ask)?;
        if response.status().as_u16() != 204 {
            return Ok(None);
        }
        let range = response
            .headers()
            .get(RANGE)
            .and_then(|value| value.to_str().ok());
        let last = range.and_then(|range| {
            let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
            last.parse::<u64>().ok()
        });
        let next = location(to, &response).unwrap_or_else(|| to.clone());
        // A registry that has one byte and one that has none both say 0-0.
        Ok(last.map(|last| (next, if last == 0 { 0 } else { last.saturating_add(1) })))
    }

    fn body(&self, from: u64, sent: &Arc<AtomicU64>) -> Result<Body, RegistryError> {
        let missing = || StoreError::MissingBlob { digest: self.digest };
        let mut blob = self.store.blob(&self.digest)?.ok_or_else(missing)?;
        let skipped = io::copy(&mut blob.by_ref().take(from), &mut io::sink());
        skipped.map_err(|_| missing())?;
        sent.store(0, Ordering::Relaxed);
        Ok(Body::wrap_stream(Chunks {
            blob,
            sent: Arc::clone(sent),
        }))
    }
}

/// A blob as a stream of chunks. They are compared with the digest as they are read, so that a damaged blob is not sent whole.
struct Chunks {
    blob: BlobReader,
    sent: Arc<AtomicU64>,
}

impl futures_core::Stream for Chunks {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut chunk = vec![0; CHUNK];
        Poll::Ready(match this.blob.read(&mut chunk) {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                this.sent.fetch_add(count as u64, Ordering::Relaxed);
                Some(Ok(chunk))
            }
            Err(error) => Some(Err(error)),
        })
    }
}
