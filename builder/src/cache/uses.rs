//! What a build used and made, so that it can be put elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use box_store::digest::{ChainId, Digest};
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::remote::{Imports, RecordUse, Uses};
use box_store::{CacheMountSpec, Store};

use super::{KeyId, PartsId, kind};
use crate::graph::StageId;

/// A step that was found or done.
pub(crate) struct StepUse {
    pub(crate) stage: StageId,
    pub(crate) below: Vec<Layer>,
    pub(crate) parts: PartsId,
    pub(crate) layer: Option<Layer>,
}

/// The list, written by all stages. Empty unless somebody wants it.
#[derive(Default)]
pub(crate) struct UsesLog {
    is_wanted: bool,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    steps: Vec<StepUse>,
    /// Digests of trees that were looked up, by the record's key, and what it says.
    trees: BTreeMap<Digest, String>,
    mounts: BTreeSet<CacheMountSpec>,
}

impl UsesLog {
    pub(crate) fn new(is_wanted: bool) -> UsesLog {
        UsesLog {
            is_wanted,
            log: Mutex::default(),
        }
    }

    fn log(&self) -> Option<MutexGuard<'_, Log>> {
        self.is_wanted
            .then(|| self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a step; `step` is asked only if somebody wants to know.
    pub(crate) fn step(&self, step: impl FnOnce() -> StepUse) {
        if let Some(mut log) = self.log() {
            log.steps.push(step());
        }
    }

    /// Notes what a tree was recorded to hold.
    pub(crate) fn tree(&self, key: Digest, bytes: &[u8]) {
        if let Some(mut log) = self.log() {
            log.trees.insert(key, String::from_utf8_lossy(bytes).into_owned());
        }
    }

    /// Notes a cache mount.
    pub(crate) fn mount(&self, spec: &CacheMountSpec) {
        if let Some(mut log) = self.log() {
            log.mounts.insert(spec.clone());
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        if let Some(mut log) = self.log() {
            *log = Log::default();
        }
    }

    /// All that was used, those of `stages` apart from the rest.
    pub(crate) fn finish(
        &self,
        store: &Store,
        imports: Option<&Imports>,
        stages: &BTreeSet<StageId>,
    ) -> Result<BuildUses, StoreError> {
        let mut uses = BuildUses::default();
        let Some(log) = self.log() else {
            return Ok(uses);
        };
        for step in &log.steps {
            let Some(record) = record(store, imports, step)? else {
                continue;
            };
            if stages.contains(&step.stage) {
                add(&mut uses.result, step, &record)?;
            }
            add(&mut uses.all, step, &record)?;
        }
        for (key, text) in &log.trees {
            let tree = RecordUse {
                kind: "tree".to_owned(),
                key: *key,
                text: text.clone(),
                layer: None,
            };
            uses.result.records.push(tree.clone());
            uses.all.records.push(tree);
        }
        uses.mounts = log.mounts.iter().cloned().collect();
        uses.suspects = imports.map(Imports::suspects).unwrap_or_default();
        Ok(uses)
    }
}

/// What a build used and made.
#[derive(Debug, Default)]
pub struct BuildUses {
    /// By the stages that the result is made of.
    pub result: Uses,
    /// By all stages.
    pub all: Uses,
    /// The cache mounts of the steps that ran.
    pub mounts: Vec<CacheMountSpec>,
    /// What caches elsewhere said they had and could not give.
    pub suspects: BTreeSet<Digest>,
}

fn record(
    store: &Store,
    imports: Option<&Imports>,
    step: &StepUse,
) -> Result<Option<(Digest, String)>, StoreError> {
    let diff_ids = step
        .below
        .iter()
        .map(Layer::diff_id)
        .collect::<Result<Vec<_>, _>>()?;
    let id = KeyId::new(ChainId::of(&diff_ids), step.parts).0;
    let here = store.get_record(&kind("step")?, &id)?.map(|record| record.bytes);
    let bytes = here.or_else(|| Some(imports?.record("step", &id)?.bytes));
    Ok(bytes.and_then(|bytes| Some((id, String::from_utf8(bytes).ok()?))))
}

fn add(uses: &mut Uses, step: &StepUse, (key, text): &(Digest, String)) -> Result<(), StoreError> {
    let layer = step.layer.as_ref().map(Layer::diff_id).transpose()?;
    uses.layers.extend(step.layer.clone());
    uses.records.push(RecordUse {
        kind: "step".to_owned(),
        key: *key,
        text: text.clone(),
        layer,
    });
    // What the parts alone lead to: that there is such a record.
    uses.records.push(RecordUse {
        kind: "parts".to_owned(),
        key: step.parts.0,
        text: String::new(),
        layer,
    });
    Ok(())
}
