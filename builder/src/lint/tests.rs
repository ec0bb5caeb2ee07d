use serde_json::Value;

use super::*;
use crate::corpus::{self, equal};
use crate::graph::{GraphOptions, StageGraph};
use crate::ignore::IgnoreRules;
use crate::parse::{parse, parse_check_comment};
use crate::source::Source;

/// What Docker's test suite has as images.
fn base_env(_: &str) -> Option<Vec<(String, String)>> {
    Some(Vec::new())
}

fn findings(case: &Value, whole: bool) -> Result<Vec<(String, String, u64)>, String> {
    let text = case["dockerfile"].as_str().unwrap();
    let file = parse(&Source::new("Boxfile", text.as_bytes())).map_err(|e| format!("{e:?}"))?;
    let ignore = case["dockerignore"]
        .as_str()
        .map(|t| IgnoreRules::parse(t.as_bytes()).unwrap());
    let attributes = case["frontend_attrs"].as_object();
    let attribute = |name: &str| attributes.and_then(|a| a.get(name)).and_then(Value::as_str);
    let check = attribute("build-arg:BUILDKIT_DOCKERFILE_CHECK");
    let check = check.and_then(|c| parse_check_comment(&format!("check={c}")));
    let args = attributes.into_iter().flatten().filter_map(|(k, v)| {
        k.strip_prefix("build-arg:")
            .map(|name| (name.to_owned(), v.as_str().unwrap().to_owned()))
    });
    let options = GraphOptions {
        build_args: args.collect(),
        ..GraphOptions::default()
    };
    let graph = StageGraph::new(&file, &options).ok();
    let options = LintOptions {
        graph: graph.as_ref().filter(|_| !whole),
        ignore: ignore.as_ref(),
        base_env: Some(&base_env),
        check: check.as_ref(),
        ..LintOptions::default()
    };
    let found = lint(&file, &options).into_iter();
    Ok(found
        .map(|d| (d.code.unwrap().to_owned(), d.message, u64::from(d.span.line)))
        .collect())
}

fn wanted(list: &Value) -> Vec<(String, String, u64)> {
    let text = |w: &Value, key: &str| w[key].as_str().unwrap().to_owned();
    let list = list.as_array().into_iter().flatten();
    list.map(|w| (text(w, "rule"), text(w, "detail"), w["line"].as_u64().unwrap()))
        .collect()
}

#[test]
fn corpus_checks() {
    let differences = [
        (
            "lint-NoEmptyContinuation-1",
            "we point at the empty line itself, not at the instruction's last",
        ),
        (
            "lint-MultipleInstructionsDisallowed-2",
            "upstream's own test expects three warnings here; the table has lost them",
        ),
        (
            "lint-LegacyKeyValueFormat-3",
            "the table's lines are those of another text, without blank lines",
        ),
    ];
    corpus::check("lint__build_checks", &differences, |case| {
        let mut got = findings(case, false)?;
        let mut want = wanted(&case["warnings"]);
        got.sort();
        want.sort();
        equal(got, want)?;
        if case["warnings_check_all_targets"].is_array() {
            equal(findings(case, true)?, wanted(&case["warnings_check_all_targets"]))?;
        }
        Ok(())
    });
}

#[test]
fn finds() {
    let check = |text: &str, want: &[&str]| {
        let file = parse(&Source::new("Boxfile", text.as_bytes())).unwrap();
        let ignore = IgnoreRules::from_patterns(["secret"]).unwrap();
        let options = LintOptions {
            ignore: Some(&ignore),
            ..LintOptions::default()
        };
        let got = lint(&file, &options);
        assert_eq!(
            got.iter().filter_map(|d| d.code).collect::<Vec<_>>(),
            want,
            "{text}"
        );
    };
    check("FROM scratch AS Build", &["StageNameCasing"]);
    check(
        "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]",
        &["MultipleInstructionsDisallowed"],
    );
    check("FROM scratch\nWORKDIR a", &["WorkdirRelativePath"]);
    check("FROM scratch\nWORKDIR /a\nWORKDIR b", &[]);
    check("FROM scratch\nCOPY ./secret/x /", &[]);
    check(
        "# check=experimental=CopyIgnoredFile\nFROM scratch\nCOPY ./secret/x /",
        &["CopyIgnoredFile"],
    );
    check(
        "# check=experimental=all\nFROM scratch\nCOPY .secret ./sub/secret /",
        &[],
    );
    check("FROM scratch\nEXPOSE 127.0.0.1:80:80", &["ExposeInvalidFormat"]);
    check("FROM scratch\nEXPOSE 80/TCP", &["ExposeProtoCasing"]);
    check(
        "FROM --platform=$TARGETPLATFORM scratch",
        &["RedundantTargetPlatform"],
    );
    check(
        "FROM --platform=${TARGETPLATFORM} scratch",
        &["RedundantTargetPlatform"],
    );
    check("FROM scratch\nENV a=${b:-c} d=${http_proxy}", &[]);
    check("FROM scratch\nENV a=$b", &["UndefinedVar"]);
    check("FROM unknown\nENV a=$b", &[]);
    check("FROM unknown\nENV PATH=$PAHT", &["UndefinedVar"]);
    check(
        "FROM scratch\nENV a $b",
        &["LegacyKeyValueFormat", "UndefinedVar"],
    );
    check("FROM scratch\nSHELL [\"/x\"]\nCMD x", &[]);
    check("FROM scratch AS a\nSHELL [\"/x\"]\nFROM a\nENTRYPOINT x", &[]);
}
