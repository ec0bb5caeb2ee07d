//! Images: a config blob, an entry in `images/`, and names.
//!
//! An image's id is its config's digest. `images/<hex>` says that a blob is an image's config, when it was really built
//! or loaded, and which layers it keeps; `names/<escaped>` gives it a name. A name is written only after all it leads to
//! has been synced.

mod config;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use config::{
    ContainerConfig, Empty, Healthcheck, History, ImageConfig, ImageRootFs, format_rfc3339, parse_rfc3339,
};

use crate::blob;
use crate::digest::{Digest, ImageId};
use crate::disk::Durability;
use crate::error::{IoContext, Result, StoreError};
use crate::record;
use crate::reference::Reference;
use crate::root::Root;
use crate::stamp::Stamp;

/// The largest config that is read (4 MiB, as registries allow).
pub const CONFIG_LIMIT: u64 = 4 << 20;
const RECORD_LIMIT: u64 = 1 << 20;
const CLASS: &str = "image";
const NAME_CLASS: &str = "name";

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of `config`'s bytes as they are in the store.
    pub id: ImageId,
    /// The config.
    pub config: ImageConfig,
    /// When it was built or loaded here, in real seconds since 1970.
    pub built: i64,
}

/// A name and the image it stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedImage {
    /// The name.
    pub reference: Reference,
    /// The image.
    pub id: ImageId,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    built: i64,
}

/// Puts an image with this config, canonically written.
pub(crate) fn put(root: &Arc<Root>, config: &ImageConfig) -> Result<Image> {
    put_bytes(root, &config.to_bytes(), config.clone())
}

/// Puts an image whose config is given as bytes (of an archive or a registry), which are kept as they are.
pub(crate) fn put_raw(root: &Arc<Root>, bytes: &[u8]) -> Result<Image> {
    let config = parse(bytes, &Digest::of(bytes))?;
    put_bytes(root, bytes, config)
}

fn put_bytes(root: &Arc<Root>, bytes: &[u8], config: ImageConfig) -> Result<Image> {
    let id = ImageId(blob::put(root, bytes)?);
    if let Some(built) = read_record(root, &id)? {
        return Ok(Image { id, config, built });
    }
    let built = Stamp::now().sec;
    let mut keeps = vec![id.0];
    keeps.extend(config.rootfs.diff_ids.iter().map(|diff_id| diff_id.0));
    let body = serde_json::to_vec(&ImageRecord { built }).unwrap_or_default();
    let sealed = record::seal(CLASS, &id.hex(), &keeps, &body);
    root.replace(&root.layout.images().join(id.hex()), &sealed, Durability::Later)?;
    Ok(Image { id, config, built })
}

fn parse(bytes: &[u8], digest: &Digest) -> Result<ImageConfig> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged {
        what: "image config",
        name: digest.to_string(),
        reason: error.to_string(),
    })
}

/// When the image was built; none if it is not (or no longer) an image here.
fn read_record(root: &Root, id: &ImageId) -> Result<Option<i64>> {
    let sealed = root
        .disk
        .read(&root.layout.images().join(id.hex()), RECORD_LIMIT)?;
    let record = sealed.and_then(|sealed| record::open(CLASS, &id.hex(), &sealed));
    if record.is_some() {
        root.met_image();
    }
    Ok(record
        .and_then(|record| serde_json::from_slice::<ImageRecord>(&record.bytes).ok())
        .map(|record| record.built))
}

/// An image by its whole id; none if it is not here. A damaged config is an error.
pub(crate) fn get(root: &Root, id: &ImageId) -> Result<Option<Image>> {
    let Some(built) = read_record(root, id)? else {
        return Ok(None);
    };
    let Some(bytes) = blob::read(root, &id.0, CONFIG_LIMIT)? else {
        return Ok(None);
    };
    Ok(Some(Image {
        id: *id,
        config: parse(&bytes, &id.0)?,
        built,
    }))
}

