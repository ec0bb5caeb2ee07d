//! The build cache of other machines: records and layers in a directory, a bucket or a registry.
//!
//! ```text
//! index ── records: key → what a step did        one small document, fetched when the first step is not found here
//!   │  └── layers, cache mounts: where their list is
//!   ▼
//! packs ── lists: which chunks a tar is made of
//!      └── chunks: pieces of tars, cut by content, each compressed by itself
//! ```
//!
//! A pack is named by its SHA-256, a chunk by that of what it holds uncompressed, so writers can't get into each other's way and a
//! change moves the chunks that it changed. An index is written last, as one object that holds the entries of all that were there;
//! readers take the union of what they find. Whoever reads believes nothing: index, list and chunk have their digests, a layer's bytes
//! must hash to its DiffId before it is published. What is wrong is told and counts as absent.
//!
//! Who may write the cache is trusted for one thing: that a key leads to the layer that the step makes. An [`IndexKey`] keeps others out.

mod artifact;
mod backend;
mod bucket;
mod chunk;
mod error;
mod export;
mod fetch;
mod import;
mod index;
mod local;
mod mount;
mod pack;
mod seal;
mod uses;

pub use artifact::{RegistryAccess, RegistryBackend};
pub use backend::{Backend, Merge, Object};
pub use bucket::{BucketBackend, BucketOptions};
pub use error::RemoteError;
pub use export::export;
pub use import::{Imports, RemoteRecord};
pub use local::LocalBackend;
pub use seal::IndexKey;
pub use uses::{ExportOptions, Exported, RecordUse, Uses};
