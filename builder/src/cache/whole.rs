//! The whole build cache of a store, put elsewhere and brought in from there.

use std::sync::Arc;

use box_store::Store;
use box_store::digest::{DiffId, Digest};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::remote::{Imports, RecordUse, Uses};

use super::{Elsewhere, KeyId, Level, StepRecord, kind};

/// What was brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Steps whose layers are here now.
    pub steps: usize,
    /// Steps that could not be had whole.
    pub lost: usize,
    /// Cache mounts that were not here.
    pub mounts: usize,
}

/// All steps that are recorded in a store with their layers, and its cache mounts.
///
/// # Errors
/// When the store can't be read.
pub fn everything(store: &Store) -> Result<Uses, StoreError> {
    let mut uses = Uses::default();
    for (key, record) in store.records(&kind("step")?)? {
        let Ok(text) = String::from_utf8(record.bytes) else {
            continue;
        };
        let Ok(step) = serde_json::from_str::<StepRecord>(&text) else {
            continue;
        };
        if let Some(diff_id) = &step.layer {
            // A layer that is gone takes its record with it.
            let Some(layer) = store.layer(diff_id)? else {
                continue;
            };
            uses.layers.push(layer);
        }
        let parts = step.key.parts.id().0;
        uses.records.push(named("step", key, text, step.layer));
        uses.records
            .push(named("parts", parts, String::new(), step.layer));
    }
    for (key, record) in store.records(&kind("tree")?)? {
        if let Ok(text) = String::from_utf8(record.bytes) {
            uses.records.push(named("tree", key, text, None));
        }
    }
    let mounts = store.cache_mounts()?.into_iter().filter_map(|info| info.spec);
    uses.mounts = mounts.filter(|spec| spec.base.is_empty()).collect();
    Ok(uses)
}

fn named(kind: &str, key: Digest, text: String, layer: Option<DiffId>) -> RecordUse {
    RecordUse {
        kind: kind.to_owned(),
        key,
        text,
        layer,
    }
}

/// Brings in all that caches elsewhere hold: layers, records, cache mounts. What can't be had is left out, and told by the caches' warnings.
///
/// # Errors
/// When the store can't be written.
pub fn bring_in(store: &Store, imports: &Arc<Imports>) -> Result<Imported, StoreError> {
    let elsewhere = Elsewhere::new(imports);
    let mut layers: Vec<Option<Layer>> = Vec::new();
    for key in imports.keys("step") {
        let record = imports.record("step", &key);
        let step = record.and_then(|record| serde_json::from_slice::<StepRecord>(&record.bytes).ok());
        let Some(step) = step.filter(|step| KeyId::new(step.key.parent, step.key.parts.id()).0 == key) else {
            continue;
        };
        if elsewhere
            .find(store, step.key.parent, step.key.parts.id())?
            .is_some()
        {
            let layer = step.layer.and_then(|diff_id| elsewhere.layer(&diff_id));
            layers.push(layer);
        }
    }
    let all: Vec<Layer> = layers.iter().flatten().cloned().collect();
    // Each that could be had is here now, whatever became of the others.
    let _ = imports.fetch(&all);
    let lost = all.iter().map(|layer| match layer.diff_id() {
        Ok(diff_id) => store.layer(&diff_id).map(|layer| usize::from(layer.is_none())),
        Err(_) => Ok(1),
    });
    let lost = lost.sum::<Result<usize, _>>()?;
    elsewhere.keep(store)?;
    // What they say of copied trees stays there: the layers are here, and are read.
    let mounts = imports.mounts();
    Ok(Imported {
        steps: layers.len() - lost,
        lost,
        mounts: mounts.iter().filter(|spec| imports.restore_mount(spec)).count(),
    })
}
