//! What an instruction's own parser gets to see.

use std::ops::Range;

use super::flags::{Flag, FlagKind, RawFlag, parse_flags};
use super::lines::Statement;
use super::words::{Json, Piece, json_array, split_blanks, split_words};
use crate::ast::{Escape, Heredoc, Word};
use crate::diagnostic::Diagnostic;
use crate::source::{Span, Spanned};

/// An instruction, split into keyword, flags and arguments.
#[derive(Debug)]
pub(super) struct Args<'a> {
    pub(super) statement: &'a Statement,
    /// The instruction's name in capitals.
    pub(super) name: &'static str,
    /// Where the keyword stands in the statement.
    pub(super) keyword: Range<usize>,
    /// Their ranges count from the end of the keyword and the blanks after it: from `body`.
    pub(super) flags: Vec<RawFlag>,
    pub(super) body: usize,
    /// Where the arguments begin.
    pub(super) start: usize,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) escape: Escape,
}

impl Args<'_> {
    /// The arguments.
    pub(super) fn text(&self) -> &str {
        &self.statement.text[self.start..]
    }

    /// The place of a range of [`Args::text`].
    pub(super) fn span(&self, range: &Range<usize>) -> Span {
        self.statement
            .span(self.start + range.start, self.start + range.end)
    }

    /// The place of all arguments; of the keyword where there are none.
    pub(super) fn all(&self) -> Span {
        match self.text().len() {
            0 => self.statement.span(self.keyword.start, self.keyword.end),
            len => self.span(&(0..len)),
        }
    }

    /// An error about the arguments as a whole.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.all(), message)
    }

    pub(super) fn word(&self, piece: Piece<'_>) -> Word {
        let span = self.span(&piece.range);
        Word::new(piece.text.into_owned(), span)
    }

    /// All arguments as one word.
    pub(super) fn one(&self, form: &str) -> Result<Word, Diagnostic> {
        if self.text().is_empty() {
            let message = format!("{} requires exactly one argument", self.name);
            return Err(self.error(message).expected(form));
        }
        Ok(Word::new(self.text(), self.all()))
    }

    /// At least one of them.
    pub(super) fn not_empty(&self, form: &str) -> Result<(), Diagnostic> {
        if self.text().is_empty() {
            let message = format!("{} requires at least one argument", self.name);
            return Err(self.error(message).expected(form));
        }
        Ok(())
    }

    /// Words at blanks, where quotes keep blanks inside.
    pub(super) fn quoted_words(&self) -> impl Iterator<Item = Piece<'_>> {
        split_words(self.text(), self.escape)
    }

    /// Words at blanks alone.
    pub(super) fn blank_words(&self) -> impl Iterator<Item = Piece<'_>> {
        split_blanks(self.text())
    }

    /// The exec form, where it is one; an error where it holds something that is no string.
    pub(super) fn json(&self) -> Result<Option<Vec<Piece<'static>>>, Diagnostic> {
        json_from(self, 0)
    }

    /// The strings of a JSON array, or words at blanks.
    pub(super) fn list(&self) -> Result<Vec<Piece<'_>>, Diagnostic> {
        Ok(self.json()?.unwrap_or_else(|| self.blank_words().collect()))
    }

    /// Checks the flags; those that may be repeated come in order.
    pub(super) fn parse_flags(
        &self,
        known: &'static [(&'static str, FlagKind)],
    ) -> Result<Flags, Diagnostic> {
        let flags = parse_flags(&self.flags, known).map_err(|e| {
            let mut diagnostic = Diagnostic::error(self.flag_span(&e.range), e.message);
            diagnostic.expected = e.expected;
            diagnostic.suggestion = e.suggestion;
            if let Some(name) = e.lacks_value {
                let next = self.blank_words().next();
                diagnostic.suggestion = next.map(|w| format!("did you mean --{name}={}?", w.text));
            }
            diagnostic
        })?;
        let placed = flags.into_iter().map(|f| (f.name, f.place(self))).collect();
        Ok(Flags { flags: placed })
    }

    fn flag_span(&self, range: &Range<usize>) -> Span {
        self.statement
            .span(self.body + range.start, self.body + range.end)
    }
}

impl Flag {
    fn place(self, args: &Args<'_>) -> Word {
        Word::new(self.value, args.flag_span(&self.range))
    }
}

/// The exec form of the arguments from `from` on.
pub(super) fn json_from(args: &Args<'_>, from: usize) -> Result<Option<Vec<Piece<'static>>>, Diagnostic> {
    match json_array(&args.text()[from..]) {
        Json::Strings(pieces) => {
            let shift = |p: Piece<'static>| Piece {
                range: p.range.start + from..p.range.end + from,
                ..p
            };
            Ok(Some(pieces.into_iter().map(shift).collect()))
        }
        Json::No => Ok(None),
        Json::OtherTypes => {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            let span = args.span(&(from..args.text().len()));
            Err(Diagnostic::error(span, message).expected("[\"word\", \"word\", …]"))
        }
    }
}

/// Checked flags.
#[derive(Debug)]
pub(super) struct Flags {
    flags: Vec<(&'static str, Word)>,
}

impl Flags {
    /// The flag's value.
    pub(super) fn word(&self, name: &str) -> Option<Word> {
        self.flags
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, w)| w.clone())
    }

    /// All values of a flag that may be repeated.
    pub(super) fn words(&self, name: &str) -> Vec<Word> {
        self.flags
            .iter()
            .filter(|(n, _)| *n == name)
            .map(|(_, w)| w.clone())
            .collect()
    }

    /// The flag's value, which is never expanded.
    pub(super) fn text(&self, name: &str) -> Option<Spanned<String>> {
        self.word(name).map(|w| Spanned::new(w.text, w.span))
    }

    /// A switch; `None` where it is not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.word(name).map(|w| w.text == "true")
    }
}
