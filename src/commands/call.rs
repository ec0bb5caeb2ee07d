//! `box build --call`: what a Boxfile says, without a build. The JSON has the form that Docker's has.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use box_builder::diagnostic::Diagnostic;
use box_builder::request::BuildRequest;
use box_builder::source::{Source, Sources, Span};
use box_builder::survey::{self, Checked, Outline, OutlineMount, Target};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::cli::{Call, Method};
use crate::error::{EXIT_INPUT, Failure};
use crate::ui;

use super::build::failure;

/// Answers on standard output; returns the exit code.
pub(super) fn run(app: &App, request: &BuildRequest, call: Call) -> Result<u8, Failure> {
    let failed = |error| failure(&error, 0);
    match call.method {
        Method::Check => check(&survey::check(&app.store, request).map_err(failed)?, call),
        Method::Outline => {
            let outline = survey::outline(&app.store, request).map_err(failed)?;
            match call.is_json {
                true => ui::json(&outline_json(&outline))?,
                false => ui::result(&outline_text(&outline))?,
            }
            Ok(0)
        }
        Method::Targets => {
            let (targets, sources) = survey::targets(&app.store, request).map_err(failed)?;
            match call.is_json {
                true => ui::json(&targets_json(&targets, &sources))?,
                false => ui::result(&targets_text(&targets))?,
            }
            Ok(0)
        }
        Method::Build => Ok(0),
    }
}

/// As with Docker, findings make the exit code 1, so that a script sees them.
fn check(checked: &Checked, call: Call) -> Result<u8, Failure> {
    let is_clean = checked.warnings.is_empty() && checked.errors.is_empty();
    match call.is_json {
        true => ui::json(&check_json(checked))?,
        false => ui::result(&check_text(checked))?,
    }
    Ok(if is_clean || call.ignores_status {
        0
    } else {
        EXIT_INPUT
    })
}

fn check_text(checked: &Checked) -> String {
    let all = checked.errors.iter().chain(&checked.warnings);
    let mut text: String = all
        .map(|found| ui::human::printable(&found.render(&checked.sources)) + "\n")
        .collect();
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what} has been found!"),
        number => format!("{number} {what}s have been found!"),
    };
    let (errors, warnings) = (checked.errors.len(), checked.warnings.len());
    let said = match (errors, warnings) {
        (0, 0) => "no warnings found.".to_owned(),
        (0, warnings) => count(warnings, "warning"),
        (errors, 0) => count(errors, "error"),
        (errors, warnings) => format!("{} {}", count(errors, "error"), count(warnings, "warning")),
    };
    text.push_str(&format!("Check complete, {said}\n"));
    text
}

fn check_json(checked: &Checked) -> Value {
    let warning = |found: &Diagnostic| {
        let rule = found.code.unwrap_or_default();
        json!({
            "ruleName": rule,
            "url": format!("https://docs.docker.com/go/dockerfile/rule/{}/", kebab(rule)),
            "detail": found.message,
            "location": location(found.span),
        })
    };
    let mut object = Map::new();
    let warnings: Vec<Value> = checked.warnings.iter().map(warning).collect();
    object.insert("warnings".to_owned(), warnings.into());
    object.insert("sources".to_owned(), source_infos(&checked.sources).into());
    let rules: Vec<&str> = checked.warnings.iter().filter_map(|found| found.code).collect();
    let error = match (checked.errors.first(), checked.warnings.first()) {
        (Some(error), _) => Some((error.message.clone(), error.span)),
        (None, Some(first)) if checked.warnings_are_errors => Some((
            format!("lint violation found for rules: {}", rules.join(", ")),
            first.span,
        )),
        _ => None,
    };
    if let Some((message, span)) = error {
        let error = json!({"message": message, "location": location(span)});
        object.insert("buildError".to_owned(), error);
    }
    Value::Object(object)
}

