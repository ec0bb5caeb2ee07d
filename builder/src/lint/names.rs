//! Lints about how things are written, in every stage, built or not.

use std::collections::BTreeSet;

use super::input::Split;
use super::report::Report;
use crate::ast::{Alias, ArgDeclaration, Instruction, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

pub(super) fn check(split: &Split<'_>, report: &mut Report<'_>) {
    stage_names(split, report);
    instruction_casing(split, report);
    for stage in &split.stages {
        for instruction in stage.body {
            maintainer(instruction, report);
        }
    }
    let froms = split
        .stages
        .iter()
        .flat_map(|s| std::iter::once(s.instruction).chain(s.body));
    for instruction in split.global.iter().chain(froms) {
        description(instruction, report);
    }
}

fn stage_names(split: &Split<'_>, report: &mut Report<'_>) {
    let mut seen = BTreeSet::new();
    for stage in &split.stages {
        let Some(alias) = &stage.from.alias else { continue };
        let mut found = |d: Diagnostic| report.found(d, Some(stage.instruction));
        if alias.written.value != alias.name {
            let message = format!("Stage name '{}' should be lowercase", alias.written.value);
            let warning = warning("StageNameCasing", alias.written.span, message);
            found(warning.suggest(format!("AS {}", alias.name)));
        }
        if let Some(warning) = as_casing(alias, &stage.instruction.keyword.value) {
            found(warning);
        }
        if ["scratch", "context"].contains(&alias.name.as_str()) {
            let message = format!(
                "Stage name should not use the same name as reserved stage {:?}",
                alias.name
            );
            found(warning("ReservedStageName", alias.written.span, message));
        }
        if !seen.insert(&alias.name) {
            let message = format!(
                "Duplicate stage name {:?}, stage names should be unique",
                alias.name
            );
            found(warning("DuplicateStageName", alias.written.span, message));
        }
    }
}

/// A FROM of mixed case has a lint of its own.
fn as_casing(alias: &Alias, from: &str) -> Option<Diagnostic> {
    let wanted = match (is_lower(from), is_upper(from)) {
        (true, _) => alias.keyword.to_lowercase(),
        (_, true) => alias.keyword.to_uppercase(),
        _ => return None,
    };
    let message = format!(
        "'{}' and '{from}' keywords' casing do not match",
        alias.keyword.value
    );
    let warning = warning("FromAsCasing", alias.keyword.span, message).suggest(format!("write {wanted}"));
    (wanted != alias.keyword.value).then_some(warning)
}

fn instruction_casing(split: &Split<'_>, report: &mut Report<'_>) {
    let all = || {
        split
            .stages
            .iter()
            .flat_map(|s| std::iter::once(s.instruction).chain(s.body))
    };
    let lower = all().filter(|i| is_lower(&i.keyword)).count();
    let upper = all().filter(|i| is_upper(&i.keyword)).count();
    let majority = if lower > upper { "lowercase" } else { "uppercase" };
    for instruction in all() {
        let keyword = &instruction.keyword;
        let fits = if lower > upper {
            is_lower(keyword)
        } else {
            is_upper(keyword)
        };
        if !fits {
            let message = format!(
                "Command '{}' should match the case of the command majority ({majority})",
                keyword.value
            );
            let warning = warning("ConsistentInstructionCasing", keyword.span, message);
            report.found(warning, Some(instruction));
        }
    }
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_upper(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_lowercase())
}

fn maintainer(instruction: &Instruction, report: &mut Report<'_>) {
    let InstructionKind::Maintainer(name) = &instruction.kind else {
        return;
    };
    let message = "Maintainer instruction is deprecated in favor of using label";
    let warning = warning(
        "MaintainerDeprecated",
        instruction.keyword.span,
        message.to_owned(),
    );
    let hint = format!(
        "LABEL org.opencontainers.image.authors=\"{}\"",
        name.text.trim_matches('"')
    );
    report.found(warning.suggest(hint), Some(instruction));
}

/// A comment right before ARG or FROM describes what is named there.
fn description(instruction: &Instruction, report: &mut Report<'_>) {
    let keys: Vec<&str> = match &instruction.kind {
        InstructionKind::Arg(declarations) => declarations.iter().map(arg_name).collect(),
        InstructionKind::From(from) => from.alias.iter().map(|a| a.name.as_str()).collect(),
        _ => return,
    };
    let described = instruction
        .comments
        .iter()
        .rfind(|c| crate::parse::parse_check_comment(c).is_none());
    let (Some(comment), Some(first)) = (described, keys.first()) else {
        return;
    };
    if comment.split(' ').next().is_some_and(|word| keys.contains(&word)) {
        return;
    }
    let example = if keys.len() > 1 { "<arg_key>" } else { first };
    let name = instruction.kind.name();
    let message = format!("Comment for {name} should follow the format: `# {example} <description>`");
    let warning = warning("InvalidDefinitionDescription", instruction.keyword.span, message);
    report.found(
        warning.suggest("or put an empty line or comment between the two"),
        Some(instruction),
    );
}

fn arg_name(declaration: &ArgDeclaration) -> &str {
    &declaration.name.value
}

fn warning(code: &'static str, span: Span, message: String) -> Diagnostic {
    Diagnostic::warning(span, message).code(code)
}
