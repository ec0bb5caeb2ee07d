//! `--flag[=value]` between the keyword and the arguments.

use std::ops::Range;

use super::lines::is_blank;
use crate::suggest::did_you_mean;

/// A flag as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawFlag {
    /// Without quotes: `--name` or `--name=value`.
    pub(super) text: String,
    /// Where it stands.
    pub(super) range: Range<usize>,
}

impl RawFlag {
    fn name(&self) -> &str {
        let name = self.text.strip_prefix("--").unwrap_or(&self.text);
        name.split_once('=').map_or(name, |(n, _)| n)
    }

    fn value(&self) -> Option<&str> {
        self.text.split_once('=').map(|(_, v)| v)
    }
}

/// Splits the flags off: they, and where the arguments begin.
pub(super) fn split_flags(text: &str) -> (Vec<RawFlag>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].bytes().take_while(|b| is_blank(*b)).count();
        if !text[at..].starts_with("--") {
            return (flags, at);
        }
        let flag = read_flag(text, at);
        at = flag.range.end;
        if flag.text == "--" {
            return (flags, at);
        }
        flags.push(flag);
    }
}

/// Reads one flag; quotes and `\` work in it and are removed.
fn read_flag(text: &str, start: usize) -> RawFlag {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text[start..].char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_ascii() && is_blank(c as u8) => {
                end = start + at;
                break;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if c == q => quote = None,
            (_, '\\') => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    RawFlag {
        text: word,
        range: start..end,
    }
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// A value, at most once.
    Text,
    /// A value, any number of times.
    Texts,
    /// Nothing, `=true` or `=false`; at most once.
    Bool,
}

/// What is wrong with a flag, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlagError {
    pub(super) message: String,
    pub(super) range: Range<usize>,
    pub(super) expected: Option<String>,
    pub(super) suggestion: Option<String>,
    /// The flag that has no value, where that is what is wrong.
    pub(super) lacks_value: Option<&'static str>,
}

/// A flag with its value, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// Of the value, or of the flag if it has none.
    pub(super) range: Range<usize>,
}

/// Checks flags against those that an instruction has.
pub(super) fn parse_flags(
    raw: &[RawFlag],
    known: &'static [(&'static str, FlagKind)],
) -> Result<Vec<Flag>, FlagError> {
    let mut flags: Vec<Flag> = Vec::with_capacity(raw.len());
    for flag in raw {
        let Some((name, kind)) = known.iter().find(|(name, _)| *name == flag.name()) else {
            return Err(unknown(flag, known));
        };
        if *kind != FlagKind::Texts && flags.iter().any(|f| f.name == *name) {
            return Err(wrong(flag, format!("duplicate flag specified: --{name}"), None));
        }
        let value = value(flag, name, *kind)?;
        let from = flag
            .range
            .end
            .saturating_sub(flag.value().map_or(flag.text.len(), str::len));
        let range = from.max(flag.range.start)..flag.range.end;
        flags.push(Flag { name, value, range });
    }
    Ok(flags)
}

fn value(flag: &RawFlag, name: &'static str, kind: FlagKind) -> Result<String, FlagError> {
    match (kind, flag.value()) {
        (FlagKind::Bool, None) => Ok("true".to_owned()),
        (FlagKind::Bool, Some(v)) => match v.to_ascii_lowercase().as_str() {
            v @ ("true" | "false") => Ok(v.to_owned()),
            _ => {
                let message = format!("expected boolean value for flag --{name}: {v:?} is none");
                Err(wrong(
                    flag,
                    message,
                    Some(format!("--{name}, --{name}=true or --{name}=false")),
                ))
            }
        },
        (_, Some(v)) => Ok(v.to_owned()),
        (_, None) => {
            let message = format!("missing a value on flag: --{name}");
            let error = wrong(flag, message, Some(format!("--{name}=VALUE, without a blank")));
            Err(FlagError {
                lacks_value: Some(name),
                ..error
            })
        }
    }
}

fn unknown(flag: &RawFlag, known: &[(&'static str, FlagKind)]) -> FlagError {
    let names = || known.iter().map(|(name, _)| *name);
    let expected = names().map(|n| format!("--{n}")).collect::<Vec<_>>().join(", ");
    let expected = if expected.is_empty() {
        "no flags here".to_owned()
    } else {
        expected
    };
    let mut error = wrong(flag, format!("unknown flag: --{}", flag.name()), Some(expected));
    error.suggestion = did_you_mean(flag.name(), names()).map(|s| s.replace("mean ", "mean --"));
    error
}

fn wrong(flag: &RawFlag, message: String, expected: Option<String>) -> FlagError {
    FlagError {
        message,
        range: flag.range.clone(),
        expected,
        suggestion: None,
        lacks_value: None,
    }
}
