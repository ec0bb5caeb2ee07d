//! What is wrong with a Boxfile, where, and what was meant.

use std::fmt::Write;

use crate::source::{Source, Sources, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The build goes on.
    Warning,
    /// The Boxfile cannot be built.
    Error,
}

impl Severity {
    /// `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One finding, with its place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The lint's name, for lints.
    pub code: Option<&'static str>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What was expected there.
    pub expected: Option<String>,
    /// What was probably meant, or what to do.
    pub suggestion: Option<String>,
    /// Other places that have to do with it; most findings have none, and are the smaller for it.
    pub related: Option<Box<Related>>,
}

/// Places, and how each has to do with a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Related(pub Vec<(Span, String)>);

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message.into())
    }

    /// A warning at `span`.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message.into())
    }

    fn new(severity: Severity, span: Span, message: String) -> Self {
        Diagnostic {
            severity,
            code: None,
            message,
            span,
            expected: None,
            suggestion: None,
            related: None,
        }
    }

    /// The same, naming the lint it comes from.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The same, saying what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// The same, with a suggestion.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same, with a suggestion where there is one.
    #[must_use]
    pub fn maybe_suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion.or(self.suggestion);
        self
    }

    /// Adds a place that has to do with it, and how.
    pub fn relate(&mut self, span: Span, text: String) {
        self.related.get_or_insert_default().0.push((span, text));
    }

    /// The finding as text: `file:line:column: error: message`, the line with a caret under the place,
    /// what was expected and a suggestion. Ends in a newline.
    pub fn render(&self, sources: &Sources) -> String {
        let mut out = String::new();
        let code = self.code.map(|c| format!("[{c}]")).unwrap_or_default();
        let label = format!("{}{code}", self.severity.as_str());
        write_place(&mut out, sources, self.span, &label, &self.message);
        for (label, text) in [("expected", &self.expected), ("help", &self.suggestion)] {
            if let Some(text) = text {
                let _ = writeln!(out, "   = {label}: {}", shorten(text));
            }
        }
        for (span, text) in self.related.iter().flat_map(|related| &related.0) {
            write_place(&mut out, sources, *span, "note", text);
        }
        out
    }
}

/// `file:line:column: label: message` and the line itself.
fn write_place(out: &mut String, sources: &Sources, span: Span, label: &str, message: &str) {
    let source = sources.get(span.file);
    let shown = source.map(|s| Excerpt::of(s, span));
    let name = source.map_or("?", Source::name);
    let column = shown.as_ref().map_or(span.column as usize, |e| e.column);
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "{name}:{}:{column}: {label}: {}",
        span.line,
        shorten(message)
    );
    if let Some(excerpt) = shown {
        excerpt.write(out, span.line);
    }
}

/// Bytes of a line looked at around a span; lines may be megabytes long.
const WINDOW: usize = 120;
/// Columns up to here are counted in characters, beyond it in bytes.
const COUNTED: usize = 4096;

/// A line, or the part of a long one around the span.
struct Excerpt {
    text: String,
    column: usize,
    indent: String,
    carets: usize,
}

impl Excerpt {
    fn of(source: &Source, span: Span) -> Excerpt {
        let bytes = source.bytes();
        let at = (span.offset as usize).min(bytes.len());
        let start = at.saturating_sub(span.column.saturating_sub(1) as usize);
        let end = at + line_length(&bytes[at..], WINDOW.max(span.len as usize).min(2 * WINDOW));
        let from = if at - start > WINDOW {
            char_boundary(bytes, at - WINDOW / 2)
        } else {
            start
        };
        let before = String::from_utf8_lossy(&bytes[from..at]).into_owned();
        let after = String::from_utf8_lossy(&bytes[at..end]).into_owned();
        let marked = at + (span.len as usize).min(end - at);
        let carets = String::from_utf8_lossy(&bytes[at..marked])
            .trim_end()
            .chars()
            .count()
            .max(1);
        let prefix = if from > start { "…" } else { "" };
        let suffix = if end < bytes.len() && bytes[end] != b'\n' && bytes[end] != b'\r' {
            "…"
        } else {
            ""
        };
        let column = match at - start {
            long if long > COUNTED => long + 1,
            _ => String::from_utf8_lossy(&bytes[start..at]).chars().count() + 1,
        };
        let before = format!("{prefix}{}", printable(&before));
        let indent = before
            .chars()
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        Excerpt {
            text: format!("{before}{}{suffix}", printable(&after)),
            column,
            indent,
            carets,
        }
    }

    fn write(&self, out: &mut String, line: u32) {
        let gutter = line.to_string();
        let pad = " ".repeat(gutter.len());
        let _ = writeln!(out, " {gutter} | {}", self.text);
        let _ = writeln!(out, " {pad} | {}{}", self.indent, "^".repeat(self.carets));
    }
}

/// Bytes up to the line's end, or about `limit` if it is longer.
fn line_length(bytes: &[u8], limit: usize) -> usize {
    let head = &bytes[..bytes.len().min(limit + 1)];
    match head.iter().position(|b| *b == b'\n') {
        Some(end) if end > 0 && head[end - 1] == b'\r' => end - 1,
        Some(end) => end,
        None if bytes.len() <= limit => bytes.len(),
        None => char_boundary(bytes, limit),
    }
}

/// The next start of a UTF-8 character at or after `at`.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    let is_inside = |b: &&u8| (**b & 0xC0) == 0x80;
    at + bytes
        .get(at..)
        .unwrap_or_default()
        .iter()
        .take(4)
        .take_while(is_inside)
        .count()
}

/// Longest message shown, in characters; what is quoted in one may be megabytes long.
const MESSAGE: usize = 400;

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text with control characters made harmless for a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}
