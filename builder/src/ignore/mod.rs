//! `.dockerignore` and `.boxignore`: which paths of the context don't exist for a build.
//!
//! Every pattern is anchored at the context's root; `*` and `?` stop at `/`, `**` does not. The last
//! pattern that matches a path or one of its parents wins, `!` brings back. A walk carries a [`Level`]
//! from directory to directory, so that no pattern is tried again on a parent, and asks
//! [`Level::may_skip`] whether it need go into an ignored directory at all.

mod pattern;

#[cfg(test)]
mod tests;

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use pattern::Pattern;

/// The parsed patterns of an ignore file, or of `COPY --exclude`.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    patterns: Vec<Pattern>,
    rules: Vec<IgnoreRule>,
}

/// A pattern as it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreRule {
    /// Its line, from 1; for patterns that come from no file their place in the list.
    pub line: usize,
    /// As written, but for spaces around it, `.` and doubled slashes.
    pub pattern: String,
}

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IgnoreError {
    /// `[` without `]`, an empty `[]`, a `\` at the end, a reversed or half range.
    #[error("line {line}: bad pattern {pattern:?}: {why}")]
    BadPattern {
        /// Counted from 1; for patterns that come from no file their place in the list.
        line: usize,
        /// As written.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A `!` with nothing after it.
    #[error("line {line}: \"!\" must be followed by a pattern")]
    EmptyException {
        /// Counted from 1.
        line: usize,
    },
}

/// The names under which an ignore file is looked for, first come first served: beside the Boxfile
/// called `boxfile` (with its directory), then in the context's root. Where the two of a pair both
/// stand, the second is ignored and that is worth a warning.
pub fn file_names(boxfile: &Path) -> [[PathBuf; 2]; 2] {
    let beside = |suffix: &str| {
        let mut name = boxfile.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let own = [beside(".boxignore"), beside(".dockerignore")];
    [own, [PathBuf::from(".boxignore"), PathBuf::from(".dockerignore")]]
}

/// The patterns of an ignore file, cleaned: no comments (`#` in column 0 only), no blank lines, no
/// leading `/`; each with its line.
pub fn file_patterns(bytes: &[u8]) -> Vec<(usize, String)> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#'));
    let lines = lines
        .map(|(i, l)| (i + 1, l.trim()))
        .filter(|(_, l)| !l.is_empty());
    lines.map(|(number, line)| (number, clean_line(line))).collect()
}

fn clean_line(line: &str) -> String {
    let (mark, pattern) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return mark.to_owned();
    }
    let cleaned = clean(pattern);
    let cleaned = cleaned
        .strip_prefix('/')
        .filter(|r| !r.is_empty())
        .unwrap_or(&cleaned);
    format!("{mark}{cleaned}")
}

/// A path without `.`, empty parts and what `..` takes back.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

