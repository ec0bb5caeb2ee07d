//! The layers of one store: found, made, published.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use crate::beneath;
use crate::digest::{DiffId, Hasher};
use crate::disk::Durability;
use crate::error::{IoContext, Result};
use crate::layer::handle::{Layer, Shared};
use crate::layer::meta::{LayerFacts, LayerMeta};
use crate::layer::tar;
use crate::lock;
use crate::root::Root;
use crate::trash::TempDir;

/// Layers up to this size (bytes of files and headers) are hashed at once: that is faster than a thread.
const HASH_AT_ONCE: u64 = 256 << 10;
/// From this size on, writing back begins while the layer is hashed.
const SYNC_AHEAD: u64 = 64 << 20;
const META_LIMIT: u64 = 64 << 20;
const LOCK_CLASS: &str = "layer";

/// A tree that becomes a layer.
pub(crate) struct Draft {
    /// Owns the directory the tree is in.
    pub(crate) temp: TempDir,
    /// The tree, inside `temp`.
    pub(crate) tree: PathBuf,
    pub(crate) facts: LayerFacts,
    /// The digest of the foreign tar the tree is from; without one, the canonical tar's is the layer's.
    pub(crate) diff_id: Option<DiffId>,
}

/// What is to be said of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It is as it was recorded.
    Whole,
    /// It is not here.
    Absent,
    /// There is a tree, but no record: whoever was making or removing it was killed. It is made anew when it is needed.
    Leftover,
    /// There is a tree, and a record that can't be read.
    BadRecord,
    /// There is a record, but no tree.
    NoTree,
    /// The tree is another than was recorded.
    Damaged,
}

/// The layers of one store.
#[derive(Debug)]
pub(crate) struct Layers {
    root: Arc<Root>,
    open: Mutex<HashMap<DiffId, Weak<Shared>>>,
    hashing: Mutex<Vec<JoinHandle<()>>>,
}

impl Layers {
    pub(crate) fn new(root: &Arc<Root>) -> Arc<Layers> {
        Arc::new(Layers {
            root: Arc::clone(root),
            open: Mutex::default(),
            hashing: Mutex::default(),
        })
    }

    /// A published layer; none if it is not here. What an earlier boot left unsynced is verified, and dropped if damaged.
    pub(crate) fn get(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let known = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(diff_id)
            .and_then(Weak::upgrade);
        if let Some(shared) = known {
            return Ok(Some(Layer::of(shared)));
        }
        match self.read_meta(diff_id)? {
            Some(meta) if self.is_trusted(diff_id, &meta) => self.open_published(diff_id, meta).map(Some),
            Some(_) => self.get_untrusted(diff_id),
            None => Ok(None),
        }
    }

    fn get_untrusted(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let _lock = lock::exclusive(&self.lock_path(diff_id), false)?;
        match self.read_meta(diff_id)? {
            Some(meta) if self.is_trusted(diff_id, &meta) || self.verify(diff_id, &meta)? => {
                self.open_published(diff_id, meta).map(Some)
            }
            Some(_) => self.drop_published(diff_id).map(|()| None),
            None => Ok(None),
        }
    }

    fn read_meta(&self, diff_id: &DiffId) -> Result<Option<LayerMeta>> {
        let sealed = self.root.disk.read(&self.root.layout.meta(diff_id), META_LIMIT)?;
        let meta = sealed.and_then(|sealed| LayerMeta::open(diff_id, &sealed));
        Ok(meta.filter(|_| self.root.layout.layer(diff_id).is_dir()))
    }

    fn is_trusted(&self, diff_id: &DiffId, meta: &LayerMeta) -> bool {
        meta.boot_id == self.root.boot_id || self.root.layout.synced(diff_id).exists()
    }

    /// What is to be said of a layer, however far it is trusted.
    pub(crate) fn condition(&self, diff_id: &DiffId) -> Result<Condition> {
        match self.look(diff_id)? {
            Condition::Whole => Ok(Condition::Whole),
            // It may be in the making, or go away.
            _ => {
                let _lock = lock::exclusive(&self.lock_path(diff_id), false)?;
                self.look(diff_id)
            }
        }
    }