/// `StageNameCasing` → `stage-name-casing`; capitals in a row are one word.
fn kebab(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let follows_small = at > 0 && letters[at - 1].is_lowercase();
        let begins_word = at > 0 && letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (follows_small || begins_word) {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Lines count from 1, characters from 0.
fn location(span: Span) -> Value {
    let start = span.column.saturating_sub(1);
    let mut location = json!({"ranges": [{
        "start": {"line": span.line, "character": start},
        "end": {"line": span.line, "character": start.saturating_add(span.len)},
    }]});
    if span.file.0 > 0 {
        location["sourceIndex"] = span.file.0.into();
    }
    location
}

fn all(sources: &Sources) -> impl Iterator<Item = &Source> {
    let ids = (0..sources.len()).filter_map(|id| u16::try_from(id).ok());
    ids.filter_map(|id| sources.get(box_builder::source::FileId(id)))
}

fn source_infos(sources: &Sources) -> Vec<Value> {
    let info = |source: &Source| json!({"filename": source.name(), "language": "Dockerfile", "data": STANDARD.encode(source.bytes())});
    all(sources).map(info).collect()
}

fn source_texts(sources: &Sources) -> Vec<Value> {
    all(sources)
        .map(|source| STANDARD.encode(source.bytes()).into())
        .collect()
}

/// An object of what is there.
fn object(fields: Vec<(&str, Option<Value>)>) -> Value {
    let fields = fields.into_iter();
    let there = fields.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect())
}

fn text(text: Option<&String>) -> Option<Value> {
    text.map(|text| text.as_str().into())
}

fn outline_json(outline: &Outline) -> Value {
    let args = outline.args.iter().map(|arg| {
        object(vec![
            ("name", Some(arg.name.as_str().into())),
            ("description", text(arg.description.as_ref())),
            ("value", text(arg.value.as_ref())),
            ("location", Some(location(arg.span))),
        ])
    });
    let mounts = |mounts: &[OutlineMount], key: &str| {
        let mount = |mount: &OutlineMount| {
            object(vec![
                (key, Some(mount.id.as_str().into())),
                ("required", mount.required.then_some(true.into())),
                ("location", Some(location(mount.span))),
            ])
        };
        let all: Vec<Value> = mounts.iter().map(mount).collect();
        (!all.is_empty()).then_some(Value::Array(all))
    };
    let args: Vec<Value> = args.collect();
    object(vec![
        ("name", text(outline.name.as_ref())),
        ("description", text(outline.description.as_ref())),
        ("args", (!args.is_empty()).then_some(args.into())),
        ("secrets", mounts(&outline.secrets, "name")),
        ("ssh", mounts(&outline.ssh, "name")),
        ("cache", mounts(&outline.caches, "ID")),
        ("sources", Some(source_texts(&outline.sources).into())),
    ])
}

fn outline_text(outline: &Outline) -> String {
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut out = String::new();
    if outline.name.is_some() {
        out.push_str(&format!("TARGET:      {}\n", some(&outline.name)));
        if outline.description.is_some() {
            out.push_str(&format!("DESCRIPTION: {}\n", some(&outline.description)));
        }
        out.push('\n');
    }
    let args = outline.args.iter();
    let args = args.map(|arg| vec![arg.name.clone(), some(&arg.value), some(&arg.description)]);
    table(&mut out, &["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect());
    let required = |mount: &OutlineMount| {
        let required = if mount.required { "true" } else { "" };
        vec![mount.id.clone(), required.to_owned()]
    };
    let secrets = outline.secrets.iter().map(required).collect();
    table(&mut out, &["SECRET", "REQUIRED"], secrets);
    table(
        &mut out,
        &["SSH", "REQUIRED"],
        outline.ssh.iter().map(required).collect(),
    );
    let caches = outline.caches.iter().map(|mount| vec![mount.id.clone()]);
    table(&mut out, &["CACHE MOUNT"], caches.collect());
    out
}

/// A table with an empty line after it, if it has rows.
fn table(out: &mut String, head: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    out.push_str(&ui::table::render(head, &rows));
    out.push('\n');
}

fn targets_json(targets: &[Target], sources: &Sources) -> Value {
    let target = |target: &Target| {
        object(vec![
            ("name", text(target.name.as_ref())),
            ("default", target.is_default.then_some(true.into())),
            ("description", text(target.description.as_ref())),
            ("base", Some(target.base.as_str().into())),
            ("platform", text(target.platform.as_ref())),
            ("location", Some(location(target.span))),
        ])
    };
    let targets: Vec<Value> = targets.iter().map(target).collect();
    json!({"targets": targets, "sources": source_texts(sources)})
}

/// Targets without a name can't be asked for, but by number; the last one can.
fn targets_text(targets: &[Target]) -> String {
    let named = targets
        .iter()
        .filter(|target| target.name.is_some() || target.is_default);
    let row = |target: &Target| {
        let name = match (&target.name, target.is_default) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.clone(),
            (None, _) => "(default)".to_owned(),
        };
        vec![name, target.description.clone().unwrap_or_default()]
    };
    let mut out = String::new();
    table(&mut out, &["TARGET", "DESCRIPTION"], named.map(row).collect());
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn rules_have_pages() {
        let cases = [
            ("StageNameCasing", "stage-name-casing"),
            ("JSONArgsRecommended", "json-args-recommended"),
            ("UndefinedArgInFrom", "undefined-arg-in-from"),
            ("UndefinedVar", "undefined-var"),
        ];
        for (name, page) in cases {
            assert_eq!(super::kebab(name), page);
        }
    }
}