impl IgnoreRules {
    /// Parses an ignore file.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn parse(bytes: &[u8]) -> Result<IgnoreRules, IgnoreError> {
        Self::numbered(file_patterns(bytes))
    }

    /// Parses patterns that stand elsewhere (`COPY --exclude`).
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<IgnoreRules, IgnoreError> {
        Self::numbered(
            patterns
                .into_iter()
                .enumerate()
                .map(|(i, p)| (i + 1, p.to_owned())),
        )
    }

    fn numbered(patterns: impl IntoIterator<Item = (usize, String)>) -> Result<IgnoreRules, IgnoreError> {
        let mut rules = IgnoreRules::default();
        for (line, written) in patterns {
            let text = written.trim();
            if text.is_empty() {
                continue;
            }
            let (exception, text) = text.strip_prefix('!').map_or((false, text), |t| (true, t));
            if text.is_empty() {
                return Err(IgnoreError::EmptyException { line });
            }
            let bad = |why| IgnoreError::BadPattern {
                line,
                pattern: written.clone(),
                why,
            };
            rules
                .patterns
                .push(Pattern::new(&clean(text), exception).map_err(bad)?);
            rules.rules.push(IgnoreRule {
                line,
                pattern: written.clone(),
            });
        }
        Ok(rules)
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some pattern begins with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|p| p.exception)
    }

    /// Whether a path, relative to the context, is ignored. For single paths; a walk is quicker with
    /// [`IgnoreRules::root`].
    pub fn is_ignored(&self, path: &Path) -> bool {
        let mut level = self.root();
        let mut walked = PathBuf::new();
        for part in path.components() {
            if let Component::Normal(name) = part {
                walked.push(name);
                level = self.enter(&level, &walked);
            }
        }
        level.ignored
    }

    /// The context's root, where nothing is matched.
    pub fn root(&self) -> Level {
        Level {
            matched: vec![false; self.patterns.len()],
            ignored: false,
            may_skip: false,
        }
    }

    /// A directory (or a file) below one whose level is known; `path` is relative to the context.
    pub fn enter(&self, parent: &Level, path: &Path) -> Level {
        let bytes = path.as_os_str().as_bytes();
        let above = |i: usize| parent.matched.get(i).copied().unwrap_or(false);
        let matches = self
            .patterns
            .iter()
            .enumerate()
            .map(|(i, p)| above(i) || p.matches(bytes));
        let matched: Vec<bool> = matches.collect();
        let ignored = self.decide(|i| matched[i]);
        let may_skip = ignored && self.nothing_comes_back(&matched, bytes);
        Level {
            matched,
            ignored,
            may_skip,
        }
    }

    /// Whether a file in a directory whose level is known is ignored; the cheapest question.
    pub fn ignores_in(&self, parent: &Level, path: &Path) -> bool {
        let bytes = path.as_os_str().as_bytes();
        let above = |i: usize| parent.matched.get(i).copied().unwrap_or(false);
        self.decide(|i| above(i) || self.patterns[i].matches(bytes))
    }

    /// The rule for which a path is ignored, in a directory whose level is known; none if it is not ignored.
    pub fn rule_in(&self, parent: &Level, path: &Path) -> Option<&IgnoreRule> {
        let bytes = path.as_os_str().as_bytes();
        let above = |i: usize| parent.matched.get(i).copied().unwrap_or(false);
        let last = self.last(|i| above(i) || self.patterns[i].matches(bytes))?;
        self.rules.get(last)
    }

    /// The last pattern that matches wins; those that could change nothing are not tried.
    fn decide(&self, matches: impl Fn(usize) -> bool) -> bool {
        self.last(matches).is_some()
    }

    /// The pattern by which something is ignored in the end; none if it is not.
    fn last(&self, matches: impl Fn(usize) -> bool) -> Option<usize> {
        let mut last = None;
        for (i, pattern) in self.patterns.iter().enumerate() {
            if pattern.exception == last.is_some() && matches(i) {
                last = last.is_none().then_some(i);
            }
        }
        last
    }

    /// Whether no exception after the last pattern that excludes a directory reaches into it. (Those
    /// before lose against it for everything below, too.)
    fn nothing_comes_back(&self, matched: &[bool], directory: &[u8]) -> bool {
        let excludes = |i: &usize| !self.patterns[*i].exception && matched[*i];
        let last = (0..self.patterns.len()).rev().find(excludes).unwrap_or(0);
        let mut later = self.patterns.iter().skip(last).filter(|p| p.exception);
        !later.any(|p| p.may_match_below(directory))
    }
}

/// What the patterns say about one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    matched: Vec<bool>,
    ignored: bool,
    may_skip: bool,
}

impl Level {
    /// Whether the directory itself is ignored; something below may yet come back.
    pub fn ignored(&self) -> bool {
        self.ignored
    }

    /// Whether everything below is ignored too, so that a walk need not go there.
    pub fn may_skip(&self) -> bool {
        self.may_skip
    }
}
