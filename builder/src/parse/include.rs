//! INCLUDE: another file's instructions in the place of one.

use super::directives::DirectiveReader;
use super::{MAX_SOURCE, Parser};
use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::source::Source;

/// Files within files.
const MAX_DEPTH: usize = 32;
/// INCLUDEs in all: files that include each other twice would double at each step.
const MAX_COUNT: usize = 1000;

/// Gives the file at a path of the context (relative, without `.` and `..`), or says why not.
pub type Load<'a> = dyn FnMut(&str) -> Result<Source, String> + 'a;

/// What was included so far.
pub(super) struct Includes<'l> {
    load: &'l mut Load<'l>,
    /// The files that are being read, from the outermost.
    open: Vec<String>,
    count: usize,
    bytes: usize,
}

impl<'l> Includes<'l> {
    pub(super) fn new<'a: 'l>(load: &'l mut Load<'a>) -> Includes<'l> {
        Includes {
            load,
            open: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// The file at `path`, now open.
    fn enter(&mut self, path: &Word) -> Result<Source, Diagnostic> {
        let name = clean(path)?;
        if let Some(first) = self.open.iter().position(|open| *open == name) {
            let circle = [&self.open[first..], std::slice::from_ref(&name)].concat();
            let message = format!("INCLUDE goes round in a circle: {}", circle.join(" → "));
            return Err(Diagnostic::error(path.span, message).suggest("take one of these INCLUDEs out"));
        }
        if self.open.len() >= MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} files include each other");
            return Err(Diagnostic::error(path.span, message));
        }
        self.count += 1;
        if self.count > MAX_COUNT {
            return Err(Diagnostic::error(
                path.span,
                format!("more than {MAX_COUNT} INCLUDEs"),
            ));
        }
        let source = (self.load)(&name).map_err(|why| {
            Diagnostic::error(path.span, why)
                .expected("a file of the build context, by its path from the root of it")
        })?;
        self.bytes = self.bytes.saturating_add(source.bytes().len());
        if self.bytes > MAX_SOURCE {
            let message = format!("the included files are larger than {} MiB", MAX_SOURCE >> 20);
            return Err(Diagnostic::error(path.span, message));
        }
        self.open.push(name);
        Ok(source)
    }
}

impl Parser<'_, '_, '_> {
    /// Reads the file at `path` before anything else is read.
    pub(super) fn include(&mut self, path: &Word) -> Result<(), Diagnostic> {
        let Some(includes) = &mut self.output.includes else {
            return Ok(());
        };
        let source = includes.enter(path)?;
        let Some(file) = self.output.sources.add(source.clone()) else {
            return Err(Diagnostic::error(path.span, "too many files are included"));
        };
        let errors = self.output.errors.len();
        let directives = DirectiveReader::of_include(self.directives.directives.escape);
        Parser::new(file, source.bytes(), directives, self.output).run();
        for error in &mut self.output.errors[errors..] {
            error.relate(path.span, format!("{} is included here", source.name()));
        }
        if let Some(includes) = &mut self.output.includes {
            includes.open.pop();
        }
        Ok(())
    }
}

/// The path as the context knows it. No variable has a value yet.
fn clean(path: &Word) -> Result<String, Diagnostic> {
    let wrong = |message: &str| Err(Diagnostic::error(path.span, message));
    let text = path.text.as_str();
    let quoted = ['"', '\''].iter().find_map(|quote| {
        let inner = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.contains(*quote)).then_some(inner)
    });
    let text = quoted.unwrap_or(text);
    if text.contains('$') {
        return wrong("INCLUDE takes no variables: its file is read before any ARG has a value");
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return wrong("INCLUDE leads out of the build context"),
            ".." => {}
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => wrong("INCLUDE needs a file"),
        false => Ok(parts.join("/")),
    }
}
