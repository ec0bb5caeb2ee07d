//! Diagnostics as a user reads them: each file of `tests/diagnostics` holds a Boxfile, a line of dashes,
//! and what is said about it. `BOX_UPDATE=1 cargo test -p box-builder --test diagnostics` writes the
//! second parts anew; read the difference before it is committed.

use std::collections::BTreeMap;
use std::path::Path;

use box_builder::diagnostic::Diagnostic;
use box_builder::graph::{GraphOptions, StageGraph};
use box_builder::ignore::IgnoreRules;
use box_builder::lint::{LintOptions, lint};
use box_builder::parse::parse;
use box_builder::source::{Source, Sources};

const RULE: &str = "----------\n";

#[test]
fn read_well() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let update = std::env::var_os("BOX_UPDATE").is_some();
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (input, want) = text.split_once(RULE).unwrap_or((&text, ""));
        let got = diagnose(input);
        count += 1;
        if update {
            std::fs::write(&path, format!("{input}{RULE}{got}")).unwrap();
        } else if got != want {
            wrong.push(format!("{}\n--- want\n{want}--- got\n{got}", path.display()));
        }
    }
    assert!(count >= 40, "only {count} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Errors, or else lints.
fn diagnose(input: &str) -> String {
    let source = Source::new("Boxfile", input.as_bytes());
    let sources = Sources::single(source.clone());
    let file = match parse(&source) {
        Ok(file) => file,
        Err(errors) => return render(&errors, &sources),
    };
    let platforms = [
        ("BUILDPLATFORM", "linux/amd64"),
        ("TARGETPLATFORM", "linux/amd64"),
    ];
    let platform_args: BTreeMap<String, String> = platforms.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let target = input
        .lines()
        .find_map(|l| l.strip_prefix("# target: "))
        .map(str::to_owned);
    let options = GraphOptions {
        target,
        platform_args: platform_args.clone(),
        ..GraphOptions::default()
    };
    let graph = match StageGraph::new(&file, &options) {
        Ok(graph) => graph,
        Err(errors) => return render(&errors, &sources),
    };
    let ignore = IgnoreRules::parse(b"*.log\nsecret\n").ok();
    let options = LintOptions {
        graph: Some(&graph),
        ignore: ignore.as_ref(),
        platform_args: Some(&platform_args),
        ..LintOptions::default()
    };
    render(&lint(&file, &options), &sources)
}

fn render(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    diagnostics.iter().map(|d| d.render(sources)).collect()
}
