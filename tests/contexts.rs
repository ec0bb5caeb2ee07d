//! Where a build's files come from: standard input, URLs, git repositories; through the program.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::server::{Server, repository};
use common::{Bench, OrdinaryUser, success, text};

const BOXFILE: &str = "FROM busybox\nCOPY . /c\nRUN ls /c | tr '\\n' ' '; cat /c/file\n";

fn context(bench: &Bench) -> std::path::PathBuf {
    bench.context(
        "context",
        &[
            ("Boxfile", BOXFILE),
            ("file", "of the context\n"),
            ("left", "out"),
            ("other/Boxfile", "FROM busybox\nRUN echo the other one\n"),
            (".dockerignore", "left\nother\n"),
        ],
    )
}

const SHOWN: &str = "Boxfile file of the context";

/// The context as a tar file.
fn tar(bench: &Bench, context: &Path, name: &str, how: &str) -> std::path::PathBuf {
    let path = bench.path(name);
    let status = Command::new("tar")
        .args([how, "-f"])
        .arg(&path)
        .arg("-C")
        .arg(context)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    path
}

fn build_from(bench: &Bench, stdin: &[u8], args: &[&str]) -> Output {
    let mut command = bench.command(["build", "--progress", "plain", "--network", "none"]);
    let mut child = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What box refuses it does not read.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn shown(output: Output) -> String {
    let shown = text(&output.stderr);
    success(output);
    shown
}

#[test]
fn an_archive_on_standard_input_is_the_context() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    for (name, how) in [("c.tar", "-c"), ("c.tgz", "-cz"), ("c.tar.xz", "-cJ")] {
        let bytes = fs::read(tar(&bench, &context, name, how)).unwrap();
        let shown = shown(build_from(&bench, &bytes, &["--no-cache", "-"]));
        assert!(
            shown.replace('\n', " ").contains(SHOWN) || shown.contains("Boxfile file"),
            "{name}: {shown}"
        );
        assert!(
            shown.contains("of the context") && !shown.contains("left"),
            "{name}: {shown}"
        );
    }
    let bytes = fs::read(bench.path("c.tar")).unwrap();
    let shown = shown(build_from(&bench, &bytes, &["-f", "other/Boxfile", "-"]));
    assert!(shown.contains("the other one"), "{shown}");
    let output = build_from(&bench, &bytes, &["-f", "none", "-"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("no none in standard input"));
}

#[test]
fn the_cache_is_that_of_the_directory() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    bench.ok(["build", "-q", "--network", "none", context.to_str().unwrap()]);
    let bytes = fs::read(tar(&bench, &context, "c.tar", "-c")).unwrap();
    let shown = shown(build_from(&bench, &bytes, &["-"]));
    assert_eq!(shown.matches("CACHED").count(), 2, "{shown}");
}

