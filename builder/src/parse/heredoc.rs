//! `<<TAG`: which heredocs a line opens, and their bodies.

use std::collections::BTreeMap;

use super::lines::{Reader, Statement};
use crate::ast::{Escape, Heredoc};
use crate::diagnostic::Diagnostic;
use crate::expand::{ExpandError, NoVariables, expand_words, raw_words};

/// What `<<TAG` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) strip_tabs: bool,
    pub(super) expand: bool,
}

/// Reads a word as `<<TAG`, with an optional descriptor number before it.
pub(super) fn parse_tag(word: &str) -> Result<Option<Tag>, ExpandError> {
    let Some(rest) = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")
    else {
        return Ok(None);
    };
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |r| (true, r));
    let rest = rest.trim_start();
    if rest.contains('<') {
        return Ok(None);
    }
    let quoted = raw_words(rest);
    // A tag is no variable: `<<$EOF` ends at a line `$EOF`.
    let names = if rest.contains('$') {
        quoted.clone()
    } else {
        unquoted(rest)?
    };
    let ([name], [raw]) = (names.as_slice(), quoted.as_slice()) else {
        return Ok(None);
    };
    let quotes = |s: &str| s.bytes().filter(|b| matches!(b, b'\'' | b'"')).count();
    Ok(Some(Tag {
        name: name.clone(),
        strip_tabs,
        expand: quotes(name) == quotes(raw),
    }))
}

fn unquoted(text: &str) -> Result<Vec<String>, ExpandError> {
    expand_words(text, Escape::Backslash, &NoVariables)
}

/// The tags in a line, with where each begins.
pub(super) fn tags_of(line: &str) -> Result<Vec<(Tag, usize)>, (ExpandError, usize)> {
    let mut tags = Vec::new();
    if !line.contains("<<") {
        return Ok(tags);
    }
    let mut from = 0;
    for word in raw_words(line).iter().filter(|w| w.contains("<<")) {
        let at = line[from..].find(word.as_str()).map_or(from, |i| from + i);
        from = (at + word.len()).min(line.len());
        match parse_tag(word) {
            Ok(Some(tag)) => tags.push((tag, at)),
            Ok(None) => {}
            Err(e) => return Err((e, at)),
        }
        if !line.is_char_boundary(from) {
            from = at;
        }
    }
    Ok(tags)
}

/// Reads the bodies of the heredocs that the part of a statement from `start` on opens.
pub(super) fn read_heredocs(
    reader: &mut Reader<'_>,
    statement: &Statement,
    start: usize,
) -> Result<Vec<Heredoc>, Diagnostic> {
    let line = &statement.text[start..];
    let tags = tags_of(line).map_err(|(error, at)| {
        let span = statement.span(start + at, start + at + 2);
        Diagnostic::error(span, format!("invalid heredoc: {error}")).expected("<<TAG, <<'TAG' or <<-TAG")
    })?;
    let mut heredocs = Vec::with_capacity(tags.len());
    for (tag, at) in tags {
        let opened = &line[at..];
        let len = opened.find(|c: char| c.is_whitespace()).unwrap_or(opened.len());
        let span = statement.span(start + at, start + at + len);
        let raw = read_body(reader, &tag).ok_or_else(|| {
            Diagnostic::error(
                span,
                format!("unterminated heredoc: {} is never closed", tag.name),
            )
            .expected(format!("a later line that is just {}", tag.name))
        })?;
        let Tag {
            name,
            strip_tabs,
            expand,
        } = tag;
        heredocs.push(Heredoc {
            name,
            raw,
            strip_tabs,
            expand,
            span,
        });
    }
    Ok(heredocs)
}

/// The lines up to the tag's; `None` when the file ends before.
fn read_body(reader: &mut Reader<'_>, tag: &Tag) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = reader.next_line()?;
        let mut text = line.bytes();
        if tag.strip_tabs {
            text = &text[text.iter().take_while(|b| **b == b'\t').count()..];
        }
        if text == tag.name.as_bytes() {
            return Some(body);
        }
        body.extend_from_slice(line.raw);
    }
}

/// Heredocs by name, for the words of COPY and ADD; of two with one name the later counts.
pub(super) fn by_name(heredocs: &[Heredoc]) -> BTreeMap<&str, &Heredoc> {
    heredocs.iter().map(|h| (h.name.as_str(), h)).collect()
}

/// The body and end of a heredoc after the line that opens it.
pub(super) fn append_heredoc(text: &mut String, heredoc: &Heredoc) {
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&heredoc.raw));
    text.push_str(&heredoc.name);
}
