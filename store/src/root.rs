//! The open store as its parts see it: paths, disk, this process' temporary directory, and what must still be synced.
//!
//! Knows nothing of layers or images; those are built on it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;

use crate::beneath;
use crate::digest::DiffId;
use crate::disk::{Disk, Durability};
use crate::error::{IoContext, Result, StoreError};
use crate::layout::{FORMAT, Layout};
use crate::lock::{self, LockGuard};
use crate::owner::{self, Owner, OwnerId};
use crate::trash::{TempDir, Trash};

/// Which attributes overlayfs keeps its marks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`: root's mounts.
    #[default]
    Trusted,
    /// `user.overlay.*`: mounts in a user namespace (`userxattr`).
    User,
}

impl OverlayXattrs {
    /// The attribute that marks a directory as opaque.
    pub fn opaque(self) -> &'static str {
        match self {
            OverlayXattrs::Trusted => "trusted.overlay.opaque",
            OverlayXattrs::User => "user.overlay.opaque",
        }
    }
}

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Which attributes overlayfs keeps its marks in.
    pub overlay_xattrs: OverlayXattrs,
    /// Whether this process' user namespace has one id alone: owners are recorded beside the files. Such a store is of another kind.
    pub has_single_id: bool,
    /// What stands for the running kernel's boot; read from `/proc` when not given (tests give one).
    pub boot_id: Option<String>,
    /// Seconds added to the clock; tests live in other years.
    pub clock_offset: i64,
    /// The disk; tests give one with faults.
    pub disk: Disk,
}

/// An open store's root.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) layout: Layout,
    pub(crate) disk: Disk,
    pub(crate) overlay_xattrs: OverlayXattrs,
    pub(crate) has_single_id: bool,
    pub(crate) boot_id: String,
    pub(crate) clock_offset: i64,
    owner: Mutex<Option<Arc<Owner>>>,
    owner_id: std::sync::OnceLock<OwnerId>,
    counter: AtomicU64,
    /// Removes temporary directories beside the work.
    trash: Trash,
    dirty: AtomicBool,
    /// Whether an image was met that may be another's, killed before its sync. Images have no markers as layers have.
    has_met_image: AtomicBool,
    unsynced: Mutex<Vec<DiffId>>,
    /// The root directory, open from the start, so that a sync tells of every error since.
    dir: File,
    /// What a sync ahead of time met; told by the next one.
    failed_ahead: Mutex<Option<StoreError>>,
    /// Shared, but for a sweep.
    pub(crate) store_lock: LockGuard,
}

impl Root {
    /// Opens the store at `path`; makes it when missing. Writes nothing to a store that is there.
    pub(crate) fn open(path: &Path, options: StoreOptions) -> Result<Root> {
        let layout = Layout::new(path);
        let disk = options.disk;
        match disk.read(&layout.version(), 64)? {
            Some(version) => check_version(&layout, &version, options.has_single_id)?,
            None => create(&layout, &disk, options.has_single_id)?,
        }
        if options.has_single_id {
            beneath::record_owners();
        }
        let boot_id = match options.boot_id {
            Some(boot_id) => boot_id,
            None => read_boot_id()?,
        };
        lock::pass(&layout.turn_lock())?;
        let store_lock = lock::shared(&layout.store_lock())?;
        owner::reap(&disk, &layout.tmp())?;
        Ok(Root {
            layout,
            trash: Trash::new(disk.clone()),
            disk,
            overlay_xattrs: options.overlay_xattrs,
            has_single_id: options.has_single_id,
            boot_id,
            clock_offset: options.clock_offset,
            owner: Mutex::new(None),
            owner_id: std::sync::OnceLock::new(),
            counter: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            has_met_image: AtomicBool::new(false),
            unsynced: Mutex::default(),
            dir: File::open(path).at("open", path)?,
            failed_ahead: Mutex::default(),
            store_lock,
        })
    }

    fn claimed(&self) -> Result<Arc<Owner>> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = &*owner {
            return Ok(Arc::clone(owner));
        }
        let fresh = Arc::new(Owner::claim(&self.disk, &self.layout.tmp())?);
        let _ = self.owner_id.set(fresh.id().clone());
        *owner = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// This process' id; claimed (and its directory made) when first asked for, so that a build that finds everything
    /// cached writes nothing.
    pub(crate) fn owner(&self) -> Result<&OwnerId> {
        let owner = self.claimed()?;
        Ok(self.owner_id.get_or_init(|| owner.id().clone()))
    }

