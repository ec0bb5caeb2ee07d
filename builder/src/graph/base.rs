//! What a FROM names.

use std::collections::BTreeMap;

use super::types::{ArchiveBase, ArchiveLocation, Base, Names, context_name};
use crate::ast::{Escape, From, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::expand;
use crate::source::{Span, Spanned};
use crate::suggest::did_you_mean;

/// Expands a word of a FROM, which sees global ARGs alone; it must not become empty.
pub(super) fn expand_global(
    word: &Word,
    what: &str,
    escape: Escape,
    args: &BTreeMap<String, String>,
) -> Result<Spanned<String>, Diagnostic> {
    let expanded = expand(&word.text, escape, args)
        .map_err(|e| Diagnostic::error(word.span, format!("failed to expand the {what}: {e}")))?;
    if !expanded.text.is_empty() {
        return Ok(Spanned::new(expanded.text, word.span));
    }
    let hint = expanded
        .missing
        .iter()
        .find_map(|name| did_you_mean(name, args.keys().map(String::as_str)));
    let expected = match expanded.missing.first() {
        Some(name) => format!("an ARG {name}=… before the first FROM"),
        None => format!("a {what} that is not empty"),
    };
    let message = format!("empty {what} value from expression {}", word.text);
    Err(Diagnostic::error(word.span, message)
        .expected(expected)
        .maybe_suggest(hint))
}

/// The base of a stage; `earlier` knows the stages before it.
pub(super) fn resolve_base(
    from: &From,
    escape: Escape,
    args: &BTreeMap<String, String>,
    earlier: &Names,
) -> Result<Base, Diagnostic> {
    let name = expand_global(&from.base, "base name", escape, args)?;
    let checksum = from
        .checksum
        .as_ref()
        .map(|w| checksum(w, escape, args))
        .transpose()?;
    let base = named(&name, earlier).unwrap_or_else(|| foreign(&name, checksum.as_ref()));
    if let (Some(checksum), false) = (&checksum, matches!(base, Base::Archive(_))) {
        let message = "--checksum is for archives and URLs";
        return Err(Diagnostic::error(checksum.span, message)
            .expected("FROM --checksum=sha256:… https://… or ./rootfs.tar.xz")
            .suggest(format!(
                "pin an image by its digest: FROM {}@sha256:…",
                name.value
            )));
    }
    Ok(base)
}

fn named(name: &Spanned<String>, earlier: &Names) -> Option<Base> {
    let context = context_name(name);
    if earlier.contexts.contains(context) {
        return Some(Base::Context(Spanned::new(context.to_owned(), name.span)));
    }
    let stage = earlier.stages.get(&name.to_lowercase()).copied().map(Base::Stage);
    stage.or_else(|| (name.value == "scratch").then_some(Base::Scratch))
}

fn foreign(name: &Spanned<String>, checksum: Option<&Spanned<String>>) -> Base {
    let text = name.value.as_str();
    let archive = |location| {
        Base::Archive(ArchiveBase {
            location,
            checksum: checksum.cloned(),
            span: name.span,
        })
    };
    if text.starts_with("https://") || text.starts_with("http://") {
        return archive(ArchiveLocation::Url(text.to_owned()));
    }
    if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
        return archive(ArchiveLocation::Path(text.to_owned()));
    }
    match text.strip_prefix("oci:") {
        Some(layout) => oci_layout(layout, name.span),
        None => Base::Image(name.clone()),
    }
}

/// `DIR[:ref]`
fn oci_layout(text: &str, span: Span) -> Base {
    let (directory, reference) = match text.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') && !dir.is_empty() => (dir, Some(tag.to_owned())),
        _ => (text, None),
    };
    Base::OciLayout {
        directory: Spanned::new(directory.to_owned(), span),
        reference,
    }
}

fn checksum(
    word: &Word,
    escape: Escape,
    args: &BTreeMap<String, String>,
) -> Result<Spanned<String>, Diagnostic> {
    let value = expand_global(word, "checksum", escape, args)?;
    let hex = value.strip_prefix("sha256:").map(str::to_ascii_lowercase);
    match hex.filter(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit())) {
        Some(hex) => Ok(Spanned::new(format!("sha256:{hex}"), value.span)),
        None => Err(
            Diagnostic::error(value.span, format!("invalid checksum {:?}", value.value))
                .expected("sha256: and 64 hexadecimal digits"),
        ),
    }
}
