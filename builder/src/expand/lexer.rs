//! The character machine under word expansion, in time linear in the word and its values.

use std::collections::BTreeSet;
use std::mem;

use super::pattern::Pattern;
use super::types::{ExpandError, Expansion, MAX_DEPTH, MAX_GROWTH, NoVariables, Variables};
use crate::ast::Escape;

/// What is left as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mode {
    /// Quotes stay in the result.
    pub(super) raw_quotes: bool,
    /// Escape characters stay in the result.
    pub(super) raw_escapes: bool,
    /// `$unset` stays as written.
    pub(super) keep_unset: bool,
    /// Quotes are ordinary characters.
    pub(super) plain_quotes: bool,
    /// Blanks between `<<` and its tag don't end a word.
    pub(super) heredocs: bool,
}

/// The words of a line with quotes, escapes and variables as written; none where quotes don't match.
pub(crate) fn raw_words(line: &str) -> Vec<String> {
    let mode = Mode {
        raw_quotes: true,
        raw_escapes: true,
        keep_unset: true,
        plain_quotes: false,
        heredocs: true,
    };
    Lexer::new(line, Escape::Backslash, &NoVariables, mode)
        .run()
        .map(|e| e.words)
        .unwrap_or_default()
}

/// One run over a word.
pub(super) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    escape: char,
    variables: &'a dyn Variables,
    mode: Mode,
    depth: usize,
    growth: usize,
    found: BTreeSet<String>,
    missing: BTreeSet<String>,
    undefined: BTreeSet<String>,
}

