//! What can go wrong with a registry.

use std::time::Duration;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::layer::apply::ApplyError;
use crate::registry::options::CredentialsError;
use crate::transfer::{DocumentError, PackError};

/// Why an image could not be pulled or pushed. URLs are shown without credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The client could not be set up.
    #[error("cannot set up HTTP: {0}")]
    Setup(String),
    /// A registry's host is none.
    #[error("{host} is no registry's host")]
    BadHost {
        /// As it is written.
        host: String,
    },
    /// No connection.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// To whom.
        host: String,
        /// Why not.
        reason: String,
    },
    /// The connection broke, or nothing came for too long.
    #[error("{url}: broken off: {reason}")]
    Broken {
        /// Of what.
        url: String,
        /// How.
        reason: String,
    },
    /// The registry does not let us.
    #[error("{registry} does not let you {action} {repository}{}", said(.message))]
    Denied {
        /// Who.
        registry: String,
        /// Pull or push.
        action: &'static str,
        /// What.
        repository: String,
        /// What it says.
        message: String,
    },
    /// There is no such image.
    #[error("{reference} is not in the registry{}", said(.message))]
    NotFound {
        /// Which.
        reference: String,
        /// What it says.
        message: String,
    },
    /// Another answer than was hoped for.
    #[error("{url}: the registry answered {status}{}", said(.message))]
    Status {
        /// Of what.
        url: String,
        /// The HTTP status code.
        status: u16,
        /// What it says.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// An answer that makes no sense.
    #[error("{url}: the registry's answer makes no sense: {problem}")]
    Protocol {
        /// Of what.
        url: String,
        /// Why.
        problem: String,
    },
    /// Bytes that are not those that were asked for.
    #[error("{what} has the digest {found}, not {expected}")]
    Digest {
        /// What.
        what: String,
        /// As asked for.
        expected: Digest,
        /// As received.
        found: Digest,
    },
    /// An index without an image for the platform.
    #[error("{reference} has no image for {platform}; it has {}", list(.known))]
    NoPlatform {
        /// Which.
        reference: String,
        /// For what.
        platform: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A document that makes no sense.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A layer that can't be unpacked.
    #[error("layer {digest}: {source}")]
    Layer {
        /// Which.
        digest: Digest,
        /// Why not.
        source: Box<ApplyError>,
    },
    /// An image that can't be written for others.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Credentials that can't be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was given up.
    #[error("cancelled")]
    Cancelled,
}

impl RegistryError {
    /// Whether another attempt may go better.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            RegistryError::Connect { .. } | RegistryError::Broken { .. } => true,
            RegistryError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn said(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

fn list(known: &[String]) -> String {
    match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    }
}
