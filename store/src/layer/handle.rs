//! The handle of a layer: what others do with it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::beneath;
use crate::digest::DiffId;
use crate::error::{IoContext, Result, StoreError};
use crate::layer::meta::LayerFacts;
use crate::root::OverlayXattrs;
use crate::stamp::Stamp;
use crate::trash::TempDir;

mod times;

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A layer, ready to be used as a lower. Cheap to clone; the tree stays while a handle lives.
#[derive(Clone)]
pub struct Layer {
    pub(super) shared: Arc<Shared>,
    /// Kept times later than this don't count for later layers' logical time.
    pub(super) kept_limit: Option<i64>,
}

pub(super) struct Shared {
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
    /// Where its tree is to be had, if it is not here.
    elsewhere: Option<Elsewhere>,
    /// The layers whose trees together are its own, the one on top first; empty for one that has a tree itself.
    pieces: Vec<Layer>,
}

/// A layer whose tree is fetched when somebody needs it.
struct Elsewhere {
    diff_id: DiffId,
    source: Arc<dyn LayerSource>,
    fetched: OnceLock<Layer>,
}

/// Brings the trees of layers in that are not in the store.
///
/// Contract: called from any thread. What it gives has the digests that were asked for, verified.
pub(crate) trait LayerSource: Send + Sync {
    /// These layers, each once, in their order from the bottom. One that could be had is there for the next call, whatever becomes of
    /// the others.
    fn fetch(&self, diff_ids: &[DiffId]) -> Result<Vec<Layer>>;
}

/// Fetches what is not here of these layers, side by side.
pub(crate) fn fetch_all(layers: &[Layer]) -> Result<()> {
    let mut missing: Vec<(&Elsewhere, &Layer)> = Vec::new();
    for layer in layers {
        if let Some(elsewhere) = &layer.shared.elsewhere
            && elsewhere.fetched.get().is_none()
            && missing
                .iter()
                .all(|(known, _)| known.diff_id != elsewhere.diff_id)
        {
            missing.push((elsewhere, layer));
        }
    }
    let Some((first, _)) = missing.first() else {
        return Ok(());
    };
    let source = &first.source;
    let (together, apart): (Vec<_>, Vec<_>) = missing
        .iter()
        .partition(|(elsewhere, _)| Arc::ptr_eq(&elsewhere.source, source));
    let diff_ids: Vec<_> = together.iter().map(|(elsewhere, _)| elsewhere.diff_id).collect();
    let fetched = source.fetch(&diff_ids)?;
    for ((elsewhere, _), layer) in together.iter().zip(fetched) {
        let _ = elsewhere.fetched.set(layer);
    }
    apart.iter().try_for_each(|(_, layer)| layer.fetched().map(drop))
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = self.digest();
        f.debug_struct("Layer")
            .field("digest", &*digest)
            .field("path", &self.path())
            .finish()
    }
}

impl Shared {
    fn new(
        facts: LayerFacts,
        overlay_xattrs: OverlayXattrs,
        place: PathBuf,
        temp: Option<TempDir>,
    ) -> Shared {
        Shared {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            facts,
            overlay_xattrs,
            place: Mutex::new(place),
            temp: Mutex::new(temp),
            digest: Mutex::new(None),
            digest_known: Condvar::new(),
            dir: OnceLock::new(),
            mtimes: OnceLock::new(),
            elsewhere: None,
            pieces: Vec::new(),
        }
    }
}

impl Layer {
    /// A layer whose tree is at `place`; the digest is still to come.
    pub(super) fn new(
        facts: LayerFacts,
        xattrs: OverlayXattrs,
        place: PathBuf,
        temp: Option<TempDir>,
    ) -> Layer {
        Layer::of(Arc::new(Shared::new(facts, xattrs, place, temp)))
    }

    /// A layer whose tree is those of `pieces`, the one on top first. Each of them must have one itself.
    pub(super) fn stacked(facts: LayerFacts, overlay_xattrs: OverlayXattrs, pieces: Vec<Layer>) -> Layer {
        let plain = Shared::new(facts, overlay_xattrs, PathBuf::new(), None);
        Layer::of(Arc::new(Shared { pieces, ..plain }))
    }

    /// Whether its tree is not made yet.
    pub(crate) fn is_stacked(&self) -> bool {
        !self.known().pieces.is_empty()
    }

    /// The layers whose trees together are its own, the one on top first: most often itself alone.
    pub(crate) fn pieces(&self) -> Vec<Layer> {
        match self.known().pieces.as_slice() {
            [] => vec![self.clone()],
            pieces => pieces.to_vec(),
        }
    }

    /// A layer that is not here: `facts` is what is said of it until its tree comes from `source`, when somebody needs it.
    pub(crate) fn elsewhere(
        diff_id: DiffId,
        facts: LayerFacts,
        overlay_xattrs: OverlayXattrs,
        source: Arc<dyn LayerSource>,
    ) -> Layer {
        let plain = Shared::new(facts, overlay_xattrs, PathBuf::new(), None);
        Layer::of(Arc::new(Shared {
            digest: Mutex::new(Some(Ok(diff_id))),
            elsewhere: Some(Elsewhere {
                diff_id,
                source,
                fetched: OnceLock::new(),
            }),
            ..plain
        }))
    }

