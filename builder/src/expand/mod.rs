//! Words: `$variables`, quotes and escapes, as the Dockerfile reference has them.
//!
//! `$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?w} ${v?w} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`.
//! An unset variable is empty; single quotes keep all, double quotes all but `$`.

mod lexer;
mod pattern;
mod scope;
mod types;

#[cfg(test)]
mod tests;

use crate::ast::Escape;
use lexer::{Lexer, Mode};

pub(crate) use lexer::raw_words;
pub use pattern::Pattern;
pub use scope::{Scope, arg_value};
pub use types::{ExpandError, Expansion, MAX_DEPTH, MAX_GROWTH, NoVariables, Variables};

/// Expands a word and says which variables it used.
///
/// # Errors
/// See [`ExpandError`].
pub fn expand(word: &str, escape: Escape, variables: &dyn Variables) -> Result<Expansion, ExpandError> {
    Lexer::new(word, escape, variables, Mode::default()).run()
}

/// Expands a word into one word.
///
/// # Errors
/// See [`ExpandError`].
pub fn expand_word(word: &str, escape: Escape, variables: &dyn Variables) -> Result<String, ExpandError> {
    if is_plain(word, escape) {
        return Ok(word.to_owned());
    }
    expand(word, escape, variables).map(|e| e.text)
}

/// Expands a word whose escapes mean something to who gets it: a pattern of COPY, where `\\*` is a star.
///
/// # Errors
/// See [`ExpandError`].
pub fn expand_pattern(word: &str, escape: Escape, variables: &dyn Variables) -> Result<String, ExpandError> {
    if is_plain(word, escape) {
        return Ok(word.to_owned());
    }
    let mode = Mode {
        raw_escapes: true,
        ..Mode::default()
    };
    Lexer::new(word, escape, variables, mode).run().map(|e| e.text)
}

/// Expands a word and splits it (EXPOSE alone does so).
///
/// # Errors
/// See [`ExpandError`].
pub fn expand_words(
    word: &str,
    escape: Escape,
    variables: &dyn Variables,
) -> Result<Vec<String>, ExpandError> {
    expand(word, escape, variables).map(|e| e.words)
}

/// Expands the text of a heredoc: variables only, quotes are ordinary characters. Bytes that are not
/// UTF-8 stay as they are.
///
/// # Errors
/// See [`ExpandError`].
pub fn expand_heredoc(
    text: &[u8],
    escape: Escape,
    variables: &dyn Variables,
) -> Result<Vec<u8>, ExpandError> {
    let mut out = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        let mode = Mode {
            plain_quotes: true,
            ..Mode::default()
        };
        out.extend(
            Lexer::new(chunk.valid(), escape, variables, mode)
                .run()?
                .text
                .into_bytes(),
        );
        out.extend_from_slice(chunk.invalid());
    }
    Ok(out)
}

/// Whether a word has no character that expansion looks at.
fn is_plain(word: &str, escape: Escape) -> bool {
    let escape = escape.as_char() as u8;
    !word
        .bytes()
        .any(|b| matches!(b, b'$' | b'\'' | b'"') || b == escape)
}
