//! The build cache: which layer a step made, by what it was made from.
//!
//! Two kinds of records lie in the store. `step` holds, by a [`CacheKey`]'s digest, the layer, the key's parts and what else
//! is known of the step ([`About`]), so that a miss can be explained later; with the lists of its inputs' files ([`FileList`]) and
//! the way to earlier runs ([`Whence`]). `parts` says, by the digest of the parts alone, that some record has them: a cold build
//! learns from its absence that a step is a miss without waiting for the digest of the layer below, which is still being
//! computed; and where it is there, the digest is waited for, so that a step which made an equal layer is an equal parent
//! (early cutoff).
//!
//! Lookup goes through [`Level`]s in order: by the chain of layers below, here and then in caches elsewhere; nothing but these levels
//! assumes that a record belongs to one chain.

mod about;
mod elsewhere;
mod key;
mod laid;
mod list;
mod runs;
mod uses;
mod whole;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use box_store::Store;
use box_store::digest::{ChainId, DiffId, Digest};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::record::RecordKind;
use box_store::remote::Imports;
use serde::{Deserialize, Serialize};

pub use about::{About, Figures};
pub(crate) use elsewhere::Elsewhere;
pub(crate) use laid::{Kept, Laid};
pub use list::{FileFact, FileFacts, FileList, Short};
pub use runs::{Standing, Whence};

pub use key::{CacheKey, Input, KeyId, KeyParts, LayerMode, PartsId, Recipe, StepKind, VERSION};
pub use uses::BuildUses;
pub(crate) use uses::{StepUse, UsesLog};
pub use whole::{Imported, bring_in, everything};

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its layer; none if it changed nothing.
    pub layer: Option<DiffId>,
    /// The key it was recorded under.
    pub key: CacheKey,
    /// When it was done, in seconds since 1970; in no key.
    #[serde(default)]
    pub made: i64,
    /// What else is known of it.
    #[serde(default)]
    pub about: About,
}

/// An earlier run of a step.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// Its key.
    pub key: KeyId,
    /// What was recorded of it; none if that is gone.
    pub record: Option<StepRecord>,
}

/// A way to find a step's record.
pub trait Level: Sync {
    /// The record for this key, if this level has one.
    ///
    /// # Errors
    /// When the store can't be read; a damaged record is none.
    fn find(
        &self,
        store: &Store,
        parent: Option<ChainId>,
        parts: PartsId,
    ) -> Result<Option<StepRecord>, StoreError>;
}

/// The first level: same parts on the same layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByChain;

impl Level for ByChain {
    fn find(
        &self,
        store: &Store,
        parent: Option<ChainId>,
        parts: PartsId,
    ) -> Result<Option<StepRecord>, StoreError> {
        let record = store.get_record(&kind("step")?, &KeyId::new(parent, parts).0)?;
        Ok(record.and_then(|record| serde_json::from_slice(&record.bytes).ok()))
    }
}

/// What a hit gives: the layer, or nothing where the step changed nothing.
pub type Hit = Option<Layer>;

/// The cache of one build.
pub struct Cache<'a> {
    store: &'a Store,
    levels: Vec<Box<dyn Level + 'a>>,
    elsewhere: Option<Elsewhere<'a>>,
}

