//! Parser directives: `# syntax=`, `# escape=`, `# check=`.

use super::lines::Line;
use crate::ast::{Check, Directives, Escape};
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span, Spanned};

/// Reads directives until something else has been seen.
#[derive(Debug, Default)]
pub(super) struct DirectiveReader {
    pub(super) directives: Directives,
    escape_seen: bool,
    done: bool,
    is_included: bool,
}

impl DirectiveReader {
    /// Of an included file, which is read like the Boxfile: what it says otherwise is an error or has no effect.
    pub(super) fn of_include(escape: Escape) -> DirectiveReader {
        let directives = Directives {
            escape,
            ..Directives::default()
        };
        DirectiveReader {
            directives,
            is_included: true,
            ..DirectiveReader::default()
        }
    }

    /// Looks at a line; whether it was a directive.
    ///
    /// A byte order mark before the first `#` is no obstacle; the reader has dropped it.
    pub(super) fn line(&mut self, file: FileId, line: &Line<'_>) -> Result<bool, Diagnostic> {
        if self.done {
            return Ok(false);
        }
        let found = line
            .comment()
            .and_then(|c| std::str::from_utf8(c).ok())
            .and_then(key_value);
        let Some((key, value)) = found else {
            self.done = true;
            return Ok(false);
        };
        let text = line.bytes();
        let at = text.len() - text.iter().rev().take_while(|b| b.is_ascii_whitespace()).count() - value.len();
        let span = line.span(file, at, value.len());
        match key.to_ascii_lowercase().as_str() {
            "syntax" => self.syntax(value, span)?,
            "escape" => self.escape(value, span)?,
            "check" => self.check(value, span)?,
            _ => {
                self.done = true;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn syntax(&mut self, value: &str, span: Span) -> Result<(), Diagnostic> {
        once(self.directives.syntax.is_none(), "syntax", span)?;
        if !is_known_frontend(value) {
            return Err(Diagnostic::error(span, format!("unknown frontend {value:?}"))
                .expected("docker/dockerfile, whose language is built in")
                .suggest("box runs no foreign frontends; remove the directive if the file is a Dockerfile"));
        }
        self.directives.syntax = Some(Spanned::new(value.to_owned(), span));
        Ok(())
    }

    fn escape(&mut self, value: &str, span: Span) -> Result<(), Diagnostic> {
        once(!self.escape_seen, "escape", span)?;
        self.escape_seen = true;
        let escape = match value {
            "\\" => Escape::Backslash,
            "`" => Escape::Backtick,
            _ => {
                let message = format!("invalid escape token '{value}' does not match ` or \\");
                return Err(Diagnostic::error(span, message).expected("# escape=\\ or # escape=`"));
            }
        };
        if self.is_included && escape != self.directives.escape {
            let message = "an included file has the escape character of the Boxfile";
            let expected = format!("# escape={}", self.directives.escape.as_char());
            return Err(Diagnostic::error(span, message).expected(expected));
        }
        self.directives.escape = escape;
        Ok(())
    }

    fn check(&mut self, value: &str, span: Span) -> Result<(), Diagnostic> {
        once(self.directives.check.is_none(), "check", span)?;
        let check = parse_check(value).map_err(|bad| check_error(&bad, span))?;
        self.directives.check = Some(Spanned::new(check, span));
        Ok(())
    }
}

fn once(first: bool, key: &str, span: Span) -> Result<(), Diagnostic> {
    if first {
        return Ok(());
    }
    let message = format!("only one {key} parser directive can be used");
    Err(Diagnostic::error(span, message).suggest("remove one of the two"))
}

fn check_error(bad: &str, span: Span) -> Diagnostic {
    Diagnostic::error(span, format!("invalid check option {bad:?}"))
        .expected("skip=NAME,… or skip=all, experimental=NAME,…, error=true or error=false, with ; between")
}

/// `key = value` of a comment.
pub(super) fn key_value(comment: &str) -> Option<(&str, &str)> {
    let (key, value) = comment.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let mut chars = key.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    let valid = starts_well && chars.all(|c| c.is_ascii_alphanumeric()) && !value.is_empty();
    valid.then_some((key, value))
}

/// `skip=A,B;experimental=C;error=true`, with a comment after ` //`.
pub(super) fn parse_check(text: &str) -> Result<Check, String> {
    let mut check = Check::default();
    let text = text.split_once("//").map_or(text, |(options, _)| options);
    for option in text.split(';').map(str::trim).filter(|o| !o.is_empty()) {
        let (key, value) = option.split_once('=').ok_or_else(|| option.to_owned())?;
        let names = || value.split(',').map(|n| n.trim().to_lowercase()).collect();
        match key.trim().to_lowercase().as_str() {
            "skip" => check.skip = names(),
            "experimental" => check.experimental = names(),
            "error" => check.error = Some(value.trim().parse().map_err(|_| option.to_owned())?),
            _ => return Err(option.to_owned()),
        }
    }
    Ok(check)
}

/// Whether a frontend's language is the one built in: some `docker/dockerfile`, whatever its registry,
/// tag or digest.
fn is_known_frontend(value: &str) -> bool {
    let name = value.split_whitespace().next().unwrap_or_default();
    let name = name.split_once('@').map_or(name, |(n, _)| n);
    let name = match name.rsplit_once(':') {
        Some((n, tag)) if !tag.contains('/') => n,
        _ => name,
    };
    let known = ["docker/dockerfile", "docker/dockerfile-upstream"];
    known
        .iter()
        .any(|k| name == *k || name.strip_suffix(k).is_some_and(|host| host.ends_with('/')))
}
