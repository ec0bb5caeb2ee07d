//! What can go wrong with a fetch.

use std::io;
use std::time::Duration;

use crate::digest::Digest;

/// Why a file could not be fetched. URLs are shown without credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Not a URL, or one of another scheme.
    #[error("`{url}` cannot be fetched: {reason}")]
    BadUrl {
        /// As given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A proxy's address is none.
    #[error("the proxy `{proxy}` is not usable: {reason}")]
    BadProxy {
        /// As given.
        proxy: String,
        /// Why not.
        reason: String,
    },
    /// The client could not be set up.
    #[error("cannot set up HTTP: {0}")]
    Setup(String),
    /// No connection.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// To whom.
        host: String,
        /// Why not.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{url}: the server answered {status}{}", status_hint(*.status))]
    Status {
        /// Of what.
        url: String,
        /// The HTTP status code.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The server answered with something that makes no sense.
    #[error("{url}: the server's answer makes no sense: {problem}")]
    Protocol {
        /// Of what.
        url: String,
        /// Why.
        problem: &'static str,
    },
    /// Too many redirects.
    #[error("{url}: more than {limit} redirects")]
    Redirects {
        /// Where it began.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects to {to}, which is not followed: {reason}")]
    BadRedirect {
        /// From where.
        url: String,
        /// Where to.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// The connection broke.
    #[error("{url}: the transfer broke off after {received} bytes: {reason}")]
    Broken {
        /// Of what.
        url: String,
        /// How much was there.
        received: u64,
        /// What happened.
        reason: String,
    },
    /// The server is too slow.
    #[error("{url}: fewer than {min_bytes} bytes came in {seconds} s (after {received} bytes)")]
    Slow {
        /// Of what.
        url: String,
        /// How much was there.
        received: u64,
        /// What should have come…
        min_bytes: u64,
        /// …in this time.
        seconds: u64,
    },
    /// The file is too large.
    #[error("{url}: it is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Of what.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("{url}: the checksum is wrong: expected {expected}, got {found} ({size} bytes)")]
    Checksum {
        /// Of what.
        url: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
        /// How much came.
        size: u64,
    },
    /// The file here could not be written.
    #[error("cannot {action}: {source}")]
    Local {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
}

fn status_hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (no access)",
        404 | 410 => " (there is no such file)",
        407 => " (the proxy asks for credentials)",
        429 => " (too many requests; try later)",
        500..=599 => " (a failure of the server; try later)",
        _ => "",
    }
}

impl FetchError {
    /// Whether trying again may help.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            FetchError::Connect { .. } | FetchError::Broken { .. } | FetchError::Slow { .. } => true,
            FetchError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// How many of the retries it takes up: waiting for a slow server takes long enough as it is, and who cannot
    /// connect most likely mistyped the host.
    pub(super) fn weight(&self, retries: u32) -> u32 {
        match self {
            FetchError::Slow { .. } | FetchError::Connect { .. } => retries / 2 + 1,
            _ => 1,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            FetchError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
