//! The JSON documents of an image: manifest and index (OCI image spec 1.1, and Docker's of the same form).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, ImageManifestBuilder, MediaType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::digest::Digest;

/// The largest manifest and config that is read, in bytes.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// A JSON document that makes no sense, or says something that box does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} makes no sense: {problem}")]
pub struct DocumentError {
    /// What it is.
    pub what: String,
    /// Why.
    pub problem: String,
}

/// What a document's media type makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest,
    Index,
    /// Something that is no image, like a signature.
    Other,
}

/// By its media type.
pub(crate) fn kind(media_type: &MediaType) -> Document {
    match media_type.to_string().as_str() {
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => Document::Manifest,
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => Document::Index,
        _ => Document::Other,
    }
}

/// What a document says that it is.
pub(crate) fn own_type(bytes: &[u8]) -> Option<MediaType> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    value
        .get("mediaType")
        .and_then(Value::as_str)
        .map(MediaType::from)
}

/// A new manifest of an image.
pub(crate) fn new_manifest(
    config: Descriptor,
    layers: Vec<Descriptor>,
    what: &str,
) -> Result<ImageManifest, DocumentError> {
    ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .map_err(|e| wrong(what, &e.to_string()))
}

/// A manifest that was checked.
pub(crate) fn manifest(
    bytes: &[u8],
    media_type: &MediaType,
    what: &str,
) -> Result<ImageManifest, DocumentError> {
    let manifest: ImageManifest = parse(bytes, media_type, what)?;
    let wrong = |problem: &str| Err(wrong(what, problem));
    match manifest.schema_version() {
        2 => {}
        _ => return wrong("its schemaVersion is not 2"),
    }
    match manifest.config().media_type().to_string().as_str() {
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {}
        // What Docker wrote in its first manifests of this kind.
        "application/octet-stream" if media_type.to_string().starts_with("application/vnd.docker.") => {}
        _ => return wrong("its config is not that of an image"),
    }
    match manifest
        .layers()
        .iter()
        .find(|layer| !is_layer(layer.media_type()))
    {
        Some(layer) => wrong(&format!(
            "its layers have the unknown media type {:?}",
            layer.media_type().to_string()
        )),
        None => Ok(manifest),
    }
}

/// An index that was checked.
pub(crate) fn index(bytes: &[u8], media_type: &MediaType, what: &str) -> Result<ImageIndex, DocumentError> {
    let index: ImageIndex = parse(bytes, media_type, what)?;
    match index.schema_version() {
        2 => Ok(index),
        _ => Err(wrong(what, "its schemaVersion is not 2")),
    }
}

/// The digest of a descriptor, if it is one that is known.
pub(crate) fn digest(descriptor: &Descriptor, what: &str) -> Result<Digest, DocumentError> {
    let text = descriptor.digest().to_string();
    text.parse()
        .map_err(|_| wrong(what, &format!("`{text}` is not a sha256 digest")))
}

/// In the bytes that box writes: keys sorted, no spaces.
pub(crate) fn to_bytes(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_value(document)
        .and_then(|value| serde_json::to_vec(&value))
        .unwrap_or_default()
}

fn is_layer(media_type: &MediaType) -> bool {
    let text = media_type.to_string();
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let rest = known.iter().find_map(|start| text.strip_prefix(start));
    rest.is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
}

/// What a document says it is must be what led to it said (Docker's and OCI's words mean the same), and it must not be
/// both manifest and index (CVE-2021-41190).
fn parse<T: DeserializeOwned>(bytes: &[u8], media_type: &MediaType, what: &str) -> Result<T, DocumentError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(what, &e.to_string()))?;
    let has = |key| value.get(key).is_some_and(|v| !v.is_null());
    if has("manifests") && (has("layers") || has("config")) {
        return Err(wrong(what, "it is a manifest and an index at once"));
    }
    let list = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten();
    let problem = list("layers")
        .chain(value.get("config"))
        .find_map(descriptor_problem);
    // Of the other images of an index only what they are is looked at.
    if let Some(problem) = problem.or_else(|| list("manifests").find_map(type_problem)) {
        return Err(wrong(what, &problem));
    }
    if let Some(own) = value.get("mediaType").and_then(Value::as_str)
        && kind(&MediaType::from(own)) != kind(media_type)
    {
        return Err(wrong(
            what,
            &format!("it says it is {own}, what leads to it {media_type}"),
        ));
    }
    serde_json::from_value(value).map_err(|e| wrong(what, &e.to_string()))
}

/// A media type that is none. One that is empty is as good as left out.
fn type_problem(descriptor: &Value) -> Option<String> {
    let text = descriptor.get("mediaType").and_then(Value::as_str)?;
    (!text.is_empty() && !is_media_type(text)).then(|| format!("{text:?} is not a media type"))
}

/// What the image spec forbids in a descriptor, where reading it would not find it. Its URLs are never looked at.
fn descriptor_problem(descriptor: &Value) -> Option<String> {
    if let Some(problem) = type_problem(descriptor) {
        return Some(problem);
    }
    let data = descriptor
        .get("data")
        .and_then(Value::as_str)
        .filter(|data| !data.is_empty())?;
    let (digest, size) = (
        descriptor.get("digest")?.as_str()?,
        descriptor.get("size")?.as_u64()?,
    );
    match STANDARD.decode(data) {
        Err(_) => Some("its data is not base64".to_owned()),
        Ok(bytes) if bytes.len() as u64 != size => {
            Some("its data has another length than it says".to_owned())
        }
        // Of other algorithms nothing can be said.
        Ok(bytes) if digest.starts_with("sha256:") && Digest::of(&bytes).to_string() != digest => {
            Some("its data has another digest than it says".to_owned())
        }
        Ok(_) => None,
    }
}

/// RFC 6838: two names of at most 127 characters that begin with a letter or a digit.
fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        first && name.len() <= 127 && name.bytes().all(rest)
    };
    let base = text.split(';').next().unwrap_or_default().trim_end();
    base.split_once('/')
        .is_some_and(|(kind, name)| is_name(kind) && is_name(name))
}

/// A document is wrong.
pub(crate) fn wrong(what: &str, problem: &str) -> DocumentError {
    DocumentError {
        what: what.to_owned(),
        problem: problem.to_owned(),
    }
}
