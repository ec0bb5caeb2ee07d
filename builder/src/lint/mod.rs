//! The checks of `box build --check`, which are warnings of a build, too.
//!
//! Each has Docker's name and Docker's words, so that a search for them finds help. They need no base
//! image; where one is known ([`LintOptions::base_env`]), fewer undefined variables slip through.

mod input;
mod names;
mod report;
mod stages;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::ast::Boxfile;
use crate::diagnostic::Diagnostic;
use crate::graph::StageId;
use crate::source::Span;
use input::split;
use report::Report;

pub(crate) use stages::secrets::looks_secret;

pub use input::{BaseEnv, EXPERIMENTAL, LintOptions};

/// The lints, in the order of the documentation.
pub const NAMES: [&str; 22] = [
    "StageNameCasing",
    "FromAsCasing",
    "NoEmptyContinuation",
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "ReservedStageName",
    "JSONArgsRecommended",
    "MaintainerDeprecated",
    "UndefinedArgInFrom",
    "WorkdirRelativePath",
    "UndefinedVar",
    "MultipleInstructionsDisallowed",
    "LegacyKeyValueFormat",
    "InvalidBaseImagePlatform",
    "RedundantTargetPlatform",
    "SecretsUsedInArgOrEnv",
    "InvalidDefaultArgInFrom",
    "FromPlatformFlagConstDisallowed",
    "CopyIgnoredFile",
    "ExposeProtoCasing",
    "ExposeInvalidFormat",
    "InvalidDefinitionDescription",
];

/// Checks a Boxfile: the findings in the order of the file. Whether warnings are errors
/// (`# check=error=true`) is for the caller to see to.
pub fn lint(boxfile: &Boxfile, options: &LintOptions<'_>) -> Vec<Diagnostic> {
    let split = split(boxfile);
    let check = options
        .check
        .or(boxfile.directives.check.as_ref().map(|c| &c.value));
    let mut report = Report::new(check);
    for warning in &boxfile.warnings {
        report.found(warning.clone(), None);
    }
    let escape = boxfile.directives.escape;
    let globals = variables::globals(&split, escape, options);
    names::check(&split, &mut report);
    variables::check(&split, escape, &globals, &mut report);
    let values = options.graph.map_or(&globals.values, |g| &g.global_args);
    stages::check(&split, &built(options), escape, values, options, &mut report);
    report.finish()
}

/// The stages that are built; `None` where that is unknown.
fn built(options: &LintOptions<'_>) -> Option<BTreeSet<StageId>> {
    options.graph.map(|g| g.stages.iter().map(|s| s.id).collect())
}

/// The warning for a base image that is for another platform than asked for. (Only who has the image
/// can know.)
pub fn invalid_base_image_platform(span: Span, image: &str, actual: &str, expected: &str) -> Diagnostic {
    let message = format!(
        "Base image {image} was pulled with platform {actual:?}, expected {expected:?} for current build"
    );
    Diagnostic::warning(span, message).code("InvalidBaseImagePlatform")
}
