//! The store's front: everything other crates do with it goes through [`Store`].
//!
//! A store is a directory (see `layout`). Opening one takes `locks/store` shared and removes what dead processes left in
//! `tmp/`. Write order: blob → layer → record → name, each referring only to what is there before it; [`Store::sync`] makes
//! all of it durable, and a name is written only after that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::{self, BlobReader, BlobWriter};
use crate::cache_mount::{self, CacheMount, CacheMountInfo, CacheMountSpec, CacheSharing};
use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{IoContext, Result, StoreError};
use crate::image::{self, Image, ImageConfig, NamedImage};
use crate::index;
use crate::layer::{Layer, Layers};
use crate::layout::Layout;
use crate::lock::{self, LockGuard};
use crate::owner::{self, OwnerId};
use crate::record::{self, Record, RecordKind};
use crate::reference::Reference;
use crate::root::{OverlayXattrs, Root, StoreOptions};
use crate::snapshot::{self, ActiveSnapshot, Fixups, LayerWriter, MountStub, PrepareOptions};
use crate::tree::Tree;
use crate::volume::{self, NewVolume, VolumeError, VolumeInfo, VolumeName, VolumeSource, VolumeUse};

/// An open store. Cheap to clone; all methods may be called from any thread.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Root>,
    layers: Arc<Layers>,
    fixups: Arc<Fixups>,
}

