//! A copy of a context's directory of which little has changed: what has, over the layer of an earlier run.

use box_store::digest::DiffId;
use box_store::error::StoreError;
use box_store::tree::Tree;

use super::Reading;
use crate::cache::{Kept, KeyId, Laid};
use crate::error::StepError;
use crate::files::Selection;
use crate::plan::CopySourcePlan;
use crate::steps::pick::Picked;
use crate::steps::place::{Placer, Target};
use crate::steps::{At, Made};

/// What earlier runs of the step made on the same layers, by their keys.
pub(crate) type Earlier<'a> = dyn Fn() -> Result<Vec<(KeyId, DiffId)>, StoreError> + 'a;

impl Reading<'_> {
    /// The context's directory whose contents are all that is copied.
    pub(super) fn only_directory<'s>(&self, selected: &'s [Vec<Picked>]) -> Option<&'s Selection> {
        let ([CopySourcePlan::Path(_)], [picked]) = (self.step.sources.as_slice(), selected) else {
            return None;
        };
        match picked.as_slice() {
            [only]
                if self.tree.is_none()
                    && only.own.is_none()
                    && only.archive.is_none()
                    && !self.step.parents =>
            {
                Some(&only.selection).filter(|selection| selection.is_directory())
            }
            _ => None,
        }
    }

    /// The layer as an earlier run's with what has changed over it; none if there is none that does.
    ///
    /// # Errors
    /// When something can't be read, has changed since it was hashed, or can't be put where it is wanted.
    pub(super) fn patched(
        &self,
        at: At<'_>,
        (tree, target): (&Tree, Target<'_>),
        (directory, laid): (&Selection, &Laid),
        earlier: &Earlier<'_>,
    ) -> Result<Option<Made>, StepError> {
        let store = self.tools.store;
        let mut tried = Vec::new();
        for made in earlier()? {
            let Some((key, diff_id, known)) = Kept::find(store, made)? else {
                continue;
            };
            if tried.contains(&diff_id) {
                continue;
            }
            tried.push(diff_id);
            let (Some(places), Some(base)) = (laid.since(&known), store.layer(&diff_id)?) else {
                continue;
            };
            let Some(writer) = store.layer_writer_over(at.layers, &base, &self.tools.options())? else {
                continue;
            };
            let mut placer = Placer::new(tree, writer, target)?;
            // What is in the way lies below, so it would be in the way of every earlier one.
            if !placer.put_some(self.tree(), directory, &places)? {
                return Ok(None);
            }
            let layer = placer.finish().commit_over(&base)?;
            return Ok(layer.map(|layer| Made {
                laid: Some(Kept::Over(key, diff_id)),
                ..Made::of(layer, None)
            }));
        }
        Ok(None)
    }
}
