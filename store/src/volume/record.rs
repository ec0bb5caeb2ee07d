//! A volume's record: `volumes/<name>/volume`, in the envelope of all records.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{DATA, NewVolume, VolumeName};
use crate::disk::Durability;
use crate::error::Result;
use crate::record::{open, seal};
use crate::root::Root;

const FILE: &str = "volume";
const CLASS: &str = "volume";
const LIMIT: u64 = 16 << 20;

/// What is kept of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Seconds since 1970.
    pub(super) created: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) anonymous: bool,
    /// The process that it goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
}

/// Writes the record of a volume that is being made in `dir`; on the platter when this returns, unless the volume goes with a process.
pub(super) fn write(
    root: &Root,
    dir: &Path,
    name: &VolumeName,
    new: &NewVolume,
    owner: Option<String>,
) -> Result<()> {
    let record = Record {
        created: now(root),
        labels: new.labels.clone(),
        anonymous: new.is_anonymous,
        owner,
    };
    let path = dir.join(FILE);
    let mut file = root.disk.create_file(&path)?;
    root.disk.write(&mut file, &path, &sealed(name, &record))?;
    match record.owner {
        Some(_) => Ok(()),
        None => root
            .disk
            .sync_file(&file, &path)
            .and_then(|()| root.disk.sync_parent(&path)),
    }
}

fn sealed(name: &VolumeName, record: &Record) -> Vec<u8> {
    // Serialising strings and numbers into memory can't fail.
    let body = serde_json::to_vec(record).unwrap_or_default();
    seal(CLASS, name.as_str(), &[], &body)
}

fn now(root: &Root) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX)) + root.clock_offset
}

/// The record; none if it is missing or damaged.
pub(super) fn read(root: &Root, name: &VolumeName) -> Result<Option<Record>> {
    let path = root.layout.volume(name.as_str()).join(FILE);
    let record = root
        .disk
        .read(&path, LIMIT)?
        .and_then(|sealed| open(CLASS, name.as_str(), &sealed));
    Ok(record.and_then(|record| serde_json::from_slice(&record.bytes).ok()))
}

/// What is wrong with a volume, if something is. With `repair` a damaged record is replaced by one without labels: what the volume holds
/// is its users', and nobody else has it.
pub(crate) fn mend(root: &Root, name: &VolumeName, repair: bool) -> Result<Option<(&'static str, bool)>> {
    let dir = root.layout.volume(name.as_str());
    if !dir.join(DATA).is_dir() {
        // Removed meanwhile.
        let is_there = std::fs::symlink_metadata(&dir).is_ok();
        return Ok(is_there.then_some(("its data directory is missing", false)));
    }
    if read(root, name)?.is_some() {
        return Ok(None);
    }
    if repair {
        let record = Record {
            created: now(root),
            ..Record::default()
        };
        root.replace(&dir.join(FILE), &sealed(name, &record), Durability::Now)?;
    }
    Ok(Some(("its record is damaged", repair)))
}