type Res<T> = Result<T, ExpandError>;

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, escape: Escape, variables: &'a dyn Variables, mode: Mode) -> Self {
        let (found, missing, undefined) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Lexer {
            text,
            pos: 0,
            escape: escape.as_char(),
            variables,
            mode,
            depth: 0,
            growth: 0,
            found,
            missing,
            undefined,
        }
    }

    pub(super) fn run(mut self) -> Res<Expansion> {
        let mut words = Words::default();
        let text = self.until(None, self.mode.raw_escapes, Some(&mut words))?;
        Ok(Expansion {
            text,
            words: words.finish(),
            found: self.found,
            missing: self.missing,
            undefined: self.undefined,
        })
    }

    fn peek(&self) -> Option<char> {
        self.text[self.pos..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    /// Reads up to `stop`, which is taken but not part of the result, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool, mut words: Option<&mut Words>) -> Res<String> {
        let outer = mem::replace(&mut self.mode.raw_escapes, raw_escapes);
        let mut result = String::new();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                self.mode.raw_escapes = outer;
                return Ok(result);
            }
            self.piece(c, &mut result, words.as_deref_mut())?;
        }
        self.mode.raw_escapes = outer;
        match stop {
            None => Ok(result),
            Some('/') => Err(ExpandError::MissingSlash),
            Some(_) => Err(ExpandError::MissingBrace),
        }
    }

    /// One character, quotation or variable.
    fn piece(&mut self, c: char, result: &mut String, words: Option<&mut Words>) -> Res<()> {
        let (piece, raw) = match c {
            '$' => (self.dollar()?, false),
            '\'' if !self.mode.plain_quotes => (self.single_quoted()?, true),
            '"' if !self.mode.plain_quotes => (self.double_quoted()?, true),
            '<' if self.mode.heredocs => (self.heredoc_operator(), true),
            _ if c == self.escape => (self.escaped(), true),
            _ => {
                self.next();
                result.push(c);
                if let Some(words) = words {
                    words.push(c);
                }
                return Ok(());
            }
        };
        result.push_str(&piece);
        match words {
            Some(words) if raw => words.push_raw(&piece),
            Some(words) => piece.chars().for_each(|c| words.push(c)),
            None => {}
        }
        Ok(())
    }

    fn escaped(&mut self) -> String {
        let escape = self.next();
        let kept = escape.filter(|_| self.mode.raw_escapes);
        kept.into_iter().chain(self.next()).collect()
    }

    fn heredoc_operator(&mut self) -> String {
        let start = self.pos;
        self.next();
        if self.peek() == Some('<') {
            self.next();
            let dash = self.text[self.pos..].strip_prefix('-').map_or(0, |r| {
                // In `<< -TAG` the dash is the tag's; in `<<- TAG` it is the operator's.
                if r.starts_with([' ', '\t']) { 1 } else { 0 }
            });
            self.pos += dash;
            let rest = &self.text[self.pos..];
            self.pos += rest.len() - rest.trim_start_matches([' ', '\t']).len();
        }
        self.text[start..self.pos].to_owned()
    }

    fn single_quoted(&mut self) -> Res<String> {
        let body = &self.text[self.pos + 1..];
        let end = body.find('\'').ok_or(ExpandError::UnterminatedQuote('\''))?;
        self.pos += end + 2;
        Ok(if self.mode.raw_quotes {
            format!("'{}'", &body[..end])
        } else {
            body[..end].to_owned()
        })
    }

    fn double_quoted(&mut self) -> Res<String> {
        self.next();
        let quote = if self.mode.raw_quotes { "\"" } else { "" };
        let mut result = quote.to_owned();
        loop {
            match self.peek() {
                None => return Err(ExpandError::UnterminatedQuote('"')),
                Some('"') => {
                    self.next();
                    result.push_str(quote);
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(c) if c == self.escape => self.escaped_in_quotes(&mut result),
                Some(c) => {
                    self.next();
                    result.push(c);
                }
            }
        }
    }

    /// In double quotes only `"`, `$` and the escape character can be escaped.
    fn escaped_in_quotes(&mut self, result: &mut String) {
        self.next();
        if self.mode.raw_escapes {
            result.push(self.escape);
        }
        match self.peek() {
            None => {}
            Some(c) if c == '"' || c == '$' || c == self.escape => {
                self.next();
                result.push(c);
            }
            Some(_) if self.mode.raw_escapes => {}
            Some(_) => result.push(self.escape),
        }
    }

    fn dollar(&mut self) -> Res<String> {
        let start = self.pos;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return self.plain(start, &name);
        }
        self.next();
        match self.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        let value = self.braced(start);
        self.depth -= 1;
        value
    }

    fn braced(&mut self, start: usize) -> Res<String> {
        let name = self.name();
        match self.next() {
            None => Err(ExpandError::MissingBrace),
            Some('}') => self.plain(start, &name),
            Some('/') => self.replaced(start, &name),
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => self.modified(start, &name, c, false),
            Some(':') => match self.next() {
                None => Err(ExpandError::MissingBrace),
                Some(c @ ('+' | '-' | '?')) => self.modified(start, &name, c, true),
                Some(c) => Err(ExpandError::UnsupportedModifier(format!(":{c}"))),
            },
            Some(c) => Err(ExpandError::UnsupportedModifier(c.to_string())),
        }
    }

    /// The variable's value, or what was written for it.
    fn plain(&mut self, start: usize, name: &str) -> Res<String> {
        match self.needed(name)? {
            None if self.mode.keep_unset => Ok(self.text[start..self.pos].to_owned()),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn modified(&mut self, start: usize, name: &str, modifier: char, null_is_unset: bool) -> Res<String> {
        let word = self.until(Some('}'), matches!(modifier, '#' | '%'), None)?;
        let value = match modifier {
            '#' | '%' => self.needed(name)?,
            _ => self.value(name)?,
        };
        if value.is_none() && self.mode.keep_unset {
            return Ok(self.text[start..self.pos].to_owned());
        }
        let present = value.as_deref().is_some_and(|v| !(null_is_unset && v.is_empty()));
        let value = value.unwrap_or_default();
        match modifier {
            '-' => Ok(if present { value } else { word }),
            '+' => Ok(if present { word } else { String::new() }),
            '?' if present => Ok(value),
            '?' => Err(required(name, word, null_is_unset)),
            _ => trim(&value, &word, modifier),
        }
    }

    fn replaced(&mut self, start: usize, name: &str) -> Res<String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.until(Some('/'), true, None)?;
        let replacement = self.until(Some('}'), true, None)?;
        match self.needed(name)? {
            None if self.mode.keep_unset => Ok(self.text[start..self.pos].to_owned()),
            None => Ok(String::new()),
            Some(value) => {
                let result = Pattern::parse(&pattern)?.replace(&value, &replacement, all)?;
                self.grow(result.len())?;
                Ok(result)
            }
        }
    }

    fn name(&mut self) -> String {
        let rest = &self.text[self.pos..];
        let len = match rest.chars().next() {
            Some(c) if c.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len()),
        };
        self.pos += len;
        rest[..len].to_owned()
    }

    /// The value of a variable that should be set.
    fn needed(&mut self, name: &str) -> Res<Option<String>> {
        let value = self.value(name)?;
        if value.is_none() {
            self.undefined.insert(name.to_owned());
        }
        Ok(value)
    }

    fn value(&mut self, name: &str) -> Res<Option<String>> {
        let Some(value) = self.variables.get(name) else {
            self.missing.insert(name.to_owned());
            return Ok(None);
        };
        let value = value.to_owned();
        self.grow(value.len())?;
        self.found.insert(name.to_owned());
        Ok(Some(value))
    }

    fn grow(&mut self, by: usize) -> Res<()> {
        self.growth = self.growth.saturating_add(by);
        if self.growth > MAX_GROWTH {
            Err(ExpandError::TooLong)
        } else {
            Ok(())
        }
    }
}

fn required(name: &str, message: String, null_is_unset: bool) -> ExpandError {
    let usual = if null_is_unset {
        "must be set and not empty"
    } else {
        "must be set"
    };
    let message = if message.is_empty() {
        usual.to_owned()
    } else {
        message
    };
    ExpandError::Required {
        name: name.to_owned(),
        message,
    }
}

fn trim(value: &str, word: &str, modifier: char) -> Res<String> {
    let longest = word.starts_with(modifier);
    let pattern = Pattern::parse(if longest { &word[1..] } else { word })?;
    let rest = match modifier {
        '#' => pattern.trim_prefix(value, longest)?,
        _ => pattern.trim_suffix(value, longest)?,
    };
    Ok(rest)
}

/// Collects words: raw text never splits.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.words.push(mem::take(&mut self.word));
        }
    }

    fn push_raw(&mut self, text: &str) {
        self.word.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}
