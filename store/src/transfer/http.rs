//! Fetching a file over HTTP and HTTPS.
//!
//! Everything is bounded: size, redirects, attempts, and how slow a server may be. A transfer that breaks off goes on
//! where it stopped (`Range`) if the server's strong ETag, or a checksum, makes sure that the parts belong together;
//! otherwise it begins again. Bytes are kept as the server has them: no content coding is asked for or undone.
//! Redirects are followed here, not by the client, so that credentials in a URL stay with their origin (RFC 9110,
//! section 15.4) and HTTPS never becomes HTTP. Nothing is read from the environment: proxies are options.

mod client;
mod error;
mod fetched;
mod options;
mod response;
mod shown;
mod sink;

use std::fs::File;
use std::time::Duration;

pub use error::FetchError;
pub use fetched::{Fetched, FetchedFile};
pub use options::{FetchLimits, FetchOptions, Proxies, Validators};
pub use shown::without_credentials;

use crate::transfer::progress::Progress;
use client::Client;
pub(crate) use client::{proxies, reason};
use fetched::Part;
pub(crate) use response::{content_range, retry_after};
use sink::Sink;

/// Fetches `url` into `into`, an empty file open for reading and writing.
///
/// # Errors
/// See [`FetchError`]. What was written to the file then means nothing.
pub async fn fetch(
    url: &str,
    options: &FetchOptions,
    into: File,
    progress: &dyn Progress,
) -> Result<Fetched, FetchError> {
    let client = Client::new(url, options)?;
    let mut sink = Sink::new(into, options, progress);
    let result = attempts(&client, options, &mut sink).await;
    progress.finish();
    match result? {
        None => Ok(Fetched::NotModified),
        Some(part) => sink.finish(part, options).map(Fetched::File),
    }
}

/// [`fetch`] for callers without a runtime. Must not be called from within one.
pub fn fetch_blocking(
    url: &str,
    options: &FetchOptions,
    into: File,
    progress: &dyn Progress,
) -> Result<Fetched, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| FetchError::Local {
        action: "start a runtime",
        source,
    })?;
    let result = runtime.block_on(fetch(url, options, into, progress));
    // A name lookup that hangs is not waited for.
    runtime.shutdown_background();
    result
}

/// Tries until it is whole, fails for good, or failed too often without getting further.
async fn attempts(
    client: &Client<'_>,
    options: &FetchOptions,
    sink: &mut Sink<'_>,
) -> Result<Option<Part>, FetchError> {
    let mut failures = 0;
    loop {
        let (before, resumed) = (sink.size(), sink.resumable().is_some());
        let error = match client.attempt(sink).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // An attempt that got further counts as the first one; how often is bounded all the same.
        let weight = error.weight(options.limits.retries);
        failures = if sink.size() > before {
            weight
        } else {
            failures + weight
        };
        sink.attempts += 1;
        let odd = resumed && matches!(error, FetchError::Protocol { .. });
        if odd {
            sink.forget();
        }
        let again = (odd || error.is_temporary()) && failures <= options.limits.retries;
        if !again || sink.attempts > options.limits.retries.saturating_mul(4) {
            return Err(error);
        }
        pause(&error, options, sink).await?;
    }
}

/// As long as the server asks for, or longer each time.
async fn pause(error: &FetchError, options: &FetchOptions, sink: &Sink<'_>) -> Result<(), FetchError> {
    let doubled = 1 << sink.attempts.saturating_sub(1).min(6);
    let own = options.limits.retry_delay.saturating_mul(doubled);
    let wait = error.retry_after().unwrap_or(own).min(options.limits.max_delay);
    let end = tokio::time::Instant::now() + wait;
    while tokio::time::Instant::now() < end {
        sink.check_cancelled()?;
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + Duration::from_millis(100))).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
