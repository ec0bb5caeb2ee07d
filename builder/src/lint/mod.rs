//! The checks of `box build --check`, which are warnings of a build, too.
//!
//! Each has Docker's name and Docker's words, so that a search for them finds help. They need no base
//! image; where one is known ([`LintOptions::base_env`]), fewer undefined variables slip through.

mod names;
mod report;
mod stages;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Boxfile, Check, From, Instruction, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::graph::{StageGraph, StageId};
use crate::ignore::IgnoreRules;
use crate::source::Span;
use report::Report;

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

/// Lints that are tried only where `# check=experimental=NAME` asks for them.
pub const EXPERIMENTAL: [&str; 2] = ["CopyIgnoredFile", "InvalidDefinitionDescription"];

/// The environment of an image by its name in FROM; `None` where it is not at hand.
pub type BaseEnv<'a> = dyn Fn(&str) -> Option<Vec<(String, String)>> + 'a;

/// What is known beside the Boxfile.
#[derive(Clone, Copy, Default)]
pub struct LintOptions<'a> {
    /// The stages that are built, where they could be resolved; unset: every stage is checked whole.
    pub graph: Option<&'a StageGraph>,
    /// The context's ignore rules.
    pub ignore: Option<&'a IgnoreRules>,
    /// Predefined global ARGs (`TARGETPLATFORM`, …).
    pub platform_args: Option<&'a BTreeMap<String, String>>,
    /// The environment of an image named in FROM, where it is at hand.
    pub base_env: Option<&'a BaseEnv<'a>>,
    /// Over the file's own `# check=`.
    pub check: Option<&'a Check>,
}

/// One stage as it stands in the Boxfile.
struct StageText<'a> {
    id: StageId,
    from: &'a From,
    instruction: &'a Instruction,
    /// What follows its FROM.
    body: &'a [Instruction],
}

/// A Boxfile cut at its FROMs.
struct Split<'a> {
    global: &'a [Instruction],
    stages: Vec<StageText<'a>>,
}

fn split(boxfile: &Boxfile) -> Split<'_> {
    let all = &boxfile.instructions;
    let is_from = |i: &Instruction| matches!(i.kind, InstructionKind::From(_));
    let starts: Vec<usize> = (0..all.len()).filter(|i| is_from(&all[*i])).collect();
    let ends = starts.iter().skip(1).copied().chain([all.len()]);
    let stage = |(id, (start, end)): (usize, (usize, usize))| match &all[start].kind {
        InstructionKind::From(from) => Some(StageText {
            id: StageId(id),
            from,
            instruction: &all[start],
            body: &all[start + 1..end],
        }),
        _ => None,
    };
    let stages = starts
        .iter()
        .copied()
        .zip(ends)
        .enumerate()
        .filter_map(stage)
        .collect();
    Split {
        global: &all[..starts.first().copied().unwrap_or(all.len())],
        stages,
    }
}

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
