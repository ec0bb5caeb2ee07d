//! Stages side by side, with containers: they share caches and the network, a failure stops all, and as many builds as there are do a step
//! that they share once. Times are printed and decide nothing.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, OrdinaryUser, Traces, success, text};

/// A cache that all steps of a Boxfile have.
const SHARED: &str = "--mount=type=cache,id=meeting,target=/m";

/// A command that ends when the other one has come, too; it gives up after a while.
fn meet(own: &str, other: &str) -> String {
    format!(
        "RUN {SHARED} touch /m/{own}; n=0; until [ -e /m/{other} ]; do n=$((n+1)); [ $n -lt 400 ] || exit 9; sleep 0.02; done\n"
    )
}

fn temporary(bench: &Bench) -> usize {
    std::fs::read_dir(bench.store().join("tmp")).map_or(0, Iterator::count)
}

fn build(bench: &Bench, context: &std::path::Path, boxfile: &str, extra: &[&str]) -> std::process::Output {
    bench.try_build(context, boxfile, &[&["--network", "none"], extra].concat())
}

#[test]
fn stages_overlap_and_share_a_cache() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    let boxfile = format!(
        "FROM busybox AS a\n{}RUN echo a > /a\nFROM busybox AS b\n{}RUN echo b > /b\n\
         FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("a", "b"),
        meet("b", "a")
    );
    success(build(&bench, &context, &boxfile, &["--jobs", "2", "-t", "both"]));
    assert_eq!(bench.sh("both", "cat /a /b"), "a\nb\n");
}

#[test]
fn steps_side_by_side_share_one_private_network() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    let boxfile = format!(
        "FROM busybox AS a\n{}RUN {SHARED} readlink /proc/self/ns/net > /m/net; echo a > /a\n\
         FROM busybox AS b\n{}RUN {SHARED} readlink /proc/self/ns/net > /m/other; echo b > /b\n\
         FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN {SHARED} cmp /m/net /m/other && [ $(readlink /proc/self/ns/net) = $(cat /m/net) ]\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let before = Traces::of(&bench);
    success(bench.try_build(&context, &boxfile, &["--jobs", "2"]));
    assert_eq!(settled(&bench, &before), before);
}

#[test]
fn an_ordinary_users_stages_overlap_too() {
    let bench = Bench::new();
    let user = OrdinaryUser::new(&bench);
    let tar = bench.busybox_tar();
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    let boxfile = format!(
        "FROM busybox AS a\n{}RUN echo a > /a\nFROM busybox AS b\n{}RUN echo b > /b\n\
         FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let context = bench.context("c", &[("Boxfile", &boxfile)]);
    let context = context.to_str().unwrap();
    let id = user.ok(["build", "-q", "--network", "none", "--jobs", "2", context]);
    // Root's build of the same is the same.
    bench.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    assert_eq!(
        bench.ok(["build", "-q", "--network", "none", "--jobs", "8", context]),
        id
    );
}

#[test]
fn one_job_never_overlaps() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    // Whoever meets another one at work fails.
    let alone = format!("RUN {SHARED} mkdir /m/busy && sleep 0.1 && rmdir /m/busy\n");
    let stages: String = (0..4)
        .map(|n| {
            format!(
                "FROM busybox AS s{n}\n{}RUN echo {n} > /n\n",
                alone.replace("0.1", &format!("0.1{n}"))
            )
        })
        .collect();
    let copies: String = (0..4).map(|n| format!("COPY --from=s{n} /n /{n}\n")).collect();
    let boxfile = format!("{stages}FROM busybox\n{copies}");
    success(build(&bench, &context, &boxfile, &["--jobs", "1"]));
}

