//! Records of caches elsewhere: believed to say what a key leads to, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use box_store::Store;
use box_store::digest::{ChainId, DiffId, Digest};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::remote::Imports;

use super::{KeyId, Level, PartsId, StepRecord, kind};

/// The caches elsewhere of one build.
#[derive(Clone)]
pub(crate) struct Elsewhere<'a> {
    imports: &'a Arc<Imports>,
    /// What was found there.
    found: Arc<Mutex<BTreeMap<Digest, Found>>>,
}

struct Found {
    parts: PartsId,
    bytes: Vec<u8>,
    layer: Option<DiffId>,
}

impl<'a> Elsewhere<'a> {
    pub(crate) fn new(imports: &'a Arc<Imports>) -> Elsewhere<'a> {
        Elsewhere {
            imports,
            found: Arc::default(),
        }
    }

    /// Whether some step with these parts was recorded there.
    pub(super) fn knows(&self, parts: PartsId) -> bool {
        self.imports.record("parts", &parts.0).is_some()
    }

    /// A layer; its files are fetched when they are needed.
    pub(super) fn layer(&self, diff_id: &DiffId) -> Option<Layer> {
        self.imports.layer(diff_id)
    }

    /// Records here what was found there and is here now, so that the next build need not ask.
    pub(crate) fn keep(&self, store: &Store) -> Result<(), StoreError> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        for (key, Found { parts, bytes, layer }) in found {
            // What was looked up and then not taken, being too old for example, must not replace what was made instead.
            if has(store, &key)? {
                continue;
            }
            let is_here = match &layer {
                Some(diff_id) => store.layer(diff_id)?.is_some(),
                None => true,
            };
            if is_here {
                let keeps: Vec<Digest> = layer.iter().map(|diff_id| diff_id.0).collect();
                store.put_record(&kind("step")?, &key, &bytes, &keeps)?;
                store.put_record(&kind("parts")?, &parts.0, b"", &[])?;
            }
        }
        Ok(())
    }
}

/// Whether there is a record of its own for this key that leads to something.
fn has(store: &Store, key: &Digest) -> Result<bool, StoreError> {
    let own = store.get_record(&kind("step")?, key)?;
    let own = own.and_then(|own| serde_json::from_slice::<StepRecord>(&own.bytes).ok());
    match own.map(|own| own.layer) {
        None => Ok(false),
        Some(None) => Ok(true),
        Some(Some(diff_id)) => Ok(store.layer(&diff_id)?.is_some()),
    }
}

impl Level for Elsewhere<'_> {
    fn find(
        &self,
        _store: &Store,
        parent: Option<ChainId>,
        parts: PartsId,
    ) -> Result<Option<StepRecord>, StoreError> {
        let id = KeyId::new(parent, parts).0;
        let Some(remote) = self.imports.record("step", &id) else {
            return Ok(None);
        };
        let record = serde_json::from_slice::<StepRecord>(&remote.bytes).ok();
        let fits = |record: &StepRecord| {
            let own = KeyId::new(record.key.parent, record.key.parts.id()).0;
            own == id && record.layer == remote.layer
        };
        let Some(record) = record.filter(fits) else {
            let reason = "it is for another key or layer than it is kept under";
            self.imports.refuse(&id, &remote, reason);
            return Ok(None);
        };
        let found = Found {
            parts,
            bytes: remote.bytes,
            layer: record.layer,
        };
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, found);
        Ok(Some(record))
    }
}