impl Store {
    /// Opens the store at `root`; makes it (mode 0700) when it is missing. Opening one that is there writes nothing,
    /// but removes what dead processes left.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Store> {
        options.disk.make_dir(root)?;
        let root = fs::canonicalize(root).at("open", root)?;
        let root = Arc::new(Root::open(&root, options)?);
        let layers = Layers::new(&root);
        Ok(Store {
            root,
            layers,
            fixups: Arc::default(),
        })
    }

    /// The store's paths.
    pub fn layout(&self) -> &Layout {
        &self.root.layout
    }

    /// Which attributes overlayfs keeps its marks in.
    pub fn overlay_xattrs(&self) -> OverlayXattrs {
        self.root.overlay_xattrs
    }

    // Snapshots

    /// A place to write into on top of these layers, bottom first.
    pub fn prepare(&self, lowers: &[Layer], options: &PrepareOptions) -> Result<ActiveSnapshot> {
        snapshot::prepare(&self.root, &self.layers, &self.fixups, lowers, options)
    }

    /// The logical time of a layer that is made on these (bottom first), in seconds since 1970. Of a layer that was there before,
    /// [`Layer::logical_time`] may be another.
    pub fn logical_time(&self, lowers: &[Layer], options: &PrepareOptions) -> i64 {
        snapshot::logical_time(lowers, options)
    }

    /// A layer to be written entry by entry on top of these layers, bottom first. (`mount_stubs` are not needed here.)
    pub fn layer_writer(&self, lowers: &[Layer], options: &PrepareOptions) -> Result<LayerWriter> {
        LayerWriter::new(&self.root, &self.layers, lowers, options)
    }

    // Layers

    /// A layer by its digest; none if it is not here. What an earlier boot left unsynced is verified, or dropped.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        self.layers.get(diff_id)
    }

    /// The layers of an image, bottom first; a missing one is an error.
    pub fn image_layers(&self, image: &Image) -> Result<Vec<Layer>> {
        let created = image.config.created_seconds();
        let layer = |diff_id: &DiffId| {
            let layer = self
                .layer(diff_id)?
                .ok_or(StoreError::MissingLayer { diff_id: *diff_id })?;
            Ok(layer.with_kept_limit(created))
        };
        image.config.rootfs.diff_ids.iter().map(layer).collect()
    }

    // Blobs

    /// Begins to write a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        BlobWriter::new(&self.root)
    }

    /// Writes a small blob; nothing is written if it is there.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        blob::put(&self.root, bytes)
    }

    /// Opens a blob; its bytes are verified as they are read. None if it is not here.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobReader>> {
        BlobReader::open(&self.root, digest)
    }

    /// Reads a blob of at most `limit` bytes whole, verified. None if it is not here.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        blob::read(&self.root, digest, limit)
    }

    // Images

    /// Puts an image with this config. Nothing is written if it is there.
    pub fn put_image(&self, config: &ImageConfig) -> Result<Image> {
        image::put(&self.root, config)
    }

    /// Puts an image whose config is kept byte by byte (of an archive or a registry).
    pub fn put_raw_image(&self, config: &[u8]) -> Result<Image> {
        image::put_raw(&self.root, config)
    }

    /// An image by its id; none if it is not here.
    pub fn image(&self, id: &ImageId) -> Result<Option<Image>> {
        image::get(&self.root, id)
    }

    /// All images, sorted by id. One whose config is damaged is left out.
    pub fn images(&self) -> Result<Vec<Image>> {
        let ids = image::ids(&self.root)?;
        Ok(ids
            .iter()
            .filter_map(|id| image::get(&self.root, id).ok().flatten())
            .collect())
    }

    /// Removes an image that has no names (its blobs and layers go with the next collection). Says whether it was there.
    pub fn remove_image(&self, id: &ImageId) -> Result<bool> {
        let names: Vec<_> = self.names()?.into_iter().filter(|name| name.id == *id).collect();
        if !names.is_empty() {
            let names = names.iter().map(|name| name.reference.to_string()).collect();
            return Err(StoreError::SeveralNames {
                id: id.to_string(),
                names,
            });
        }
        image::remove(&self.root, id)
    }

    /// Gives an image a name, taking it from the image that had it. Everything written before is synced first; when this
    /// returns, the name is durable too. Nothing is written if the image has the name.
    pub fn tag(&self, reference: &Reference, id: &ImageId) -> Result<()> {
        self.layers.settle();
        image::tag(&self.root, reference, id)?;
        index::refresh(&self.root, reference)
    }

    /// The digest of the manifest that an image came with or was last written by; none if it has none.
    pub fn manifest_of(&self, id: &ImageId) -> Result<Option<Digest>> {
        index::manifest_of(&self.root, id)
    }

    /// Lists the manifest that was made or kept of an image in `index.json`, under each of its names.
    pub(crate) fn list_manifest(&self, id: &ImageId) -> Result<()> {
        self.sync()?;
        index::refresh_image(&self.root, id)
    }

    /// Takes a name away; says whether it was there.
    pub fn untag(&self, reference: &Reference) -> Result<bool> {
        let removed = image::untag(&self.root, reference)?;
        index::refresh(&self.root, reference)?;
        Ok(removed)
    }

    /// The image that a name, a whole id (`sha256:…` or 64 hex digits) or the beginning of an id stands for; none if there
    /// is none. An ambiguous beginning is an error, as is a text that can be neither name nor id.
    pub fn resolve(&self, name_or_id: &str) -> Result<Option<Image>> {
        image::resolve(&self.root, name_or_id, 1)
    }

    /// As [`Store::resolve`], for what a Boxfile names: the beginning of an id must have twelve digits, so that a name that
    /// is not there (`face`) is not taken for an id.
    pub fn resolve_base(&self, name_or_id: &str) -> Result<Option<Image>> {
        image::resolve(&self.root, name_or_id, 12)
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<Vec<NamedImage>> {
        image::names(&self.root)
    }

    // Records

    /// Reads a record; none if it is not here. A damaged one is dropped and counts as absent.
    pub fn get_record(&self, kind: &RecordKind, key: &Digest) -> Result<Option<Record>> {
        record::get(&self.root, kind, key)
    }

    /// Writes a record, replacing an older one with its key; durable with the next sync. `keeps` are the digests of blobs and
    /// layers that it keeps alive. Nothing is written if an equal one is there.
    pub fn put_record(&self, kind: &RecordKind, key: &Digest, bytes: &[u8], keeps: &[Digest]) -> Result<()> {
        record::put(&self.root, kind, key, bytes, keeps)
    }

    /// All records of a kind, sorted by key; damaged ones are left out.
    pub fn records(&self, kind: &RecordKind) -> Result<Vec<(Digest, Record)>> {
        record::all(&self.root, kind)
    }

    /// Removes a record; says whether it was there.
    pub fn remove_record(&self, kind: &RecordKind, key: &Digest) -> Result<bool> {
        record::remove(&self.root, kind, key)
    }

    // Cache mounts

    /// Takes the directory of a cache mount, making it when it is missing; none if its users leave no room for another one
    /// now: ask again later.
    pub fn cache_mount(&self, spec: &CacheMountSpec, sharing: CacheSharing) -> Result<Option<CacheMount>> {
        cache_mount::take(&self.root, spec, sharing)
    }

    /// All cache mounts, sorted by what they are called.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountInfo>> {
        cache_mount::list(&self.root)
    }

    /// Removes a cache mount, but for what is in use of it; says whether nothing of it is left.
    pub fn remove_cache_mount(&self, info: &CacheMountInfo) -> Result<bool> {
        cache_mount::remove(&self.root, info)
    }

    // Volumes

    /// Makes a volume, which is durable when this returns; says whether it was not there before.
    pub fn create_volume(&self, name: &VolumeName, new: &NewVolume) -> Result<bool, VolumeError> {
        volume::create(&self.root, name, new)
    }

    /// Takes a volume into use, making it when it is missing. One that is empty first gets what `source` holds, whole or not at all,
    /// however many ask at once.
    pub fn use_volume(
        &self,
        name: &VolumeName,
        new: &NewVolume,
        source: Option<&VolumeSource<'_>>,
    ) -> Result<VolumeUse, VolumeError> {
        volume::take(&self.root, name, new, source)
    }

    /// A volume by its name; none if there is none.
    pub fn volume(&self, name: &VolumeName) -> Result<Option<VolumeInfo>, VolumeError> {
        volume::get(&self.root, name)
    }

    /// All volumes, sorted by name.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>, VolumeError> {
        volume::list(&self.root)
    }

    /// Removes the volumes that were to go with a process that was killed.
    pub fn reap_volumes(&self) -> Result<(), VolumeError> {
        volume::reap(&self.root)
    }

    /// Whether a volume is used now.
    pub fn is_volume_in_use(&self, name: &VolumeName) -> Result<bool, VolumeError> {
        volume::is_in_use(&self.root, name)
    }

    /// Removes a volume with all that it holds, unless somebody uses it. `users` says which containers need it though they don't run; it
    /// is asked while nobody can begin to use the volume.
    pub fn remove_volume(
        &self,
        name: &VolumeName,
        users: &dyn Fn(&VolumeName) -> Vec<String>,
    ) -> Result<(), VolumeError> {
        volume::remove(&self.root, name, users)
    }

    // Process and disk

    /// Makes all that was written through this store durable, with one `syncfs`, when the digests of all layers are known.
    /// Nothing happens if nothing was written.
    pub fn sync(&self) -> Result<()> {
        self.layers.settle();
        self.root.sync()
    }

    /// Takes the lock of one thing, waiting for whoever holds it. `class` is a short word (`a-z`, `0-9`, `-`). Held until
    /// the guard is dropped; not re-entrant.
    pub fn lock(&self, class: &str, key: &Digest) -> Result<LockGuard> {
        match self.take_lock(class, key, false)? {
            Some(guard) => Ok(guard),
            // Only asking without waiting can find it taken.
            None => self.lock(class, key),
        }
    }

    /// Takes the lock of one thing if nobody holds it.
    pub fn try_lock(&self, class: &str, key: &Digest) -> Result<Option<LockGuard>> {
        self.take_lock(class, key, true)
    }

    fn take_lock(&self, class: &str, key: &Digest, try_only: bool) -> Result<Option<LockGuard>> {
        lock::check_kind(class)?;
        lock::exclusive(
            &self.root.layout.locks(&format!("x-{class}")).join(key.hex()),
            try_only,
        )
    }

    /// This process' id. From the first call on, and while the process lives, [`Store::owner_is_alive`] says yes to it.
    pub fn owner(&self) -> Result<&OwnerId> {
        self.root.owner()
    }

    /// Whether the process with this owner id lives.
    pub fn owner_is_alive(&self, id: &str) -> bool {
        owner::is_alive(&self.root.layout.tmp(), id)
    }

    /// The fix-up that these layers and mount targets need on top, if any.
    pub(crate) fn fixup_lower(&self, tree: &Tree, stubs: &[MountStub]) -> Result<Vec<PathBuf>> {
        Ok(self.fixups.lower(&self.root, tree, stubs)?.into_iter().collect())
    }

    /// What the parts of this crate that build on the store need.
    #[allow(dead_code)]
    pub(crate) fn parts(&self) -> (&Arc<Root>, &Arc<Layers>) {
        (&self.root, &self.layers)
    }
}
