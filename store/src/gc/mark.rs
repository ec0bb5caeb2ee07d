//! What is alive: read from images and records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::alone::Alone;
use super::logs::Logs;
use super::usage::{bytes_of_file, bytes_of_tree};
use super::{Collected, Prune};
use crate::container;
use crate::digest::Digest;
use crate::error::{IoContext, Result, StoreError};
use crate::image;
use crate::record;
use crate::root::{Root, entries, read_quietly};

/// Records that are alive only with what their key names: a layer's blobs, an image's manifest.
fn follows(kind: &str) -> bool {
    kind == "manifest" || kind == "packed" || kind.starts_with("packed-")
}

/// Something that keeps others alive.
pub(super) struct Keeper {
    pub(super) path: PathBuf,
    pub(super) keeps: Vec<Digest>,
    pub(super) is_image: bool,
    /// Its names keep it.
    pub(super) is_fixed: bool,
    /// When it was used last, in seconds since 1970, as well as that is known.
    pub(super) used: i64,
    pub(super) is_gone: bool,
}

/// A record that follows something.
struct Follower {
    path: PathBuf,
    key: Digest,
    keeps: Vec<Digest>,
}

/// A layer or a blob that is there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Object {
    pub(super) is_layer: bool,
    pub(super) is_blob: bool,
    pub(super) layer_bytes: u64,
    pub(super) blob_bytes: u64,
    is_used: bool,
}

/// All that is there, and what keeps it.
pub(super) struct Marks {
    pub(super) keepers: Vec<Keeper>,
    followers: Vec<Follower>,
    pub(super) objects: BTreeMap<Digest, Object>,
    /// Fix-ups that nobody uses, and what was put aside as damaged.
    spare: Vec<(PathBuf, u64)>,
    /// Files that stand for nothing.
    damaged: Vec<PathBuf>,
    logs: Logs,
}

/// What is to be removed.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) files: Vec<PathBuf>,
    pub(super) layers: Vec<Digest>,
    pub(super) blobs: Vec<Digest>,
    /// Fix-ups that nobody uses, and what was put aside as damaged.
    pub(super) spare: Vec<PathBuf>,
    pub(super) bytes: u64,
}

impl Marks {
    /// Reads everything.
    pub(super) fn read(root: &Root, alone: &Alone<'_>) -> Result<Marks> {
        let mut marks = Marks {
            keepers: Vec::new(),
            followers: Vec::new(),
            objects: BTreeMap::new(),
            spare: Vec::new(),
            damaged: Vec::new(),
            logs: Logs::read(root)?,
        };
        marks.read_images(root)?;
        marks.read_containers(root)?;
        marks.read_records(root)?;
        marks.read_objects(root, alone)?;
        Ok(marks)
    }

    fn read_images(&mut self, root: &Root) -> Result<()> {
        let named: BTreeSet<_> = image::names(root)?.into_iter().map(|named| named.id).collect();
        for id in image::ids(root)? {
            let path = root.layout.images().join(id.hex());
            let metadata = match fs::metadata(&path) {
                // It went since it was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                found => found.at("look at", &path)?,
            };
            let Some(sealed) = read_quietly(&path)? else {
                continue;
            };
            // What it keeps can't be known, and may be all that somebody has.
            let record = record::open("image", &id.hex(), &sealed).ok_or_else(|| StoreError::Damaged {
                what: "image",
                name: id.to_string(),
                reason: "remove it (box rmi), or pull or load it again".to_owned(),
            })?;
            self.keepers.push(Keeper {
                path,
                keeps: record.keeps,
                is_image: true,
                is_fixed: named.contains(&id),
                used: last_used(&metadata),
                is_gone: false,
            });
        }
        Ok(())
    }

    fn read_containers(&mut self, root: &Root) -> Result<()> {
        for (id, keeps) in container::kept(root)? {
            // What it lies on can't be known otherwise.
            let keeps = keeps.ok_or_else(|| StoreError::Damaged {
                what: "container",
                name: id.clone(),
                reason: "remove it (box rm -f)".to_owned(),
            })?;
            self.keepers.push(Keeper {
                path: root.layout.container(&id),
                keeps,
                is_image: false,
                is_fixed: true,
                used: 0,
                is_gone: false,
            });
        }
        Ok(())
    }

