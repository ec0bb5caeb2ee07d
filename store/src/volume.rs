//! Named volumes: directories that outlive containers and are shared by them.
//!
//! ```text
//! volumes/<name>/volume   its record: when it was made, its labels
//! volumes/<name>/data/    what is mounted
//! volumes/<name>/lock     held by whoever makes, fills or removes it
//! volumes/<name>/fill/    what is on its way into data/; only while it is filled, or after a kill
//! ```
//!
//! A volume is made whole or not at all (one rename), and durable when it is told of. Whoever uses it holds a shared `flock` on the
//! directory `volumes/<name>`, so that it can't be removed meanwhile; a lock outlives no process. It is found by its name alone, which is
//! no path: see [`VolumeName`]. No collection ever looks into `volumes/`.

mod error;
mod fill;
mod name;
mod record;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::error::{IoContext, StoreError};
use crate::lock::{self, LockGuard};
use crate::owner;
use crate::root::{Root, entries};

pub use error::VolumeError;
pub use fill::VolumeSource;
pub use name::VolumeName;
pub(crate) use record::mend;

/// What is mounted.
const DATA: &str = "data";
/// What serialises making, filling and removing.
const LOCK: &str = "lock";

type Result<T, E = VolumeError> = std::result::Result<T, E>;

/// What is said of a volume when it is made. Of one that is there already it changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether nobody gave it a name, so that it goes with the last container that needs it.
    pub is_anonymous: bool,
    /// Whether it goes with this process, even if that is killed. It need not outlive a power cut then.
    pub is_fleeting: bool,
}

/// A volume, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// What it is called.
    pub name: VolumeName,
    /// Where what it holds is.
    pub data: PathBuf,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether nobody gave it a name.
    pub is_anonymous: bool,
    /// Its record can't be read; what it holds may well be whole, and `box fsck --repair` writes another record.
    pub is_damaged: bool,
}

/// A volume in use; dropping it ends that.
#[derive(Debug)]
pub struct VolumeUse {
    name: VolumeName,
    data: PathBuf,
    _lock: LockGuard,
}

impl VolumeUse {
    /// What it is called.
    pub fn name(&self) -> &VolumeName {
        &self.name
    }

