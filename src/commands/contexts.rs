//! What `box build` reads: its context and its named contexts.

use std::path::PathBuf;

use box_builder::request::NamedContext;

use crate::app::App;
use crate::cli::BuildContext;
use crate::error::{EXIT_BOX, Failure};

/// Words before an image's name.
const IMAGE_PREFIXES: [&str; 3] = ["docker-image://", "container-image://", "docker://"];
/// Words before an OCI layout's directory; the second is Docker's.
const LAYOUT_PREFIXES: [&str; 3] = ["oci:", "oci-layout://", "oci-layout:"];

/// What a named context is.
pub(super) fn named(app: &App, context: &BuildContext) -> Result<NamedContext, Failure> {
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
    let image = app.store.resolve_base(place).ok().flatten();
    if image.is_some() {
        return Ok(NamedContext::Image(place.to_owned()));
    }
    let message = format!(
        "the build context {}={place} is neither a directory nor an image of the store",
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