    /// Whether its tree is here.
    pub fn is_here(&self) -> bool {
        let elsewhere = self.shared.elsewhere.as_ref();
        elsewhere.is_none_or(|elsewhere| elsewhere.fetched.get().is_some())
    }

    /// The layer that has the tree: itself, or the one that is fetched now.
    pub(super) fn fetched(&self) -> Result<&Layer> {
        let Some(elsewhere) = &self.shared.elsewhere else {
            return Ok(self);
        };
        if elsewhere.fetched.get().is_none() {
            let layer = elsewhere.source.fetch(&[elsewhere.diff_id])?.pop();
            let layer = layer.ok_or(StoreError::MissingLayer {
                diff_id: elsewhere.diff_id,
            })?;
            let _ = elsewhere.fetched.set(layer);
        }
        Ok(elsewhere.fetched.get().unwrap_or(self))
    }

    /// What holds the tree's place and facts, as far as they are known.
    fn known(&self) -> &Shared {
        let fetched = self.shared.elsewhere.as_ref().and_then(|e| e.fetched.get());
        fetched.map_or(&self.shared, |layer| &layer.shared)
    }

    pub(super) fn overlay_xattrs(&self) -> OverlayXattrs {
        self.shared.overlay_xattrs
    }

    /// Another handle.
    pub(super) fn of(shared: Arc<Shared>) -> Layer {
        Layer {
            shared,
            kept_limit: None,
        }
    }

    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    /// Tells all who wait.
    pub(super) fn set_digest(&self, result: Result<DiffId, Arc<StoreError>>) {
        *self.digest() = Some(result);
        self.shared.digest_known.notify_all();
    }

    /// The tree's place; it can't change while this is held.
    pub(super) fn place(&self) -> MutexGuard<'_, PathBuf> {
        self.known().place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of where the tree was made, when nothing of it is there any more.
    pub(super) fn leave_temp(&self) {
        self.shared
            .temp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    fn digest(&self) -> MutexGuard<'_, Option<Result<DiffId, Arc<StoreError>>>> {
        self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layer's digest; waits until it is computed.
    pub fn diff_id(&self) -> Result<DiffId> {
        let mut digest = self.digest();
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
        self.digest().is_some()
    }

    /// Where the tree is. The path stays good while a handle lives: when the tree moves to its final place, a symbolic link
    /// takes the old one, in the same instant. Empty for a layer that is not here, and for one whose tree is not made yet.
    pub fn path(&self) -> PathBuf {
        self.place().clone()
    }

    /// The logical time L that its canonical tar gives to what its step wrote, in seconds since 1970.
    pub fn logical_time(&self) -> i64 {
        self.facts().times.logical
    }

    /// The newest canonical time of its entries that counts for later layers; none if it has no entries but removals. It follows
    /// from the layer's digest alone: L, which an equal layer of another origin need not have, is in it only where an entry has it.
    pub fn newest_time(&self) -> Option<i64> {
        match (self.facts().newest, self.kept_limit) {
            (Some(newest), Some(limit)) if newest > limit => self.newest_until(limit),
            (newest, _) => newest,
        }
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.facts().size
    }

    /// How many entries it has (removals included).
    pub fn entries(&self) -> u64 {
        self.facts().entries
    }

    /// The ids its entries use, divided by 65,536; sorted.
    pub fn id_pages(&self) -> &[u32] {
        &self.facts().id_pages
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.facts().entries == 0 && self.facts().root.is_none()
    }

    /// All that is known of it without its digest.
    pub fn facts(&self) -> &LayerFacts {
        &self.known().facts
    }

    /// A handle whose kept times later than `created` (its image's own) don't count for later layers' logical time.
    pub fn with_kept_limit(&self, created: Option<i64>) -> Layer {
        Layer {
            kept_limit: created,
            ..self.clone()
        }
    }

    /// This layer, with the other one's limit of [`with_kept_limit`](Self::with_kept_limit).
    pub(crate) fn with_kept_limit_of(&self, other: &Layer) -> Layer {
        self.with_kept_limit(other.kept_limit)
    }

    /// The newest time on disk that its step wrote, leaving out times it set in its own future; none if it wrote none.
    pub(crate) fn newest_written(&self) -> Option<Stamp> {
        let facts = self.facts();
        if self.is_stacked() {
            // What its tree gets.
            return Some(facts.committed);
        }
        facts.window.map(|(_, newest)| newest.min(facts.committed))
    }

    /// A number that no other tree in this process has.
    pub(crate) fn serial(&self) -> u64 {
        self.shared.serial
    }

    /// The directory of a tree of its own, opened once.
    pub(crate) fn dir(&self) -> Result<BorrowedFd<'_>> {
        if let Some(dir) = self.shared.dir.get() {
            return Ok(dir.as_fd());
        }
        self.fetched()?;
        // The place can't change while it is held.
        let place = self.place();
        let dir = beneath::open_root(&place).at("open", &*place)?;
        Ok(self.shared.dir.get_or_init(|| dir).as_fd())
    }

    /// Whether the directory at `path` hides what is below it.
    pub(crate) fn is_opaque(&self, path: &Path) -> Result<bool> {
        if self.facts().opaque == Some(0) {
            return Ok(false);
        }
        let dir = beneath::open_dir(self.dir()?, path).at("open", path)?;
        beneath::has_xattr(&dir, self.shared.overlay_xattrs.opaque()).at("read attributes of", path)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}
