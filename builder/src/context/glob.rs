//! Wildcards of COPY, as Go's `filepath.Match` has them: `*` and `?` (never a `/`), `[a-z]`, `[^a-z]`, `\c`.

/// Whether the text has a wildcard, so that matching nothing is no error.
pub(crate) fn has_wildcard(pattern: &str) -> bool {
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

/// The text that a pattern without wildcards means: escapes taken away.
pub(crate) fn unescape(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' {
            chars.next().unwrap_or('\\')
        } else {
            c
        });
    }
    out
}

/// Whether the name of one path component matches; none if the pattern is malformed (an open `[`).
///
/// Names that are not UTF-8 are matched byte by byte where they are not. Time is at most pattern × name.
pub(crate) fn matches(pattern: &str, name: &[u8]) -> Option<bool> {
    let tokens = parse(pattern)?;
    let (mut token, mut at) = (0, 0);
    // The last star and where what it took ends: only the last one ever has to take more.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        let step = match tokens.get(token) {
            Some(Token::Star) => {
                star = Some((token, at));
                token += 1;
                continue;
            }
            Some(single) => single.take(&name[at..]),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => (token, at) = (token + 1, at + length),
            (None, Some((back, taken))) => {
                let next = taken + first(&name[taken..]).1;
                star = Some((back, next));
                (token, at) = (back + 1, next);
            }
            (None, None) => return Some(false),
        }
    }
    Some(tokens[token..].iter().all(|token| matches!(token, Token::Star)))
}

enum Token {
    Star,
    Any,
    Literal(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    /// How many bytes of the text it takes; none if it does not match.
    fn take(&self, text: &[u8]) -> Option<usize> {
        let (c, length) = first(text);
        let is_match = match self {
            Token::Star => false,
            Token::Any => true,
            Token::Literal(literal) => c == Some(*literal),
            Token::Class { negated, ranges } => {
                let is_in = c.is_some_and(|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)));
                is_in != *negated
            }
        };
        is_match.then_some(length)
    }
}

/// The first character and its length; a byte that is none counts alone.
fn first(text: &[u8]) -> (Option<char>, usize) {
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => (Some(c), c.len_utf8()),
        None => (None, 1),
    }
}

fn parse(pattern: &str) -> Option<Vec<Token>> {
    let mut chars = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Literal(chars.next()?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                Token::Class {
                    negated,
                    ranges: class(&mut chars)?,
                }
            }
            other => Token::Literal(other),
        });
    }
    Some(tokens)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Vec<(char, char)>> {
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(ranges);
        }
        let low = class_char(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_matches() {
        // From the documentation and the tests of Go's path/filepath.
        let cases = [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "abc", Some(true)),
            ("a*b*c*d*e*", "axbxcxdxe", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-]", "-", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("*x", "xxx", Some(true)),
            ("", "", Some(true)),
            ("", "a", Some(false)),
            ("*", "", Some(true)),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name.as_bytes()), expected, "{pattern} {name}");
        }
        assert_eq!(matches("a?*", b"a\xff\xfe"), Some(true));
        assert_eq!(matches("a??", b"a\xff\xfe"), Some(true));
        assert_eq!(matches("a?", b"a\xff\xfe"), Some(false));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(200);
        assert_eq!(matches(&pattern, "a".repeat(20_000).as_bytes()), Some(true));
        assert_eq!(
            matches(&format!("{pattern}b"), "a".repeat(20_000).as_bytes()),
            Some(false)
        );
    }

    #[test]
    fn escapes_are_taken_away() {
        assert_eq!(unescape(r"a\[b\\c"), r"a[b\c");
        assert!(!has_wildcard("a.b") && has_wildcard("a[b]"));
        assert!(!has_wildcard(r"a\*") && has_wildcard(r"a\\*"));
    }
}
