//! The parser's tables of the corpus, and the Boxfiles of its build cases.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::flags::{FlagKind, parse_flags, split_flags};
use super::super::heredoc::{parse_tag, tags_of};
use super::super::words::{Json, json_array, split_words};
use super::{dump, try_parse};
use crate::ast::{CopySource, Escape, Instruction, InstructionKind, RunCommand};
use crate::corpus::{self, equal, strings};
use crate::diagnostic::Diagnostic;
use crate::graph::{GraphOptions, StageGraph};

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

fn messages(errors: &[Diagnostic]) -> String {
    errors
        .iter()
        .map(|e| e.message.as_str())
        .collect::<Vec<_>>()
        .join("; ")
}

fn instructions(source: &str) -> Result<Vec<Instruction>, String> {
    try_parse(source)
        .map(|f| f.instructions)
        .map_err(|e| messages(&e))
}

#[test]
fn ast_dump() {
    let differences = [(
        "ast-health",
        "has HEALTHCHECK lines without command or with an unknown type, which Docker refuses one step later and we at once",
    )];
    corpus::check("parser__ast_dump", &differences, |case| {
        let got: Vec<String> = instructions(text(case, "dockerfile"))?
            .iter()
            .map(dump::line)
            .collect();
        equal(got.join("\n").as_str(), text(case, "ast_dump").trim_end())
    });
}

#[test]
fn directives() {
    let differences = [
        (
            "directives-008",
            "syntax directives in // comments are for other languages than this",
        ),
        ("directives-009", "a JSON object is no Boxfile"),
        (
            "directives-017",
            "names a foreign frontend, which is refused by name",
        ),
    ];
    corpus::check("parser__directives", &differences, |case| {
        let source = format!("{}\nFROM x\n", text(case, "dockerfile"));
        let parsed = try_parse(&source);
        let found = match text(case, "function") {
            "all directives" => {
                let escape = parsed
                    .map_err(|e| messages(&e))?
                    .directives
                    .escape
                    .as_char()
                    .to_string();
                return equal(escape.as_str(), case["expect"][0]["value"].as_str().unwrap());
            }
            "detect syntax" => parsed.map(|f| f.directives.syntax.map(|s| (s.value.clone(), s.span.line))),
            _ => parsed.map(|f| {
                f.directives
                    .check
                    .map(|c| (format!("skip={}", c.skip.join(",")), c.span.line))
            }),
        };
        // What is no Boxfile at all has no directive either.
        let found = found.unwrap_or_default();
        let want = case["found"].as_bool().unwrap();
        equal(found.is_some(), want)?;
        match found {
            Some((value, line)) => {
                equal(value.as_str(), text(case, "value"))?;
                equal(Some(u64::from(line)), case["line"].as_u64())
            }
            None => Ok(()),
        }
    });
}

#[test]
fn flags() {
    corpus::check("parser__flags", &[], |case| {
        let declared: BTreeMap<String, String> = serde_json::from_value(case["declared"].clone()).unwrap();
        let known: Vec<(&'static str, FlagKind)> = declared
            .iter()
            .map(|(name, kind)| {
                let kind = if kind.starts_with("bool") {
                    FlagKind::Bool
                } else {
                    FlagKind::Text
                };
                (&*name.clone().leak(), kind)
            })
            .collect();
        let line: Vec<String> = strings(&case["args"]).iter().map(|a| format!("'{a}'")).collect();
        let (raw, _) = split_flags(&line.join(" ").replace("'--", "--'"));
        let flags = parse_flags(&raw, known.leak());
        equal(flags.is_ok(), case["ok"].as_bool().unwrap())?;
        let flags = flags.unwrap_or_default();
        let value = |name: &str| flags.iter().find(|f| f.name == name).map(|f| f.value.clone());
        for (name, want) in case["values"].as_object().into_iter().flatten() {
            let want = want.as_str().map_or_else(|| want.to_string(), str::to_owned);
            let default = declared[name].split_once('=').map_or("", |(_, d)| d).to_owned();
            equal(value(name).unwrap_or(default), want)?;
        }
        match case["used"].is_array() {
            true => equal(
                flags.iter().map(|f| f.name.to_owned()).collect(),
                strings(&case["used"]),
            ),
            false => Ok(()),
        }
    });
}

#[test]
fn heredoc_words() {
    corpus::check("parser__heredoc_words", &[], |case| {
        if let Some(line) = case["line"].as_str() {
            let names = tags_of(line).map_err(|(e, _)| e.to_string())?;
            return equal(
                names.into_iter().map(|(t, _)| t.name).collect(),
                strings(&case["names"]),
            );
        }
        match parse_tag(text(case, "input")) {
            Ok(Some(tag)) => equal(Some(tag.name.as_str()), case["name"].as_str()),
            Ok(None) => equal("not a heredoc", text(case, "expect")),
            Err(_) => equal("error", text(case, "expect")),
        }
    });
}

#[test]
fn heredoc_extract() {
    corpus::check("parser__heredoc_extract", &[], |case| {
        let all = instructions(text(case, "dockerfile"))?;
        let wanted = case["heredocs_of_instruction_after_FROM"].as_array().unwrap();
        equal(all.len() - 1, wanted.len())?;
        for (instruction, want) in all.iter().skip(1).zip(wanted) {
            equal(
                heredocs(instruction),
                if want.is_null() { Vec::new() } else { names(want) },
            )?;
        }
        Ok(())
    });
}

fn heredocs(instruction: &Instruction) -> Vec<String> {
    match &instruction.kind {
        InstructionKind::Run(run) => run.heredocs.iter().map(|h| h.name.clone()).collect(),
        _ => Vec::new(),
    }
}

fn names(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|h| text(h, "name").to_owned())
        .collect()
}