/// The ids of all images, sorted.
pub(crate) fn ids(root: &Root) -> Result<Vec<ImageId>> {
    let names = file_names(root.layout.images())?;
    let mut ids: Vec<_> = names
        .iter()
        .filter_map(|name| Digest::from_hex(name).ok().map(ImageId))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

fn file_names(directory: PathBuf) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).at("read", &directory)? {
        if let Ok(name) = entry.at("read", &directory)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes an image's entry (its blob and layers go with the next collection). Says whether it was there.
pub(crate) fn remove(root: &Root, id: &ImageId) -> Result<bool> {
    let removed = root.disk.remove_file(&root.layout.images().join(id.hex()))?;
    root.wrote();
    Ok(removed)
}

/// The file of a name: everything outside `a-z0-9._-` as `%XX`; the digest of the name where that would be too long.
pub(crate) fn name_path(root: &Root, reference: &Reference) -> PathBuf {
    let full = reference.full();
    let mut escaped = String::new();
    for byte in full.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    if escaped.len() > 200 {
        escaped = format!("%{}", Digest::of(full.as_bytes()).hex());
    }
    root.layout.names().join(escaped)
}

/// Gives an image a name, durably; all that was written before is synced first, be it by another process that was killed before
/// it could. Nothing is written if it has it.
pub(crate) fn tag(root: &Root, reference: &Reference, id: &ImageId) -> Result<()> {
    if lookup(root, reference)? == Some(*id) {
        return root.sync();
    }
    root.sync_for_name()?;
    let full = reference.full();
    let sealed = record::seal(NAME_CLASS, &full, &[id.0], id.to_string().as_bytes());
    let dest = name_path(root, reference);
    root.disk
        .replace(&root.temp_path()?, &dest, &sealed, Durability::Now)
}

/// Takes a name away, durably. Says whether it was there.
pub(crate) fn untag(root: &Root, reference: &Reference) -> Result<bool> {
    let path = name_path(root, reference);
    let removed = root.disk.remove_file(&path)?;
    if removed {
        root.disk.sync_parent(&path)?;
    }
    Ok(removed)
}

/// The image a name stands for; a damaged name stands for none.
pub(crate) fn lookup(root: &Root, reference: &Reference) -> Result<Option<ImageId>> {
    let Some(sealed) = root.disk.read(&name_path(root, reference), RECORD_LIMIT)? else {
        return Ok(None);
    };
    Ok(read_name(&reference.full(), &sealed))
}

fn read_name(full: &str, sealed: &[u8]) -> Option<ImageId> {
    let record = record::open(NAME_CLASS, full, sealed)?;
    std::str::from_utf8(&record.bytes).ok()?.parse().ok()
}

/// All names, sorted; damaged ones are left out.
pub(crate) fn names(root: &Root) -> Result<Vec<NamedImage>> {
    let mut names = Vec::new();
    for name in file_names(root.layout.names())? {
        let path = root.layout.names().join(name);
        let Some(sealed) = root.disk.read(&path, RECORD_LIMIT)? else {
            continue;
        };
        let Some(reference) = record::key(NAME_CLASS, &sealed).and_then(|key| Reference::parse(&key).ok())
        else {
            continue;
        };
        if let Some(id) = read_name(&reference.full(), &sealed) {
            names.push(NamedImage { reference, id });
        }
    }
    names.sort();
    Ok(names)
}

/// The image of a name, a whole id or the beginning of one that has at least `shortest` digits (Docker's order: a name goes before an id's beginning).
pub(crate) fn resolve(root: &Root, text: &str, shortest: usize) -> Result<Option<Image>> {
    let bare = text.strip_prefix("sha256:").unwrap_or(text);
    if let Ok(digest) = Digest::from_hex(bare) {
        return get(root, &ImageId(digest));
    }
    let reference = Reference::parse(text);
    if let Ok(reference) = &reference
        && let Some(id) = lookup(root, reference)?
    {
        return get(root, &id);
    }
    let is_hex =
        bare.len() >= shortest.max(1) && bare.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex {
        return reference.map(|_| None).map_err(StoreError::from);
    }
    let matching: Vec<_> = ids(root)?
        .into_iter()
        .filter(|id| id.hex().starts_with(bare))
        .collect();
    match matching.as_slice() {
        [] => Ok(None),
        [id] => get(root, id),
        several => Err(StoreError::AmbiguousId {
            prefix: text.to_owned(),
            count: several.len(),
        }),
    }
}
