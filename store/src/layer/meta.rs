//! What the store knows of a layer besides its tree.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{DiffId, Digest};
use crate::record;
use crate::stamp::Stamp;

/// The earliest logical time: 1980-01-01, since zip archives can't say anything earlier.
pub const EPOCH: i64 = 315_532_800;
const CLASS: &str = "layer";

/// How a layer's times on disk become those of its canonical tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTimes {
    /// The layer's logical time L, in seconds.
    pub logical: i64,
    /// On-disk times at or after this second count as written by the layer's step and become L. None: all are kept.
    pub threshold: Option<i64>,
    /// When the step started, in real time.
    pub start: Stamp,
    /// No canonical time is later than this (SOURCE_DATE_EPOCH).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamp: Option<i64>,
    /// On-disk times whose canonical time is none of these: copies of files of lower layers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "exception_list")]
    pub exceptions: BTreeMap<Stamp, i64>,
}

impl LayerTimes {
    /// All times on disk are kept (whole seconds); for layers of foreign archives.
    pub fn kept() -> LayerTimes {
        LayerTimes {
            logical: 0,
            threshold: None,
            start: Stamp::new(0, 0),
            clamp: None,
            exceptions: BTreeMap::new(),
        }
    }

    /// Whether the step that made the layer wrote this time (by the threshold alone).
    pub fn is_logical(&self, on_disk: Stamp) -> bool {
        self.threshold.is_some_and(|threshold| on_disk.sec >= threshold)
    }

    /// The canonical time by the threshold alone.
    pub fn plain(&self, on_disk: Stamp) -> i64 {
        self.clamped(if self.is_logical(on_disk) {
            self.logical
        } else {
            on_disk.sec
        })
    }

    /// The canonical time, in whole seconds.
    pub fn canonical(&self, on_disk: Stamp) -> i64 {
        self.exceptions
            .get(&on_disk)
            .copied()
            .unwrap_or_else(|| self.plain(on_disk))
    }

    /// `time`, or the clamp if that is earlier.
    pub fn clamped(&self, time: i64) -> i64 {
        self.clamp.map_or(time, |clamp| time.min(clamp))
    }
}

/// Mode, owner and attributes of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirAttrs {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Extended attributes that a tar keeps, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "xattr_list")]
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Default for DirAttrs {
    /// 0755, root's.
    fn default() -> DirAttrs {
        DirAttrs {
            mode: 0o755,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
        }
    }
}

/// What is known of a layer as soon as it is committed, before its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Its times.
    pub times: LayerTimes,
    /// The newest canonical time of any entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<i64>,
    /// The newest time of any entry on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_on_disk: Option<Stamp>,
    /// Oldest and newest on-disk time at or after the threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<(Stamp, Stamp)>,
    /// When it was committed, in real time.
    pub committed: Stamp,
    /// Bytes of its files.
    pub size: u64,
    /// How many entries its tree has.
    pub entries: u64,
    /// Sockets that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sockets: u64,
    /// How many directories hide what is below them; none if nobody counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<u64>,
    /// The ids used, divided by 65,536, sorted.
    pub id_pages: Vec<u32>,
    /// The root directory's attributes, if the layer sets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<DirAttrs>,
    /// Whether the layer hides all that is below it (an opaque whiteout in its root, which overlayfs does not heed).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hides_below: bool,
    /// Directories that an archive did not list, though it has entries in them; they take the attributes of the layer below. Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "path_list")]
    pub implied_parents: Vec<PathBuf>,
}

impl LayerFacts {
    /// Whether the layer has this directory without listing it.
    pub fn implies(&self, path: &Path) -> bool {
        self.implied_parents
            .binary_search_by(|implied| implied.as_path().cmp(path))
            .is_ok()
    }
}

/// A layer's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// What is known without its tar.
    #[serde(flatten)]
    pub facts: LayerFacts,
    /// The digest of its canonical tar: equal to the DiffId for layers made here, not for those of foreign archives.
    pub tree_digest: Digest,
    /// How long its canonical tar is, in bytes.
    pub tar_size: u64,
    /// The boot in which it was written; it is trusted in that boot, or when its marker in `synced/` is there.
    pub boot_id: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl LayerMeta {
    pub(crate) fn seal(&self, diff_id: &DiffId) -> Vec<u8> {
        record::seal(
            CLASS,
            &diff_id.hex(),
            &[],
            &serde_json::to_vec(self).unwrap_or_default(),
        )
    }

    pub(crate) fn open(diff_id: &DiffId, sealed: &[u8]) -> Option<LayerMeta> {
        let record = record::open(CLASS, &diff_id.hex(), sealed)?;
        serde_json::from_slice(&record.bytes).ok()
    }
}

/// Bytes as text: printable ASCII but `%` as it is, the rest as `%XX`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn unescape<E: serde::de::Error>(text: &str) -> Result<Vec<u8>, E> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(value.ok_or_else(|| E::custom("a % must be followed by two hex digits"))?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
        }
    }
    Ok(bytes)
}

mod exception_list {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<Stamp, i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Stamp, i64>, D::Error> {
        Ok(Vec::<(Stamp, i64)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

mod xattr_list {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        list: &[(OsString, Vec<u8>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            list.iter()
                .map(|(name, value)| (escape(name.as_bytes()), escape(value))),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(OsString, Vec<u8>)>, D::Error> {
        let list = Vec::<(String, String)>::deserialize(deserializer)?;
        list.iter()
            .map(|(name, value)| Ok((OsString::from_vec(unescape(name)?), unescape(value)?)))
            .collect()
    }
}

mod path_list {
    use super::*;

    pub(super) fn serialize<S: Serializer>(list: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|path| escape(path.as_os_str().as_bytes())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        list.iter()
            .map(|path| Ok(PathBuf::from(OsString::from_vec(unescape(path)?))))
            .collect()
    }
}
