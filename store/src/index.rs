//! `index.json`: the images of the store that other tools can read in place, since their manifest and all their blobs are here.
//!
//! It follows the names; a command that is killed between a name and the index leaves an older index, which the next change of that name, a
//! collection or a repair brings up to date. A checksum in it tells an old index from a damaged one.

use std::collections::BTreeSet;
use std::io::Write;

use oci_spec::image::ImageManifest;
use serde::{Deserialize, Serialize};

use crate::blob::{self, Packed};
use crate::digest::{Digest, ImageId};
use crate::disk::Durability;
use crate::error::{IoContext, Result, StoreError};
use crate::image::{self, NamedImage};
use crate::lock::{self, LockGuard};
use crate::record::{self, RecordKind};
use crate::reference::Reference;
use crate::root::Root;

/// The records that lead from an image to its manifest.
pub(crate) const MANIFESTS: &str = "manifest";
/// The largest manifest and index that are read.
const LIMIT: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Index {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Checksum>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    annotations: Name,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    /// The full reference.
    #[serde(rename = "org.opencontainers.image.ref.name")]
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksum {
    /// The digest of `manifests` as it is written.
    #[serde(rename = "box.manifests")]
    manifests: Digest,
}

/// The index of these entries, byte by byte.
fn render(entries: Vec<Entry>) -> Vec<u8> {
    let written = serde_json::to_vec(&entries).unwrap_or_default();
    let annotations = (!entries.is_empty()).then(|| Checksum {
        manifests: Digest::of(&written),
    });
    let index = Index {
        schema_version: 2,
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        manifests: entries,
        annotations,
    };
    serde_json::to_vec(&index).unwrap_or_default()
}

/// What an undamaged index lists; none if it is damaged.
fn parse(bytes: &[u8]) -> Option<Vec<Entry>> {
    let index: Index = serde_json::from_slice(bytes).ok()?;
    (render(index.manifests.clone()) == bytes).then_some(index.manifests)
}

/// What is wrong with the index, if something is.
pub(crate) fn problem(root: &Root) -> Result<Option<&'static str>> {
    let Some(entries) = read(root)? else {
        return Ok(Some("it is missing or damaged"));
    };
    let is_gone = |entry: &Entry| !is_whole(root, &entry.digest, &|digest| root.layout.blob(digest).exists());
    Ok(entries
        .iter()
        .any(is_gone)
        .then_some("it lists an image of which something is not here"))
}

/// None if it is missing or damaged.
fn read(root: &Root) -> Result<Option<Vec<Entry>>> {
    Ok(root
        .disk
        .read(&root.layout.index(), LIMIT)?
        .and_then(|bytes| parse(&bytes)))
}

/// Brings what the index says of a name up to date, after it or its image's manifest has changed.
pub(crate) fn refresh(root: &Root, name: &Reference) -> Result<()> {
    let full = name.full();
    let wanted = |id: Option<ImageId>| match id {
        Some(id) => entry(root, &full, &id, &BTreeSet::new()),
        None => Ok(None),
    };
    let is_said = |entries: &[Entry], wanted: &Option<Entry>| {
        entries.iter().find(|entry| entry.annotations.name == full) == wanted.as_ref()
    };
    // Most names are of images that nobody packed yet: nothing is to do then.
    if let Some(entries) = read(root)?
        && is_said(&entries, &wanted(image::lookup(root, name)?)?)
    {
        return Ok(());
    }
    let _alone = alone(root)?;
    let Some(mut entries) = read(root)? else {
        return write(root, all(root, &BTreeSet::new())?);
    };
    let wanted = wanted(image::lookup(root, name)?)?;
    if is_said(&entries, &wanted) {
        return Ok(());
    }
    entries.retain(|entry| entry.annotations.name != full);
    entries.extend(wanted);
    write(root, entries)
}

/// The same for all names of an image.
pub(crate) fn refresh_image(root: &Root, id: &ImageId) -> Result<()> {
    for NamedImage { reference, .. } in image::names(root)?.iter().filter(|name| name.id == *id) {
        refresh(root, reference)?;
    }
    Ok(())
}

fn alone(root: &Root) -> Result<Option<LockGuard>> {
    lock::exclusive(&root.layout.locks("x-index").join("index"), false)
}

/// Writes the index anew if it is not as it should be.
pub(crate) fn rebuild(root: &Root) -> Result<()> {
    let _alone = alone(root)?;
    rebuild_without(root, &BTreeSet::new())
}

/// The same for who is alone with the store, before these blobs go.
pub(crate) fn rebuild_without(root: &Root, gone: &BTreeSet<Digest>) -> Result<()> {
    let entries = all(root, gone)?;
    if read(root)?.is_some_and(|found| found == entries) {
        return Ok(());
    }
    write(root, entries)
}

fn all(root: &Root, gone: &BTreeSet<Digest>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for NamedImage { reference, id } in image::names(root)? {
        entries.extend(entry(root, &reference.full(), &id, gone)?);
    }
    sort(&mut entries);
    Ok(entries)
}

fn sort(entries: &mut [Entry]) {
    entries.sort_by(|a, b| a.annotations.name.cmp(&b.annotations.name));
}

/// The digest of an image's manifest; none if it has none.
pub(crate) fn manifest_of(root: &Root, id: &ImageId) -> Result<Option<Digest>> {
    Ok(packed_of(root, id)?.map(|packed| packed.digest))
}

fn packed_of(root: &Root, id: &ImageId) -> Result<Option<Packed>> {
    let record = record::get(root, &RecordKind::new(MANIFESTS)?, &id.0)?;
    Ok(record.and_then(|record| serde_json::from_slice(&record.bytes).ok()))
}

/// An image as the index lists it; none if it has no manifest or something of it is not here.
fn entry(root: &Root, name: &str, id: &ImageId, gone: &BTreeSet<Digest>) -> Result<Option<Entry>> {
    let Some(packed) = packed_of(root, id)? else {
        return Ok(None);
    };
    let is_here = |digest: &Digest| !gone.contains(digest) && root.layout.blob(digest).exists();
    if !is_whole(root, &packed.digest, &is_here) {
        return Ok(None);
    }
    Ok(Some(Entry {
        media_type: packed.media_type,
        digest: packed.digest,
        size: packed.size,
        annotations: Name {
            name: name.to_owned(),
        },
    }))
}

/// Whether a manifest and all that it names is here.
fn is_whole(root: &Root, manifest: &Digest, is_here: &dyn Fn(&Digest) -> bool) -> bool {
    if !is_here(manifest) {
        return false;
    }
    let Ok(Some(bytes)) = blob::read(root, manifest, LIMIT) else {
        return false;
    };
    let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes) else {
        return false;
    };
    let mut parts = manifest.layers().iter().chain([manifest.config()]);
    parts.all(|part| {
        part.digest()
            .as_ref()
            .parse()
            .is_ok_and(|digest| is_here(&digest))
    })
}

fn write(root: &Root, mut entries: Vec<Entry>) -> Result<()> {
    sort(&mut entries);
    let bytes = render(entries);
    let path = root.layout.index();
    match root.replace(&path, &bytes, Durability::Now) {
        // Removing a name must work on a full disk: a shorter index fits where the longer one is.
        Err(StoreError::Io { source, .. })
            if is_full(&source)
                && std::fs::metadata(&path).is_ok_and(|old| bytes.len() as u64 <= old.len()) =>
        {
            let file = std::fs::File::options().write(true).open(&path);
            let mut file = file.at("open", &path)?;
            file.write_all(&bytes).at("write", &path)?;
            file.set_len(bytes.len() as u64).at("write", &path)
        }
        result => result,
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
