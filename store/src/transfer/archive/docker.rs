//! Archives of `docker save`: `manifest.json`, configs and layers as files of their own. They become a layout of the OCI's.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{Descriptor, ImageIndexBuilder, MediaType};
use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::index::annotations;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::transfer::document::{DocumentError, new_manifest, to_bytes, wrong};
use crate::transfer::manifest::descriptor;

/// Links in a row, at most: old archives have one from a layer to an equal one.
const MAX_LINKS: usize = 8;

/// One image of `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DockerImage {
    #[serde(rename = "Config")]
    pub(super) config: String,
    #[serde(rename = "RepoTags", default)]
    pub(super) names: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    pub(super) layers: Option<Vec<String>>,
}

/// A file of an archive.
#[derive(Debug, Clone)]
pub(super) enum Part {
    File(Digest, u64),
    /// To another one, relative to its own directory.
    Link(String),
}

/// What a layout is made of.
pub(super) struct Made {
    pub(super) index: Vec<u8>,
    /// Manifests, which no archive of this kind has.
    pub(super) documents: Vec<Vec<u8>>,
}

/// Makes a layout's index and manifests of `manifest.json` and the archive's files.
pub(super) fn layout(manifest: &[u8], parts: &BTreeMap<String, Part>) -> Result<Made, ArchiveError> {
    let images: Vec<DockerImage> =
        serde_json::from_slice(manifest).map_err(|e| wrong("manifest.json", &e.to_string()))?;
    let (mut documents, mut descriptors) = (Vec::new(), Vec::new());
    for image in &images {
        let config = of_blob(&MediaType::ImageConfig, find(parts, &image.config)?)?;
        let layers = image.layers.iter().flatten().map(|layer| {
            // Whether it is compressed is told by its first bytes, whatever it is called.
            of_blob(&MediaType::ImageLayer, find(parts, layer)?)
        });
        let layers = layers.collect::<Result<Vec<_>, DocumentError>>()?;
        let manifest = new_manifest(config, layers, "manifest.json")?;
        let bytes = to_bytes(&manifest);
        let own = of_blob(
            &MediaType::ImageManifest,
            (Digest::of(&bytes), bytes.len() as u64),
        )?;
        documents.push(bytes);
        let names = image.names.iter().flatten();
        let names: Vec<Reference> = names.filter_map(|name| Reference::parse(name).ok()).collect();
        if names.is_empty() {
            descriptors.push(own);
            continue;
        }
        for name in &names {
            let mut named = own.clone();
            named.set_annotations(Some(HashMap::from(annotations(name))));
            descriptors.push(named);
        }
    }
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(descriptors)
        .build()
        .map_err(|e| wrong("manifest.json", &e.to_string()))?;
    Ok(Made {
        index: to_bytes(&index),
        documents,
    })
}

/// A file by its name in `manifest.json`, links followed inside of the archive.
fn find(parts: &BTreeMap<String, Part>, name: &str) -> Result<(Digest, u64), DocumentError> {
    let missing = || wrong("manifest.json", &format!("{name:?} is not in the archive"));
    let mut at = plain(name).ok_or_else(missing)?;
    for _ in 0..MAX_LINKS {
        match parts.get(&at) {
            Some(Part::File(digest, size)) => return Ok((*digest, *size)),
            Some(Part::Link(target)) => {
                let directory = at.rsplit_once('/').map_or("", |(directory, _)| directory);
                at = plain(&format!("{directory}/{target}")).ok_or_else(missing)?;
            }
            None => break,
        }
    }
    Err(missing())
}

/// A path without `.` and `..`; none if it leads out.
pub(super) fn plain(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

fn of_blob(media_type: &MediaType, (digest, size): (Digest, u64)) -> Result<Descriptor, DocumentError> {
    descriptor(media_type, size, &digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let digest = Digest::of(b"x");
        let parts = BTreeMap::from([
            ("a/layer.tar".to_owned(), Part::File(digest, 1)),
            ("b/layer.tar".to_owned(), Part::Link("../a/layer.tar".to_owned())),
            (
                "c/layer.tar".to_owned(),
                Part::Link("../../a/layer.tar".to_owned()),
            ),
            ("d/layer.tar".to_owned(), Part::Link("layer.tar".to_owned())),
        ]);
        for (name, is_there) in [
            ("a/layer.tar", true),
            ("./a//layer.tar", true),
            ("b/layer.tar", true),
            ("c/layer.tar", false),
            ("d/layer.tar", false),
            ("e", false),
            ("../a/layer.tar", false),
        ] {
            assert_eq!(find(&parts, name).is_ok(), is_there, "{name}");
        }
    }
}