#[test]
fn a_locked_cache_is_for_one_stage_at_a_time() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    let alone = "RUN --mount=type=cache,id=alone,target=/m,sharing=locked mkdir /m/busy && sleep 0.1 && rmdir /m/busy && echo";
    let own = "RUN --mount=type=cache,id=own,target=/m,sharing=private mkdir /m/busy && sleep 0.1 && rmdir /m/busy && echo";
    let stages: String = (0..4)
        .map(|n| format!("FROM busybox AS s{n}\n{alone} {n} > /n\n{own} {n} > /o\n"))
        .collect();
    let copies: String = (0..4).map(|n| format!("COPY --from=s{n} /n /{n}\n")).collect();
    success(build(
        &bench,
        &context,
        &format!("{stages}FROM busybox\n{copies}"),
        &["--jobs", "4"],
    ));
}

/// Four stages of a second each, the last of which needs the others only at its end.
#[test]
fn a_diamond() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    let boxfile = format!(
        "FROM busybox AS top\n{}RUN sleep 1 && echo top > /top\n\
         FROM top AS left\n{}RUN sleep 1 && echo left > /left\nFROM top AS right\n{}RUN sleep 1 && echo right > /right\n\
         FROM busybox\n{}RUN sleep 1\nCOPY --from=left /left /\nCOPY --from=right /right /\n",
        meet("top", "bottom"),
        meet("left", "right"),
        meet("right", "left"),
        meet("bottom", "top"),
    );
    let start = Instant::now();
    success(build(
        &bench,
        &context,
        &boxfile,
        &["--jobs", "4", "-t", "diamond"],
    ));
    println!(
        "a diamond of four stages of 1 s: {:.2} s",
        start.elapsed().as_secs_f64()
    );
    assert_eq!(bench.sh("diamond", "cat /left /right"), "left\nright\n");
}

/// However few processors there are: each of four steps ends only when all four have come.
#[test]
fn by_default_four_steps_work_at_once() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    let names = ["a", "b", "c", "d"];
    let stages = names.map(|name| {
        let others: String = names.iter().map(|other| format!(" && [ -e /m/{other} ]")).collect();
        format!(
            "FROM busybox AS {name}\nRUN {SHARED} touch /m/{name}; n=0; until true{others}; do n=$((n+1)); [ $n -lt 400 ] || exit 9; sleep 0.02; done; echo {name} > /n\n"
        )
    });
    let copies = names.map(|name| format!("COPY --from={name} /n /{name}\n"));
    success(build(
        &bench,
        &context,
        &format!("{}FROM busybox\n{}", stages.concat(), copies.concat()),
        &[],
    ));
}

#[test]
fn a_failure_stops_the_others_and_says_what_where_and_why() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    let boxfile = format!(
        "FROM busybox AS long\nRUN {SHARED} touch /m/begun; sleep 600\n\
         FROM busybox AS bad\nRUN {SHARED} until [ -e /m/begun ]; do sleep 0.02; done; for n in $(seq 1 40); do echo line $n; done; exit 7\n\
         FROM busybox\nCOPY --from=long / /l\nCOPY --from=bad / /b\n"
    );
    let (before, clean) = (Traces::of(&bench), temporary(&bench));
    for mode in ["plain", "quiet", "json"] {
        std::fs::remove_dir_all(bench.store().join("cache-mounts")).ok();
        let file = bench.path("Boxfile.bad");
        std::fs::write(&file, &boxfile).unwrap();
        let mut command = bench.command([
            "build",
            "--network",
            "none",
            "--jobs",
            "2",
            "--progress",
            mode,
            "-f",
        ]);
        let start = Instant::now();
        let output = command.arg(&file).arg(&context).output().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "not waited for the long step"
        );
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("Boxfile.bad:4: RUN") && said.contains("exit code 7"),
            "{said}"
        );
        let last: Vec<&str> = said.lines().filter(|line| line.contains("line 40")).collect();
        assert!(!last.is_empty(), "{said}");
        if mode == "quiet" {
            assert!(
                said.contains("  | line 21\n") && !said.contains("  | line 20\n"),
                "{said}"
            );
        }
        if mode == "plain" {
            assert!(said.contains("CANCELLED"), "{said}");
        }
        assert_eq!(settled(&bench, &before), before);
        assert_eq!(temporary(&bench), clean);
    }
}

