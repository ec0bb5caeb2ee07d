//! What a fetch is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// How to fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// What the bytes must hash to.
    pub checksum: Option<Digest>,
    /// From an earlier fetch: then the answer may be that nothing changed.
    pub validators: Option<Validators>,
    /// How much is put up with.
    pub limits: FetchLimits,
    /// Through whom.
    pub proxies: Proxies,
    /// The `User-Agent`.
    pub user_agent: String,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        FetchOptions {
            checksum: None,
            validators: None,
            limits: FetchLimits::default(),
            proxies: Proxies::default(),
            user_agent: concat!("box/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// What a server says that tells one version of a file from another (RFC 9110, section 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// `ETag`, as it is, with its quotes.
    pub etag: Option<String>,
    /// `Last-Modified`, as it is.
    pub last_modified: Option<String>,
    /// Whether the file was at rest when it was fetched: its time was a minute old, so that another file has another one (RFC 9110,
    /// section 8.8.2.2).
    #[serde(default)]
    pub is_at_rest: bool,
}

impl Validators {
    /// Whether there is nothing to ask with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.date().is_none()
    }

    /// The time to ask with where there is no ETag.
    pub(super) fn date(&self) -> Option<&str> {
        self.last_modified.as_deref().filter(|_| self.is_at_rest)
    }

    /// The ETag, if equal ones mean equal bytes.
    pub(super) fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }
}

/// How much is put up with.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Bytes of the file, at most.
    pub max_size: u64,
    /// Redirects in a row, at most.
    pub max_redirects: usize,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// In each span of this length…
    pub patience: Duration,
    /// …at least so many bytes must come (or the answer's headers).
    pub min_bytes: u64,
    /// How often to try again after a temporary failure that brought nothing.
    pub retries: u32,
    /// The wait before the first retry; it doubles each time.
    pub retry_delay: Duration,
    /// The longest wait, also when the server asks for more.
    pub max_delay: Duration,
}

impl Default for FetchLimits {
    /// 16 GiB, 10 redirects, 30 s to connect, 4 KiB in 30 s, 4 retries after 0.5 s and more, up to 60 s.
    fn default() -> FetchLimits {
        FetchLimits {
            max_size: 16 << 30,
            max_redirects: 10,
            connect_timeout: Duration::from_secs(30),
            patience: Duration::from_secs(30),
            min_bytes: 4 << 10,
            retries: 4,
            retry_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(60),
        }
    }
}

/// The proxies to use, as `http_proxy`, `https_proxy` and `no_proxy` have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:` URLs.
    pub http: Option<String>,
    /// For `https:` URLs.
    pub https: Option<String>,
    /// Hosts to reach directly, separated by commas.
    pub no_proxy: Option<String>,
}
