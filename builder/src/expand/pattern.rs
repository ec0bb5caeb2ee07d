//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, with `\` before a literal one.

use regex::{Regex, RegexBuilder};

use super::types::{ExpandError, MAX_GROWTH};

/// Compiled patterns larger than this are refused.
const MAX_COMPILED: usize = 1 << 20;

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Literal(char),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`ExpandError::InvalidPattern`] for a `\` that escapes nothing.
    pub fn parse(pattern: &str) -> Result<Pattern, ExpandError> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(c),
                    _ => return Err(ExpandError::InvalidPattern(pattern.to_owned())),
                },
                c => Token::Literal(c),
            });
        }
        Ok(Pattern { tokens })
    }

    /// The equal regular expression. Like Docker's, `*` and `?` stop at a line's end.
    pub fn to_regex(&self, longest: bool, anchored: bool) -> String {
        let mut out = String::from(if anchored { "^" } else { "" });
        for token in &self.tokens {
            match token {
                Token::Any => out.push_str(if longest { ".*" } else { ".*?" }),
                Token::One => out.push('.'),
                Token::Literal(c) => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        out
    }

    fn compile(&self, longest: bool, anchored: bool) -> Result<Regex, ExpandError> {
        let regex = self.to_regex(longest, anchored);
        RegexBuilder::new(&regex)
            .size_limit(MAX_COMPILED)
            .build()
            .map_err(|_| ExpandError::PatternTooLarge)
    }

    /// `value` without the shortest or longest beginning that matches.
    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> Result<String, ExpandError> {
        let end = self.compile(longest, true)?.find(value).map_or(0, |m| m.end());
        Ok(value[end..].to_owned())
    }

    /// `value` without the shortest or longest end that matches: the beginning of it read backwards.
    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> Result<String, ExpandError> {
        let backwards: String = value.chars().rev().collect();
        let rest = self.reversed().trim_prefix(&backwards, longest)?;
        Ok(rest.chars().rev().collect())
    }

    pub(super) fn reversed(&self) -> Pattern {
        Pattern {
            tokens: self.tokens.iter().rev().copied().collect(),
        }
    }

    /// `value` with the first or with all matches replaced.
    pub(super) fn replace(&self, value: &str, with: &str, all: bool) -> Result<String, ExpandError> {
        let regex = self.compile(true, false)?;
        let matches = regex.find_iter(value).take(if all { usize::MAX } else { 1 });
        let mut out = String::new();
        let mut last = 0;
        for found in matches {
            out.push_str(&value[last..found.start()]);
            out.push_str(with);
            last = found.end();
            if out.len() > MAX_GROWTH {
                return Err(ExpandError::TooLong);
            }
        }
        out.push_str(&value[last..]);
        Ok(out)
    }
}
