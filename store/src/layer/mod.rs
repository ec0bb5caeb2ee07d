//! Layers: unpacked trees, keyed by the digest of their tar (DiffId).
//!
//! Lifecycle: a tree is made in `tmp/<owner>/<n>/` (a step's upper directory, a written layer, an extracted archive), looked
//! through once ([`LayerFacts`]), and is from then on usable as a lower ([`Layer`]) while its tar is hashed, on a thread of its own
//! if it is large. When the digest is known, the tree is renamed to `layers/<hex>` and its record written to `meta/<hex>`; only
//! with a record does a layer exist for others. An equal layer that is there already stays; ours then lives only as
//! long as its handles.
//!
//! Locking: `locks/layer/<hex>` is held while a layer is published.

pub(crate) mod ahead;
pub mod apply;
pub(crate) mod beside;
pub mod decompress;
mod handle;
mod meta;
mod registry;
pub(crate) mod stack;
pub(crate) mod survey;
pub(crate) mod tar;
pub(crate) mod whiteout;

pub use handle::Layer;
pub(crate) use handle::{LayerSource, fetch_all};
pub use meta::{DirAttrs, EPOCH, LayerFacts, LayerMeta, LayerTimes};
pub(crate) use registry::{Condition, Draft, Layers};
pub(crate) use stack::{BaseFor, KIND as STACK, can_be_base, is_plain, visible};