impl<'a> Cache<'a> {
    /// The records of this store, and of caches elsewhere.
    pub fn new(store: &'a Store, imports: Option<&'a Arc<Imports>>) -> Cache<'a> {
        let elsewhere = imports.map(Elsewhere::new);
        let mut levels: Vec<Box<dyn Level + 'a>> = vec![Box::new(ByChain)];
        if let Some(elsewhere) = &elsewhere {
            levels.push(Box::new(elsewhere.clone()));
        }
        Cache {
            store,
            levels,
            elsewhere,
        }
    }

    /// The caches elsewhere, if there are some.
    pub(crate) fn elsewhere(&self) -> Option<&Elsewhere<'a>> {
        self.elsewhere.as_ref()
    }

    /// Whether any step with these parts was recorded, on whatever parent.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn knows(&self, parts: PartsId) -> Result<bool, StoreError> {
        let is_here = self.store.get_record(&kind("parts")?, &parts.0)?.is_some();
        Ok(is_here
            || self
                .elsewhere
                .as_ref()
                .is_some_and(|elsewhere| elsewhere.knows(parts)))
    }

    /// Whether a record has this key, whatever became of its layer, and when it was made (seconds since 1970).
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn made(&self, parent: Option<ChainId>, parts: PartsId) -> Result<Option<i64>, StoreError> {
        for level in &self.levels {
            if let Some(record) = level.find(self.store, parent, parts)? {
                return Ok(Some(record.made));
            }
        }
        Ok(None)
    }

    /// Earlier runs of a step.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn earlier(&self, whence: &Whence) -> Result<Vec<Earlier>, StoreError> {
        let step = kind("step")?;
        let keys = runs::known(self.store, whence)?.into_iter();
        keys.map(|key| {
            let record = self.store.get_record(&step, &key.0)?;
            let record = record.and_then(|record| serde_json::from_slice(&record.bytes).ok());
            Ok(Earlier { key, record })
        })
        .collect()
    }

    /// The store that the records are in.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// What a step with this key did, at most `ttl` ago; a record whose layer is gone is a miss.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn lookup(
        &self,
        parent: Option<ChainId>,
        parts: PartsId,
        ttl: Option<Duration>,
    ) -> Result<Option<Hit>, StoreError> {
        for level in &self.levels {
            let Some(record) = level.find(self.store, parent, parts)? else {
                continue;
            };
            if ttl.is_some_and(|ttl| !is_young(record.made, now(), ttl)) {
                continue;
            }
            let Some(diff_id) = record.layer else {
                return Ok(Some(None));
            };
            let layer = self.store.layer(&diff_id)?;
            let layer = layer.or_else(|| self.elsewhere.as_ref()?.layer(&diff_id));
            if let Some(layer) = layer {
                return Ok(Some(Some(layer)));
            }
        }
        Ok(None)
    }

    /// Records what a step did. Durable with the store's next sync, like the layer.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn record(
        &self,
        key: CacheKey,
        layer: Option<DiffId>,
        about: About,
        whence: &Whence,
    ) -> Result<(), StoreError> {
        let parts = key.parts.id();
        let id = KeyId::new(key.parent, parts);
        let keeps: Vec<Digest> = layer.iter().map(|diff_id| diff_id.0).collect();
        let record = StepRecord {
            layer,
            key,
            made: now(),
            about,
        };
        // Strings, numbers and maps with string keys can always be written.
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        self.store.put_record(&kind("step")?, &id.0, &bytes, &keeps)?;
        self.store.put_record(&kind("parts")?, &parts.0, b"", &[])?;
        runs::remember(self.store, whence, id)
    }
}

impl std::fmt::Debug for Cache<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("levels", &self.levels.len())
            .finish_non_exhaustive()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Whether what was made then is no older than this; what was made in the future has an unknown age.
fn is_young(made: i64, now: i64, ttl: Duration) -> bool {
    u64::try_from(now.saturating_sub(made)).is_ok_and(|age| age < ttl.as_secs().max(1))
}

pub(crate) fn kind(name: &str) -> Result<RecordKind, StoreError> {
    RecordKind::new(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_counted_from_when_a_step_was_done() {
        let hour = Duration::from_secs(3600);
        assert!(is_young(1000, 1000, hour) && is_young(1000, 4599, hour));
        assert!(!is_young(1000, 4600, hour) && !is_young(0, 4600, hour));
        assert!(!is_young(1001, 1000, hour), "made in the future");
        assert!(!is_young(i64::MIN, i64::MAX, hour));
    }
}
