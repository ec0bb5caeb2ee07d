//! Layers whose tree is made when somebody mounts it: that of another layer, with a few entries over it.
//!
//! A layer that differs from one that is here in a few files need not be copied whole before anybody wants its tree: it is recorded which two
//! layers, each whole and published, make it up: `patch` over `base`. The patch removes nothing. The digest is that of the canonical tar of both
//! together, computed from their bytes, while the base's own digest is computed from the same bytes and compared: what is
//! damaged there is not passed on.
//!
//! Whoever only reads (the tar, a merged view) reads both. A container never sees them: before one is mounted it is
//! unstacked (`snapshot/unstack.rs`) into the tree that a copy would have made.
//!
//! The record is of a kind that lives as long as what its key names: whatever keeps the layer keeps its pieces.

use std::io::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::beneath::{self, Kind, Walk};
use crate::digest::{DiffId, Digest};
use crate::error::{IoContext, Result};
use crate::layer::beside::hash_beside;
use crate::layer::handle::Layer;
use crate::layer::meta::LayerFacts;
use crate::layer::registry::Layers;
use crate::layer::tar;
use crate::record::{self, RecordKind};

/// The kind of records.
pub(crate) const KIND: &str = "packed-stack";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stacked {
    version: u32,
    base: DiffId,
    patch: DiffId,
    facts: LayerFacts,
}

/// What a layer is to be the base of.
pub(crate) struct BaseFor {
    /// The logical time of the layer that is to be made.
    pub(crate) logical: i64,
    /// Where its times are cut off.
    pub(crate) clamp: Option<i64>,
}

/// Whether a layer may be that base.
pub(crate) fn can_be_base(layer: &Layer, of: &BaseFor) -> bool {
    // What both wrote must mean the same in one tar.
    let times = &layer.facts().times;
    let has_its_times = times.threshold.is_some() && times.logical == of.logical && times.clamp == of.clamp;
    layer.is_here() && !layer.is_stacked() && has_its_times && is_plain(layer.facts())
}

/// Whether a layer only adds entries, all of its own time.
pub(crate) fn is_plain(facts: &LayerFacts) -> bool {
    facts.root.is_none()
        && facts.implied_parents.is_empty()
        && !facts.hides_below
        && facts.opaque == Some(0)
        && facts.sockets == 0
        && facts.times.exceptions.is_empty()
}

/// What is known of both together: only what the patch has is looked at.
fn facts_of(base: &Layer, patch: &Layer) -> Result<LayerFacts> {
    let (below, over) = (base.facts(), patch.facts());
    let mut size = below.size;
    let mut entries = below.entries.saturating_add(over.entries);
    let mut walk = patch.walk()?;
    while let Some(visit) = walk.next().at("read", patch.path())? {
        let Some(hidden) = beneath::lookup(base.dir()?, visit.path).at("read", visit.path)? else {
            continue;
        };
        entries = entries.saturating_sub(1);
        if hidden.kind == Kind::File {
            size = size.saturating_sub(hidden.size);
        }
    }
    let window = match (below.window, over.window) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (one, other) => one.or(other),
    };
    let mut id_pages = [below.id_pages.as_slice(), &over.id_pages].concat();
    id_pages.sort_unstable();
    id_pages.dedup();
    Ok(LayerFacts {
        newest: below.newest.max(over.newest),
        newest_on_disk: below.newest_on_disk.max(over.newest_on_disk),
        window,
        committed: over.committed,
        size: size.saturating_add(over.size),
        entries,
        id_pages,
        ..below.clone()
    })
}

impl Layer {
    /// Walks its tree.
    pub(crate) fn walk(&self) -> Result<Walk> {
        self.fetched()?;
        let pieces = self.pieces();
        let dirs = pieces.iter().map(Layer::dir).collect::<Result<Vec<_>>>()?;
        Walk::of(&dirs).at("read", self.path())
    }

    /// Writes its canonical tar; gives the length. For layers made here these are the bytes that the DiffId is of.
    pub fn write_tar(&self, out: &mut dyn Write) -> Result<u64> {
        self.fetched()?;
        let pieces = self.pieces();
        let dirs = pieces.iter().map(Layer::dir).collect::<Result<Vec<_>>>()?;
        tar::write_trees(&dirs, self.facts(), self.overlay_xattrs(), out)
    }
}

