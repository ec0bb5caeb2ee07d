//! Layers that are made up of two others.

use super::Finding;
use crate::digest::{DiffId, Digest};
use crate::error::Result;
use crate::layer::STACK;
use crate::store::Store;

impl Store {
    /// A layer that is made up of two others.
    pub(super) fn look_at_stack(&self, kind: &str, key: &str, repair: bool) -> Result<Option<Finding>> {
        let (_, layers) = self.parts();
        let Some(digest) = Digest::from_hex(key).ok().filter(|_| kind == STACK) else {
            return Ok(None);
        };
        let Some(layer) = layers.damaged_stack(&digest)? else {
            return Ok(None);
        };
        if repair {
            layers.drop_stack(&layer)?;
        }
        Ok(Some(Finding {
            what: "layer",
            name: DiffId(digest).to_string(),
            problem: "what it is made up of is not what was recorded".to_owned(),
            is_repaired: repair,
        }))
    }
}
