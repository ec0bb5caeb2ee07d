//! Lints about the FROM lines and the global ARGs that they see.

use std::collections::{BTreeMap, BTreeSet};

use box_store::reference::Reference;

use super::input::{LintOptions, Split, StageText};
use super::report::Report;
use crate::ast::{Escape, InstructionKind, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::{expand, expand_word};
use crate::suggest::did_you_mean;

/// ARGs that a FROM may use without declaring them.
const PLATFORM_ARGS: [&str; 10] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETSTAGE",
    "SOURCE_DATE_EPOCH",
];

pub(super) fn check(split: &Split<'_>, escape: Escape, globals: &Globals, report: &mut Report<'_>) {
    for stage in &split.stages {
        undefined(stage, &stage.from.base, escape, globals, report);
        if let Some(platform) = &stage.from.platform {
            undefined(stage, platform, escape, globals, report);
            platform_flag(stage, platform, report);
        }
        default_base(stage, escape, globals, report);
    }
}

/// Global ARGs as they are when the caller gives none.
pub(super) struct Globals {
    pub(super) values: BTreeMap<String, String>,
    declared: BTreeSet<String>,
}

pub(super) fn globals(split: &Split<'_>, escape: Escape, options: &LintOptions<'_>) -> Globals {
    let mut values = options.platform_args.cloned().unwrap_or_default();
    let mut declared: BTreeSet<String> = PLATFORM_ARGS.iter().map(|n| (*n).to_owned()).collect();
    declared.extend(values.keys().cloned());
    for instruction in split.global {
        let InstructionKind::Arg(declarations) = &instruction.kind else {
            continue;
        };
        for declaration in declarations {
            let name = &declaration.name.value;
            declared.insert(name.clone());
            let default = declaration.default.as_ref();
            if let Some(Ok(value)) = default.map(|w| expand_word(&w.text, escape, &values)) {
                values.insert(name.clone(), value);
            }
        }
    }
    Globals { values, declared }
}

fn undefined(stage: &StageText<'_>, word: &Word, escape: Escape, globals: &Globals, report: &mut Report<'_>) {
    let Ok(expansion) = expand(&word.text, escape, &globals.values) else {
        return;
    };
    for name in expansion.missing.difference(&globals.declared) {
        let hint = did_you_mean(name, globals.declared.iter().map(String::as_str));
        let meant = hint.map(|h| format!(" ({h})")).unwrap_or_default();
        let message = format!("FROM argument '{name}' is not declared{meant}");
        let warning = Diagnostic::warning(word.place_of(name), message).code("UndefinedArgInFrom");
        let expected = format!("ARG {name}=… before the first FROM");
        report.found(warning.expected(expected), Some(stage.instruction));
    }
}

fn platform_flag(stage: &StageText<'_>, platform: &Word, report: &mut Report<'_>) {
    let text = platform.text.as_str();
    if ["$TARGETPLATFORM", "${TARGETPLATFORM}"].contains(&text) {
        let message = format!(
            "Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
        );
        let warning = Diagnostic::warning(platform.span, message).code("RedundantTargetPlatform");
        report.found(warning.suggest("leave --platform out"), Some(stage.instruction));
    }
    // A stage that is named after its platform is meant to have just that one.
    let name = stage.from.alias.as_ref().map_or("", |a| a.name.as_str());
    let meant = text
        .split('/')
        .take(2)
        .any(|part| !part.is_empty() && name.contains(part));
    if !text.contains('$') && !meant {
        let message = format!("FROM --platform flag should not use constant value {text:?}");
        let warning = Diagnostic::warning(platform.span, message).code("FromPlatformFlagConstDisallowed");
        let hint = "choose the platform when building, or name the stage after it";
        report.found(warning.suggest(hint), Some(stage.instruction));
    }
}

/// Whether FROM makes sense when the caller gives no ARGs.
fn default_base(stage: &StageText<'_>, escape: Escape, globals: &Globals, report: &mut Report<'_>) {
    let base = &stage.from.base;
    if !base.text.contains('$') {
        return;
    }
    let Ok(name) = expand_word(&base.text, escape, &globals.values) else {
        return;
    };
    if is_plausible(&name) {
        return;
    }
    let message = format!(
        "Default value for ARG {} results in empty or invalid base image name",
        base.text
    );
    let warning = Diagnostic::warning(base.span, message).code("InvalidDefaultArgInFrom");
    report.found(
        warning.expected("an ARG with a default before the first FROM"),
        Some(stage.instruction),
    );
}

/// Whether a name could be a base: an image's reference, or one of the forms that a Boxfile adds.
fn is_plausible(name: &str) -> bool {
    let added = ["./", "../", "/", "http://", "https://", "oci:"];
    added.iter().any(|p| name.starts_with(p)) || Reference::parse(name).is_ok()
}