    /// What is to be mounted.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// Makes a volume; says whether it was not there before.
pub(crate) fn create(root: &Root, name: &VolumeName, new: &NewVolume) -> Result<bool> {
    let dir = root.layout.volume(name.as_str());
    if fs::symlink_metadata(&dir).is_ok() {
        return Ok(false);
    }
    let temp = root.temp_dir()?;
    let made = temp.path().join("volume");
    let data = made.join(DATA);
    root.disk.make_dir(&data)?;
    rustix::fs::chmod(&data, Mode::from_raw_mode(0o755)).at("set the mode of", &data)?;
    drop(root.disk.create_file(&made.join(LOCK))?);
    let owner = new
        .is_fleeting
        .then(|| root.owner().map(|id| id.as_str().to_owned()));
    record::write(root, &made, name, new, owner.transpose()?)?;
    let volumes = root.layout.volumes();
    if !volumes.is_dir() {
        root.disk.make_dir(&volumes)?;
        root.disk.sync_parent(&volumes)?;
    }
    // Another process may be first.
    let is_new = root.disk.rename_new(&made, &dir)?;
    if !new.is_fleeting {
        root.disk.sync_parent(&dir)?;
    }
    Ok(is_new)
}

/// Takes a volume, making it when it is missing. One that is empty first gets what `source` holds.
pub(crate) fn take(
    root: &Root,
    name: &VolumeName,
    new: &NewVolume,
    source: Option<&VolumeSource<'_>>,
) -> Result<VolumeUse> {
    loop {
        create(root, name, new)?;
        // None if somebody removed it in between.
        if let Some(making) = making(root, name)? {
            return take_made(root, name, source, &making);
        }
    }
}

fn take_made(
    root: &Root,
    name: &VolumeName,
    source: Option<&VolumeSource<'_>>,
    _making: &LockGuard,
) -> Result<VolumeUse> {
    let dir = root.layout.volume(name.as_str());
    let lock = lock::shared(&dir)?;
    let data = dir.join(DATA);
    fill::finish(root, &dir)?;
    if let Some(source) = source
        && is_empty(&data)?
    {
        let is_fleeting = record::read(root, name)?.is_some_and(|record| record.owner.is_some());
        let filled = fill::fill(root, &dir, source, !is_fleeting);
        filled.map_err(|source_error| VolumeError::Fill {
            name: name.to_string(),
            path: source.path.to_owned(),
            source: Box::new(source_error),
        })?;
    }
    Ok(VolumeUse {
        name: name.clone(),
        data,
        _lock: lock,
    })
}

fn is_empty(directory: &Path) -> Result<bool> {
    let mut listing = fs::read_dir(directory).at("read", directory)?;
    Ok(listing.next().is_none())
}

/// The lock of whoever makes, fills or removes the volume, waiting for others; none if there is no such volume.
fn making(root: &Root, name: &VolumeName) -> Result<Option<LockGuard>> {
    let dir = root.layout.volume(name.as_str());
    let path = dir.join(LOCK);
    loop {
        match lock::directory(&path) {
            Ok(guard) if lock::is_linked(guard.file(), &path) => return Ok(Some(guard)),
            // Removed while it was waited for.
            Ok(_) => {}
            Err(error) if !is_absent(&error) => return Err(error.into()),
            Err(_) if fs::symlink_metadata(&dir).is_err() => return Ok(None),
            // Somebody took the file away, which says nothing of the volume.
            Err(_) => match lock::open_lock(&path) {
                // And then the volume.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                made => drop(made.at("open lock", &path)?),
            },
        }
    }
}

fn is_absent(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// A volume by its name; none if there is none.
pub(crate) fn get(root: &Root, name: &VolumeName) -> Result<Option<VolumeInfo>> {
    let dir = root.layout.volume(name.as_str());
    if fs::symlink_metadata(&dir).is_err() {
        return Ok(None);
    }
    let record = record::read(root, name)?;
    let is_damaged = record.is_none();
    let record = record.unwrap_or_default();
    Ok(Some(VolumeInfo {
        name: name.clone(),
        data: dir.join(DATA),
        created: record.created,
        labels: record.labels,
        is_anonymous: record.anonymous,
        is_damaged,
    }))
}

/// All volumes, sorted by name.
pub(crate) fn list(root: &Root) -> Result<Vec<VolumeInfo>> {
    reap(root)?;
    let mut found = Vec::new();
    for name in names(root)? {
        found.extend(get(root, &name)?);
    }
    Ok(found)
}

/// What is a volume by its name and its kind.
pub(crate) fn names(root: &Root) -> Result<Vec<VolumeName>, StoreError> {
    let all = entries(&root.layout.volumes())?.into_iter();
    let directories = all.filter(|(_, path)| path.is_dir());
    Ok(directories.filter_map(|(name, _)| name.parse().ok()).collect())
}

/// Removes the volumes whose process was killed, with which they were to go.
pub(crate) fn reap(root: &Root) -> Result<()> {
    for name in names(root)?.into_iter().filter(VolumeName::is_random) {
        let owner = record::read(root, &name)?.and_then(|record| record.owner);
        if owner.is_some_and(|owner| !owner::is_alive(&root.layout.tmp(), &owner)) {
            match remove(root, &name, &|_| Vec::new()) {
                // The containers of the killed process may be dying only now.
                Ok(()) | Err(VolumeError::Missing { .. } | VolumeError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Whether somebody uses, makes or removes it now.
pub(crate) fn is_in_use(root: &Root, name: &VolumeName) -> Result<bool> {
    let dir = root.layout.volume(name.as_str());
    let path = dir.join(LOCK);
    let Ok(making) = File::open(&path) else {
        return Ok(false);
    };
    if !lock::try_exclusive(&making).at("lock", &path)? {
        return Ok(true);
    }
    let Ok(open) = File::open(&dir) else {
        return Ok(false);
    };
    Ok(!lock::try_exclusive(&open).at("lock", &dir)?)
}

/// Removes a volume that nobody uses. `users` says which containers need it though they don't run; it is asked while nobody can begin
/// to use the volume.
pub(crate) fn remove(
    root: &Root,
    name: &VolumeName,
    users: &dyn Fn(&VolumeName) -> Vec<String>,
) -> Result<()> {
    let missing = || VolumeError::Missing {
        name: name.to_string(),
    };
    let _making = making(root, name)?.ok_or_else(missing)?;
    let dir = root.layout.volume(name.as_str());
    let open = File::open(&dir).at("open", &dir)?;
    if !lock::try_exclusive(&open).at("lock", &dir)? {
        return Err(VolumeError::InUse {
            name: name.to_string(),
        });
    }
    let containers = users(name);
    if !containers.is_empty() {
        return Err(VolumeError::Referenced {
            name: name.to_string(),
            containers,
        });
    }
    hide(root, &dir)
}

/// Takes the volume out of sight, then removes it. Where there is no byte free for that, it is removed where it is.
fn hide(root: &Root, dir: &Path) -> Result<()> {
    let away = root.temp_path();
    match away.and_then(|away| root.disk.rename_into(dir, &away).map(|()| away)) {
        Ok(away) => {
            // What can't be removed now is removed with this process' directory.
            let _ = root.disk.remove_tree(&away);
            Ok(())
        }
        Err(_) => Ok(root.disk.remove_tree(dir)?),
    }
}
