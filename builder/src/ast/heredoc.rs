//! Here-documents.

use crate::source::Span;

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Its tag without quotes; the file name of an inline file.
    pub name: String,
    /// Its lines as written.
    pub raw: Vec<u8>,
    /// Whether it was `<<-`: leading tabs of each line don't count.
    pub strip_tabs: bool,
    /// Whether variables in it are expanded (the tag wasn't quoted). COPY and ADD only.
    pub expand: bool,
    /// The `<<TAG` that opened it.
    pub span: Span,
}

impl Heredoc {
    /// The text that is meant: without leading tabs where `<<-` said so.
    pub fn data(&self) -> Vec<u8> {
        if !self.strip_tabs {
            return self.raw.clone();
        }
        let lines = self.raw.split_inclusive(|b| *b == b'\n');
        lines
            .flat_map(|l| l.iter().skip_while(|b| **b == b'\t'))
            .copied()
            .collect()
    }
}
