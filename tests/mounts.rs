//! `RUN --mount=`, through the program: what a step sees, what stays, what is cached, what is never shown.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::{Bench, OrdinaryUser, text};
use nix::fcntl::{Flock, FlockArg};

const SECRET: &str = "correct horse battery staple";

/// Says `keys` to a socket, and prints the answer.
const SAY: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[64];
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) return perror("connect"), 1;
    if (write(fd, "keys\n", 5) != 5) return 1;
    ssize_t count = read(fd, answer, sizeof answer);
    return count <= 0 || write(1, answer, count) != count;
}
"#;

/// The output of a build whose Boxfile goes on with these lines.
fn output(bench: &Bench, context: &Path, lines: &str, extra: &[&str]) -> String {
    bench.build_plain(context, &format!("FROM busybox\n{lines}\n"), extra)
}

#[track_caller]
fn check(lines: &str, extra: &[&str], expected: &str) {
    let bench = Bench::with_busybox();
    let context = bench.context(
        "context",
        &[
            ("dir/file", "of the context\n"),
            ("other", "x"),
            ("run.sh", "echo ran"),
        ],
    );
    let shown = output(&bench, &context, lines, extra);
    assert!(shown.contains(expected), "{lines}\n{shown}");
}

#[test]
fn binds() {
    let all = "RUN --mount=type=bind,target=/m ls /m | tr '\\n' ' '; stat -c %u:%g /m/other";
    check(all, &[], "dir other run.sh 0:0");
    check(
        "RUN --mount=target=/m,source=dir cat /m/file",
        &[],
        "of the context",
    );
    check(
        "RUN --mount=target=/m,source=dir/file cat /m",
        &[],
        "of the context",
    );
    check(
        "WORKDIR /w\nRUN --mount=target=m,source=dir/file cat /w/m",
        &[],
        "of the context",
    );
    check(
        "RUN --mount=target=/m echo x > /m/new || echo refused",
        &[],
        "refused",
    );
    check(
        "RUN --mount=target=/m,rw echo x > /m/new && cat /m/new /m/other",
        &[],
        "x\n",
    );
    check("RUN --mount=target=/m,from=busybox ls -d /m/bin", &[], "/m/bin");
    let stage = "RUN mkdir /out && echo of the stage > /out/file\nFROM busybox\n\
                 RUN --mount=from=0,source=/out,target=/m cat /m/file";
    check(stage, &[], "of the stage");
    let link = "RUN mkdir /out && echo linked > /out/file && ln -s /out /link\nFROM busybox\n\
                RUN --mount=from=0,source=/link,target=/m cat /m/file";
    check(link, &[], "linked");
}

#[test]
fn nothing_of_a_mount_stays() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "1")]);
    let lines = "RUN --mount=target=/bound/deep,rw --mount=type=tmpfs,target=/tmpfs \
                 --mount=type=cache,target=/cache --mount=type=secret,id=s \
                 touch /bound/deep/x /tmpfs/x /cache/x && cat /run/secrets/s >/dev/null && echo kept > /kept";
    let secret = bench.path("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let given = format!("id=s,src={}", secret.display());
    let id = bench.build(
        &context,
        &format!("FROM busybox\n{lines}\n"),
        &["--secret", &given],
    );
    assert_eq!(
        bench.sh(
            &id,
            "ls -d /bound /tmpfs /cache /run/secrets /kept 2>/dev/null || true"
        ),
        "/kept\n"
    );
    assert_eq!(
        std::fs::read_dir(&context).unwrap().count(),
        1,
        "writes don't reach the context"
    );
}

#[test]
fn tmpfs() {
    check(
        "RUN --mount=type=tmpfs,target=/m,size=1m dd if=/dev/zero of=/m/x bs=1M count=2 2>&1 || true",
        &[],
        "No space left",
    );
    check("RUN --mount=type=tmpfs,target=/m stat -c %a /m", &[], "1777");
}

#[test]
fn a_heredoc_that_is_a_program() {
    check(
        "RUN <<EOF\n#!/bin/sh -e\necho \"ran by $0\"\nEOF",
        &[],
        "ran by /dev/pipes/EOF",
    );
}