    /// A name in this process' temporary directory that was not used before.
    pub(crate) fn temp_path(&self) -> Result<PathBuf> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        Ok(self.claimed()?.dir().join(number.to_string()))
    }

    /// A fresh temporary directory, removed with the handle.
    pub(crate) fn temp_dir(&self) -> Result<TempDir> {
        let path = self.temp_path()?;
        self.disk.make_dir(&path)?;
        Ok(TempDir::new(path, &self.disk))
    }

    /// The same; nobody waits for its removal before the store is closed.
    pub(crate) fn step_dir(&self) -> Result<TempDir> {
        let temp = self.step_path()?;
        self.disk.make_dir(temp.path())?;
        Ok(temp)
    }

    /// The same, which is not there yet.
    pub(crate) fn step_path(&self) -> Result<TempDir> {
        Ok(TempDir::removed_later(self.temp_path()?, &self.disk, &self.trash))
    }

    /// Moves what is damaged out of the way, to be looked at until the next collection; removes it where that can't be (on a full disk).
    pub(crate) fn set_aside(&self, path: &Path, name: &str) -> Result<()> {
        if std::fs::symlink_metadata(path).is_err() {
            return Ok(());
        }
        self.wrote();
        let place = self.layout.quarantine().join(name);
        // Of what is damaged again the newest is kept.
        let moved = self
            .disk
            .remove_tree(&place)
            .and_then(|()| self.disk.rename_into(path, &place));
        moved.or_else(|_| self.disk.remove_tree(path))
    }

    /// Puts a file with these bytes in place of `dest`.
    pub(crate) fn replace(&self, dest: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
        self.disk.replace(&self.temp_path()?, dest, bytes, durability)?;
        self.wrote();
        Ok(())
    }

    /// Notes that something was written that a sync must cover.
    pub(crate) fn wrote(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Notes an image that was there.
    pub(crate) fn met_image(&self) {
        self.has_met_image.store(true, Ordering::Release);
    }

    /// As [`Root::sync`], before a name is written: of images that others wrote, too.
    pub(crate) fn sync_for_name(&self) -> Result<()> {
        if self.has_met_image.load(Ordering::Acquire) {
            self.wrote();
        }
        self.sync()
    }

    /// Notes a layer that gets its marker with the next sync.
    pub(crate) fn wrote_layer(&self, diff_id: DiffId) {
        self.unsynced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(diff_id);
        self.wrote();
    }

    /// Makes all that this process wrote durable: one `syncfs`, then the markers of the layers it covers.
    /// Nothing happens when nothing was written.
    pub(crate) fn sync(&self) -> Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.has_met_image.store(false, Ordering::Release);
        let layers = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        let result = self.sync_layers(&layers);
        if result.is_err() {
            self.unsynced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(layers);
            self.wrote();
        }
        result
    }

    /// Begins to write back what a large layer brought, so that the sync at the end finds less to do.
    pub(crate) fn sync_ahead(&self) {
        if let Err(error) = self.disk.sync_all(&self.dir, self.layout.root()) {
            *self.failed_ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    fn sync_layers(&self, layers: &[DiffId]) -> Result<()> {
        if let Some(error) = self
            .failed_ahead
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            return Err(error);
        }
        self.disk.sync_all(&self.dir, self.layout.root())?;
        for layer in layers {
            let marker = self.layout.synced(layer);
            match self.disk.create_file(&marker) {
                Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                result => drop(result?),
            }
        }
        Ok(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Before the owner's directory is removed.
        self.trash.close();
    }
}

fn check_version(layout: &Layout, version: &[u8], has_single_id: bool) -> Result<()> {
    if version == self::version(has_single_id).as_bytes() {
        return Ok(());
    }
    if version == self::version(!has_single_id).as_bytes() {
        return Err(StoreError::OtherIds {
            root: layout.root().to_owned(),
            has_single_id: !has_single_id,
        });
    }
    Err(StoreError::Format {
        root: layout.root().to_owned(),
        found: String::from_utf8_lossy(version).trim().to_owned(),
        understood: FORMAT,
    })
}

/// Makes a store, unless another command did so first: the root directory itself is locked meanwhile.
/// `version` is written last: without it, the next command makes the rest again.
fn create(layout: &Layout, disk: &Disk, has_single_id: bool) -> Result<()> {
    disk.make_dir(layout.root())?;
    let _lock = lock::directory(layout.root())?;
    if let Some(version) = disk.read(&layout.version(), 64)? {
        return check_version(layout, &version, has_single_id);
    }
    for directory in Layout::DIRECTORIES {
        disk.make_dir(&layout.root().join(directory))?;
    }
    for (path, text) in files(layout, has_single_id) {
        let temp = layout.root().join("new");
        disk.remove_file(&temp)?;
        disk.replace(&temp, &path, text.as_bytes(), Durability::Later)?;
    }
    Ok(())
}

/// The files of an empty store, in the order in which they are made.
pub(crate) fn files(layout: &Layout, has_single_id: bool) -> [(PathBuf, &'static str); 4] {
    [
        (layout.store_lock(), ""),
        (layout.oci_layout(), OCI_LAYOUT),
        (layout.index(), EMPTY_INDEX),
        (layout.version(), version(has_single_id)),
    ]
}

fn version(has_single_id: bool) -> &'static str {
    match has_single_id {
        true => SINGLE_ID_VERSION,
        false => VERSION,
    }
}

/// The largest record there is.
const LONGEST: u64 = 256 << 20;

/// Reads a file, unless it is gone, without its time of reading being set: that a collection or a check looked at it is no use of it.
pub(crate) fn read_quietly(path: &Path) -> Result<Option<Vec<u8>>> {
    let quiet = i32::try_from(OFlags::NOATIME.bits()).unwrap_or_default();
    let mut options = File::options();
    let file = options.read(true).custom_flags(quiet).open(path);
    // Only the owner may ask for that.
    let file = match file.or_else(|_| File::open(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).at("read", path)?;
    Ok(Some(bytes))
}

/// Names and paths in a directory, sorted; none if it is not there.
pub(crate) fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).at("read", directory),
    };
    for entry in listing {
        let entry = entry.at("read", directory)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
const VERSION: &str = "1\n";
/// Of a store whose trees are one user's: what they mean is another thing, so nobody else reads it.
const SINGLE_ID_VERSION: &str = "1 single-id\n";

fn read_boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).at("read", path)?.trim().to_owned())
}
