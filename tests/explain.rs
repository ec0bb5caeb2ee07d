//! `box build --explain`, `box plan` and `box context ls` as people and programs see them.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Bench, sh, text};
use serde_json::Value;

const BOXFILE: &str = "FROM busybox AS work\nENV A=1\nCOPY src /src\nRUN cat /src/a > /a\n\
                       FROM busybox\nCOPY --from=work /a /a\nRUN cat /a > /b\n";

fn context(bench: &Bench) -> std::path::PathBuf {
    bench.context("c", &[("Boxfile", BOXFILE), ("src/a", "1\n"), ("src/b", "2\n")])
}

fn plan(bench: &Bench, context: &Path, extra: &[&str]) -> Value {
    let mut command = bench.command(["plan", "--network", "none", "--format", "json"]);
    let output = command.args(extra).arg(context).output().unwrap();
    serde_json::from_str(&common::success(output)).unwrap()
}

/// `STAGE/INDEX verdict` of every step.
fn verdicts(plan: &Value) -> Vec<String> {
    let steps = plan.as_array().unwrap().iter();
    let words = steps.map(|step| {
        format!(
            "{}/{} {}",
            step["stage"],
            step["index"],
            step["verdict"].as_str().unwrap()
        )
    });
    words.collect()
}

/// Every file of a store with its bytes, but for locks.
fn snapshot(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(store).into_iter().map(Result::unwrap);
    files
        .filter(|entry| entry.file_type().is_file() && !entry.path().starts_with(store.join("tmp")))
        .map(|entry| {
            (
                entry.path().display().to_string(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_plan_is_what_a_build_does() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let before = snapshot(&bench.store());
    let cold = plan(&bench, &context, &[]);
    assert_eq!(
        verdicts(&cold),
        all(&[
            "0/1 nothing",
            "0/2 nothing",
            "0/3 miss",
            "0/4 miss",
            "1/1 nothing",
            "1/2 depends",
            "1/3 miss"
        ]),
        "{cold:#}"
    );
    assert_eq!(cold[5]["on"], "stage work");
    assert_eq!(cold[2]["why"]["cause"], "new");
    assert!(before == snapshot(&bench.store()), "a plan has written something");
    bench.ok(["build", "-q", "--network", "none", context.to_str().unwrap()]);

    let warm = plan(&bench, &context, &[]);
    let hits = verdicts(&warm)
        .iter()
        .filter(|word| word.ends_with("hit"))
        .count();
    assert_eq!(hits, 4, "{warm:#}");
    let none = plan(&bench, &context, &["--no-cache"]);
    assert_eq!(none[2]["why"]["cause"], "no_cache");

    // After a miss it is not known what follows: it may be early cutoff.
    std::fs::write(context.join("src/b"), "3\n").unwrap();
    let before = snapshot(&bench.store());
    let changed = plan(&bench, &context, &[]);
    assert_eq!(
        verdicts(&changed),
        all(&[
            "0/1 nothing",
            "0/2 nothing",
            "0/3 miss",
            "0/4 depends",
            "1/1 nothing",
            "1/2 depends",
            "1/3 depends"
        ]),
        "{changed:#}"
    );
    assert_eq!(changed[2]["text"], "miss: `src/b` changed");
    assert_eq!(changed[2]["line"], 3);
    let difference = &changed[2]["why"]["differences"][0];
    assert_eq!(
        (difference["kind"].as_str(), difference["path"].as_str()),
        (Some("file"), Some("src/b"))
    );
    assert!(before == snapshot(&bench.store()), "a plan has written something");
    let text = bench.ok(["plan", "--network", "none", context.to_str().unwrap()]);
    assert!(
        text.contains("[work 3/4]") && text.contains("`src/b` changed (nearest run: "),
        "{text}"
    );
    assert!(
        text.ends_with("0 in the cache, 1 to be done, 3 known only when what they depend on is done\n"),
        "{text}"
    );

    // What the build does then.
    let said = bench.build_plain(&context, BOXFILE, &["--network", "none", "--explain"]);
    for line in [
        "[work 3/4] miss: `src/b` changed (nearest run: ",
        "[work 4/4] miss: `COPY src /src` before it gave another layer (nearest run: ",
        "[stage-1 2/3] hit\n",
        "[stage-1 3/3] hit\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn a_plan_says_what_it_cannot_know() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("f", "1\n")]);
    let check = |boxfile: &str, expected: &[(usize, &str)]| {
        std::fs::write(context.join("Boxfile"), boxfile).unwrap();
        let plan = plan(&bench, &context, &[]);
        for (at, words) in expected {
            assert_eq!(plan[*at]["text"], *words, "{plan:#}");
        }
    };
    check(
        "FROM busybox\nADD http://127.0.0.1:1/x /x\nRUN true\n",
        &[
            (
                1,
                "depends on what http://127.0.0.1:1/x gives: a build asks for it",
            ),
            (2, "miss: never built before"),
        ],
    );
    let missing = format!(
        "fails: missing not found in the build context {}",
        context.display()
    );
    check("FROM busybox\nCOPY missing /x\n", &[(1, &missing)]);
}

#[test]
fn what_a_plan_would_have_to_fetch_is_refused() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM nowhere\nRUN true\n")]);
    let path = context.to_str().unwrap();
    let refused = |args: &[&str], code: i32, want: &str| {
        let error = bench.fails(code, std::iter::once(&"plan").chain(args));
        assert!(error.contains(want), "{error}");
    };
    refused(&["http://127.0.0.1:1/c.tar"], 125, "box plan fetches nothing");
    refused(&["-"], 125, "box plan fetches nothing");
    refused(
        &["--build-context", "n=http://127.0.0.1:1/n.tar", path],
        125,
        "the build context n",
    );
    refused(
        &["--build-context", "n=oci:dir", path],
        1,
        "loaded by a build alone",
    );
    refused(&["--check", path], 125, "--check");
    refused(&[path], 1, "nowhere");
    refused(
        &["--no-cache-filter", "other", path],
        1,
        "--no-cache-filter other: there is no such stage; the stages are 0",
    );
}

#[test]
fn explanations_as_json() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    let path = context.to_str().unwrap();
    let explained = |extra: &[&str]| -> Vec<Value> {
        let mut command = bench.command(["build", "--network", "none"]);
        let output = command.args(extra).arg(path).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines = text(&output.stderr);
        let objects = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found: Vec<Value> = objects
            .filter(|object| object["event"] == "step_explained")
            .collect();
        // Stages are built side by side.
        found.sort_by_key(|object| object["id"].as_u64());
        found
    };
    let cold = explained(&["--progress", "plain", "--explain=json"]);
    assert_eq!(cold.len(), 7, "{cold:?}");
    let fields = |object: &Value| {
        (
            object["stage_name"].clone(),
            object["index"].clone(),
            object["verdict"].clone(),
        )
    };
    assert_eq!(fields(&cold[2]), ("work".into(), 3.into(), "miss".into()));
    assert_eq!(cold[2]["why"]["cause"], "new");
    std::fs::write(context.join("src/a"), "9\n").unwrap();
    let changed = explained(&["--progress", "json", "--explain"]);
    assert_eq!(changed[2]["text"], "miss: `src/a` changed");
    assert!(changed[2]["why"]["since"].as_i64().unwrap() > 1_700_000_000);
    assert!(explained(&["--progress", "json"]).is_empty(), "nobody asked");
}

#[test]
fn what_was_built_is_told_in_a_file() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    let (path, file) = (context.to_str().unwrap(), bench.path("metadata"));
    let build = || -> (String, Value) {
        let id = bench.ok([
            "build",
            "-q",
            "--network",
            "none",
            "-t",
            "app",
            "-t",
            "app:2",
            "--metadata-file",
            file.to_str().unwrap(),
            path,
        ]);
        let metadata = std::fs::read(&file).unwrap();
        (id.trim().to_owned(), serde_json::from_slice(&metadata).unwrap())
    };
    let (id, cold) = build();
    assert_eq!(cold["containerimage.config.digest"], id);
    assert_eq!(
        cold["image.name"],
        "docker.io/library/app:latest,docker.io/library/app:2"
    );
    let run = &cold["box.steps"][3];
    assert_eq!(
        (&run["step"], &run["stage_name"], &run["line"]),
        (&"RUN cat /src/a > /a".into(), &"work".into(), &4.into())
    );
    assert_eq!(
        (&run["cached"], &run["layer_size"], &run["layer_entries"]),
        (&false.into(), &2.into(), &1.into())
    );
    assert!(
        run["wall_ms"].is_u64() && run["peak_memory"].as_u64().is_some_and(|bytes| bytes > 4096),
        "{run:#}"
    );
    assert_eq!(cold["box.steps"].as_array().unwrap().len(), 7);
    let (_, warm) = build();
    assert_eq!(warm["box.steps"][3]["cached"], true);
    assert_eq!(warm["box.steps"][1]["config_only"], true);
}

#[test]
fn what_a_context_holds() {
    let bench = Bench::new();
    let context = bench.context(
        "c",
        &[
            ("Boxfile", "FROM scratch\n"),
            (
                ".dockerignore",
                "# comment\nnode_modules\n*.log\n!keep.log\nsub/*\n!sub/in\n",
            ),
            ("node_modules/a/b", "12345"),
            ("node_modules/c", "12345"),
            ("x.log", "1"),
            ("keep.log", "12"),
            ("sub/in", "123"),
            ("sub/out", "1234"),
            ("big", "1234567890"),
        ],
    );
    sh(&format!("mkdir {0}/empty; ln -s big {0}/link", context.display()));
    let path = context.to_str().unwrap();
    let found: Value =
        serde_json::from_str(&bench.ok(["context", "ls", "--format", "json", "--largest", "2", path]))
            .unwrap();
    let list = |name: &str| -> Vec<String> {
        let entries = found[name].as_array().unwrap().iter();
        let words = entries.map(|entry| {
            let by = entry["line"]
                .as_u64()
                .map(|line| format!(" {line} {}", entry["pattern"].as_str().unwrap()));
            format!(
                "{} {}{}",
                entry["path"].as_str().unwrap(),
                entry["size"],
                by.unwrap_or_default()
            )
        });
        words.collect()
    };
    assert_eq!(found["ignore_file"], ".dockerignore");
    assert_eq!(
        list("entries"),
        [
            ".dockerignore 53",
            "Boxfile 13",
            "big 10",
            "empty 0",
            "keep.log 2",
            "link 0",
            "sub/in 3"
        ]
    );
    assert_eq!(
        list("ignored"),
        [
            "node_modules 10 2 node_modules",
            "sub/out 4 5 sub/*",
            "x.log 1 3 *.log"
        ]
    );
    assert_eq!(list("largest"), [".dockerignore 53", "Boxfile 13"]);
    assert_eq!(found["total_ignored"]["files"], 4);
    let table = bench.ok(["context", "ls", path]);
    assert!(
        table.contains("10B    node_modules/   .dockerignore:2: node_modules"),
        "{table}"
    );
    assert!(
        table.ends_with("6 files of 81B in the context, 4 files of 15B ignored\n"),
        "{table}"
    );
    // The ignore file of another Boxfile replaces it.
    std::fs::write(context.join("other"), "FROM scratch\n").unwrap();
    std::fs::write(context.join("other.dockerignore"), "big\n").unwrap();
    let other = context.join("other");
    let table = bench.ok(["context", "ls", "-f", other.to_str().unwrap(), path]);
    assert!(
        table.contains("other.dockerignore:1: big") && !table.contains("x.log          "),
        "{table}"
    );
}
