//! An instruction's arguments → words, with their places in the text.

use std::ops::Range;

use crate::ast::Escape;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) range: Range<usize>,
}

/// Words at blanks, where quotes and escapes keep blanks inside; quotes and escapes stay.
pub(super) fn split_words(text: &str, escape: Escape) -> Vec<Piece> {
    let escape = escape.as_char();
    let mut words = Vec::new();
    let mut chars = text.char_indices();
    while let Some((start, _)) = chars.by_ref().find(|(_, c)| !c.is_whitespace()) {
        let mut end = start;
        let mut dropped = false;
        let mut quote = None;
        let mut current = text[start..].chars().next().map(|c| (start, c));
        while let Some((at, c)) = current {
            match (quote, c) {
                (None, c) if c.is_whitespace() => break,
                (None, '\'' | '"') => quote = Some(c),
                (Some(q), c) if c == q => quote = None,
                (q, c) if c == escape && q != Some('\'') => {
                    // An escape character at the very end escapes nothing and is dropped.
                    match chars.next() {
                        Some((next, escaped)) => {
                            end = next + escaped.len_utf8();
                            current = chars.next();
                            continue;
                        }
                        None => dropped = true,
                    }
                }
                _ => {}
            }
            if !dropped {
                end = at + c.len_utf8();
            }
            current = chars.next();
        }
        if end > start {
            words.push(Piece {
                text: text[start..end].to_owned(),
                range: start..end,
            });
        }
    }
    words
}

/// Words at blanks alone.
pub(super) fn split_blanks(text: &str) -> Vec<Piece> {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r');
    let mut words = Vec::new();
    let mut from = 0;
    for part in text.split_inclusive(is_blank) {
        let word = part.trim_end_matches(is_blank);
        if !word.is_empty() {
            words.push(Piece {
                text: word.to_owned(),
                range: from..from + word.len(),
            });
        }
        from += part.len();
    }
    words
}

/// The first word and where the rest begins.
pub(super) fn split_first(text: &str) -> (&str, usize) {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r');
    let end = text.find(is_blank).unwrap_or(text.len());
    let rest = text[end..].trim_start_matches(is_blank);
    (&text[..end], text.len() - rest.len())
}

/// What stands where a JSON array may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<Piece>),
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
            (serde_json::Value::String(text), Some(range)) => pieces.push(Piece { text, range }),
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