    fn read_records(&mut self, root: &Root) -> Result<()> {
        let all = root.layout.root().join("records");
        for (kind, directory) in entries(&all)? {
            for (_, shard) in entries(&directory)? {
                for (name, path) in entries(&shard)? {
                    self.read_record((&kind, &name), path)?;
                }
            }
        }
        Ok(())
    }

    fn read_record(&mut self, (kind, name): (&str, &str), path: PathBuf) -> Result<()> {
        let metadata = fs::metadata(&path).at("look at", &path)?;
        let sealed = read_quietly(&path)?.unwrap_or_default();
        let (Some(record), Ok(key)) = (record::open(kind, name, &sealed), Digest::from_hex(name)) else {
            self.damaged.push(path);
            return Ok(());
        };
        let keeps = record.keeps;
        if follows(kind) {
            self.followers.push(Follower { path, key, keeps });
            return Ok(());
        }
        self.keepers.push(Keeper {
            path,
            keeps,
            is_image: false,
            is_fixed: false,
            used: last_used(&metadata),
            is_gone: false,
        });
        Ok(())
    }

    fn read_objects(&mut self, root: &Root, alone: &Alone<'_>) -> Result<()> {
        let top = root.layout.root();
        for directory in ["layers", "meta", "synced"] {
            for (name, path) in entries(&top.join(directory))? {
                let Ok(digest) = Digest::from_hex(&name) else {
                    continue;
                };
                let object = self.objects.entry(digest).or_default();
                object.is_layer = true;
                if directory == "layers" {
                    object.layer_bytes = bytes_of_tree(&path)?;
                    object.is_used = alone.is_used(&digest)?;
                }
            }
        }
        for (name, path) in entries(&top.join("blobs/sha256"))? {
            let Ok(digest) = Digest::from_hex(&name) else {
                continue;
            };
            let object = self.objects.entry(digest).or_default();
            object.is_blob = true;
            object.blob_bytes = bytes_of_file(&path)?;
        }
        for (name, path) in entries(&top.join("fixups"))? {
            let is_used = match Digest::from_hex(&name) {
                Ok(digest) => alone.is_used(&digest)?,
                Err(_) => false,
            };
            if !is_used {
                let bytes = bytes_of_tree(&path)?;
                self.spare.push((path, bytes));
            }
        }
        for (name, path) in entries(&root.layout.quarantine())? {
            // A container may lie on a layer that was found damaged.
            let layer = name
                .strip_prefix("layer-")
                .and_then(|hex| Digest::from_hex(hex).ok());
            if layer.map_or(Ok(false), |digest| alone.is_used(&digest))? {
                continue;
            }
            let bytes = bytes_of_tree(&path)?;
            self.spare.push((path, bytes));
        }
        Ok(())
    }