/// Each change of what is bound is a miss, and nothing else is.
#[test]
fn what_is_bound_is_in_the_key() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("dir/file", "one"), ("other", "x")]);
    let boxfile = "FROM busybox\nRUN --mount=target=/m,source=dir cp /m/file /copy\n";
    let built = || {
        let id = bench.build(&context, boxfile, &[]);
        bench.sh(&id, "cat /copy")
    };
    let is_cached = || bench.build_plain(&context, boxfile, &[]).contains("CACHED");
    assert_eq!(built(), "one");
    std::fs::write(context.join("other"), "y").unwrap();
    assert!(is_cached());
    // The same size and time.
    let file = context.join("dir/file");
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    std::fs::write(&file, "two").unwrap();
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(built(), "two");
    assert!(is_cached());
    std::fs::write(context.join(".dockerignore"), "dir/file").unwrap();
    let failed = bench.try_build(&context, boxfile, &[]);
    assert!(!failed.status.success(), "an ignored file is not there");
}

#[test]
fn caches_survive_no_cache_and_are_pruned_by_id() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "1")]);
    let lines = "RUN --mount=type=cache,target=/c,id=../../x echo line >> /c/log; wc -l < /c/log";
    assert!(output(&bench, &context, lines, &[]).contains('1'));
    let again = output(&bench, &context, lines, &["--no-cache"]);
    assert!(again.lines().any(|line| line.ends_with('2')), "{again}");
    let listed: serde_json::Value =
        serde_json::from_str(&bench.ok(["cache", "ls", "--format", "json"])).unwrap();
    assert_eq!(listed[0]["id"], "../../x");
    assert!(!bench.dir.path().join("x").exists() && !bench.path("../x").exists());
    assert!(
        bench
            .fails(1, ["cache", "prune", "unknown"])
            .contains("no cache unknown")
    );
    assert!(
        bench
            .ok(["cache", "prune", "../../x"])
            .contains("Removed: ../../x")
    );
    assert_eq!(bench.ok(["cache", "ls", "--format", "json"]).trim(), "[]");
    let third = output(&bench, &context, lines, &["--no-cache"]);
    assert!(third.lines().any(|line| line.ends_with('1')), "{third}");
}

/// A build that wants the cache while this test, as another build would, has it: whether it waits, and else whether it gets
/// the same directory.
#[track_caller]
fn beside(held: FlockArg, sharing: &str, waits: bool, is_same: bool) {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "1")]);
    output(
        &bench,
        &context,
        "RUN --mount=type=cache,id=c,target=/c touch /c/marker",
        &[],
    );
    let caches = bench.store().join("cache-mounts");
    let cache = std::fs::read_dir(caches).unwrap().next().unwrap().unwrap().path();
    let lock = Flock::lock(std::fs::File::open(cache.join("0")).unwrap(), held).unwrap();
    let line = format!(
        "FROM busybox\nRUN --mount=type=cache,id=c,target=/c,sharing={sharing} echo found $(ls /c).\n"
    );
    std::fs::write(context.join("Boxfile"), line).unwrap();
    let mut command = bench.command(["build", "--progress", "plain", "--network", "none"]);
    let mut build = command
        .arg(&context)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(build.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut lock = Some(lock);
    let mut has_waited = false;
    let mut found = String::new();
    for line in lines.by_ref() {
        if line.contains("waits for the cache c") {
            has_waited = true;
            drop(lock.take());
        }
        if line.contains("| found") {
            found = line;
        }
    }
    assert!(build.wait().unwrap().success());
    assert_eq!(has_waited, waits, "{sharing}");
    assert_eq!(found.contains("marker"), is_same, "{sharing}: {found}");
}

#[test]
fn caches_are_shared_as_they_say() {
    beside(FlockArg::LockShared, "shared", false, true);
    beside(FlockArg::LockShared, "locked", true, true);
    beside(FlockArg::LockExclusive, "locked", true, true);
    beside(FlockArg::LockExclusive, "shared", true, true);
    beside(FlockArg::LockExclusive, "private", false, false);
    beside(FlockArg::LockShared, "private", false, false);
}

#[test]
fn a_cache_on_an_image() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "1")]);
    let lines = "RUN --mount=type=cache,target=/c,from=busybox,source=/bin \
                 ls /c/busybox; echo x >> /c/log; wc -l < /c/log";
    assert!(output(&bench, &context, lines, &[]).contains("/c/busybox"));
    let again = output(&bench, &context, lines, &["--no-cache"]);
    assert!(again.lines().any(|line| line.ends_with('2')), "{again}");
}

