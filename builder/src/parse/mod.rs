//! Text → [`Boxfile`]: lines are joined into statements, statements split into keyword, flags and
//! arguments, and each instruction reads its own. Time is linear in the text, memory too; nothing here
//! panics, whatever the bytes.

mod args;
mod chmod;
mod config;
mod copy;
mod csv;
mod directives;
mod flags;
mod from;
mod health;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod run;
mod units;

mod words;

#[cfg(test)]
mod tests;

use crate::ast::{Boxfile, Check, Instruction};
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Source, Sources, Spanned};
use directives::DirectiveReader;
use lines::{Line, Reader, read_statement};

pub use chmod::{Chmod, parse_chmod};
pub use mount::resolve_mount;
pub use units::{parse_cpus, parse_duration, parse_size};

/// Largest text that is read, in bytes.
pub const MAX_SOURCE: usize = 256 << 20;
/// Errors after which parsing stops.
pub const MAX_ERRORS: usize = 100;

/// Parses a Boxfile. Pure: reads nothing but `source`.
///
/// # Errors
/// All syntax errors in the order of the file, at most [`MAX_ERRORS`].
pub fn parse(source: &Source) -> Result<Boxfile, Vec<Diagnostic>> {
    let bytes = source.bytes();
    if bytes.len() > MAX_SOURCE {
        let message = format!("the file is larger than {} MiB", MAX_SOURCE >> 20);
        return Err(vec![Diagnostic::error(
            Reader::new(FileId(0), b"").end(),
            message,
        )]);
    }
    let mut parser = Parser::new(FileId(0), bytes);
    parser.run();
    let end = parser.reader.end();
    if parser.errors.is_empty() && parser.instructions.is_empty() {
        let error = Diagnostic::error(end, "file with no instructions");
        parser.errors.push(error.expected("a FROM instruction"));
    }
    if !parser.errors.is_empty() {
        return Err(parser.errors);
    }
    Ok(Boxfile {
        sources: Sources::single(source.clone()),
        directives: parser.directives.directives,
        instructions: parser.instructions,
        warnings: parser.warnings,
    })
}

/// Reads `skip=NAME,…` of a `# check=` comment that stands before one instruction.
pub fn parse_check_comment(comment: &str) -> Option<Check> {
    let (key, value) = directives::key_value(comment)?;
    key.eq_ignore_ascii_case("check")
        .then(|| directives::parse_check(value).ok())
        .flatten()
}

/// The state of one run.
struct Parser<'a> {
    reader: Reader<'a>,
    directives: DirectiveReader,
    comments: Vec<Spanned<String>>,
    instructions: Vec<Instruction>,
    warnings: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
}

impl<'a> Parser<'a> {
    fn new(file: FileId, bytes: &'a [u8]) -> Self {
        Parser {
            reader: Reader::new(file, bytes),
            directives: DirectiveReader::default(),
            comments: Vec::new(),
            instructions: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn run(&mut self) {
        while self.errors.len() < MAX_ERRORS {
            let Some(line) = self.reader.next_line() else {
                return;
            };
            if let Err(error) = self.line(&line) {
                self.errors.push(error);
            }
        }
    }

    fn line(&mut self, line: &Line<'_>) -> Result<(), Diagnostic> {
        if self.directives.line(self.reader.file, line)? {
            return Ok(());
        }
        if let Some(text) = line.comment() {
            self.comment(line, text);
            return Ok(());
        }
        if line.indent() == line.bytes().len() {
            self.comments.clear();
            return Ok(());
        }
        self.instruction(line)
    }

    /// Comments belong to the instruction that follows; an empty one separates.
    fn comment(&mut self, line: &Line<'_>, text: &[u8]) {
        let trimmed = text.trim_ascii();
        if trimmed.is_empty() {
            self.comments.clear();
            return;
        }
        let from = line.indent() + 1 + text.len() - text.trim_ascii_start().len();
        let span = line.span(self.reader.file, from, trimmed.len());
        self.comments
            .push(Spanned::new(String::from_utf8_lossy(trimmed).into_owned(), span));
    }

    fn instruction(&mut self, line: &Line<'_>) -> Result<(), Diagnostic> {
        let comments = std::mem::take(&mut self.comments);
        let escape = self.directives.directives.escape;
        let statement = read_statement(&mut self.reader, line, escape, comments)?;
        if statement.text.is_empty() {
            return Ok(());
        }
        if let Some(place) = statement.empty_line {
            let warning = Diagnostic::warning(place, "Empty continuation line");
            let warning = warning
                .code("NoEmptyContinuation")
                .expected("the rest of the instruction");
            self.warnings
                .push(warning.suggest("remove the empty line; it will be an error one day"));
        }
        self.instructions
            .push(instruction::read(&mut self.reader, &statement, escape)?);
        Ok(())
    }
}
