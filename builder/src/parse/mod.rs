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
mod include;
mod instruction;
mod lines;
mod mount;
mod run;
mod units;

mod words;

#[cfg(test)]
mod tests;

use crate::ast::{Boxfile, Check, Instruction, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Source, Sources, Spanned};
use directives::DirectiveReader;
use include::Includes;
use lines::{Line, Reader, read_statement};

pub use chmod::{Chmod, parse_chmod};
pub use include::Load;
pub use mount::resolve_mount;
pub use units::{parse_cpus, parse_duration, parse_size};

/// Largest text that is read, in bytes.
pub const MAX_SOURCE: usize = 256 << 20;
/// Errors after which parsing stops.
pub const MAX_ERRORS: usize = 100;

/// Parses a Boxfile. Pure: reads nothing but `source`; an INCLUDE stays what it is.
///
/// # Errors
/// All syntax errors in the order of the file, at most [`MAX_ERRORS`].
pub fn parse(source: &Source) -> Result<Boxfile, Vec<Diagnostic>> {
    read(source, None).map_err(|errors| errors.diagnostics)
}

/// Parses a Boxfile, with the instructions of the files that it INCLUDEs in their place.
///
/// # Errors
/// All syntax errors in the order of the text, at most [`MAX_ERRORS`]; files that can't be had, loops.
pub fn parse_with(source: &Source, load: &mut Load<'_>) -> Result<Boxfile, SyntaxErrors> {
    read(source, Some(load))
}

/// What is wrong with a Boxfile, and what that points into.
#[derive(Clone, Debug)]
pub struct SyntaxErrors {
    /// At least one.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts.
    pub sources: Sources,
}

fn read(source: &Source, load: Option<&mut Load<'_>>) -> Result<Boxfile, SyntaxErrors> {
    let bytes = source.bytes();
    let mut output = Output {
        sources: Sources::single(source.clone()),
        instructions: Vec::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
        includes: load.map(Includes::new),
    };
    let mut parser = Parser::new(FileId(0), bytes, DirectiveReader::default(), &mut output);
    if bytes.len() > MAX_SOURCE {
        let message = format!("the file is larger than {} MiB", MAX_SOURCE >> 20);
        parser
            .output
            .errors
            .push(Diagnostic::error(Reader::new(FileId(0), b"").end(), message));
    } else {
        parser.run();
    }
    let (end, directives) = (parser.reader.end(), parser.directives.directives);
    if output.errors.is_empty() && output.instructions.is_empty() {
        let error = Diagnostic::error(end, "file with no instructions");
        output.errors.push(error.expected("a FROM instruction"));
    }
    if !output.errors.is_empty() {
        return Err(SyntaxErrors {
            diagnostics: output.errors,
            sources: output.sources,
        });
    }
    Ok(Boxfile {
        sources: output.sources,
        directives,
        instructions: output.instructions,
        warnings: output.warnings,
    })
}

/// Parses an ONBUILD trigger of an image's config. Its spans point into the text itself.
///
/// # Errors
/// A text that is not one instruction, or one that no trigger may be.
pub fn parse_trigger(text: &str) -> Result<Instruction, Diagnostic> {
    let file = parse(&Source::new("ONBUILD", text.as_bytes())).map_err(|mut errors| errors.swap_remove(0))?;
    let mut instructions = file.instructions;
    let is_one = instructions.len() == 1;
    let instruction = instructions.swap_remove(0);
    match instruction.kind.name() {
        "ONBUILD" | "FROM" | "MAINTAINER" | "INCLUDE" if is_one => {
            let message = format!("{} isn't allowed as an ONBUILD trigger", instruction.kind.name());
            Err(Diagnostic::error(instruction.span, message))
        }
        _ if is_one => Ok(instruction),
        _ => Err(
            Diagnostic::error(instruction.span, "it is not a single instruction").expected("one instruction"),
        ),
    }
}

/// Reads `skip=NAME,…` of a `# check=` comment that stands before one instruction.
pub fn parse_check_comment(comment: &str) -> Option<Check> {
    let (key, value) = directives::key_value(comment)?;
    key.eq_ignore_ascii_case("check")
        .then(|| directives::parse_check(value).ok())
        .flatten()
}

/// What comes of the Boxfile and of the files it includes.
struct Output<'l> {
    sources: Sources,
    instructions: Vec<Instruction>,
    warnings: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
    includes: Option<Includes<'l>>,
}

/// The state of one file's run.
struct Parser<'a, 'o, 'l> {
    reader: Reader<'a>,
    directives: DirectiveReader,
    comments: Vec<Spanned<String>>,
    output: &'o mut Output<'l>,
}

impl<'a, 'o, 'l> Parser<'a, 'o, 'l> {
    fn new(file: FileId, bytes: &'a [u8], directives: DirectiveReader, output: &'o mut Output<'l>) -> Self {
        Parser {
            reader: Reader::new(file, bytes),
            directives,
            comments: Vec::new(),
            output,
        }
    }

    fn run(&mut self) {
        while self.output.errors.len() < MAX_ERRORS {
            let Some(line) = self.reader.next_line() else {
                return;
            };
            if let Err(error) = self.line(&line) {
                self.output.errors.push(error);
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
            self.output
                .warnings
                .push(warning.suggest("remove the empty line; it will be an error one day"));
        }
        let instruction = instruction::read(&mut self.reader, &statement, escape)?;
        match (&instruction.kind, &self.output.includes) {
            (InstructionKind::Include(path), Some(_)) => self.include(path),
            _ => {
                self.output.instructions.push(instruction);
                Ok(())
            }
        }
    }
}