#[test]
fn secrets_are_given_and_never_shown() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "1")]);
    let boxfile = "FROM busybox\n\
        RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token,target=/s,mode=0440,uid=1,gid=2 \
        stat -c %a:%u:%g /s; cat /s; echo; echo \"$TOKEN\"; echo \"$TOKEN\" | wc -c; test ! -e /run/secrets/token\n";
    let file = bench.path("Boxfile.secret");
    std::fs::write(&file, boxfile).unwrap();
    let mut args = vec![
        "build",
        "--progress",
        "plain",
        "--network",
        "none",
        "-t",
        "result",
        "--secret",
        "id=token,env=GIVEN",
    ];
    args.extend(["-f", file.to_str().unwrap(), context.to_str().unwrap()]);
    let built = bench.command(&args).env("GIVEN", SECRET).output().unwrap();
    let shown = text(&built.stdout) + &text(&built.stderr);
    assert!(built.status.success(), "{shown}");
    assert!(shown.contains("440:1:2") && shown.contains("***"), "{shown}");
    assert!(
        shown.contains(&(SECRET.len() + 1).to_string()),
        "the step had it: {shown}"
    );
    assert!(!shown.contains(SECRET), "{shown}");
    // Another value is no miss: a secret is in no key.
    let again = bench.command(&args).env("GIVEN", "another").output().unwrap();
    assert!(text(&again.stderr).contains("CACHED"));
    for shown in [
        bench.ok(["inspect", "result"]),
        bench.ok(["history", "--no-trunc", "result"]),
    ] {
        assert!(!shown.contains(SECRET));
    }
    let in_store = format!("grep -rIlFa '{SECRET}' {} || true", bench.store().display());
    assert_eq!(common::sh(&in_store), "");
}

/// While the step has it, nothing of the host but the rootfs of its processes shows it.
#[test]
fn a_secret_is_not_in_proc() {
    let bench = Bench::with_busybox();
    let lines = "FROM busybox\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c \
                 test -s /run/secrets/s && echo ready && until [ -e /c/go ]; do sleep 0.05; done\n";
    let context = bench.context("context", &[("Boxfile", lines)]);
    let secret = bench.path("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let given = format!("id=s,src={}", secret.display());
    let mut command = bench.command([
        "build",
        "--progress",
        "plain",
        "--network",
        "none",
        "--secret",
        &given,
    ]);
    let mut build = command
        .arg(&context)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(build.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.any(|line| line.contains("| ready")));
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        for name in ["cmdline", "environ", "mountinfo", "comm"] {
            // A process that is gone shows nothing.
            let shown = std::fs::read(process.join(name)).unwrap_or_default();
            seen += shown.len();
            assert!(!text(&shown).contains(SECRET), "{}/{name}", process.display());
        }
    }
    assert!(seen > 0);
    let cache = std::fs::read_dir(bench.store().join("cache-mounts"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    std::fs::write(cache.path().join("0/data/go"), "").unwrap();
    assert!(build.wait().unwrap().success());
}

#[test]
fn a_secret_that_is_not_given() {
    check(
        "RUN --mount=type=secret,id=no test ! -e /run/secrets/no && echo absent",
        &[],
        "absent",
    );
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "1")]);
    let failed = bench.try_build(
        &context,
        "FROM busybox\nRUN --mount=type=secret,id=no,required true\n",
        &[],
    );
    assert!(
        text(&failed.stderr).contains("the secret no is required"),
        "{}",
        text(&failed.stderr)
    );
    let failed = bench.try_build(
        &context,
        "FROM busybox\nRUN --mount=type=ssh,required true\n",
        &[],
    );
    assert!(
        text(&failed.stderr).contains("add --ssh default"),
        "{}",
        text(&failed.stderr)
    );
}