    fn look(&self, diff_id: &DiffId) -> Result<Condition> {
        let has_tree = self.root.layout.layer(diff_id).is_dir();
        let sealed = self.root.disk.read(&self.root.layout.meta(diff_id), META_LIMIT)?;
        let meta = sealed
            .as_ref()
            .and_then(|sealed| LayerMeta::open(diff_id, sealed));
        match (has_tree, meta) {
            (false, _) if sealed.is_none() => Ok(Condition::Absent),
            (false, _) => Ok(Condition::NoTree),
            (true, None) if sealed.is_none() => Ok(Condition::Leftover),
            (true, None) => Ok(Condition::BadRecord),
            (true, Some(meta)) => match self.is_whole(diff_id, &meta)? {
                true => Ok(Condition::Whole),
                false => Ok(Condition::Damaged),
            },
        }
    }

    /// Whether there is a layer, by its record alone.
    pub(crate) fn is_published(&self, diff_id: &DiffId) -> Result<bool> {
        Ok(self.read_meta(diff_id)?.is_some())
    }

    /// Whether the tree is the one that was recorded.
    fn is_whole(&self, diff_id: &DiffId, meta: &LayerMeta) -> Result<bool> {
        let path = self.root.layout.layer(diff_id);
        let mut hasher = Hasher::new();
        let dir = beneath::open_root(&path).at("open", &path)?;
        Ok(
            tar::write_tree(&dir, &meta.facts, self.root.overlay_xattrs, &mut hasher).is_ok()
                && hasher.finish() == meta.tree_digest,
        )
    }

    /// The same; a whole one needs no further look in this boot.
    fn verify(&self, diff_id: &DiffId, meta: &LayerMeta) -> Result<bool> {
        let whole = self.is_whole(diff_id, meta)?;
        if whole {
            let meta = LayerMeta {
                boot_id: self.root.boot_id.clone(),
                ..meta.clone()
            };
            self.root.replace(
                &self.root.layout.meta(diff_id),
                &meta.seal(diff_id),
                Durability::Later,
            )?;
            self.root.wrote_layer(*diff_id);
        }
        Ok(whole)
    }

    /// Removes a published layer: first what says it exists, then the tree.
    pub(crate) fn drop_published(&self, diff_id: &DiffId) -> Result<()> {
        self.root.disk.remove_file(&self.root.layout.meta(diff_id))?;
        self.root.disk.remove_file(&self.root.layout.synced(diff_id))?;
        self.discard_tree(&self.root.layout.layer(diff_id))
    }

    /// The same for one that is damaged (somebody may have mended it since), which is kept to be looked at.
    pub(crate) fn set_aside(&self, diff_id: &DiffId) -> Result<()> {
        let _lock = lock::exclusive(&self.lock_path(diff_id), false)?;
        if matches!(self.look(diff_id)?, Condition::Whole | Condition::Absent) {
            return Ok(());
        }
        let layout = &self.root.layout;
        self.root
            .set_aside(&layout.meta(diff_id), &format!("meta-{}", diff_id.hex()))?;
        self.root.disk.remove_file(&layout.synced(diff_id))?;
        self.root
            .set_aside(&layout.layer(diff_id), &format!("layer-{}", diff_id.hex()))
    }

    fn discard_tree(&self, tree: &Path) -> Result<()> {
        if fs::symlink_metadata(tree).is_err() {
            return Ok(());
        }
        let temp = self.root.temp_path()?;
        self.root.disk.rename_into(tree, &temp)?;
        self.root.wrote();
        self.root.disk.remove_tree(&temp)
    }

    fn lock_path(&self, diff_id: &DiffId) -> PathBuf {
        self.root.layout.locks(LOCK_CLASS).join(diff_id.hex())
    }

    fn handle(&self, facts: LayerFacts, place: PathBuf, temp: Option<TempDir>) -> Layer {
        Layer::new(facts, self.root.overlay_xattrs, place, temp)
    }

    fn open_published(&self, diff_id: &DiffId, meta: LayerMeta) -> Result<Layer> {
        // Whoever made it may have been killed before its sync: whatever is made with it is not durable without.
        if !self.root.layout.synced(diff_id).exists() {
            self.root.wrote_layer(*diff_id);
        }
        let layer = self.handle(meta.facts, self.root.layout.layer(diff_id), None);
        layer.set_digest(Ok(*diff_id));
        self.remember(diff_id, &layer);
        Ok(layer)
    }