/// The same again, when what is being killed has had time to die.
fn settled(bench: &Bench, before: &Traces) -> Traces {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Traces::of(bench) != *before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    Traces::of(bench)
}

#[test]
fn however_many_jobs_the_digests_are_equal() {
    let boxfile = "FROM busybox AS base\nRUN seq 1 5000 > /numbers\nCOPY a /a\n\
                   FROM base AS one\nRUN sort -r /numbers > /one\nFROM base AS two\nWORKDIR /w/x\nRUN wc -l /numbers > two\n\
                   FROM busybox AS three\nRUN mkdir -p /d && for n in $(seq 1 50); do echo $n > /d/$n; done\n\
                   FROM base\nRUN echo own > /own\nCOPY --from=one /one /\nCOPY --from=two /w /w\nCOPY --from=three /d /d\nRUN cat /d/* > /all\n";
    let ids = ["1", "2", "8"].map(|jobs| {
        let bench = Bench::with_busybox();
        let context = bench.context("c", &[("a", "a")]);
        success(build(&bench, &context, boxfile, &["--jobs", jobs]))
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// Starts builds of four Boxfiles with steps in common, four of each.
fn sixteen(bench: &Bench, context: &std::path::Path, salt: &str, broken: bool) -> Vec<(usize, Child)> {
    let count =
        |step: &str| format!("RUN {SHARED} echo {step} >> /m/{salt}; sleep 0.05; echo {step} > /{step}\n");
    let files: Vec<_> = (0..4)
        .map(|n| {
            let own = match (n, broken) {
                (3, true) => "RUN exit 5\n".to_owned(),
                _ => count(&format!("own{n}")),
            };
            let text = format!(
                "FROM busybox AS base\n{}{}FROM base AS left\n{}FROM base AS right\n{}{own}\
                 FROM base\nCOPY --from=left /left /\nCOPY --from=right / /r\n",
                count("first"),
                count("second"),
                count("left"),
                count("right"),
            );
            let file = bench.path(&format!("Boxfile.{salt}.{n}"));
            std::fs::write(&file, text).unwrap();
            file
        })
        .collect();
    let start = |n: usize| {
        let mut command = bench.command(["build", "-q", "--network", "none", "--jobs", "2", "-f"]);
        command.arg(&files[n % 4]).arg(context);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        (n, command.spawn().unwrap())
    };
    (0..16).map(start).collect()
}

/// How often each step was done, by what it left in the cache.
fn counts(bench: &Bench, salt: &str) -> BTreeMap<String, usize> {
    let mounts = std::fs::read_dir(bench.store().join("cache-mounts")).unwrap();
    let files = mounts.map(|mount| mount.unwrap().path().join("0/data").join(salt));
    let text: String = files
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .collect();
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn sixteen_builds_do_what_they_share_once() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[]);
    let (before, mut ids) = (Traces::of(&bench), BTreeMap::new());
    for (n, child) in sixteen(&bench, &context, "calm", false) {
        let id = success(child.wait_with_output().unwrap());
        assert_eq!(*ids.entry(n % 4).or_insert_with(|| id.clone()), id);
    }
    let once: BTreeMap<String, usize> = ["first", "second", "left", "right", "own0", "own1", "own2", "own3"]
        .map(|step| (step.to_owned(), 1))
        .into();
    assert_eq!(counts(&bench, "calm"), once);

    // One of the Boxfiles fails, and a build of another is killed: all the rest is as before.
    let mut children = sixteen(&bench, &context, "wild", true);
    std::thread::sleep(Duration::from_millis(150));
    children[4].1.kill().unwrap();
    for (n, child) in children {
        let output = child.wait_with_output().unwrap();
        match (n, n % 4) {
            (4, _) => {}
            (_, 3) => {
                assert_eq!(output.status.code(), Some(1));
                assert!(text(&output.stderr).contains("exit code 5"));
            }
            _ => drop(success(output)),
        }
    }
    let counts = counts(&bench, "wild");
    let twice = counts.values().filter(|count| **count > 1).count();
    assert!(
        twice <= 2 && counts.values().all(|count| *count <= 2),
        "{counts:?}"
    );
    assert!(bench.ok(["fsck"]).contains("all is well"));
    assert_eq!(settled(&bench, &before), before);
    assert_eq!(temporary(&bench), 0);
}

#[test]
fn logs_are_whole_and_kept() {
    let bench = Bench::with_busybox();
    let context = bench.context(
        "logs",
        &[("Boxfile", "FROM busybox\nRUN echo of the context called logs\n")],
    );
    let command = |args: &[&str]| {
        let mut command = bench.command(args);
        command.current_dir(bench.dir.path()).output().unwrap()
    };
    assert!(
        bench
            .fails(1, ["build", "logs"])
            .contains("no log of a build is kept")
    );
    success(command(&["build", "-q", "--network", "none", "./logs"]));
    let log = success(command(&["build", "logs"]));
    assert!(
        log.contains("\nof the context called logs\n") && log.contains("in ./logs"),
        "{log}"
    );
    // One that finds everything in the cache keeps none; behind an option the word is a context.
    success(command(&["build", "-q", "--network", "none", "logs"]));
    assert_eq!(bench.ok(["build", "logs", "--list"]).lines().count(), 2);

    // Nothing is clipped, nothing changed, whatever it is.
    let boxfile = "FROM busybox AS one\nRUN --mount=type=secret,id=s seq 1 200000; printf 'a\\033[31mb\\0c\\n'; cat /run/secrets/s\n\
                   FROM busybox\nRUN echo first; echo second >&2; exit 4\nCOPY --from=one / /x\n";
    let secret = bench.path("secret");
    std::fs::write(&secret, "hunter2hunter2").unwrap();
    let secret = format!("id=s,src={}", secret.display());
    let output = build(&bench, &context, boxfile, &["--jobs", "1", "--secret", &secret]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("  | second\n") && said.contains("box build logs 2"),
        "{said}"
    );
    let raw = bench.run(["build", "logs", "2"]).stdout;
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let expected = format!("{expected}a\x1b[31mb\0c\n***");
    assert!(text(&raw).contains(&expected));
    assert!(!text(&raw).contains("hunter2"));
    let json: serde_json::Value =
        serde_json::from_str(&bench.ok(["build", "logs", "--format", "json"])).unwrap();
    assert_eq!(json["status"], "failed");
    assert!(json["error"].as_str().unwrap().contains("exit code 4"));
    let steps = json["steps"].as_array().unwrap();
    let failed = steps.iter().find(|step| step["how"] == "failed").unwrap();
    assert_eq!(
        (&failed["output"], &failed["line"]),
        (&"first\nsecond\n".into(), &4.into())
    );
    assert!(failed["wall_ms"].is_u64() && failed["cpu_ms"].is_u64());
    assert!(
        bench
            .fails(1, ["build", "logs", "9"])
            .contains("no log is kept of build 9")
    );

    // A killed build's log is there as far as it came.
    let file = bench.path("Boxfile.killed");
    std::fs::write(&file, "FROM busybox\nRUN echo begun; sleep 600\n").unwrap();
    let mut command = bench.command(["build", "-q", "--network", "none", "-f"]);
    let mut child = command.arg(&file).arg(&context).spawn().unwrap();
    let start = Instant::now();
    let is_begun = || bench.run(["build", "logs", "3"]).stdout.ends_with(b"begun\n");
    while !is_begun() {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(bench.ok(["build", "logs", "-l"]).contains("running"));
    child.kill().unwrap();
    child.wait().unwrap();
    let list = bench.ok(["build", "logs", "--list"]);
    assert!(list.lines().nth(1).unwrap().contains("killed"), "{list}");
    assert!(bench.ok(["fsck"]).contains("all is well"));
    assert!(bench.ok(["df"]).contains("logs of builds"));
    bench.ok(["prune"]);
    assert_eq!(bench.ok(["build", "logs", "--list"]).lines().count(), 1);
}
