//! What `box build` reads: its context and its named contexts.

use std::path::PathBuf;

use box_builder::request::NamedContext;
use box_store::{Layer, StoreError};

use crate::cli::BuildContext;
use crate::error::{EXIT_BOX, Failure};

use super::build_source::{self, Fetching, Place};

/// Words before an image's name.
const IMAGE_PREFIXES: [&str; 3] = ["docker-image://", "container-image://", "docker://"];
/// Words before an OCI layout's directory; the second is Docker's.
const LAYOUT_PREFIXES: [&str; 3] = ["oci:", "oci-layout://", "oci-layout:"];

/// What a named context is. What must be kept for it goes to `kept`.
pub(super) fn named(
    fetching: &Fetching<'_>,
    context: &BuildContext,
    kept: &mut Vec<Layer>,
) -> Result<NamedContext, Failure> {
    let place = context.place.as_str();
    let after = |prefixes: &[&str]| prefixes.iter().find_map(|prefix| place.strip_prefix(prefix));
    if let Some(image) = after(&IMAGE_PREFIXES) {
        return Ok(NamedContext::Image(image.to_owned()));
    }
    if let Some(layout) = after(&LAYOUT_PREFIXES) {
        let (directory, reference) = split_layout(layout);
        return Ok(NamedContext::Layout {
            directory: PathBuf::from(directory),
            reference,
        });
    }
    let path = PathBuf::from(place);
    if path.is_dir() {
        return Ok(NamedContext::Directory(path));
    }
    if let Some(layer) = build_source::named(fetching, &Place::parse(&path)?)? {
        let directory = layer.path();
        kept.push(layer);
        return Ok(NamedContext::Directory(directory));
    }
    match fetching.app.store.resolve_base(place) {
        Ok(Some(_)) => return Ok(NamedContext::Image(place.to_owned())),
        Err(error @ StoreError::Io { .. }) => return Err(Failure::of(EXIT_BOX, &error)),
        _ => {}
    }
    let message = format!(
        "the build context {}={place} is neither a directory, a URL, a git repository nor an image of the store",
        context.name
    );
    Err(Failure::new(EXIT_BOX, message).hint("an image is docker-image://NAME, an OCI layout oci:DIR[:TAG]"))
}

/// `DIR[:TAG]` or `DIR@DIGEST`
fn split_layout(text: &str) -> (&str, Option<String>) {
    if let Some((directory, digest)) = text.split_once("@sha256:") {
        return (directory, Some(format!("sha256:{digest}")));
    }
    match text.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') && !directory.is_empty() => {
            (directory, Some(tag.to_owned()))
        }
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn layouts_are_split() {
        let check = |text: &str, directory: &str, reference: Option<&str>| {
            let want = (directory, reference.map(str::to_owned));
            assert_eq!(super::split_layout(text), want, "{text}");
        };
        check("dir", "dir", None);
        check("./dir:tag", "./dir", Some("tag"));
        check("a:b/c", "a:b/c", None);
        check("dir@sha256:00", "dir", Some("sha256:00"));
    }
}