#[test]
fn a_boxfile_on_standard_input_needs_no_context() {
    let bench = Bench::with_busybox();
    let output = build_from(&bench, b"FROM busybox\nCOPY . /c\nRUN ls -A /c | wc -l\n", &["-"]);
    let told = shown(output);
    assert!(told.lines().any(|line| line.ends_with(" 0")), "{told}");
    // Or has one.
    let context = context(&bench);
    let output = build_from(
        &bench,
        BOXFILE.as_bytes(),
        &["-f", "-", context.to_str().unwrap()],
    );
    let told = shown(output);
    assert!(told.contains("of the context"), "{told}");
    let output = build_from(&bench, b"FROM busybox\nRUNN x\n", &["-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("<stdin>:2"), "{output:?}");
    for (args, expected) in [
        (&["-f", "-", "-"][..], "can't both come from standard input"),
        (&["-f", "x", "-"], "no archive that could hold x"),
    ] {
        let output = build_from(&bench, b"FROM busybox\n", args);
        assert_eq!(output.status.code(), Some(125));
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    }
}

#[test]
fn urls_and_repositories_are_contexts() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    tar(&bench, &context, "served/c.tar.gz", "-cz");
    fs::write(served.join("text"), "FROM busybox\nRUN echo from afar\n").unwrap();
    repository(&context, &served.join("r.git"));
    let server = Server::start(&served);
    let build = |place: &str, extra: &[&str]| {
        let args = [
            &["build", "--progress", "plain", "--network", "none"],
            extra,
            &[place],
        ]
        .concat();
        let output = bench.run(args);
        assert!(output.status.success(), "{place}: {}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(build(&server.url("c.tar.gz"), &[]).contains("of the context"));
    assert!(build(&server.url("text"), &[]).contains("from afar"));
    // This server gives no single commits.
    assert!(build(&server.url("r.git"), &["--no-cache"]).contains("of the context"));
    assert!(build(&server.url("r.git#main:other"), &[]).contains("the other one"));
    let boxfile = bench.context(
        "named",
        &[(
            "Boxfile",
            "FROM busybox\nCOPY --from=a file /a\nCOPY --from=g file /g\nRUN cat /a /g\n",
        )],
    );
    let named = [
        format!("a={}", server.url("c.tar.gz")),
        format!("g={}", server.url("r.git")),
    ];
    let extra = ["--build-context", &named[0], "--build-context", &named[1]];
    let told = build(boxfile.to_str().unwrap(), &extra);
    assert_eq!(told.matches("of the context").count(), 2, "{told}");
    for (place, expected) in [
        (server.url("none"), "404"),
        (server.url("none.git"), "git ls-remote failed"),
        (server.url("r.git#none"), "has no none"),
        (server.url("r.git#:left"), "has no directory left"),
    ] {
        let output = bench.run(["build", &place]);
        assert_eq!(output.status.code(), Some(1), "{place}");
        assert!(text(&output.stderr).contains(expected), "{place}: {output:?}");
    }
}

#[test]
fn an_attacked_context_leads_nowhere() {
    let bench = Bench::with_busybox();
    let evil = bench.path("evil");
    fs::create_dir(&evil).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", evil.join("Boxfile")).unwrap();
    std::os::unix::fs::symlink("/etc", evil.join("dir")).unwrap();
    let bytes = fs::read(tar(&bench, &evil, "evil.tar", "-c")).unwrap();
    let output = build_from(&bench, &bytes, &["-"]);
    assert!(text(&output.stderr).contains("no Boxfile"), "{output:?}");
    let output = build_from(&bench, &bytes, &["-f", "dir/passwd", "-"]);
    assert!(text(&output.stderr).contains("no dir/passwd"), "{output:?}");
    let before = count(&bench.store());
    let output = build_from(&bench, &bytes[..700], &["-"]);
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(count(&bench.store()), before);
}

fn count(directory: &Path) -> usize {
    let listing = Command::new("find")
        .arg(directory)
        .args(["-path", "*/tmp/*"])
        .output()
        .unwrap();
    text(&listing.stdout).lines().count()
}

/// What the user's configuration of git says of files has no say.
#[test]
fn the_users_git_configuration_changes_no_file() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    fs::write(context.join(".gitattributes"), "file filter=evil\n").unwrap();
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    repository(&context, &served.join("r.git"));
    let server = Server::start(&served);
    let config = bench.path("gitconfig");
    let text_of =
        "[core]\n\tautocrlf = true\n[filter \"evil\"]\n\tsmudge = echo smudged\n\trequired = true\n";
    File::create(&config)
        .unwrap()
        .write_all(text_of.as_bytes())
        .unwrap();
    let output = bench
        .command([
            "build",
            "--progress",
            "plain",
            "--network",
            "none",
            &server.url("r.git"),
        ])
        .env("GIT_CONFIG_GLOBAL", &config)
        .output()
        .unwrap();
    let told = shown(output);
    assert!(
        told.contains("of the context") && !told.contains("smudged"),
        "{told}"
    );
}

#[test]
fn an_ordinary_user_builds_them_too() {
    let bench = Bench::with_busybox();
    let context = context(&bench);
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    tar(&bench, &context, "served/c.tar.gz", "-cz");
    repository(&context, &served.join("r.git"));
    let server = Server::start(&served);
    let user = OrdinaryUser::new(&bench);
    user.ok(["import", bench.busybox_tar().to_str().unwrap(), "busybox"]);
    for place in ["c.tar.gz", "r.git"] {
        user.ok([
            "build",
            "-q",
            "--network",
            "none",
            "-t",
            "built",
            &server.url(place),
        ]);
        let told = user.ok(["run", "--rm", "--network", "none", "built", "cat", "/c/file"]);
        assert_eq!(told, "of the context\n", "{place}");
    }
}

/// A context that somebody else made does not make box read this machine's files, or for ever.
#[test]
fn a_hostile_directory_is_no_trap() {
    let bench = Bench::with_busybox();
    let evil = bench.path("evil");
    fs::create_dir(&evil).unwrap();
    std::os::unix::fs::symlink("/proc/kmsg", evil.join("Boxfile")).unwrap();
    let told = bench.fails(125, ["build", evil.to_str().unwrap()]);
    assert!(told.contains("no Boxfile"), "{told}");
    let huge = bench.path("huge");
    File::create(&huge).unwrap().set_len(6 << 30).unwrap();
    let told = bench.fails(
        125,
        ["build", "-f", huge.to_str().unwrap(), evil.to_str().unwrap()],
    );
    assert!(told.contains("longer than 64 MiB"), "{told}");
    // An ignore file that can't be read whole leaves nothing out: that must not be taken for nothing.
    let context = bench.context(
        "ignores",
        &[("Boxfile", "FROM busybox\nCOPY . /c\n"), ("secret", "x")],
    );
    let long = format!("{}secret\n", "# nothing\n".repeat(430_000));
    fs::write(context.join(".dockerignore"), long).unwrap();
    let told = bench.fails(1, ["build", "--network", "none", context.to_str().unwrap()]);
    assert!(told.contains("may have 4 MiB"), "{told}");
    fs::remove_file(context.join(".dockerignore")).unwrap();
    common::sh(&format!("mkfifo {}/.dockerignore", context.display()));
    let told = bench.fails(1, ["build", "--network", "none", context.to_str().unwrap()]);
    assert!(told.contains("must be a regular file"), "{told}");
}
