//! Text that is expanded later.

use crate::source::Span;

/// Raw text that is expanded when the instruction's turn comes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    /// As written, with quotes, escapes and variables.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Word {
    /// A word written at `span`.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Word {
            text: text.into(),
            span,
        }
    }

    /// The place of the variable `name` in the word; of the whole word where it can't be told.
    pub fn place_of(&self, name: &str) -> Span {
        let found = ["${", "$"].into_iter().find_map(|sigil| {
            let at = self.text.find(&format!("{sigil}{name}"))?;
            Some((at, sigil.len() + name.len()))
        });
        match found {
            Some((at, len)) if self.text.len() == self.span.len as usize => self.part(at, len),
            _ => self.span,
        }
    }

    /// A part of the word's place, by byte offsets into text that stands there as it is.
    pub fn part(&self, at: usize, len: usize) -> Span {
        let at = u32::try_from(at).unwrap_or(u32::MAX).min(self.span.len);
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(self.span.len - at);
        Span {
            offset: self.span.offset + at,
            column: self.span.column + at,
            len,
            ..self.span
        }
    }
}