#[test]
fn instruction_errors() {
    corpus::check("parser__instruction_errors", &[], |case| {
        match (
            instructions(text(case, "dockerfile")),
            case["error_contains"].as_str(),
        ) {
            (Err(got), Some(want)) if got.contains(want) => Ok(()),
            (Ok(_), None) => Ok(()),
            (got, _) => Err(format!("{got:?}")),
        }
    });
}

#[test]
fn instructions_with_heredocs() {
    corpus::check("parser__instructions_heredoc", &[], |case| {
        let parsed = instructions(text(case, "dockerfile"));
        if let Some(want) = case["error"].as_str() {
            let got = parsed.err().unwrap_or_default();
            return if got.contains(want) { Ok(()) } else { Err(got) };
        }
        match &parsed?[0].kind {
            InstructionKind::Copy(copy) => {
                equal(copy.destination.text.as_str(), text(case, "dest"))?;
                let paths = copy.sources.iter().filter_map(|s| match s {
                    CopySource::Path(w) => Some(w.text.clone()),
                    CopySource::Inline(_) => None,
                });
                equal(paths.collect(), strings(&case["source_paths"]))?;
                let inline = copy.sources.iter().filter_map(|s| match s {
                    CopySource::Inline(h) => Some(format!("{} {:?} {}", h.name, text_of(h.data()), h.expand)),
                    CopySource::Path(_) => None,
                });
                let want = case["source_contents"].as_array().into_iter().flatten();
                let want = want.map(|c| format!("{} {:?} {}", text(c, "path"), text(c, "data"), c["expand"]));
                equal(inline.collect::<Vec<_>>(), want.collect())
            }
            InstructionKind::Run(run) => {
                let files = run
                    .heredocs
                    .iter()
                    .map(|h| format!("{} {:?}", h.name, text_of(h.raw.clone())));
                let want = case["files"].as_array().into_iter().flatten();
                let want = want.map(|f| format!("{} {:?}", text(f, "name"), text(f, "data")));
                equal(files.collect::<Vec<_>>(), want.collect())?;
                match &run.command {
                    RunCommand::Exec(words) => equal(words.clone(), strings(&case["command"])),
                    _ => equal(Some(true), case["shell_form"].as_bool()),
                }
            }
            other => Err(format!("{other:?}")),
        }
    });
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn json_arrays() {
    corpus::check("parser__json_arrays", &[], |case| {
        match json_array(text(case, "input")) {
            Json::Strings(pieces) => equal(
                pieces.into_iter().map(|p| p.text.into_owned()).collect(),
                strings(&case["expect"]),
            ),
            Json::OtherTypes | Json::No => equal(case["error"].is_string(), true),
        }
    });
}

#[test]
fn line_numbers() {
    corpus::check("parser__line_numbers", &[], |case| {
        let all = instructions(text(case, "dockerfile"))?;
        let got: Vec<Value> = all
            .iter()
            .map(|i| serde_json::json!([i.lines.0, i.lines.1]))
            .collect();
        equal(&Value::Array(got), &case["instruction_lines"])
    });
}

#[test]
fn negative() {
    corpus::check("parser__negative", &[], |case| {
        equal(instructions(text(case, "dockerfile")).is_err(), true)
    });
}

#[test]
fn warnings() {
    corpus::check("parser__warnings", &[], |case| {
        let parsed = try_parse(text(case, "dockerfile")).map_err(|e| messages(&e))?;
        equal(
            Some(parsed.warnings.len() as u64),
            case["warnings_count"].as_u64(),
        )
    });
}

#[test]
fn words() {
    corpus::check("parser__words", &[], |case| {
        let got = split_words(text(case, "input"), Escape::Backslash);
        equal(
            got.map(|p| p.text.into_owned()).collect(),
            strings(&case["expect"]),
        )
    });
}

/// Failures of the build cases that are the Boxfile's own, and so show when it is read.
const FAIL_EARLY: [&str; 27] = [
    "bh-bud-build-validates-bind-bind-propagation",
    "bh-bud-build-with-inline-RUN-network-fake",
    "bh-bud-multi-stage-COPY-with-invalid-from-statement",
    "bh-bud-unrecognized-instruction",
    "bh-bud-with-CMD-and-empty-RUN",
    "bh-bud-with-ENTRYPOINT-CMD-and-empty-RUN",
    "bh-bud-with-ENTRYPOINT-and-empty-RUN",
    "bh-bud-with-chmod-copy-with-bad-chmod-flag-in-Dockerfile-with-layer",
    "bh-bud-with-chown-add-with-bad-chown-flag-in-Dockerfile-with-layers",
    "bh-bud-with-chown-copy-with-bad-chown-flag-in-Dockerfile-with-layer",
    "bh-bud-with-copy-from-referencing-the-current-stage",
    "bh-bud-with-copy-from-with-bad-from-flag-in-Dockerfile-with-layers",
    "bh-bud-with-mount-bind-from-with-empty-from-like-buildkit",
    "bk-add-AddInvalidChmod-2",
    "bk-copy-CopyInvalidChmod-1",
    "bk-core-TargetMistype",
    "bk-errors-invalidenv",
    "bk-errors-invalidflag",
    "bk-llb-blank-var-base",
    "bk-llb-circular-self",
    "bk-llb-copy-url",
    "bk-llb-empty-base",
    "bk-llb-target-missing",
    "bk-mount-MountInvalid-2",
    "bk-mount-MountInvalid-3",
    "ib-file-badhealthcheck",
    "ib-file-unknown",
];

#[test]
fn build_cases() {
    let Some(folder) = corpus::folder() else { return };
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut failures_found = Vec::new();
    for entry in std::fs::read_dir(folder.join("build")).unwrap() {
        let case: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let (id, expected) = (
            text(&case, "id").to_owned(),
            text(&case["expected"], "result").to_owned(),
        );
        let errors = step_errors(&case);
        *counts.entry((expected.clone(), errors.is_empty())).or_insert(0) += 1;
        if expected == "success" && !errors.is_empty() {
            wrong.push(format!("{id}: {}", errors.join("; ")));
        } else if expected == "failure" && !errors.is_empty() {
            failures_found.push(id);
        }
    }
    failures_found.sort();
    eprintln!("build cases by (expected, accepted): {counts:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let early = FAIL_EARLY.iter().map(|id| (*id).to_owned());
    assert_eq!(
        early
            .filter(|id| !failures_found.contains(id))
            .collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

fn platform_args() -> BTreeMap<String, String> {
    let values = [
        ("PLATFORM", "linux/amd64"),
        ("OS", "linux"),
        ("ARCH", "amd64"),
        ("VARIANT", ""),
    ];
    let named = |side: &str| values.map(|(name, value)| (format!("{side}{name}"), value.to_owned()));
    named("BUILD").into_iter().chain(named("TARGET")).collect()
}

/// What is wrong with the Boxfiles of a case's steps.
fn step_errors(case: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for step in case["steps"].as_array().into_iter().flatten() {
        let name = step["dockerfile"].as_str().unwrap_or("Dockerfile");
        let files = step["context"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter();
        let mut found = files.rev();
        let found = found.find(|f| text(f, "path") == name && f["content"].is_string());
        let Some(source) = found.and_then(|f| f["content"].as_str()) else {
            continue;
        };
        let options = &step["options"];
        let options = GraphOptions {
            until: None,
            target: options["target"].as_str().map(str::to_owned),
            build_args: serde_json::from_value(options["build_args"].clone()).unwrap_or_default(),
            platform_args: platform_args(),
            contexts: options["build_contexts"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, _)| k.clone())
                .collect(),
        };
        match try_parse(source) {
            Err(e) => errors.push(messages(&e)),
            Ok(file) => errors.extend(StageGraph::new(&file, &options).err().map(|e| messages(&e))),
        }
    }
    errors
}
