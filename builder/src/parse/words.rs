//! An instruction's arguments → words, with their places in the text.

use std::borrow::Cow;
use std::ops::Range;

use crate::ast::Escape;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) range: Range<usize>,
}

impl<'a> Piece<'a> {
    /// The part of a text that stands there as it is.
    pub(super) fn of(text: &'a str, range: Range<usize>) -> Self {
        Piece {
            text: Cow::Borrowed(&text[range.clone()]),
            range,
        }
    }
}

/// Words at blanks, where quotes and escapes keep blanks inside; quotes and escapes stay.
pub(super) fn split_words(text: &str, escape: Escape) -> impl Iterator<Item = Piece<'_>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = text[from..].trim_start();
        let start = text.len() - rest.len();
        let (len, dropped) = word_length(rest, escape.as_char());
        from = start + len;
        let end = from - dropped;
        // An escape character alone at the end is no word, and it is the last.
        (end > start).then(|| Piece::of(text, start..end))
    })
}

/// How long the word is that a text begins with, and how much of that is an escape character at the very
/// end, which escapes nothing and is dropped.
fn word_length(text: &str, escape: char) -> (usize, usize) {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (at, 0),
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if c == q => quote = None,
            (q, c) if c == escape && q != Some('\'') && chars.next().is_none() => {
                return (text.len(), c.len_utf8());
            }
            _ => {}
        }
    }
    (text.len(), 0)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// Words at blanks alone.
pub(super) fn split_blanks(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut from = 0;
    let pieces = text.split_inclusive(is_blank).map(move |part| {
        let start = from;
        from += part.len();
        start..start + part.trim_end_matches(is_blank).len()
    });
    pieces
        .filter(|range| !range.is_empty())
        .map(|range| Piece::of(text, range))
}

/// The first word and where the rest begins.
pub(super) fn split_first(text: &str) -> (&str, usize) {
    let end = text.find(is_blank).unwrap_or(text.len());
    let rest = text[end..].trim_start_matches(is_blank);
    (&text[..end], text.len() - rest.len())
}

/// What stands where a JSON array may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<Piece<'static>>),
    /// An array with something else in it.
    OtherTypes,
    /// No JSON array: shell form.
    No,
}

/// Reads the exec form.
pub(super) fn json_array(text: &str) -> Json {
    if !text.trim_start().starts_with('[') {
        return Json::No;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text.trim()) else {
        return Json::No;
    };
    let mut places = string_places(text).into_iter();
    let mut pieces = Vec::with_capacity(values.len());
    for value in values {
        match (value, places.next()) {
            (serde_json::Value::String(text), Some(range)) => pieces.push(Piece {
                text: Cow::Owned(text),
                range,
            }),
            _ => return Json::OtherTypes,
        }
    }
    Json::Strings(pieces)
}

/// Where the string literals of a JSON text stand, quotes included.
fn string_places(text: &str) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut start = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match (start, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(from), b'"') => {
                places.push(from..at + 1);
                start = None;
            }
            (None, b'"') => start = Some(at),
            _ => {}
        }
    }
    places
}
