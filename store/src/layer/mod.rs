//! Layers: unpacked trees, keyed by the digest of their tar (DiffId).
//!
//! Lifecycle: a tree is made in `tmp/<owner>/<n>/` (a step's upper directory, a written layer, an extracted archive), looked
//! through once ([`LayerFacts`]), and is from then on usable as a lower ([`Layer`]) while its tar is hashed, on a thread of its own
//! if it is large. When the digest is known, the tree is renamed to `layers/<hex>` and its record written to `meta/<hex>`; only
//! with a record does a layer exist for others. An equal layer that is there already stays; ours then lives only as
//! long as its handles.
//!
//! Locking: `locks/layer/<hex>` is held while a layer is published.

pub mod apply;
pub mod decompress;
mod meta;
pub(crate) mod survey;
pub(crate) mod tar;
pub(crate) mod whiteout;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

pub use meta::{DirAttrs, EPOCH, LayerFacts, LayerMeta, LayerTimes};

use crate::beneath::{self, Walk};
use crate::digest::{DiffId, Hasher};
use crate::disk::Durability;
use crate::error::{IoContext, Result, StoreError};
use crate::lock;
use crate::root::{OverlayXattrs, Root, TempDir};
use crate::stamp::Stamp;

/// Layers up to this size (bytes of files and headers) are hashed at once: that is faster than a thread.
const HASH_AT_ONCE: u64 = 256 << 10;
const META_LIMIT: u64 = 64 << 20;
const LOCK_CLASS: &str = "layer";

/// A layer, ready to be used as a lower. Cheap to clone; the tree stays while a handle lives.
#[derive(Clone)]
pub struct Layer {
    shared: Arc<Shared>,
    /// Kept times later than this don't count for later layers' logical time.
    kept_limit: Option<i64>,
}

struct Shared {
    serial: u64,
    facts: LayerFacts,
    overlay_xattrs: OverlayXattrs,
    place: Mutex<PathBuf>,
    /// Where the tree was made; removed with the last handle.
    temp: Mutex<Option<TempDir>>,
    digest: Mutex<Option<Result<DiffId, Arc<StoreError>>>>,
    digest_known: Condvar,
    dir: OnceLock<OwnedFd>,
    mtimes: OnceLock<HashSet<Stamp>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Layer")
            .field("digest", &*digest)
            .field("path", &self.path())
            .finish()
    }
}

