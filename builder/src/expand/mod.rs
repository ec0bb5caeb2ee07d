//! Words: `$variables`, quotes and escapes, as the Dockerfile reference has them.
//!
//! `$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?w} ${v?w} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`.
//! An unset variable is empty; single quotes keep all, double quotes all but `$`.

mod lexer;
mod pattern;
mod scope;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use thiserror::Error;

use crate::ast::Escape;
use lexer::{Lexer, Mode};

pub(crate) use lexer::raw_words;
pub use pattern::Pattern;
pub use scope::{Scope, arg_value};

/// Variables by name.
pub trait Variables {
    /// The value of `name`; `None` when it is unset.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

impl Variables for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

/// No variable is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// A word, expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// As one word: blanks of variables and between words are kept.
    pub text: String,
    /// Split at blanks that are not quoted, those of variables included.
    pub words: Vec<String>,
    /// Variables used that were set.
    pub found: BTreeSet<String>,
    /// Variables used that were unset.
    pub missing: BTreeSet<String>,
    /// Those of them for which the word has no answer of its own, as `${v:-…}` has.
    pub undefined: BTreeSet<String>,
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExpandError {
    /// `${` without `}`
    #[error("the closing }} of ${{…}} is missing")]
    MissingBrace,
    /// `${v/p}`
    #[error("the second / of ${{name/pattern/replacement}} is missing")]
    MissingSlash,
    /// `${}`, `${{`, `${:`
    #[error("bad substitution: a variable's name was expected after ${{")]
    BadSubstitution,
    /// A `'` or `"` without its fellow.
    #[error("the closing {0} is missing")]
    UnterminatedQuote(char),
    /// `${v=w}` and other things that follow a name.
    #[error("unsupported modifier {0:?} in ${{…}}")]
    UnsupportedModifier(String),
    /// `${v:?message}`
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message given, or a usual one.
        message: String,
    },
    /// A `\` in a pattern that escapes nothing.
    #[error("invalid pattern {0:?}: a \\ must be followed by *, ?, \\, / or }}")]
    InvalidPattern(String),
    /// A pattern far beyond use.
    #[error("the pattern of ${{…}} is too large")]
    PatternTooLarge,
    /// `${a:-${b:-…}}` beyond all measure.
    #[error("${{…}} is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Values that double themselves from line to line.
    #[error("the result is too long: expansion may add at most {MAX_GROWTH} bytes to a word")]
    TooLong,
}

/// How deep `${…}` may be nested.
pub const MAX_DEPTH: usize = 64;
/// Bytes that the values of variables may add to one word.
pub const MAX_GROWTH: usize = 1 << 20;

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