    /// Marks images without a name and records as gone, as far as that is wanted; says how many.
    pub(super) fn prune(&mut self, prune: Prune) -> Collected {
        match prune {
            Prune::Nothing => {}
            Prune::Unused => {
                self.let_go(|_| true);
                self.spare.extend(self.logs.oldest(u64::MAX));
            }
            Prune::OlderThan(age) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
                let limit = now.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
                self.let_go(|keeper| keeper.used < limit);
                self.spare.extend(self.logs.unused_since(limit));
            }
            Prune::Above(limit) => {
                // What nobody builds with goes first.
                let over = self
                    .bytes()
                    .saturating_sub(self.dead().bytes.saturating_add(limit));
                self.spare.extend(self.logs.oldest(over));
                self.shrink(limit);
            }
        }
        let gone = |is_image: bool| {
            let gone = self.keepers.iter().filter(|keeper| keeper.is_gone);
            gone.filter(|keeper| keeper.is_image == is_image).count() as u64
        };
        Collected {
            images: gone(true),
            records: gone(false),
            ..Collected::default()
        }
    }

    fn let_go(&mut self, which: impl Fn(&Keeper) -> bool) {
        for keeper in self.keepers.iter_mut().filter(|keeper| !keeper.is_fixed) {
            keeper.is_gone |= which(keeper);
        }
    }

    /// Lets the longest unused go, one after the other, until the rest fits.
    fn shrink(&mut self, limit: u64) {
        let mut order: Vec<usize> = (0..self.keepers.len())
            .filter(|&at| !self.keepers[at].is_fixed)
            .collect();
        order.sort_by_key(|&at| self.keepers[at].used);
        // How many keep each object; the last one frees it, with the blobs that follow it.
        let mut counts: BTreeMap<Digest, u64> = BTreeMap::new();
        for keeper in &self.keepers {
            for digest in &keeper.keeps {
                *counts.entry(*digest).or_default() += 1;
            }
        }
        let mut follow: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for follower in &self.followers {
            follow.entry(follower.key).or_default().extend(&follower.keeps);
        }
        let all = self.bytes();
        let mut total = all.saturating_sub(self.dead().bytes);
        for at in order {
            if total <= limit {
                // What is counted on the way may be a little off where things are kept in several ways.
                total = all.saturating_sub(self.dead().bytes);
            }
            if total <= limit {
                return;
            }
            self.keepers[at].is_gone = true;
            for digest in &self.keepers[at].keeps {
                let count = counts.entry(*digest).or_default();
                *count = count.saturating_sub(1);
                if *count == 0 {
                    let theirs = follow.get(digest).into_iter().flatten();
                    let freed: u64 = theirs.chain([digest]).map(|digest| self.weight(digest)).sum();
                    total = total.saturating_sub(freed);
                }
            }
        }
    }

    /// The bytes that go with an object.
    fn weight(&self, digest: &Digest) -> u64 {
        let object = self.objects.get(digest).copied().unwrap_or_default();
        let layer = if object.is_used { 0 } else { object.layer_bytes };
        layer + object.blob_bytes
    }

    /// Bytes of everything.
    pub(super) fn bytes(&self) -> u64 {
        let objects: u64 = self
            .objects
            .values()
            .map(|object| object.layer_bytes + object.blob_bytes)
            .sum();
        objects + self.logs.bytes() + self.spare.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// What the rest keeps.
    pub(super) fn alive(&self) -> BTreeSet<Digest> {
        let keepers = self.keepers.iter().filter(|keeper| !keeper.is_gone);
        let mut alive: BTreeSet<Digest> = keepers.flat_map(|keeper| keeper.keeps.iter().copied()).collect();
        let followers = self
            .followers
            .iter()
            .filter(|follower| alive.contains(&follower.key));
        let theirs: Vec<Digest> = followers
            .flat_map(|follower| follower.keeps.iter().copied())
            .collect();
        alive.extend(theirs);
        alive
    }

    /// What is to be removed.
    pub(super) fn dead(&self) -> Gone {
        let alive = self.alive();
        let mut gone = Gone {
            files: self.damaged.clone(),
            ..Gone::default()
        };
        let keepers = self.keepers.iter().filter(|keeper| keeper.is_gone);
        gone.files.extend(keepers.map(|keeper| keeper.path.clone()));
        let followers = self
            .followers
            .iter()
            .filter(|follower| !alive.contains(&follower.key));
        gone.files.extend(followers.map(|follower| follower.path.clone()));
        for (digest, object) in &self.objects {
            if alive.contains(digest) {
                continue;
            }
            if object.is_layer && !object.is_used {
                gone.layers.push(*digest);
                gone.bytes += object.layer_bytes;
            }
            if object.is_blob {
                gone.blobs.push(*digest);
                gone.bytes += object.blob_bytes;
            }
        }
        for (path, bytes) in &self.spare {
            gone.spare.push(path.clone());
            gone.bytes += bytes;
        }
        gone
    }
}

/// Reading sets a time, too, where the file system keeps it (once a day, usually).
fn last_used(metadata: &Metadata) -> i64 {
    metadata.mtime().max(metadata.atime())
}
