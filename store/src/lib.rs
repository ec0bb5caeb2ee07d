//! The store of box: bytes, digests and durability.
//!
//! Blobs, layers, images, names and build records in one directory (docs/store-format.md), made and read by any number of
//! processes at once. The front is [`Store`]; a build step writes into an [`ActiveSnapshot`] or through a [`LayerWriter`],
//! both of which become a [`Layer`]; [`Tree`] reads layers without a mount. This crate never mounts, prints, or reads the
//! environment.

pub mod beneath;
pub mod blob;
pub mod build_log;
mod cache_mount;
pub mod compare;
mod container;
#[cfg(test)]
mod corpus;
pub mod digest;
pub mod disk;
pub mod error;
pub mod export;
pub mod fsck;
pub mod gc;
pub mod image;
mod index;
pub mod journal;
pub mod layer;
pub mod layout;
pub mod lock;
mod owner;
pub mod record;
pub mod reference;
pub mod registry;
pub mod remote;
mod remove;
mod root;
pub mod scratch;
pub mod side_by_side;
pub mod snapshot;
pub mod stamp;
mod store;
pub mod transfer;
mod trash;
pub mod tree;
mod unpack;
mod volume;
pub mod weigh;

pub use blob::{BlobReader, BlobWriter};
pub use build_log::{BuildLog, BuildLogInfo, LogBounds};
pub use cache_mount::{CacheMount, CacheMountInfo, CacheMountSpec, CacheSharing};
pub use container::NewContainer;
pub use digest::{ChainId, DiffId, Digest, Hasher, ImageId};
pub use error::{Result, StoreError};
pub use image::{ContainerConfig, Healthcheck, History, Image, ImageConfig, NamedImage};
pub use layer::Layer;
pub use layout::Layout;
pub use lock::LockGuard;
pub use owner::OwnerId;
pub use record::{Record, RecordKind};
pub use reference::Reference;
pub use root::{OverlayXattrs, StoreOptions};
pub use snapshot::{ActiveSnapshot, Attrs, LayerWriter, MountStub, Mtimes, OverlayDirs, PrepareOptions};
pub use stamp::Stamp;
pub use store::Store;
pub use tree::{Resolved, Tree, TreeEntry};
pub use unpack::{AppliedArchive, ApplyOptions, LayerBlob};
pub use volume::{NewVolume, VolumeError, VolumeInfo, VolumeName, VolumeSource, VolumeUse};
