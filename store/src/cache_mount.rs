//! Directories that outlive builds: what `RUN --mount=type=cache` mounts.
//!
//! Each is named by the digest of what it is called and what it begins with, so no name leads anywhere. A directory may
//! have several instances, which writers that want one each have side by side. An instance is locked by `flock` on the
//! directory itself, so a killed build leaves no lock. What is in it is not synced, and in no key: it is a cache.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::beneath;
use crate::digest::Digest;
use crate::disk::Durability;
use crate::error::{IoContext, Result, StoreError};
use crate::root::Root;

/// The file that says what a directory is called.
const LABEL: &str = "id";
/// What is mounted, in an instance.
const DATA: &str = "data";
/// The scratch directory of an overlay on it, beside `data`.
const WORK: &str = "work";
/// The largest label that is read.
const LABEL_LIMIT: u64 = 1 << 20;

/// Which directory is meant, and how it is made when it is missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheMountSpec {
    /// What it is called.
    pub id: String,
    /// What it lies on (layers and a path in them), in words; empty for nothing. Another one is another directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// Permissions of a new one. Another mode or owner is another directory.
    pub mode: u32,
    /// Owner of a new one.
    pub uid: u32,
    /// Group of a new one.
    pub gid: u32,
}

/// Between users at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSharing {
    /// Any number of them in one directory.
    Shared,
    /// Each has a directory of its own.
    Private,
    /// One at a time.
    Locked,
}

/// A cache directory in use; dropping it ends that.
#[derive(Debug)]
pub struct CacheMount {
    instance: PathBuf,
    _lock: File,
}

impl CacheMount {
    /// What is to be mounted.
    pub fn data(&self) -> PathBuf {
        self.instance.join(DATA)
    }

    /// The scratch directory of an overlay whose upper directory is [`CacheMount::data`].
    pub fn work(&self) -> PathBuf {
        self.instance.join(WORK)
    }
}

/// A cache directory, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// What it is called.
    pub id: String,
    /// All that says which it is; none if that is damaged.
    pub spec: Option<CacheMountSpec>,
    /// How many instances it has.
    pub instances: usize,
    /// Bytes on disk.
    pub size: u64,
    /// When it was last taken, seconds since 1970.
    pub used: u64,
    /// Whether somebody uses it now.
    pub in_use: bool,
    key: Digest,
}

impl CacheMountSpec {
    /// What names its directory.
    pub(crate) fn key(&self) -> Digest {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Digest::of(&[b"box cache mount 1\n", text.as_slice()].concat())
    }
}

