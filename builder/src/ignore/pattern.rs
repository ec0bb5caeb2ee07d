//! One pattern: the same strange rules as in Docker's own matcher, case by case.

use regex::{Regex, RegexBuilder};

/// Compiled patterns larger than this are refused.
const MAX_COMPILED: usize = 1 << 20;

/// A pattern, ready to match.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// It began with `!`.
    pub(super) exception: bool,
    matcher: Matcher,
    /// Its parts between slashes; `None` matches any number of parts, too.
    parts: Vec<Option<Matcher>>,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// The path is this.
    Exact(Vec<u8>),
    /// `dir/**`: the path begins with this.
    Prefix(Vec<u8>),
    /// `**tail`: the path ends in this, or is it without its leading `/`.
    Suffix(Vec<u8>),
    Regex(Regex),
}

impl Matcher {
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Matcher::Exact(text) => path == text,
            Matcher::Prefix(text) => path.starts_with(text),
            Matcher::Suffix(text) => {
                path.ends_with(text) || text.strip_prefix(b"/").is_some_and(|rest| rest == path)
            }
            // As Go does, a byte that is no text counts as one (unknown) character.
            Matcher::Regex(regex) => regex.is_match(&String::from_utf8_lossy(path)),
        }
    }
}

impl Pattern {
    /// Compiles a cleaned pattern; the error says what is wrong with it.
    pub(super) fn new(text: &str, exception: bool) -> Result<Pattern, &'static str> {
        let matcher = compile(&tokens(text)?)?;
        // A part that makes no sense by itself held an escaped slash: who knows what it matches.
        let part = |p: &str| {
            let single = tokens(p).ok().filter(|_| !p.contains("**"))?;
            compile(&single).ok()
        };
        // Only exceptions are asked what they may match below.
        let parts = if exception {
            text.split('/').map(part).collect()
        } else {
            Vec::new()
        };
        Ok(Pattern {
            exception,
            matcher,
            parts,
        })
    }

    /// Whether it matches this very path.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        self.matcher.matches(path)
    }

    /// Whether it may match something below a directory, without matching the directory. (Never says
    /// no wrongly.)
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        let mut parts = self.parts.iter();
        for name in directory.split(|b| *b == b'/') {
            match parts.next() {
                Some(Some(part)) if part.matches(name) => {}
                Some(None) => return true,
                Some(Some(_)) | None => return false,
            }
        }
        parts.next().is_some()
    }
}

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `\c`
    Escaped(char),
    /// `?`
    One,
    /// `*`
    Any,
    /// `**`, or with its slash `**/`
    Deep {
        slash: bool,
    },
    /// `[a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => Token::Deep {
                slash: chars.next_if_eq(&'/').is_some(),
            },
            '*' => Token::Any,
            '?' => Token::One,
            '[' => class(&mut chars)?,
            '\\' => Token::Escaped(chars.next().ok_or("a \\ must be followed by a character")?),
            c => Token::Literal(c),
        });
    }
    Ok(tokens)
}

/// The rest of `[^a-z]`, as Go's path matching has it: `-` and `]` must be escaped to be meant.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() {
            class_char(chars)?
        } else {
            low
        };
        if high < low {
            return Err("a range runs backwards");
        }
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
    const UNCLOSED: &str = "the closing ] is missing";
    match chars.next().ok_or(UNCLOSED)? {
        '-' => Err("a - must stand between two characters, or be escaped"),
        ']' => Err("[] is empty"),
        '\\' => chars.next().ok_or(UNCLOSED),
        c => Ok(c),
    }
}

/// Chooses the matcher as Docker does: `**` at the beginning or the end alone compares text, and so
/// `**file` matches `afile` where `**file*` does not.
fn compile(tokens: &[Token]) -> Result<Matcher, &'static str> {
    let plain = |tokens: &[Token]| -> Option<Vec<u8>> {
        let text: Option<String> = tokens.iter().map(literal).collect();
        text.map(String::into_bytes)
    };
    if let Some(text) = plain(tokens) {
        return Ok(Matcher::Exact(text));
    }
    match tokens {
        [Token::Deep { slash }, rest @ ..] => {
            if let Some(mut text) = plain(rest) {
                // The slash of `**/` belongs to what is compared.
                if *slash {
                    text.insert(0, b'/');
                }
                return Ok(Matcher::Suffix(text));
            }
        }
        [rest @ .., Token::Deep { .. }] => {
            if let Some(text) = plain(rest) {
                return Ok(Matcher::Prefix(text));
            }
        }
        _ => {}
    }
    regex(tokens).map(Matcher::Regex)
}

/// The character, where the token is one as written.
fn literal(token: &Token) -> Option<char> {
    match token {
        Token::Literal(c) => Some(*c),
        _ => None,
    }
}

fn regex(tokens: &[Token]) -> Result<Regex, &'static str> {
    let mut out = String::from("^");
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Literal(c) | Token::Escaped(c) => out.push_str(&regex::escape(&c.to_string())),
            Token::One => out.push_str("[^/]"),
            Token::Any => out.push_str("[^/]*"),
            Token::Deep { .. } if i + 1 == tokens.len() => out.push_str("(?s:.)*"),
            Token::Deep { .. } => out.push_str("(?:(?s:.)*/)?"),
            Token::Class { negated, ranges } => push_class(&mut out, *negated, ranges),
        }
    }
    out.push('$');
    let regex = RegexBuilder::new(&out).size_limit(MAX_COMPILED).build();
    regex.map_err(|_| "it is too large")
}

fn push_class(out: &mut String, negated: bool, ranges: &[(char, char)]) {
    out.push_str(if negated { "[^" } else { "[" });
    for (low, high) in ranges {
        out.push_str(&format!(
            "\\x{{{:x}}}-\\x{{{:x}}}",
            u32::from(*low),
            u32::from(*high)
        ));
    }
    out.push(']');
}
