//! What the command line makes of a Boxfile and of what lies around it: checks, outlines, platforms, contexts.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::Path;

use common::{Bench, text};
use serde_json::Value;

/// Runs `box build ARGS CONTEXT`; its exit code, standard output and standard error.
fn build(bench: &Bench, context: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = bench.command(["build", "--network", "none"]);
    let output = command.args(args).arg(context).output().unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn check_says_what_is_odd_and_builds_nothing() {
    let bench = Bench::new();
    let check = |boxfile: &str, args: &[&str], code: i32, wants: &[&str]| {
        let context = bench.context("c", &[("Boxfile", boxfile)]);
        let (got, out, err) = build(&bench, &context, args);
        assert_eq!(got, code, "{boxfile}: {out}{err}");
        for want in wants {
            assert!(out.contains(want), "{boxfile}: no {want:?} in {out}");
        }
    };
    let fine = "FROM nowhere AS a\nRUN true\n";
    let odd = "FROM scratch AS Big\nWORKDIR rel\n";
    check(fine, &["--check"], 0, &["Check complete, no warnings found."]);
    check(fine, &["--call=check"], 0, &["no warnings found."]);
    let lines = [
        "Boxfile:1:17: warning[StageNameCasing]",
        "WorkdirRelativePath",
        "2 warnings have been found!",
    ];
    check(odd, &["--check"], 1, &lines);
    check(odd, &["--call=check,ignorestatus"], 0, &lines);
    check(
        odd,
        &["--check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"],
        0,
        &["no warnings"],
    );
    check(
        "FROM scratch\nCOPPY a b\n",
        &["--check"],
        1,
        &["did you mean COPY?", "1 error has been found!"],
    );
    check(
        "FROM scratch\nCOPY --from=9 a b\n",
        &["--check"],
        1,
        &["invalid stage index 9"],
    );
    check(
        "FROM scratch\nSTOPSIGNAL NONE\n",
        &["--check"],
        1,
        &["unknown signal"],
    );
    check(
        "FROM scratch\nCOPY a b\n",
        &["--check", "--target", "x"],
        1,
        &["target stage \"x\""],
    );
    assert_eq!(bench.ok(["images", "-q"]), "");
}

#[test]
fn checks_are_json_as_from_docker() {
    let bench = Bench::new();
    let check = |boxfile: &str, code: i32| -> Value {
        let context = bench.context("c", &[("Boxfile", boxfile)]);
        let (got, out, err) = build(&bench, &context, &["--call=check,format=json"]);
        assert_eq!(got, code, "{out}{err}");
        serde_json::from_str(&out).unwrap()
    };
    let odd = "FROM scratch AS Big\n";
    let result = check(odd, 1);
    let warning = &result["warnings"][0];
    assert_eq!(warning["ruleName"], "StageNameCasing");
    assert_eq!(
        warning["url"],
        "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
    );
    assert_eq!(warning["detail"], "Stage name 'Big' should be lowercase");
    let range = &warning["location"]["ranges"][0];
    assert_eq!(
        (
            range["start"]["line"].as_u64(),
            range["start"]["character"].as_u64()
        ),
        (Some(1), Some(16))
    );
    assert_eq!(result["sources"][0]["data"], "RlJPTSBzY3JhdGNoIEFTIEJpZwo=");
    assert!(result.get("buildError").is_none());
    let result = check("# check=error=true\nFROM scratch AS Big\n", 1);
    assert_eq!(
        result["buildError"]["message"],
        "lint violation found for rules: StageNameCasing"
    );
    let result = check("FROM scratch\nCOPPY a b\n", 1);
    assert_eq!(result["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!(check("FROM scratch\n", 0)["warnings"], serde_json::json!([]));
}

const STAGES: &str = "# VERSION the version\nARG VERSION=1\nARG UNUSED=2\n\
    # base what all is built on\nFROM nowhere:$VERSION AS base\n\
    # WHO is greeted\nARG WHO=${OTHER:-you}\n\
    RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c --mount=type=ssh true\n\
    FROM scratch AS other\nARG LATE\n\
    # app the application\nFROM base AS app\nARG VERSION\n";

#[test]
fn an_outline_says_what_a_target_takes() {
    let bench = Bench::new();
    let context = bench.context("c", &[("Boxfile", STAGES)]);
    let (code, out, err) = build(&bench, &context, &["--call=outline", "--build-arg", "VERSION=3"]);
    let want = "TARGET:      app\nDESCRIPTION: the application\n\n\
        BUILD ARG   VALUE   DESCRIPTION\nVERSION     3       the version\nWHO         you     is greeted\n\n\
        SECRET   REQUIRED\nkey      true\n\nSSH       REQUIRED\ndefault\n\nCACHE MOUNT\n/c\n\n";
    assert_eq!((code, out.as_str()), (0, want), "{err}");
    let (_, out, _) = build(
        &bench,
        &context,
        &["--call=outline,format=json", "--target", "other"],
    );
    let outline: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(outline["args"][0]["name"], "LATE");
    assert!(outline.get("secrets").is_none());
    let (code, _, err) = build(&bench, &context, &["--call=outline", "--target", "appp"]);
    assert_eq!(code, 1);
    assert!(err.contains("did you mean app?"), "{err}");
}

#[test]
fn targets_are_listed() {
    let bench = Bench::new();
    let context = bench.context("c", &[("Boxfile", STAGES)]);
    let (code, out, err) = build(&bench, &context, &["--call=targets"]);
    let want = "TARGET          DESCRIPTION\nbase            what all is built on\nother\napp (default)   the application\n\n";
    assert_eq!((code, out.as_str()), (0, want), "{err}");
    let (_, out, _) = build(&bench, &context, &["--call=targets,format=json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["targets"][0]["base"], "nowhere:1");
    assert_eq!(list["targets"][2]["default"], true);
    assert_eq!(list["targets"][2]["location"]["ranges"][0]["start"]["line"], 12);
}

#[test]
fn an_included_file_and_triggers_work_in_the_whole_program() {
    let bench = Bench::with_busybox();
    let files = [
        ("Boxfile", "FROM busybox\nINCLUDE parts/a\n"),
        (
            "parts/a",
            "ONBUILD RUN --network=none echo hello >/said\nMAINTAINER x\n",
        ),
    ];
    let context = bench.context("c", &files);
    let (code, _, err) = build(&bench, &context, &["-t", "parent", "--progress", "plain"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("parts/a:2:1: warning[MaintainerDeprecated]"),
        "{err}"
    );
    let child = bench.context("child", &[("Boxfile", "FROM parent\n")]);
    let (code, _, err) = build(&bench, &child, &["-t", "child", "--progress", "plain"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("ONBUILD RUN --network=none echo hello"), "{err}");
    assert_eq!(bench.sh("child", "cat /said"), "hello\n");
}

#[test]
fn named_contexts_go_before_images_and_stages() {
    let bench = Bench::with_busybox();
    let other = bench.context(
        "other",
        &[("file", "named"), ("hidden", "x"), (".dockerignore", "hidden\n")],
    );
    let context = bench.context(
        "c",
        &[("Boxfile", "FROM nowhere:latest\nCOPY --from=more file /copied\n")],
    );
    let named = format!("more={}", other.display());
    let args = [
        "--build-context",
        "docker.io/library/nowhere=docker-image://busybox",
        "--build-context",
        &named,
        "-t",
        "x",
    ];
    let (code, _, err) = build(&bench, &context, &args);
    assert_eq!(code, 0, "{err}");
    assert_eq!(bench.sh("x", "cat /copied"), "named");
    let (code, _, err) = build(&bench, &context, &["--build-context", "more=/nowhere"]);
    assert_eq!(code, 125);
    assert!(err.contains("neither a directory, a URL"), "{err}");
}

#[test]
fn a_named_context_takes_the_place_of_a_stage() {
    let bench = Bench::with_busybox();
    let other = bench.context("other", &[("file", "named")]);
    let boxfile = "FROM busybox AS more\nRUN false\nFROM busybox\nCOPY --from=0 file /copied\n";
    let context = bench.context("c", &[("Boxfile", boxfile)]);
    let named = format!("more={}", other.display());
    let args = ["--build-context", &named, "-t", "x"];
    let (code, _, err) = build(&bench, &context, &args);
    assert_eq!(code, 0, "by number: {err}");
    assert_eq!(bench.sh("x", "cat /copied"), "named");
    let target = [
        "--build-context",
        "more=docker-image://busybox",
        "--target",
        "more",
        "-t",
        "y",
    ];
    let (code, _, err) = build(&bench, &context, &target);
    assert_eq!(code, 0, "as the target: {err}");
    assert_eq!(bench.sh("y", "echo here"), "here\n");
    let (code, _, err) = build(&bench, &context, &["--target", "more"]);
    assert!(
        code == 1 && err.contains("exit code 1"),
        "without one the stage is built: {err}"
    );
}

#[test]
fn hard_links_stay_within_one_source() {
    let bench = Bench::with_busybox();
    let boxfile = "FROM busybox AS a\nRUN mkdir -p /d && echo x > /d/one && ln /d/one /d/two\n\
                   FROM busybox\nCOPY --from=a /d /whole\nCOPY --from=a /d/one /d/two /apart/\n";
    let context = bench.context("c", &[("Boxfile", boxfile)]);
    let (code, _, err) = build(&bench, &context, &["-t", "x"]);
    assert_eq!(code, 0, "{err}");
    let links = bench.sh("x", "stat -c %h /whole/one /whole/two /apart/one /apart/two");
    assert_eq!(links, "2\n2\n1\n1\n");
}

#[test]
fn an_oci_layout_of_the_context_is_a_base() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM oci:layout\n")]);
    bench.ok(["save", "-o", bench.path("l.tar").to_str().unwrap(), "busybox"]);
    std::fs::create_dir(context.join("layout")).unwrap();
    common::sh(&format!(
        "tar -C {}/layout -xf {}",
        context.display(),
        bench.path("l.tar").display()
    ));
    let (code, _, err) = build(&bench, &context, &["-t", "x"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(bench.sh("x", "echo here"), "here\n");
    let context = bench.context("d", &[("Boxfile", "FROM oci:none\n")]);
    let (code, _, err) = build(&bench, &context, &[]);
    assert!(code == 1 && err.contains("no directory none"), "{err}");
}

#[test]
fn a_foreign_platform_is_refused_where_it_would_have_to_run() {
    let bench = Bench::with_busybox();
    let context = bench.context(
        "c",
        &[("Boxfile", "FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH\n")],
    );
    let (code, out, err) = build(&bench, &context, &["--platform", "linux/s390x"]);
    assert_eq!(code, 0, "{err}");
    let inspected: Value = serde_json::from_str(&bench.ok(["inspect", out.trim()])).unwrap();
    assert_eq!(inspected[0]["Config"]["Labels"]["a"], "s390x");
    let context = bench.context("d", &[("Boxfile", "FROM busybox\n")]);
    let (code, _, err) = build(&bench, &context, &["--platform", "linux/s390x"]);
    assert!(code == 1 && err.contains("as --platform asks"), "{err}");
}

#[test]
fn hosts_can_be_added() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM busybox\nRUN cat /etc/hosts\n")]);
    let hosts = ["--add-host", "db:10.0.0.7", "--add-host=six:[fe80::1]"];
    let (code, _, told) = build(
        &bench,
        &context,
        &[&["--progress", "plain", "-t", "b"], &hosts[..]].concat(),
    );
    assert_eq!(code, 0, "{told}");
    let lines = ["10.0.0.7\tdb", "fe80::1\tsix", "127.0.0.1\tlocalhost"];
    assert!(lines.iter().all(|line| told.contains(line)), "{told}");
    let args = [
        &["run", "--rm", "--network", "none"],
        &hosts[..],
        &["b", "cat", "/etc/hosts"],
    ]
    .concat();
    let told = bench.ok(args);
    assert!(lines.iter().all(|line| told.contains(line)), "{told}");
    // They stay in no image.
    let told = bench.sh("b", "cat /etc/hosts");
    assert!(!told.contains("db"), "{told}");
}

/// The merged root file system: hard links, removals and owners as in the image.
#[test]
fn outputs_are_written_beside_the_store() {
    let bench = Bench::with_busybox();
    let boxfile = "FROM busybox\nRUN mkdir /d && echo hi > /d/x && ln /d/x /d/y && ln -s x /d/l && chown 7:8 /d && rm /etc/passwd && chmod 751 /\n";
    let context = bench.context("c", &[("Boxfile", boxfile)]);
    let (directory, tar, oci) = (bench.path("out"), bench.path("o.tar"), bench.path("o.oci"));
    let outputs = [
        directory.display().to_string(),
        format!("type=tar,dest={}", tar.display()),
        format!("type=oci,dest={}", oci.display()),
    ];
    let args = ["-t", "b", "-o", &outputs[0], "-o", &outputs[1], "-o", &outputs[2]];
    let (code, _, told) = build(&bench, &context, &args);
    assert_eq!(code, 0, "{told}");
    use std::os::unix::fs::MetadataExt;
    let metadata = |path: &str| std::fs::symlink_metadata(directory.join(path)).unwrap();
    assert_eq!(metadata("").mode() & 0o7777, 0o751);
    assert_eq!((metadata("d").uid(), metadata("d").gid()), (7, 8));
    assert_eq!(metadata("d/x").ino(), metadata("d/y").ino());
    assert!(!directory.join("etc/passwd").exists() && directory.join("bin/sh").exists());
    let listing = common::sh(&format!("tar -tf {}", tar.display()));
    assert_eq!(listing.lines().next(), Some("./"));
    assert!(
        listing.contains("d/y\n") && !listing.contains("etc/passwd"),
        "{listing}"
    );
    // The tar is a base with the same files, and the same wherever it is made.
    bench.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "again"]);
    assert_eq!(bench.sh("again", "cat /d/l; stat -c %u:%g /d"), "hi\n7:8\n");
    let exported = bench.run(["export", "b"]);
    assert_eq!(exported.stdout, std::fs::read(&tar).unwrap());
    bench.ok(["rmi", "b"]);
    assert!(
        bench
            .ok(["load", "-i", oci.to_str().unwrap()])
            .contains("b:latest")
    );
    let (code, _, told) = build(&bench, &context, &["-o", "type=registry"]);
    assert_eq!(code, 125);
    assert!(told.contains("box push sends it on"), "{told}");
}
