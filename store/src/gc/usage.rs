//! How many bytes things take on the disk, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walkdir::WalkDir;

use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{IoContext, Result};
use crate::image;
use crate::reference::Reference;
use crate::root::entries;
use crate::store::Store;
use crate::volume::VolumeName;

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Bytes on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of each image, by id.
    pub images: Vec<ImageUsage>,
    /// Layers that an image has.
    pub image_layers: u64,
    /// Layers that only the build cache keeps, or nothing.
    pub cache_layers: u64,
    /// Blobs: configs, manifests, and layers as they were pulled, loaded, pushed or saved.
    pub blobs: u64,
    /// Caches of `RUN --mount=type=cache`.
    pub cache_mounts: u64,
    /// Volumes.
    pub volumes: u64,
    /// Logs of builds.
    pub build_logs: u64,
}

/// Bytes of one image's layers on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Which.
    pub id: ImageId,
    /// What it is called.
    pub names: Vec<Reference>,
    /// Of layers that another image has, too.
    pub shared: u64,
    /// Of layers that no other image has.
    pub own: u64,
}

impl Store {
    /// Counts what is on the disk. Others may use the store meanwhile.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn usage(&self) -> Result<Usage> {
        let (root, known) = self.parts();
        let top = root.layout.root();
        let mut layers: BTreeMap<Digest, u64> = BTreeMap::new();
        for (name, path) in entries(&top.join("layers"))? {
            if let Ok(digest) = Digest::from_hex(&name) {
                layers.insert(digest, bytes_of_tree(&path)?);
            }
        }
        let images = self.images()?;
        let mut owners: BTreeMap<DiffId, u64> = BTreeMap::new();
        // With those that it keeps as parts of others.
        let layers_of = |image: &image::Image| -> Result<BTreeSet<DiffId>> {
            let mut all: BTreeSet<DiffId> = image.config.rootfs.diff_ids.iter().copied().collect();
            for diff_id in &image.config.rootfs.diff_ids {
                all.extend(known.recorded_pieces(diff_id)?);
            }
            Ok(all)
        };
        let images: Vec<(image::Image, BTreeSet<DiffId>)> = images
            .into_iter()
            .map(|image| layers_of(&image).map(|layers| (image, layers)))
            .collect::<Result<_>>()?;
        for diff_id in images.iter().flat_map(|(_, layers)| layers) {
            *owners.entry(*diff_id).or_default() += 1;
        }
        let names = self.names()?;
        let bytes = |diff_id: &DiffId| layers.get(&diff_id.0).copied().unwrap_or_default();
        let usage_of = |(image, all): &(image::Image, BTreeSet<DiffId>)| {
            let is_shared = |diff_id: &&DiffId| owners.get(diff_id).is_some_and(|count| *count > 1);
            let shared = all.iter().filter(is_shared).map(bytes).sum();
            let named = names.iter().filter(|named| named.id == image.id);
            ImageUsage {
                id: image.id,
                names: named.map(|named| named.reference.clone()).collect(),
                shared,
                own: all.iter().map(bytes).sum::<u64>() - shared,
            }
        };
        let image_layers = owners.keys().map(bytes).sum();
        let mut blobs = 0;
        for (_, path) in entries(&top.join("blobs/sha256"))? {
            blobs += bytes_of_file(&path)?;
        }
        Ok(Usage {
            images: images.iter().map(usage_of).collect(),
            image_layers,
            cache_layers: layers.values().sum::<u64>() - image_layers,
            blobs,
            cache_mounts: bytes_of_tree(&root.layout.cache_mounts())?,
            volumes: bytes_of_tree(&root.layout.volumes())?,
            build_logs: bytes_of_tree(&root.layout.builds())?,
        })
    }
}

impl Store {
    /// Bytes that a volume takes on the disk. What a container changes meanwhile is counted as it happens to be met.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn volume_size(&self, name: &VolumeName) -> Result<u64> {
        bytes_of_tree(&self.layout().volume(name.as_str()))
    }
}

pub(super) fn bytes_of_file(path: &Path) -> Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.blocks() * BLOCK),
        // It went away while others were counted.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).at("look at", path),
    }
}

/// Files with several names count once. What can't be read counts as nothing.
pub(super) fn bytes_of_tree(path: &Path) -> Result<u64> {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for entry in WalkDir::new(path).into_iter().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.nlink() < 2 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
            bytes += metadata.blocks() * BLOCK;
        }
    }
    Ok(bytes)
}
