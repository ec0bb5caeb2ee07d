//! What goes into an expansion and comes out of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use thiserror::Error;

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
