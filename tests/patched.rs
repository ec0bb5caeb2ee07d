//! A large copy of which little has changed is laid over the layer of an earlier run: nothing may tell it from a copy made anew.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{Bench, OrdinaryUser, sh, text};

const BOXFILE: &str = "FROM base\nCOPY tree /t\n";
/// What says which layers are laid over others.
const STACKS: &str = "store/records/packed-stack";
/// All that a step can see of the copy, but for its times.
const SEEN: &str = "cd /t && find . -print0 | sort -z | xargs -0 stat -c '%N %F %a %u %g %h'; find . -type f -print0 | sort -z | xargs -0 sha256sum";
/// How many times its entries have on disk.
const TIMES: &str = "find /t -mindepth 1 ! -path /t/low -print0 | xargs -0 stat -c %y | sort -u | wc -l";

/// A store with the image `base`, which has files where the copy goes, and a context of 400 files in ten directories.
fn world() -> (Bench, PathBuf) {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[]);
    sh(&format!(
        "cd {} && mkdir tree && for d in 0 1 2 3 4 5 6 7 8 9; do mkdir tree/d$d
         for f in $(seq 10 49); do echo \"file $d $f\" > tree/d$d/f$f; done; done; ln -s f10 tree/d0/link; echo mine > tree/low",
        context.display()
    ));
    let none = bench.context("none", &[]);
    let base = "FROM busybox\nRUN mkdir /t && echo low > /t/low && chmod 700 /t\n";
    bench.build(&none, base, &["-t", "base"]);
    (bench, context)
}

/// Another store with the same image.
fn beside(bench: &Bench) -> Bench {
    let other = Bench::new();
    bench.ok(["save", "-o", bench.path("base.tar").to_str().unwrap(), "base"]);
    other.ok(["load", "-i", bench.path("base.tar").to_str().unwrap()]);
    other
}

fn stacks(bench: &Bench) -> usize {
    let shards = std::fs::read_dir(bench.path(STACKS)).into_iter().flatten();
    shards
        .map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count())
        .sum()
}

fn change(context: &Path, line: &str) {
    sh(&format!("cd {}/tree && {line}", context.display()));
}