#[test]
fn an_ssh_agent() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("say.c", SAY)]);
    common::sh(&format!("cc -static -o {0}/say {0}/say.c", context.display()));
    let path = bench.path("agent.sock");
    let agent = UnixListener::bind(&path).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = agent.accept().unwrap();
        let mut question = [0; 5];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"the agent's answer\n").unwrap();
        question
    });
    let lines = "USER 5\nRUN --mount=type=ssh,mode=0666 --mount=target=/m \
                 stat -c %a $SSH_AUTH_SOCK; /m/say $SSH_AUTH_SOCK";
    let given = format!("default={}", path.display());
    let shown = output(&bench, &context, lines, &["--ssh", &given]);
    assert!(
        shown.contains("666") && shown.contains("the agent's answer"),
        "{shown}"
    );
    assert_eq!(&answering.join().unwrap(), b"keys\n");
}

/// The same as an ordinary user.
#[test]
fn as_an_ordinary_user() {
    let bench = Bench::with_busybox();
    let user = OrdinaryUser::new(&bench);
    let context = user.home().join("context");
    std::fs::create_dir_all(context.join("dir")).unwrap();
    std::fs::write(context.join("dir/file"), "bound\n").unwrap();
    std::fs::write(user.home().join("secret"), SECRET).unwrap();
    let boxfile = "FROM ./rootfs.tar\nUSER 5\nRUN --mount=target=/m,source=dir --mount=type=cache,target=/c,uid=5 \
        --mount=type=secret,id=s,uid=5 cat /m/file && echo x > /c/x && wc -c < /run/secrets/s && id -u\n";
    std::fs::write(context.join("Boxfile"), boxfile).unwrap();
    std::fs::copy(bench.busybox_tar(), context.join("rootfs.tar")).unwrap();
    common::sh(&format!("chmod -R a+rX {}", user.home().display()));
    let given = format!("id=s,src={}", user.home().join("secret").display());
    let args = [
        "build",
        "--progress",
        "plain",
        "--network",
        "none",
        "--secret",
        &given,
        context.to_str().unwrap(),
    ];
    let built = user.command(args).output().unwrap();
    let shown = text(&built.stderr);
    assert!(
        built.status.success() && shown.contains("bound") && shown.contains(&SECRET.len().to_string()),
        "{shown}"
    );
}

/// What a hostile or a careless Boxfile asks of mounts.
#[test]
fn odd_mounts_are_refused_with_their_place() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("file", "x")]);
    for (line, expected) in [
        (
            "RUN --mount=type=cache,uid=4294967295,target=/c true",
            "invalid value 4294967295 for uid",
        ),
        (
            "RUN --mount=type=secret,id=s,gid=4294967295 true",
            "invalid value 4294967295 for gid",
        ),
        (
            "RUN --mount=type=cache,id=c,from=busybox,target=/a --mount=type=cache,id=c,from=busybox,target=/b true",
            "is mounted twice in one step",
        ),
    ] {
        let output = bench.try_build(&context, &format!("FROM busybox\n{line}\n"), &[]);
        assert_eq!(output.status.code(), Some(1), "{line}");
        let told = text(&output.stderr);
        assert!(told.contains(expected) && told.contains(":2"), "{line}: {told}");
    }
    // An empty context is mounted as a directory like any other.
    let empty = bench.context("empty", &[]);
    let told = bench.build_plain(
        &empty,
        "FROM busybox\nRUN --mount=type=bind,target=/m stat -c %a /m\n",
        &[],
    );
    assert!(told.contains("755"), "{told}");
}

/// Caches that differ in their owner alone are taken in one order by all.
#[test]
fn builds_wait_for_each_other_in_one_order() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[]);
    let mount = |uid: u32| format!("--mount=type=cache,id=dl,uid={uid},sharing=locked,target=/c{uid}");
    std::thread::scope(|scope| {
        for (first, second) in [(1, 2), (2, 1), (1, 2), (2, 1)] {
            let (bench, context) = (&bench, &context);
            scope.spawn(move || {
                for round in 0..3 {
                    let line = format!(
                        "RUN {} {} sleep 0.1; true {first} {round}",
                        mount(first),
                        mount(second)
                    );
                    let file = bench.path(&format!(
                        "Boxfile.{first}.{round}.{:?}",
                        std::thread::current().id()
                    ));
                    std::fs::write(&file, format!("FROM busybox\n{line}\n")).unwrap();
                    let args = [
                        "build",
                        "-q",
                        "--no-cache",
                        "--network",
                        "none",
                        "-f",
                        file.to_str().unwrap(),
                        context.to_str().unwrap(),
                    ];
                    bench.ok(args);
                }
            });
        }
    });
}
