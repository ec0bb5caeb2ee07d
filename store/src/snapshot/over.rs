//! Layers that are another one with changes.

use std::sync::Arc;

use crate::error::Result;
use crate::layer::{BaseFor, Layer, Layers, can_be_base, is_plain};
use crate::root::Root;
use crate::snapshot::options::PrepareOptions;
use crate::snapshot::writer::LayerWriter;
use crate::tree::Tree;

impl LayerWriter {
    /// A writer of what another layer with times like this one's lacks: what is equal to an entry of `base`, or of the layers below, is left out.
    /// None if that layer can't be built upon.
    pub(crate) fn over(
        root: &Arc<Root>,
        layers: &Arc<Layers>,
        (lowers, base): (&[Layer], &Layer),
        options: &PrepareOptions,
    ) -> Result<Option<LayerWriter>> {
        let mut writer = LayerWriter::new(root, layers, lowers, options)?;
        let of = BaseFor {
            logical: writer.clock.logical_time(),
            clamp: writer.clock.clamp(),
        };
        if !can_be_base(base, &of) {
            return Ok(None);
        }
        let all = [lowers, std::slice::from_ref(base)].concat();
        writer.below = Tree::new(&all);
        Ok(Some(writer))
    }

    /// Makes a layer of what was written and all that `base` has besides; none if that can't be. The digest is that of both together.
    pub fn commit_over(self, base: &Layer) -> Result<Option<Layer>> {
        let layers = Arc::clone(&self.layers);
        let patch = self.commit()?;
        if patch.is_empty() {
            return Ok(Some(base.clone()));
        }
        // What was written by a clock that was set back would not be of the layer's own time.
        let is_later = patch.facts().times.threshold >= base.facts().times.threshold;
        match is_later && is_plain(patch.facts()) {
            true => layers.stack(base, &patch),
            false => Ok(None),
        }
    }
}
