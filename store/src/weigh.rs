//! What layers hold, and what of it later layers hide: bytes that an image carries and nobody sees.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::beneath::Kind;
use crate::error::{IoContext, Result};
use crate::layer::Layer;
use crate::tree::Tree;

/// What a layer holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of its files; those with several names count once.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
    /// Bytes of files that a later layer replaces or removes.
    pub hidden: u64,
    /// The largest files, the largest first.
    pub largest: Vec<(PathBuf, u64)>,
    /// The largest of those that are hidden.
    pub largest_hidden: Vec<(PathBuf, u64)>,
}

/// Weighs each of these layers, bottom first, as parts of one image; `count` files of each are named.
///
/// # Errors
/// When a layer can't be read.
pub fn weigh(layers: &[Layer], count: usize) -> Result<Vec<Weight>> {
    let tree = Tree::new(layers);
    layers.iter().map(|layer| one(layer, &tree, count)).collect()
}

fn one(layer: &Layer, tree: &Tree, count: usize) -> Result<Weight> {
    let place = layer.path();
    let mut walk = layer.walk()?;
    let mut weight = Weight::default();
    let (mut largest, mut largest_hidden) = (Largest::new(count), Largest::new(count));
    let mut linked = HashSet::new();
    while let Some(visit) = walk.next().at("read", &place)? {
        let file = visit.metadata;
        if file.kind != Kind::File || (file.nlink > 1 && !linked.insert(file.inode)) {
            continue;
        }
        weight.files += 1;
        weight.bytes += file.size;
        largest.add(visit.path, file.size);
        let seen = tree.lookup(visit.path)?;
        if seen.is_none_or(|seen| seen.metadata.inode != file.inode) {
            weight.hidden += file.size;
            largest_hidden.add(visit.path, file.size);
        }
    }
    (weight.largest, weight.largest_hidden) = (largest.finish(), largest_hidden.finish());
    Ok(weight)
}

/// The largest of many files.
struct Largest {
    count: usize,
    /// The smallest first; of equal ones the last by name.
    files: BTreeSet<(u64, std::cmp::Reverse<PathBuf>)>,
}

impl Largest {
    fn new(count: usize) -> Largest {
        Largest {
            count,
            files: BTreeSet::new(),
        }
    }

    fn add(&mut self, path: &Path, size: u64) {
        if size > 0
            && (self.files.len() < self.count || self.files.first().is_some_and(|least| least.0 < size))
        {
            self.files.insert((size, std::cmp::Reverse(path.to_owned())));
            if self.files.len() > self.count {
                self.files.pop_first();
            }
        }
    }

    fn finish(self) -> Vec<(PathBuf, u64)> {
        let files = self.files.into_iter().rev();
        files.map(|(size, path)| (path.0, size)).collect()
    }
}
