//! What a transfer is told.

use crate::digest::Digest;
use crate::layer::apply::Limits;
use crate::transfer::archive::Platform;
use crate::transfer::http::{FetchLimits, Proxies};
use crate::transfer::{Packing, Progress};

/// How to talk to a registry.
pub struct RegistryOptions<'a> {
    /// Who we are.
    pub credentials: &'a dyn Credentials,
    /// Through whom.
    pub proxies: Proxies,
    /// How much is put up with.
    pub limits: FetchLimits,
    /// How large layers may be.
    pub layer_limits: Limits,
    /// Whether a server must prove who it is. If not, plain HTTP is taken, too; on the loopback interface it always is.
    pub tls_verify: bool,
    /// Certificates to trust besides the system's, as PEM.
    pub ca_bundle: Option<Vec<u8>>,
    /// Which image of several to take.
    pub platform: Platform,
    /// How layers are packed that are pushed.
    pub packing: Packing,
    /// Transfers at the same time.
    pub connections: usize,
}

impl<'a> RegistryOptions<'a> {
    /// As by default, with these credentials.
    pub fn new(credentials: &'a dyn Credentials) -> RegistryOptions<'a> {
        RegistryOptions {
            credentials,
            proxies: Proxies::default(),
            limits: FetchLimits::default(),
            layer_limits: Limits::default(),
            tls_verify: true,
            ca_bundle: None,
            platform: Platform::host(),
            packing: Packing::AsTheyAre,
            connections: 4,
        }
    }
}

/// How somebody proves who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// The password, or a token in its place.
        password: String,
    },
    /// A token that the token server changes into others.
    IdentityToken(String),
    /// A token for the registry itself.
    RegistryToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential")
    }
}

/// Where credentials are.
pub trait Credentials: Sync {
    /// Those for a registry (`docker.io`, `host:port`); none to be anonymous.
    ///
    /// # Errors
    /// When they are there but can't be read.
    fn of(&self, registry: &str) -> Result<Option<Credential>, CredentialsError>;
}

/// Credentials that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot get the credentials for {registry}: {reason}")]
pub struct CredentialsError {
    /// For which registry.
    pub registry: String,
    /// Why not.
    pub reason: String,
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn of(&self, _registry: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(None)
    }
}

/// Is told how a transfer goes on, blob by blob.
pub trait TransferProgress: Sync {
    /// A blob of this length begins.
    fn blob(&self, digest: &Digest, size: u64) -> Box<dyn Progress>;

    /// Whether to give up; asked several times a second.
    fn cancelled(&self) -> bool;
}
