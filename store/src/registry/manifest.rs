//! Which image a name means: manifests, and the one of an index that fits the platform.

use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use reqwest::header::CONTENT_TYPE;

use super::client::Client;
use super::error::RegistryError;
use crate::digest::Digest;
use crate::image::ImageConfig;
use crate::reference::Reference;
use crate::transfer::document::{self, DOCUMENT_LIMIT, Document, wrong};

const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Indexes in indexes, at most.
const MAX_DEPTH: usize = 4;

/// An image of a registry: its documents, checked.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) media_type: MediaType,
    pub(super) bytes: Vec<u8>,
    pub(super) manifest: ImageManifest,
    pub(super) config_bytes: Vec<u8>,
    pub(super) config: ImageConfig,
}

/// Finds the image of a name.
pub(super) fn find(client: &Client<'_>, name: &Reference) -> Result<Found, RegistryError> {
    let what = match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let mut wanted = name.digest().copied();
    let mut document = fetch(client, name, &what, wanted.as_ref())?;
    for _ in 0..MAX_DEPTH {
        let (media_type, bytes) = document;
        let digest = Digest::of(&bytes);
        match document::kind(&media_type) {
            Document::Manifest => return image(client, (digest, media_type, bytes)),
            Document::Index => {
                let descriptor = choose(client, name, &media_type, &bytes)?;
                let digest = document::digest(&descriptor, "index")?;
                wanted = Some(digest);
                document = fetch(client, name, &digest.to_string(), wanted.as_ref())?;
            }
            Document::Other => return Err(unknown(name, &media_type)),
        }
    }
    Err(wrong(&name.to_string(), "its indexes are too deep in each other").into())
}

fn unknown(name: &Reference, media_type: &MediaType) -> RegistryError {
    let problem = match media_type.to_string().as_str() {
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => {
            "it has Docker's first format, which nobody should use any more: push it anew".to_owned()
        }
        other => format!("it is no image but {other}"),
    };
    wrong(&name.to_string(), &problem).into()
}

/// A document, by tag or digest.
fn fetch(
    client: &Client<'_>,
    name: &Reference,
    what: &str,
    expected: Option<&Digest>,
) -> Result<(MediaType, Vec<u8>), RegistryError> {
    let url = client.session().of_repository(&format!("manifests/{what}"));
    let (headers, bytes) = client
        .get(url, &ACCEPTED, DOCUMENT_LIMIT)
        .map_err(|error| match error {
            RegistryError::Status {
                status: 404, message, ..
            } => RegistryError::NotFound {
                reference: name.to_string(),
                message,
            },
            other => other,
        })?;
    let found = Digest::of(&bytes);
    if let Some(&expected) = expected.filter(|expected| **expected != found) {
        return Err(RegistryError::Digest {
            what: format!("the manifest of {name}"),
            expected,
            found,
        });
    }
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let said = said
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    // A document may say itself what it is; some registries don't.
    let media_type = match document::kind(&MediaType::from(said)) {
        Document::Other => document::own_type(&bytes).unwrap_or_else(|| MediaType::from(said)),
        _ => MediaType::from(said),
    };
    Ok((media_type, bytes))
}

/// The first image of an index that fits.
fn choose(
    client: &Client<'_>,
    name: &Reference,
    media_type: &MediaType,
    bytes: &[u8],
) -> Result<Descriptor, RegistryError> {
    let index = document::index(bytes, media_type, &format!("the index of {name}"))?;
    let wanted = &client.session().options.platform;
    let mut known = Vec::new();
    for descriptor in index.manifests() {
        if document::kind(descriptor.media_type()) == Document::Other {
            continue;
        }
        let Some(platform) = descriptor.platform() else {
            return Ok(descriptor.clone());
        };
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        if os == wanted.os && architecture == wanted.architecture {
            return Ok(descriptor.clone());
        }
        // BuildKit's attestations are for unknown/unknown.
        if os != "unknown" {
            known.push(format!("{os}/{architecture}"));
        }
    }
    Err(RegistryError::NoPlatform {
        reference: name.to_string(),
        platform: wanted.to_string(),
        known,
    })
}

/// Reads manifest and config.
fn image(
    client: &Client<'_>,
    (digest, media_type, bytes): (Digest, MediaType, Vec<u8>),
) -> Result<Found, RegistryError> {
    let what = format!("manifest {digest}");
    let manifest = document::manifest(&bytes, &media_type, &what)?;
    let id = document::digest(manifest.config(), &what)?;
    if manifest.config().size() > DOCUMENT_LIMIT {
        return Err(wrong(&what, "its config is too large").into());
    }
    let url = client.session().of_repository(&format!("blobs/{id}"));
    let (_, config_bytes) = client.get(url, &[], DOCUMENT_LIMIT)?;
    let found = Digest::of(&config_bytes);
    if found != id {
        return Err(RegistryError::Digest {
            what: "the config".to_owned(),
            expected: id,
            found,
        });
    }
    let config: ImageConfig =
        serde_json::from_slice(&config_bytes).map_err(|e| wrong(&format!("config {id}"), &e.to_string()))?;
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(wrong(&what, &format!("it has {layers} layers, its config {diff_ids}")).into());
    }
    for layer in manifest.layers() {
        document::digest(layer, &what)?;
    }
    Ok(Found {
        digest,
        media_type,
        bytes,
        manifest,
        config_bytes,
        config,
    })
}