/// Takes the directory, making it when it is missing; none if its users leave no room for another one now.
pub(crate) fn take(root: &Root, spec: &CacheMountSpec, sharing: CacheSharing) -> Result<Option<CacheMount>> {
    let dir = root.layout.cache_mount(&spec.key());
    let operation = match sharing {
        CacheSharing::Shared => FlockOperation::NonBlockingLockShared,
        CacheSharing::Private | CacheSharing::Locked => FlockOperation::NonBlockingLockExclusive,
    };
    let mut number = 0;
    loop {
        let instance = dir.join(number.to_string());
        make(root, spec, &dir, &instance)?;
        match lock(&instance, operation) {
            Ok(Some(lock)) if dir.join(LABEL).exists() => {
                // How old the use is decides what goes first; a wrong answer loses nothing.
                let _ = lock.set_modified(SystemTime::now());
                return Ok(Some(CacheMount {
                    instance,
                    _lock: lock,
                }));
            }
            // Somebody removed it in between.
            Ok(Some(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(None) if sharing == CacheSharing::Private => number += 1,
            Ok(None) => return Ok(None),
            Err(error) => return Err(error).at("lock", &instance),
        }
    }
}

/// Makes a directory that `fill` puts something into, unless there is one of that name; says whether it did. Whole or not at all.
pub(crate) fn restore<E: From<StoreError>>(
    root: &Root,
    spec: &CacheMountSpec,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<bool, E> {
    let dir = root.layout.cache_mount(&spec.key());
    make_with(root, spec, &dir, &dir.join("0"), fill)
}

/// Makes what is missing of an instance, whole or not at all.
fn make(root: &Root, spec: &CacheMountSpec, dir: &Path, instance: &Path) -> Result<()> {
    make_with(root, spec, dir, instance, |_| Ok::<_, StoreError>(())).map(drop)
}

/// The same, with something in it; says whether it was missing.
fn make_with<E: From<StoreError>>(
    root: &Root,
    spec: &CacheMountSpec,
    dir: &Path,
    instance: &Path,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<bool, E> {
    if instance.is_dir() && dir.join(LABEL).exists() {
        return Ok(false);
    }
    fs::create_dir_all(dir).at("make directory", dir)?;
    let label = serde_json::to_vec(spec).unwrap_or_default();
    root.disk
        .replace(&root.temp_path()?, &dir.join(LABEL), &label, Durability::Later)?;
    if instance.is_dir() {
        return Ok(false);
    }
    let temp = root.temp_dir()?;
    let made = temp.path().join("instance");
    root.disk.make_dir(&made)?;
    root.disk.make_dir(&made.join(WORK))?;
    let data = made.join(DATA);
    root.disk.make_dir(&data)?;
    let open = beneath::open_root(&data).at("open", &data)?;
    beneath::give(open, spec.uid, spec.gid).at("set the owner of", &data)?;
    rustix::fs::chmod(&data, Mode::from_raw_mode(spec.mode & 0o7777)).at("set the mode of", &data)?;
    fill(&data)?;
    // Another process may have been first.
    Ok(root.disk.rename_new(&made, instance)?)
}

/// Locks the directory, if it is still the one of that name; none if others hold it.
fn lock(instance: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    let file = File::open(instance)?;
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let (open, named) = (file.metadata()?, fs::symlink_metadata(instance)?);
    match (open.dev(), open.ino()) == (named.dev(), named.ino()) {
        true => Ok(Some(file)),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// All cache directories, sorted by what they are called.
pub(crate) fn list(root: &Root) -> Result<Vec<CacheMountInfo>> {
    let mut found = Vec::new();
    for name in names(&root.layout.cache_mounts())? {
        let Ok(key) = Digest::from_hex(&name) else {
            continue;
        };
        let dir = root.layout.cache_mount(&key);
        let label = root.disk.read(&dir.join(LABEL), LABEL_LIMIT)?;
        let label = label.and_then(|label| serde_json::from_slice::<CacheMountSpec>(&label).ok());
        let mut info = CacheMountInfo {
            id: label
                .as_ref()
                .map_or_else(|| format!("(damaged: {name})"), |label| label.id.clone()),
            spec: label,
            instances: 0,
            size: 0,
            used: 0,
            in_use: false,
            key,
        };
        for instance in instances(&dir)? {
            add(&mut info, &instance).at("read", &instance)?;
        }
        found.push(info);
    }
    found.sort_by(|a, b| (&a.id, a.key).cmp(&(&b.id, b.key)));
    Ok(found)
}

fn add(info: &mut CacheMountInfo, instance: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(instance) {
        // Removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    info.instances += 1;
    info.used = info.used.max(u64::try_from(metadata.mtime()).unwrap_or(0));
    info.in_use |= matches!(lock(instance, FlockOperation::NonBlockingLockExclusive), Ok(None));
    info.size += size(instance);
    Ok(())
}

/// Bytes on disk; of what can't be read now, since a build changes it, none.
fn size(dir: &Path) -> u64 {
    let mut links = std::collections::HashSet::new();
    let walk = walkdir::WalkDir::new(dir).same_file_system(true).into_iter();
    walk.filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|metadata| metadata.nlink() < 2 || metadata.is_dir() || links.insert(metadata.ino()))
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

/// Removes the directory, but for instances that are in use; says whether nothing of it is left.
pub(crate) fn remove(root: &Root, info: &CacheMountInfo) -> Result<bool> {
    let dir = root.layout.cache_mount(&info.key);
    let mut is_whole = true;
    for instance in instances(&dir)? {
        match lock(&instance, FlockOperation::NonBlockingLockExclusive) {
            Ok(Some(_held)) => {
                let away = root.temp_path()?;
                root.disk.rename_into(&instance, &away)?;
                root.disk.remove_tree(&away)?;
            }
            Ok(None) => is_whole = false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("lock", &instance),
        }
    }
    if is_whole {
        root.disk.remove_file(&dir.join(LABEL))?;
        // One that was made meanwhile keeps it, and makes its label anew.
        is_whole = fs::remove_dir(&dir).is_ok();
    }
    Ok(is_whole)
}

fn instances(dir: &Path) -> Result<Vec<PathBuf>> {
    let names = names(dir)?.into_iter();
    Ok(names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|name| dir.join(name))
        .collect())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", dir)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry.at("list", dir)?.file_name().into_string().ok());
    }
    found.sort();
    Ok(found)
}
