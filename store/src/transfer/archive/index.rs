//! Which images a layout has, and what they are called.

use oci_spec::image::{Descriptor, MediaType};

use super::error::ArchiveError;
use super::layout::{self, Layout};
use super::options::Platform;
use crate::reference::Reference;
use crate::transfer::document::{self, Document};

/// The full name, as containerd and BuildKit write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// A full name (Podman) or a tag (the spec).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes in indexes, at most.
const MAX_DEPTH: usize = 4;
/// Descriptors looked at, at most.
const MAX_DESCRIPTORS: usize = 10_000;

/// An image of a layout.
pub(super) struct Found {
    pub(super) manifest: Descriptor,
    pub(super) names: Vec<Reference>,
    /// What the index calls it, as written: names or lone tags.
    pub(super) tags: Vec<String>,
}

/// All images for the platform, each once, in the index' order.
pub(super) fn find(layout: &dyn Layout, platform: &Platform) -> Result<Vec<Found>, ArchiveError> {
    let index = document::index(layout.index(), &MediaType::ImageIndex, "index.json")?;
    let mut search = Search {
        layout,
        platform,
        found: Vec::new(),
        others: Vec::new(),
        looked_at: 0,
    };
    for descriptor in index.manifests() {
        search.look(descriptor, &Called::by(descriptor), 0)?;
    }
    match search.found.is_empty() {
        true => Err(ArchiveError::NoImage {
            platform: platform.to_string(),
            found: search.others,
        }),
        false => Ok(search.found),
    }
}

struct Search<'a> {
    layout: &'a dyn Layout,
    platform: &'a Platform,
    found: Vec<Found>,
    others: Vec<String>,
    looked_at: usize,
}

impl Search<'_> {
    /// Takes an image, or goes into an index. Returns whether it had one.
    fn look(&mut self, descriptor: &Descriptor, called: &Called, depth: usize) -> Result<bool, ArchiveError> {
        self.looked_at += 1;
        if depth > MAX_DEPTH || self.looked_at > MAX_DESCRIPTORS {
            let problem = "it has too many images, or indexes too deep in each other";
            return Err(document::wrong("index.json", problem).into());
        }
        match document::kind(descriptor.media_type()) {
            Document::Manifest if self.fits(descriptor) => {
                self.take(descriptor, called);
                Ok(true)
            }
            Document::Index => self.look_inside(descriptor, called, depth),
            Document::Manifest | Document::Other => Ok(false),
        }
    }

    /// One image of an index is enough: the first that fits.
    fn look_inside(&mut self, of: &Descriptor, called: &Called, depth: usize) -> Result<bool, ArchiveError> {
        let (digest, bytes) = layout::read(self.layout, of, "index")?;
        let index = document::index(&bytes, of.media_type(), &format!("index {digest}"))?;
        for descriptor in index.manifests() {
            if self.look(descriptor, called, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Without a platform, its config tells; that is looked at when it is loaded.
    fn fits(&mut self, descriptor: &Descriptor) -> bool {
        let Some(platform) = descriptor.platform() else {
            return true;
        };
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        let fits = os == self.platform.os && architecture == self.platform.architecture;
        // BuildKit's attestations are for unknown/unknown.
        if !fits && os != "unknown" {
            self.others.push(format!("{os}/{architecture}"));
        }
        fits
    }

    fn take(&mut self, manifest: &Descriptor, called: &Called) {
        let known = self
            .found
            .iter_mut()
            .find(|found| found.manifest.digest() == manifest.digest());
        match known {
            Some(found) => {
                found.names.extend(called.names.iter().cloned());
                found.tags.extend(called.tags.iter().cloned());
            }
            None => self.found.push(Found {
                manifest: manifest.clone(),
                names: called.names.clone(),
                tags: called.tags.clone(),
            }),
        }
    }
}

/// What the annotations of a descriptor call it. A lone tag, which is what the spec has, names no repository and so no image.
struct Called {
    names: Vec<Reference>,
    tags: Vec<String>,
}

impl Called {
    fn by(descriptor: &Descriptor) -> Called {
        let annotations = descriptor.annotations().as_ref();
        let get = |key| annotations.and_then(|all| all.get(key)).map(String::as_str);
        let full = get(REF_NAME).filter(|name| name.contains(['/', ':']));
        let name = get(CONTAINERD_NAME).or(full);
        let names = name.and_then(|name| Reference::parse(name).ok());
        let tags = [get(REF_NAME), get(CONTAINERD_NAME)].into_iter().flatten();
        Called {
            names: names.into_iter().collect(),
            tags: tags.map(str::to_owned).collect(),
        }
    }
}

/// How box names an image in an index.
pub(super) fn annotations(name: &Reference) -> [(String, String); 2] {
    [
        (CONTAINERD_NAME.to_owned(), name.full()),
        (REF_NAME.to_owned(), name.full()),
    ]
}
