//! What can be said of a Boxfile without building it: what is wrong with it, what it takes, which targets it has.
//!
//! Nothing is run and nothing fetched; images are looked at where the store has them.

mod outline;

use box_store::Store;

use crate::ast::{Instruction, InstructionKind};
use crate::build::{Front, boxfile_error, open_context};
use crate::diagnostic::Diagnostic;
use crate::error::BuildError;
use crate::expand::expand_word;
use crate::lower::{Loaded, LowerError, lower};
use crate::request::BuildRequest;
use crate::source::{Sources, Span};

pub use outline::{Outline, OutlineArg, OutlineMount, outline};

/// What the checks say.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What is odd, in the order of the text.
    pub warnings: Vec<Diagnostic>,
    /// Why it can't be built.
    pub errors: Vec<Diagnostic>,
    /// Whether warnings are errors here (`# check=error=true`).
    pub warnings_are_errors: bool,
    /// What they point into.
    pub sources: Sources,
}

/// Checks a Boxfile. A base image that is not in the store is no error: what depends on it is left out.
///
/// # Errors
/// When the context or the store can't be read. What is wrong with the Boxfile is in the result.
pub fn check(store: &Store, request: &BuildRequest) -> Result<Checked, BuildError> {
    let context = open_context(store, request)?;
    let front = match Front::read(store, request, &context) {
        Ok(front) => front,
        Err(errors) => {
            return Ok(Checked {
                warnings: Vec::new(),
                errors: errors.diagnostics,
                warnings_are_errors: false,
                sources: errors.sources,
            });
        }
    };
    let (graph, mut errors) = match front.graph(&Loaded::default()) {
        Ok(graph) => (Some(graph), Vec::new()),
        Err(errors) => (None, errors),
    };
    let mut warnings = front.lint(graph.as_ref(), &Loaded::default())?;
    match graph
        .as_ref()
        .map(|graph| lower(graph, request, store, &Loaded::default()))
    {
        Some(Ok(plan)) => warnings.extend(plan.warnings),
        Some(Err(LowerError::Boxfile {
            diagnostics,
            lacks_image: false,
        })) => errors.extend(diagnostics),
        Some(Err(LowerError::Boxfile { .. })) | None => {}
        Some(Err(LowerError::Store(error))) => return Err(error.into()),
    }
    Ok(Checked {
        warnings,
        errors,
        warnings_are_errors: front.check().error == Some(true),
        sources: front.boxfile.sources.clone(),
    })
}

/// A stage that may be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: Option<String>,
    /// Whether it is the one that is built when none is named.
    pub is_default: bool,
    /// What a comment before its FROM says (`# NAME DESCRIPTION`).
    pub description: Option<String>,
    /// What it is built on, with global ARGs expanded.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Its FROM.
    pub span: Span,
}

/// All targets of a Boxfile, in its order, and what their places point into.
///
/// # Errors
/// When the Boxfile is wrong, or the context or the store can't be read.
pub fn targets(store: &Store, request: &BuildRequest) -> Result<(Vec<Target>, Sources), BuildError> {
    let context = open_context(store, request)?;
    let front = Front::read(store, request, &context).map_err(boxfile_error)?;
    let graph = front.built_graph(&Loaded::default())?;
    let escape = graph.directives.escape;
    let mut targets: Vec<Target> = Vec::new();
    for instruction in &front.boxfile.instructions {
        let InstructionKind::From(from) = &instruction.kind else {
            continue;
        };
        let name = from.alias.as_ref().map(|alias| alias.name.clone());
        let base = expand_word(&from.base.text, escape, &graph.global_args);
        targets.push(Target {
            description: name.as_deref().and_then(|name| description(instruction, name)),
            name,
            is_default: false,
            base: base.unwrap_or_else(|_| from.base.text.clone()),
            platform: from.platform.as_ref().map(|platform| platform.text.clone()),
            span: instruction.span,
        });
    }
    if let Some(last) = targets.last_mut() {
        last.is_default = true;
    }
    Ok((targets, front.boxfile.sources.clone()))
}

/// What the comments before an instruction say of the thing of that name.
fn description(instruction: &Instruction, name: &str) -> Option<String> {
    let said = instruction.comments.iter().find_map(|comment| {
        let rest = comment.value.strip_prefix(name)?;
        rest.strip_prefix(' ')
    });
    said.map(|text| text.trim().to_owned())
}
