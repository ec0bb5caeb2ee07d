//! What an export is given, and what it tells.

use std::collections::BTreeSet;

use super::seal::IndexKey;
use crate::cache_mount::CacheMountSpec;
use crate::digest::{DiffId, Digest};
use crate::layer::Layer;

/// A record that a build used or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordUse {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: Digest,
    /// What it says: text, usually JSON.
    pub text: String,
    /// The layer it leads to, if it leads to one.
    pub layer: Option<DiffId>,
}

/// What a build used or made.
#[derive(Debug, Default)]
pub struct Uses {
    /// Records; those whose layer does not come along are left out.
    pub records: Vec<RecordUse>,
    /// Layers, those below first. One that is not here is fetched only if the other cache has not got it.
    pub layers: Vec<Layer>,
    /// Cache mounts.
    pub mounts: Vec<CacheMountSpec>,
    /// Layers (by DiffId) and cache mounts (by key) that some cache could not give: where the one that is written has them, their packs are
    /// read and compared with their names, and what is damaged is sent again.
    pub suspects: BTreeSet<Digest>,
}

/// How a cache is written.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// What the index is signed with.
    pub key: Option<IndexKey>,
    /// How many bytes its packs may have together; what was not used for the longest time goes first.
    pub max_size: Option<u64>,
}

/// What an export did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Layers and cache mounts that were not there.
    pub streams: usize,
    /// Bytes that were sent.
    pub sent: u64,
    /// What was left out, and why; one line each.
    pub notes: Vec<String>,
}
