//! Physical lines → statements: continuations joined, comments dropped, places remembered.

use crate::ast::Escape;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span, Spanned};

/// A line of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// With its end.
    pub(super) raw: &'a [u8],
    /// Where it begins in the file.
    pub(super) offset: usize,
    /// Counted from 1.
    pub(super) number: u32,
}

impl<'a> Line<'a> {
    /// Without its end.
    pub(super) fn bytes(&self) -> &'a [u8] {
        let keep = self
            .raw
            .iter()
            .rposition(|b| !matches!(b, b'\r' | b'\n'))
            .map_or(0, |i| i + 1);
        &self.raw[..keep]
    }

    /// How many blanks it begins with.
    pub(super) fn indent(&self) -> usize {
        let bytes = self.bytes();
        bytes.iter().position(|b| !is_blank(*b)).unwrap_or(bytes.len())
    }

    /// The text of a comment line, `#` left out.
    pub(super) fn comment(&self) -> Option<&'a [u8]> {
        self.bytes()[self.indent()..].strip_prefix(b"#")
    }

    /// A place in it, by byte offsets.
    pub(super) fn span(&self, file: FileId, from: usize, len: usize) -> Span {
        let offset = u32::try_from(self.offset + from).unwrap_or(u32::MAX);
        let column = u32::try_from(from + 1).unwrap_or(u32::MAX);
        Span {
            file,
            offset,
            line: self.number,
            column,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        }
    }
}

/// Blanks as Go's `unicode.IsSpace` has them in ASCII.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r' | b'\n')
}

/// Hands out physical lines.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) file: FileId,
    bytes: &'a [u8],
    pos: usize,
    number: u32,
}

impl<'a> Reader<'a> {
    /// From the first line on; a byte order mark is left out.
    pub(super) fn new(file: FileId, bytes: &'a [u8]) -> Self {
        let pos = if bytes.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        Reader {
            file,
            bytes,
            pos,
            number: 0,
        }
    }

    pub(super) fn next_line(&mut self) -> Option<Line<'a>> {
        let rest = self.bytes.get(self.pos..).filter(|r| !r.is_empty())?;
        let len = rest
            .iter()
            .position(|b| *b == b'\n')
            .map_or(rest.len(), |i| i + 1);
        let line = Line {
            raw: &rest[..len],
            offset: self.pos,
            number: self.number + 1,
        };
        self.pos += len;
        self.number += 1;
        Some(line)
    }

    /// The number of the line read last.
    pub(super) fn line_number(&self) -> u32 {
        self.number
    }

    /// The place after the last line that was read.
    pub(super) fn end(&self) -> Span {
        let offset = u32::try_from(self.pos).unwrap_or(u32::MAX);
        Span {
            file: self.file,
            offset,
            line: self.number.max(1),
            column: 1,
            len: 0,
        }
    }
}

/// A piece of a statement, from one physical line.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where it begins in the statement.
    at: usize,
    /// Where it begins in the file.
    offset: usize,
    line: u32,
    column: usize,
}

/// An instruction's text on one line.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) text: String,
    file: FileId,
    pieces: Vec<Piece>,
    /// The first empty line among the continued ones.
    pub(super) empty_line: Option<Span>,
    /// The comments right before it.
    pub(super) comments: Vec<Spanned<String>>,
}

impl Statement {
    /// The place of a range of [`Statement::text`], as far as it is on one physical line.
    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        let index = self.pieces.partition_point(|p| p.at <= start).saturating_sub(1);
        let Some(piece) = self.pieces.get(index) else {
            return Span::default();
        };
        let piece_end = self.pieces.get(index + 1).map_or(self.text.len(), |p| p.at);
        let within = start - piece.at;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            file: self.file,
            offset: number(piece.offset + within),
            line: piece.line,
            column: number(piece.column + within),
            len: number(end.min(piece_end).saturating_sub(start)),
        }
    }

    /// Adds a line; says whether the next one continues it.
    fn push(&mut self, line: &Line<'_>, from: usize, escape: Escape) -> Result<bool, Diagnostic> {
        let bytes = &line.bytes()[from..];
        let (kept, continued) = strip_continuation(bytes, escape);
        let text = std::str::from_utf8(kept).map_err(|e| {
            let bad = line.span(self.file, from + e.valid_up_to(), e.error_len().unwrap_or(1));
            Diagnostic::error(bad, "this instruction is not UTF-8").expected("text in UTF-8")
        })?;
        let piece = Piece {
            at: self.text.len(),
            offset: line.offset + from,
            line: line.number,
            column: from + 1,
        };
        self.pieces.push(piece);
        self.text.push_str(text);
        Ok(continued)
    }
}

/// The line without an escape character that ends it; one that is escaped itself doesn't count.
fn strip_continuation(bytes: &[u8], escape: Escape) -> (&[u8], bool) {
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b' ' | b'\t'))
        .map_or(0, |i| i + 1);
    let escape = escape.as_char() as u8;
    match bytes[..end].split_last() {
        Some((last, before)) if *last == escape && before.last() != Some(&escape) => (before, true),
        _ => (bytes, false),
    }
}

/// Reads the statement that begins on `first`; all its lines are read even where one is bad.
pub(super) fn read_statement(
    reader: &mut Reader<'_>,
    first: &Line<'_>,
    escape: Escape,
    comments: Vec<Spanned<String>>,
) -> Result<Statement, Diagnostic> {
    let mut statement = Statement {
        text: String::new(),
        file: reader.file,
        pieces: Vec::new(),
        empty_line: None,
        comments,
    };
    let mut problem = None;
    let mut continued = note(statement.push(first, first.indent(), escape), &mut problem);
    while continued {
        let Some(line) = reader.next_line() else { break };
        if line.comment().is_some() {
            continue;
        }
        if line.indent() == line.bytes().len() {
            statement.empty_line.get_or_insert(line.span(reader.file, 0, 0));
            continue;
        }
        continued = note(statement.push(&line, 0, escape), &mut problem);
    }
    let kept = statement
        .text
        .trim_end_matches(|c: char| c.is_ascii() && is_blank(c as u8))
        .len();
    statement.text.truncate(kept);
    problem.map_or(Ok(statement), Err)
}

/// Keeps the first problem.
fn note(result: Result<bool, Diagnostic>, problem: &mut Option<Diagnostic>) -> bool {
    result.unwrap_or_else(|p| {
        problem.get_or_insert(p);
        false
    })
}