impl Layers {
    /// A layer of `patch` over `base`, which is one that [may be](can_be_base). None if the base is damaged, or can't be one after all.
    pub(crate) fn stack(self: &Arc<Layers>, base: &Layer, patch: &Layer) -> Result<Option<Layer>> {
        let facts = facts_of(base, patch)?;
        let Some(digest) = self.digest_of(base, patch, &facts)? else {
            return Ok(None);
        };
        let diff_id = DiffId(digest);
        // One with a tree of its own, or made up of others, is as good.
        if let Some(known) = self.get(&diff_id)? {
            return Ok(Some(known));
        }
        let layer = Layer::stacked(facts, self.overlay_xattrs(), vec![patch.clone(), base.clone()]);
        let stacked = Stacked {
            version: VERSION,
            base: base.diff_id()?,
            patch: patch.diff_id()?,
            facts: layer.facts().clone(),
        };
        let keeps = [stacked.base.0, stacked.patch.0];
        let bytes = serde_json::to_vec(&stacked).unwrap_or_default();
        record::put(self.root(), &RecordKind::new(KIND)?, &digest, &bytes, &keeps)?;
        layer.set_digest(Ok(diff_id));
        self.remember(&diff_id, &layer);
        Ok(Some(layer))
    }

    /// The digest of both together; none if the base is not what its digest says.
    fn digest_of(&self, base: &Layer, patch: &Layer, facts: &LayerFacts) -> Result<Option<Digest>> {
        let dirs = [patch.dir()?, base.dir()?];
        let ((written, lower), whole) = hash_beside(|whole| {
            hash_beside(|lower| tar::write_over(dirs, facts, self.overlay_xattrs(), (whole, lower)))
        });
        let is_base = written? && DiffId(lower) == base.diff_id()?;
        Ok(is_base.then_some(whole))
    }

    /// A layer that is recorded to be made up of two, if both are here.
    pub(super) fn get_stacked(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let Some(stacked) = self.read_stacked(diff_id)? else {
            return Ok(None);
        };
        // Neither is stacked itself: what a record says leads no further.
        let (Some(base), Some(patch)) = (self.get_plain(&stacked.base)?, self.get_plain(&stacked.patch)?)
        else {
            return Ok(None);
        };
        let layer = Layer::stacked(stacked.facts, self.overlay_xattrs(), vec![patch, base]);
        layer.set_digest(Ok(*diff_id));
        self.remember(diff_id, &layer);
        Ok(Some(layer))
    }

    /// Drops a layer that turned out not to be what its digest says: what of its pieces is damaged is put aside, and it is absent until that
    /// is here again. If none is, it is what was recorded that is wrong.
    pub(crate) fn drop_stack(&self, layer: &Layer) -> Result<()> {
        let mut are_whole = true;
        for piece in layer.pieces() {
            let piece = piece.diff_id()?;
            self.set_aside(&piece)?;
            are_whole &= self.has_plain(&piece)?;
        }
        let diff_id = layer.diff_id()?;
        self.forget(&diff_id);
        if !are_whole {
            return Ok(());
        }
        let path = self.root().layout.record(KIND, &diff_id.0);
        self.root().disk.remove_file(&path).map(drop)
    }

    /// The layers that one is recorded to be made up of, if it is.
    pub(crate) fn recorded_pieces(&self, diff_id: &DiffId) -> Result<Vec<DiffId>> {
        let stacked = self.read_stacked(diff_id)?;
        Ok(stacked.map_or(Vec::new(), |stacked| vec![stacked.base, stacked.patch]))
    }

    fn read_stacked(&self, diff_id: &DiffId) -> Result<Option<Stacked>> {
        let record = record::get(self.root(), &RecordKind::new(KIND)?, &diff_id.0)?;
        let stacked = record.and_then(|record| serde_json::from_slice::<Stacked>(&record.bytes).ok());
        Ok(stacked.filter(|stacked| stacked.version == VERSION))
    }

    /// Whether both pieces are here, by their records alone.
    pub(super) fn is_stacked(&self, diff_id: &DiffId) -> Result<bool> {
        match self.read_stacked(diff_id)? {
            Some(stacked) => Ok(self.has_plain(&stacked.base)? && self.has_plain(&stacked.patch)?),
            None => Ok(false),
        }
    }

    /// The layer that is recorded under this digest, if what it is made up of is something else. None, too, where a piece is not here, which
    /// counts as absent.
    pub(crate) fn damaged_stack(&self, key: &Digest) -> Result<Option<Layer>> {
        let Some(layer) = self.get_stacked(&DiffId(*key))? else {
            return Ok(None);
        };
        let (written, digest) = hash_beside(|out| layer.write_tar(out));
        let is_whole = written.is_ok() && digest == *key;
        Ok(Some(layer).filter(|_| !is_whole))
    }
}

/// Of these layers, bottom first, those that are not hidden as a whole by one above them.
pub(crate) fn visible(layers: &[Layer]) -> &[Layer] {
    let first = layers.iter().rposition(|layer| layer.facts().hides_below);
    &layers[first.unwrap_or(0)..]
}
