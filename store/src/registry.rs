//! Images from and to registries (OCI distribution spec 1.1, and Docker's of the same form).
//!
//! Pulling is one pass for each layer: received, compared with its digest, decompressed, compared with its DiffId and unpacked as it
//! comes, all layers side by side; the blob is kept as it is, so that it can be pushed back byte for byte. Everything is
//! bounded: documents, redirects, attempts, how slow a server may be. Credentials go to the registry that they are for and to the
//! token server that it names, and never along a redirect elsewhere.

mod answer;
mod artifact;
mod auth;
mod body;
mod challenge;
mod client;
mod error;
mod manifest;
mod options;
mod places;
mod pull;
mod push;
mod session;
mod upload;

pub(crate) use artifact::{Artifact, ArtifactSession};
pub use error::RegistryError;
pub use options::{
    Credential, Credentials, CredentialsError, NoCredentials, RegistryOptions, TransferProgress,
};
pub use pull::{Pulled, pull, pull_telling, resolve};
pub use push::{Pushed, push};
pub use session::check_login;