    fn remember(&self, diff_id: &DiffId, layer: &Layer) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(*diff_id, layer.downgrade());
    }

    /// Makes a layer of a tree. It is usable at once; a large one gets its digest on a thread of its own.
    pub(crate) fn adopt(self: &Arc<Layers>, draft: Draft) -> Result<Layer> {
        let Draft {
            temp,
            tree,
            facts,
            diff_id,
        } = draft;
        let is_small = facts.size.saturating_add(facts.entries.saturating_mul(1024)) <= HASH_AT_ONCE;
        let layer = self.handle(facts, tree, Some(temp));
        if is_small {
            self.finish(&layer, diff_id, false);
            layer.diff_id()?;
            return Ok(layer);
        }
        let (layers, pending) = (Arc::clone(self), layer.clone());
        let thread = std::thread::Builder::new().name("box-hash".into());
        match thread.spawn(move || layers.finish_large(&pending, diff_id)) {
            Ok(thread) => self
                .hashing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(thread),
            Err(_) => self.finish(&layer, diff_id, true),
        }
        Ok(layer)
    }

    /// Waits until every digest is known and nothing of the hashing is left.
    pub(crate) fn settle(&self) {
        let threads = std::mem::take(&mut *self.hashing.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread tells its result through the layer.
            let _ = thread.join();
        }
    }

    /// The processor hashes while the disk writes.
    fn finish_large(&self, layer: &Layer, diff_id: Option<DiffId>) {
        if layer.size() < SYNC_AHEAD {
            return self.finish(layer, diff_id, true);
        }
        std::thread::scope(|scope| {
            // Without a thread for it, the sync at the end does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || self.root.sync_ahead());
            self.finish(layer, diff_id, true);
        });
    }

    /// Hashes and publishes; whoever waits for the digest is told.
    fn finish(&self, layer: &Layer, diff_id: Option<DiffId>, is_shared: bool) {
        let result = self.hash_and_publish(layer, diff_id, is_shared).map_err(Arc::new);
        if let Ok(diff_id) = &result {
            self.remember(diff_id, layer);
        }
        layer.set_digest(result);
    }

    fn hash_and_publish(&self, layer: &Layer, diff_id: Option<DiffId>, is_shared: bool) -> Result<DiffId> {
        let mut hasher = Hasher::new();
        let tar_size = layer.write_tar(&mut hasher)?;
        let tree_digest = hasher.finish();
        let diff_id = diff_id.unwrap_or(DiffId(tree_digest));
        let meta = LayerMeta {
            facts: layer.facts().clone(),
            tree_digest,
            tar_size,
            boot_id: self.root.boot_id.clone(),
        };
        self.publish(layer, &diff_id, &meta, is_shared)?;
        Ok(diff_id)
    }

    /// Gives the tree its name, then its record. An equal layer that is there stays, unless it is damaged.
    fn publish(&self, layer: &Layer, diff_id: &DiffId, meta: &LayerMeta, is_shared: bool) -> Result<()> {
        let _lock = lock::exclusive(&self.lock_path(diff_id), false)?;
        if let Some(old) = self.read_meta(diff_id)?
            && (self.is_trusted(diff_id, &old) || self.verify(diff_id, &old)?)
        {
            self.root.wrote_layer(*diff_id);
            return Ok(());
        }
        self.drop_published(diff_id)?;
        let dest = self.root.layout.layer(diff_id);
        let mut place = layer.place();
        if is_shared {
            self.move_in_use(&place, &dest)?
        } else {
            self.root.disk.rename_into(&place, &dest)?
        }
        *place = dest;
        if !is_shared {
            layer.leave_temp();
        }
        drop(place);
        self.root.replace(
            &self.root.layout.meta(diff_id),
            &meta.seal(diff_id),
            Durability::Later,
        )?;
        self.root.wrote_layer(*diff_id);
        Ok(())
    }

    /// Moves a tree whose path others hold: the old path becomes a link to the new one in the same instant.
    fn move_in_use(&self, from: &Path, dest: &Path) -> Result<()> {
        std::os::unix::fs::symlink(dest, dest).at("link", dest)?;
        self.root.disk.exchange(from, dest).inspect_err(|_| {
            let _ = fs::remove_file(dest);
        })
    }
}