impl Layer {
    /// The layer's digest; waits until it is computed.
    pub fn diff_id(&self) -> Result<DiffId> {
        let mut digest = self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*digest {
                Some(Ok(diff_id)) => return Ok(*diff_id),
                Some(Err(error)) => {
                    return Err(StoreError::Layer {
                        source: Arc::clone(error),
                    });
                }
                None => {
                    digest = self
                        .shared
                        .digest_known
                        .wait(digest)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Whether the digest is known (or its computation failed), so that [`Layer::diff_id`] does not wait.
    pub fn is_ready(&self) -> bool {
        self.shared
            .digest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Where the tree is. The path stays good while a handle lives: when the tree moves to its final place, a symbolic link
    /// takes the old one, in the same instant.
    pub fn path(&self) -> PathBuf {
        self.shared
            .place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The logical time L that its canonical tar gives to what its step wrote, in seconds since 1970.
    pub fn logical_time(&self) -> i64 {
        self.shared.facts.times.logical
    }

    /// The newest canonical time in it that counts for later layers: at least L.
    pub fn newest_time(&self) -> i64 {
        let newest = match (self.shared.facts.newest, self.kept_limit) {
            (Some(newest), Some(limit)) if newest > limit => self.newest_until(limit),
            (newest, _) => newest,
        };
        newest.map_or(self.logical_time(), |newest| newest.max(self.logical_time()))
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.shared.facts.size
    }

    /// How many entries it has (removals included).
    pub fn entries(&self) -> u64 {
        self.shared.facts.entries
    }

    /// The ids its entries use, divided by 65,536; sorted.
    pub fn id_pages(&self) -> &[u32] {
        &self.shared.facts.id_pages
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.shared.facts.entries == 0 && self.shared.facts.root.is_none()
    }

    /// All that is known of it without its digest.
    pub fn facts(&self) -> &LayerFacts {
        &self.shared.facts
    }

    /// A handle whose kept times later than `created` (its image's own) don't count for later layers' logical time.
    pub fn with_kept_limit(&self, created: Option<i64>) -> Layer {
        Layer {
            shared: Arc::clone(&self.shared),
            kept_limit: created,
        }
    }

    /// Writes its canonical tar; gives the length. For layers made here these are the bytes that the DiffId is of.
    pub fn write_tar(&self, out: &mut dyn Write) -> Result<u64> {
        tar::write_tree(self.dir()?, self.facts(), self.shared.overlay_xattrs, out)
    }

    /// A number that no other tree in this process has.
    pub(crate) fn serial(&self) -> u64 {
        self.shared.serial
    }

    /// The tree's directory, opened once.
    pub(crate) fn dir(&self) -> Result<BorrowedFd<'_>> {
        if let Some(dir) = self.shared.dir.get() {
            return Ok(dir.as_fd());
        }
        // The place can't change while it is held.
        let place = self.shared.place.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = beneath::open_root(&place).at("open", &*place)?;
        Ok(self.shared.dir.get_or_init(|| dir).as_fd())
    }

    /// Whether the directory at `path` hides what is below it.
    pub(crate) fn is_opaque(&self, path: &Path) -> Result<bool> {
        let dir = beneath::open_dir(self.dir()?, path).at("open", path)?;
        beneath::has_xattr(&dir, self.shared.overlay_xattrs.opaque()).at("read attributes of", path)
    }

    /// Whether an entry has this time on disk; the tree is walked once for it.
    pub(crate) fn has_mtime(&self, mtime: Stamp) -> Result<bool> {
        if let Some(mtimes) = self.shared.mtimes.get() {
            return Ok(mtimes.contains(&mtime));
        }
        let mut mtimes = HashSet::new();
        self.each_mtime(|mtime| {
            mtimes.insert(mtime);
        })?;
        Ok(self.shared.mtimes.get_or_init(|| mtimes).contains(&mtime))
    }

    fn each_mtime(&self, mut each: impl FnMut(Stamp)) -> Result<()> {
        let mut walk = Walk::new(self.dir()?).at("read", self.path())?;
        while let Some(visit) = walk.next().at("read", self.path())? {
            if !visit.metadata.is_whiteout() {
                each(visit.metadata.mtime);
            }
        }
        Ok(())
    }

    fn newest_until(&self, limit: i64) -> Option<i64> {
        let mut newest = None;
        let times = &self.shared.facts.times;
        // An unreadable tree is an error where it is used; here it only has no times.
        let _ = self.each_mtime(|mtime| {
            let time = times.canonical(mtime);
            newest = newest.max(Some(time).filter(|&time| time <= limit));
        });
        newest
    }
}

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

/// The layers of one store.
#[derive(Debug)]
pub(crate) struct Layers {
    root: Arc<Root>,
    open: Mutex<HashMap<DiffId, Weak<Shared>>>,
    hashing: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Layers {
    pub(crate) fn new(root: &Arc<Root>) -> Arc<Layers> {
        Arc::new(Layers {
            root: Arc::clone(root),
            open: Mutex::default(),
            hashing: Mutex::default(),
        })
    }

    fn shared(&self, facts: LayerFacts, place: PathBuf, temp: Option<TempDir>) -> Shared {
        Shared {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            facts,
            overlay_xattrs: self.root.overlay_xattrs,
            place: Mutex::new(place),
            temp: Mutex::new(temp),
            digest: Mutex::new(None),
            digest_known: Condvar::new(),
            dir: OnceLock::new(),
            mtimes: OnceLock::new(),
        }
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
            return Ok(Some(Layer {
                shared,
                kept_limit: None,
            }));
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

    /// Whether the tree is the one that was recorded; if so it needs no further look in this boot.
    fn verify(&self, diff_id: &DiffId, meta: &LayerMeta) -> Result<bool> {
        let path = self.root.layout.layer(diff_id);
        let mut hasher = Hasher::new();
        let dir = beneath::open_root(&path).at("open", &path)?;
        let whole = tar::write_tree(&dir, &meta.facts, self.root.overlay_xattrs, &mut hasher).is_ok()
            && hasher.finish() == meta.tree_digest;
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

    fn open_published(&self, diff_id: &DiffId, meta: LayerMeta) -> Result<Layer> {
        let shared = self.shared(meta.facts, self.root.layout.layer(diff_id), None);
        *shared.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ok(*diff_id));
        let layer = Layer {
            shared: Arc::new(shared),
            kept_limit: None,
        };
        self.remember(diff_id, &layer);
        Ok(layer)
    }

    fn remember(&self, diff_id: &DiffId, layer: &Layer) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(*diff_id, Arc::downgrade(&layer.shared));
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
        let layer = Layer {
            shared: Arc::new(self.shared(facts, tree, Some(temp))),
            kept_limit: None,
        };
        if is_small {
            self.finish(&layer, diff_id, false);
            layer.diff_id()?;
            return Ok(layer);
        }
        let (layers, pending) = (Arc::clone(self), layer.clone());
        let thread = std::thread::Builder::new().name("box-hash".into());
        match thread.spawn(move || layers.finish(&pending, diff_id, true)) {
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

    /// Hashes and publishes; whoever waits for the digest is told.
    fn finish(&self, layer: &Layer, diff_id: Option<DiffId>, is_shared: bool) {
        let result = self.hash_and_publish(layer, diff_id, is_shared).map_err(Arc::new);
        if let Ok(diff_id) = &result {
            self.remember(diff_id, layer);
        }
        *layer.shared.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        layer.shared.digest_known.notify_all();
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
        if let Some(old) = self.read_meta(diff_id)? {
            if self.is_trusted(diff_id, &old) || self.verify(diff_id, &old)? {
                self.root.wrote_layer(*diff_id);
                return Ok(());
            }
        }
        self.drop_published(diff_id)?;
        let dest = self.root.layout.layer(diff_id);
        let mut place = layer.shared.place.lock().unwrap_or_else(PoisonError::into_inner);
        if is_shared {
            self.move_in_use(&place, &dest)?
        } else {
            self.root.disk.rename_into(&place, &dest)?
        }
        *place = dest;
        if !is_shared {
            layer
                .shared
                .temp
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
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