/// Changes the context by a shell line; gives the id of what is built then, which must be that of a build without the cache in another
/// store, and whether it was laid over another. A container sees the same of both.
fn changed(bench: &Bench, cold: &Bench, context: &Path, (line, extra): (&str, &[&str])) -> bool {
    change(context, line);
    let before = stacks(bench);
    let with = |more: &[&'static str]| [more, extra].concat();
    let boxfile = match extra.is_empty() {
        true => BOXFILE.to_owned(),
        false => "FROM base\nCOPY --chmod=u+rw --chown=3:4 tree /t\n".to_owned(),
    };
    let id = bench.build(context, &boxfile, &with(&["-t", "app"]));
    assert_eq!(
        id,
        cold.build(context, &boxfile, &with(&["--no-cache", "-t", "app"])),
        "after {line}"
    );
    assert_eq!(stacks(cold), 0);
    let is_over = stacks(bench) > before;
    // Each fourth in a container as well; that refuses a tree whose digest is another.
    if is_over && before.is_multiple_of(4) {
        assert_eq!(bench.sh("app", SEEN), cold.sh("app", SEEN), "after {line}");
        assert_eq!(bench.sh("app", TIMES).trim(), "1", "after {line}");
    }
    is_over
}

/// Shell lines, and whether what they change is laid over an earlier copy.
const CASES: &[(&str, bool)] = &[
    ("true", false),
    ("echo more >> d3/f10", true),
    // The same size and time.
    (
        "touch -r d1/f11 ../stamp && printf 'file 1 xx\\n' > d1/f11 && touch -r ../stamp d1/f11",
        true,
    ),
    ("chmod 600 d4/f20", true),
    ("chmod 4755 d4/f21", true),
    (": > d4/f22", true),
    ("head -c 300000 /dev/zero > d4/f23", true),
    (
        "echo new > d5/new && mkdir -p d5/more/deep && echo x > d5/more/deep/x && mkfifo d5/pipe",
        true,
    ),
    ("ln -sf f11 d0/link && rm d6/f10 && ln -s f11 d6/f10", true),
    ("rm d0/link && echo file > d0/link", true),
    (
        "setfattr -n user.kept -v yes d2/f10 2>/dev/null || echo other > d2/f10",
        true,
    ),
    // Back to what it was in between, and in the first copy.
    ("echo 'file 3 10' > d3/f10", true),
    // Two names of one file, of which the context's are two files.
    ("ln d2/f20 d2/again && ln d2/f21 d9/again", true),
    ("rm d2/again && cp d2/f20 d2/again && echo two >> d2/f20", true),
    (
        "echo root > top && mkdir empty && touch -d 2001-01-01 d2/f30",
        true,
    ),
    (
        "mkdir -m 1777 sticky && echo s > sticky/s && chmod 0 sticky/s",
        true,
    ),
    (
        "echo a > 'with space' && echo b > \"$(printf 'd0/n\\303\\244me')\"",
        true,
    ),
    (
        "n=$(printf '%0120d' 7); echo long > d0/$n && ln -s $n d0/to-long",
        true,
    ),
    // A name between others, and before and after a directory's.
    ("echo 1 > d1.a && echo 2 > d1-b && echo 3 > d10", true),
    // What is removed, of another type, or now as it is below can't be said by laying something over it.
    ("rm d7/f10", false),
    ("echo again >> d3/f11", true),
    ("rm d8/f10 && mkdir d8/f10", false),
    ("echo in > d8/f10/in", true),
    // As an earlier one had it.
    ("rm -r d8/f10 && echo file > d8/f10", true),
    ("mv d8/f11 d8/renamed", false),
    ("mv d8 moved", false),
    ("chmod 750 d9", false),
    ("echo low > low", false),
    ("echo 4 >> d9/f10", true),
    ("echo other > low", false),
    ("rm -r d7 && ln -s d6 d7", false),
    ("rm d7 && mkdir d7 && echo x > d7/x", false),
    ("echo y > d7/y; chmod 755 d7", true),
    // Too much at once.
    (
        "for d in 0 1 2 3 4; do for f in d$d/f*; do echo all >> $f; done; done",
        false,
    ),
    ("echo last >> d0/f11", true),
];

#[test]
fn what_is_laid_over_another_layer_is_what_a_copy_makes() {
    let (bench, context) = world();
    let cold = beside(&bench);
    for &(line, is_over) in CASES {
        let was_over = changed(&bench, &cold, &context, (line, &[]));
        assert_eq!(was_over, is_over, "{line}");
    }
    // Another owner, mode or end of time is another copy; each has its own earlier ones.
    let epoch: &[&str] = &["--build-arg", "SOURCE_DATE_EPOCH=400000000"];
    let later: &[&str] = &["--build-arg", "SOURCE_DATE_EPOCH=1900000000"];
    for (extra, is_over) in [
        (epoch, false),
        (epoch, true),
        (later, false),
        (later, true),
        (epoch, true),
    ] {
        let was_over = changed(&bench, &cold, &context, ("echo once more >> d1/f12", extra));
        assert_eq!(was_over, is_over, "{extra:?}");
    }
    assert!(bench.ok(["fsck"]).contains("all is well"));
}

#[test]
fn containers_and_other_steps_see_a_copy() {
    let (bench, context) = world();
    let cold = beside(&bench);
    bench.build(&context, BOXFILE, &["-t", "old"]);
    sh("sleep 1.1");
    change(&context, "echo new > d1/f10 && echo added > d1/added");
    bench.build(&context, BOXFILE, &["-t", "new"]);
    assert_eq!(stacks(&bench), 1);
    // What only reads needs no tree: further copies, archives, sizes.
    let more = "FROM base\nCOPY tree /t\nWORKDIR /t/d1\nCOPY tree/d1/f11 added\nCOPY --from=new /t /from\n";
    let id = bench.build(&context, more, &[]);
    let other = beside(&bench);
    bench.ok(["save", "-o", bench.path("new.tar").to_str().unwrap(), "new"]);
    other.ok(["load", "-i", bench.path("new.tar").to_str().unwrap()]);
    assert_eq!(id, other.build(&context, more, &["--no-cache"]));
    assert_eq!(
        other.sh("new", "cat /t/d1/f10 /t/d1/f11; ls /t/d1 | wc -l"),
        "new\nfile 1 11\n41\n"
    );
    // A volume is filled with what a container sees, times included.
    bench.ok([
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        "filled:/t/d1",
        "new",
        "true",
    ]);
    let times = "find /v /t/d1 -type f -print0 | xargs -0 stat -c %Y | sort -u | wc -l";
    assert_eq!(
        bench
            .ok([
                "run",
                "--rm",
                "--network",
                "none",
                "-v",
                "filled:/v",
                "new",
                "sh",
                "-c",
                times
            ])
            .trim(),
        "1"
    );
    // Whoever writes changes no layer.
    let written = bench.sh("new", "echo w >> /t/d1/f10; echo w >> /t/d1/f11; chmod 777 /t/d2/f10; rm -r /t/d3; gzip /t/d2/f11; ls /t/d2 | grep gz; ls /t");
    assert!(written.starts_with("f11.gz\nd0\nd1\nd2\nd4\n"), "{written}");
    assert_eq!(
        bench.sh("new", "cat /t/d1/f10 /t/d1/f11; ls /t/d3 | wc -l"),
        "new\nfile 1 11\n40\n"
    );
    assert_eq!(
        bench.sh("old", "cat /t/d1/f10; ls /t/d1 | wc -l"),
        "file 1 10\n40\n"
    );
    // A step that runs on a copy has it whole at once; one that was laid over another is made whole for it.
    change(&context, "echo newer > d1/f10");
    let runs = "FROM base AS one\nCOPY tree /t\nFROM one\nRUN find /t | sort | xargs stat -c '%n %h %s' > /all && cat /t/*/* >> /all\n";
    let before = stacks(&bench);
    let id = bench.build(&context, runs, &[]);
    assert_eq!(
        (stacks(&bench), &id),
        (before, &cold.build(&context, runs, &["--no-cache"]))
    );
    change(&context, "echo newest > d1/f10");
    bench.build(&context, BOXFILE, &["-t", "new"]);
    assert_eq!(stacks(&bench), before + 1);
    let id = bench.build(&context, runs, &[]);
    assert_eq!(id, cold.build(&context, runs, &["--no-cache"]));
    // A stage that is mounted is one that is made whole; what is copied out of it with its times has the step's.
    change(&context, "echo in a mount > d1/f10");
    let mounted = "FROM base AS one\nCOPY tree /t\nFROM base\nRUN --mount=from=one,source=/t,target=/m cp -a /m/d1 /copied && cp -p /m/d2/f10 /\n";
    let before = stacks(&bench);
    let id = bench.build(&context, mounted, &[]);
    assert_eq!(stacks(&bench), before + 1);
    assert_eq!(id, cold.build(&context, mounted, &["--no-cache"]));
    assert!(bench.ok(["fsck"]).contains("all is well"));
}

/// Changes a file of the store's layers in place, keeping size and time.
fn flip(bench: &Bench, content: &str) {
    let layers = bench.path("store/layers");
    let path = sh(&format!(
        "grep -rlx '{content}' {} | grep /t/d1/",
        layers.display()
    ));
    let stamp = bench.path("stamp");
    for path in path.lines() {
        sh(&format!(
            "touch -r {path} {0} && echo '{1}' > {path} && touch -r {0} {path}",
            stamp.display(),
            content.to_uppercase(),
        ));
    }
}

#[test]
fn what_is_damaged_is_not_passed_on() {
    let (bench, context) = world();
    let cold = beside(&bench);
    bench.build(&context, BOXFILE, &["-t", "app"]);
    change(&context, "echo new > d1/f10");
    bench.build(&context, BOXFILE, &["-t", "app"]);
    assert_eq!(stacks(&bench), 1);
    // In what lies over the other: it is found by a check, and before a container sees it.
    flip(&bench, "new");
    let checked = bench.run(["fsck"]);
    assert!(
        text(&checked.stdout).contains("layer sha256:") && !checked.status.success(),
        "{checked:?}"
    );
    let refused = bench.run(["run", "--rm", "--network", "none", "app", "true"]);
    assert!(text(&refused.stderr).contains("layer is damaged"), "{refused:?}");
    bench.build(&context, BOXFILE, &["-t", "app"]);
    assert_eq!(bench.sh("app", "cat /t/d1/f10 /t/d1/f11"), "new\nfile 1 11\n");
    assert!(bench.ok(["fsck"]).contains("all is well"));
    // In what it lies over: nothing is laid over that any more.
    let before = stacks(&bench);
    for file in ["file 1 11", "file 1 12"] {
        flip(&bench, file);
    }
    change(&context, "echo newer > d1/f10");
    let id = bench.build(&context, BOXFILE, &["-t", "app"]);
    assert_eq!(
        (stacks(&bench), id),
        (before, cold.build(&context, BOXFILE, &["--no-cache"]))
    );
    assert_eq!(bench.sh("app", "cat /t/d1/f10 /t/d1/f11"), "newer\nfile 1 11\n");
    // Earlier images that need it go.
    bench.run(["fsck", "--repair"]);
    bench.ok(["prune"]);
    bench.build(&context, BOXFILE, &["-t", "app"]);
    assert!(bench.ok(["fsck"]).contains("all is well"));
}

#[test]
fn its_pieces_stay_as_long_as_it_does() {
    let (bench, context) = world();
    bench.build(&context, BOXFILE, &["-t", "app"]);
    change(&context, "echo new > d1/f10");
    bench.build(&context, BOXFILE, &["-t", "app"]);
    assert_eq!(stacks(&bench), 1);
    // Without the records of the build cache the image alone keeps them.
    bench.ok(["prune"]);
    bench.ok(["gc"]);
    assert_eq!(stacks(&bench), 1);
    let usage: serde_json::Value = serde_json::from_str(&bench.ok(["df", "--format", "json"])).unwrap();
    assert_eq!(usage["cacheLayers"], 0, "{usage}");
    assert!(usage["imageLayers"].as_u64().unwrap() > 400 * 4096, "{usage}");
    assert_eq!(bench.sh("app", "cat /t/d1/f10 /t/d1/f11"), "new\nfile 1 11\n");
    assert!(bench.ok(["fsck"]).contains("all is well"));
    for name in ["app", "base", "busybox"] {
        bench.ok(["rmi", name]);
    }
    bench.ok(["prune"]);
    bench.ok(["gc"]);
    assert_eq!(stacks(&bench), 0);
    let layers = bench.path("store/layers");
    assert_eq!(sh(&format!("ls {} | wc -l", layers.display())).trim(), "0");
}

#[test]
fn killed_or_two_at_once_it_is_the_same() {
    let (bench, context) = world();
    let cold = beside(&bench);
    bench.build(&context, BOXFILE, &["-t", "app"]);
    std::fs::write(context.join("Boxfile"), BOXFILE).unwrap();
    let args = [
        "build",
        "--progress",
        "quiet",
        "-t",
        "app",
        context.to_str().unwrap(),
    ];
    let start = || {
        bench
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for moment in 0..8 {
        change(&context, &format!("echo {moment} > d1/f10"));
        let mut killed = start();
        std::thread::sleep(Duration::from_millis(5 + 9 * moment));
        // It may have ended.
        let _ = killed.kill();
        killed.wait().unwrap();
        assert!(bench.ok(["fsck"]).contains("all is well"), "{moment}");
        let id = bench.build(&context, BOXFILE, &["-t", "app"]);
        assert_eq!(id, cold.build(&context, BOXFILE, &["--no-cache"]), "{moment}");
    }
    assert!(stacks(&bench) > 0);
    for round in 0..3 {
        change(&context, &format!("echo {round} > d2/f10"));
        let both = [start(), start()].map(|build| build.wait_with_output().unwrap());
        let id = cold.build(&context, BOXFILE, &["--no-cache"]);
        for build in both {
            assert_eq!(text(&build.stdout).trim(), id.trim(), "{build:?}");
        }
        let runs = [0, 1].map(|_| {
            bench
                .command(["run", "--rm", "--network", "none", "app", "cat", "/t/d2/f10"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        for run in runs {
            assert_eq!(
                text(&run.wait_with_output().unwrap().stdout),
                format!("{round}\n")
            );
        }
    }
    assert!(bench.ok(["fsck"]).contains("all is well"));
}

/// For an ordinary user, with subordinate ids and without.
fn as_user(user: &OrdinaryUser, bench: &Bench, context: &Path) {
    let tar = bench.busybox_tar();
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "base"]);
    std::fs::write(context.join("Boxfile"), "FROM base\nCOPY --chown=5:6 tree /t\n").unwrap();
    let context_path = context.to_str().unwrap();
    let build = |extra: &[&str]| {
        let fixed = ["build", "--progress", "quiet", "-t", "app", context_path];
        user.ok(fixed.iter().chain(extra).copied())
    };
    build(&[]);
    change(context, "echo new > d1/f10");
    build(&[]);
    change(context, "echo 'file 1 10' > d1/f10 && echo x > d1/f12");
    let id = build(&[]);
    let line = "cat /t/d1/f10 /t/d1/f12; stat -c %u:%g:%h /t/d1/f11 /t/d1/f12";
    let seen = user.ok(["run", "--rm", "--network", "none", "app", "sh", "-c", line]);
    let stacks = sh(&format!(
        "find {} -path '*records/packed-stack/*' -type f | wc -l",
        user.home().display()
    ));
    assert_eq!(stacks.trim(), "2");
    assert_eq!(id, build(&["--no-cache"]));
    assert!(seen.starts_with("file 1 10\nx\n"), "{seen}");
    assert_eq!(
        user.ok(["run", "--rm", "--network", "none", "app", "sh", "-c", line]),
        seen
    );
    assert!(user.ok(["fsck"]).contains("all is well"));
}

#[test]
fn for_an_ordinary_user_it_is_the_same() {
    let (bench, context) = world();
    as_user(&OrdinaryUser::new(&bench), &bench, &context);
}

#[test]
fn with_a_single_id_it_is_the_same() {
    let (bench, context) = world();
    as_user(&OrdinaryUser::without_subids(&bench), &bench, &context);
}
