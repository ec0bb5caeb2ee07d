//! What the cache does after a change, case by case: which steps are hits and which are done again, and what `--explain` says
//! of those. Each case is built for real, changed, and built again in a store of its own; then once more without the
//! cache, and that must give the same image: a stale hit would not.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{BOX, Bench, sh, text};
use serde_json::Value;

/// A case; what is left out is as in [`CASE`].
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Shell lines that make the context.
    setup: &'static str,
    boxfile: &'static str,
    args: &'static str,
    /// Shell lines that change it: `$STORE` is the store, `$BOX` the program.
    change: &'static str,
    /// The Boxfile of the second build; empty: the same.
    then: &'static str,
    /// Its options; `=` stands for the same.
    then_args: &'static str,
    /// What is said of each step of the second build that is more than configuration, one a line.
    expect: &'static str,
    /// Whether a build without the cache gives the same image.
    is_pure: bool,
}

const CASE: Case = Case {
    name: "",
    setup: "mkdir d; echo a > a.txt; echo b > b.txt; echo x > d/x; echo y > d/y",
    boxfile: "FROM base\nCOPY d /d\nRUN cat /d/x > /out\n",
    args: "",
    change: "",
    then: "",
    then_args: "=",
    expect: "2 hit\n3 hit",
    is_pure: true,
};

/// A store that holds the image `base`, made once and copied for each case.
fn seed() -> &'static Bench {
    static SEED: OnceLock<Bench> = OnceLock::new();
    SEED.get_or_init(|| {
        let bench = Bench::new();
        let rootfs = bench.path("small");
        let root = rootfs.display();
        sh(&format!(
            "mkdir -p {root}/bin {root}/etc {root}/tmp {root}/proc {root}/dev {root}/sys
             cp $(command -v busybox) {root}/bin/busybox
             for applet in sh cat echo true mkdir rm cp ln chmod chown touch id test date ls env wc head tail printf mv; do
                 ln -s busybox {root}/bin/$applet; done
             echo root:x:0:0::/:/bin/sh > {root}/etc/passwd; echo user:x:7:8::/:/bin/sh >> {root}/etc/passwd
             echo root:x:0: > {root}/etc/group; echo user:x:8: >> {root}/etc/group
             cd {root} && tar --sort=name --mtime=@1704067200 --owner=0 --group=0 --numeric-owner -cf ../base.tar .
             echo other > etc/other && tar --sort=name --mtime=@1704067200 --owner=0 --group=0 --numeric-owner -cf ../other.tar ."
        ));
        let import = |tar: &str, name: &str| {
            bench.ok(["import", "--progress", "quiet", bench.path(tar).to_str().unwrap(), name]);
        };
        import("base.tar", "base");
        import("other.tar", "other");
        bench
    })
}

struct Built {
    id: String,
    explained: Vec<String>,
}

/// Runs one build; what was told of its steps.
fn build(place: &Path, boxfile: &str, args: &str, extra: &[&str]) -> Result<Built, String> {
    std::fs::write(place.join("Boxfile"), boxfile).unwrap();
    let output = start(
        place,
        &format!("build -q --explain=json {args} {}", extra.join(" ")),
    );
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    let lines = text(&output.stderr);
    let objects = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut objects: Vec<Value> = objects.collect();
    // Stages are built side by side.
    objects.sort_by_key(|object| object["id"].as_u64());
    Ok(Built {
        explained: objects.iter().filter_map(told).collect(),
        id: text(&output.stdout).trim().to_owned(),
    })
}

/// What `box plan` says of the same build.
fn plan(place: &Path, args: &str) -> Result<Vec<String>, String> {
    let output = start(place, &format!("plan --format json {args}"));
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    let steps: Value = serde_json::from_slice(&output.stdout).unwrap();
    Ok(steps.as_array().unwrap().iter().filter_map(told).collect())
}

fn start(place: &Path, words: &str) -> std::process::Output {
    let mut command = Command::new("sh");
    let line = format!("exec \"$BOX\" {words} --network none -f \"$PLACE/Boxfile\" \"$CONTEXT\"");
    command.args(["-c", &line]).current_dir(place.join("context"));
    environment(&mut command, place).output().unwrap()
}

/// A step and what is said of it, if that is more than that there is nothing to do.
fn told(object: &Value) -> Option<String> {
    let stage = object["stage_name"].as_str().map(|name| format!("{name} "));
    let said = without_digests(object["text"].as_str().unwrap());
    let line = format!("{}{} {said}", stage.unwrap_or_default(), object["index"]);
    (object["verdict"] != "nothing").then_some(line)
}

/// A plan may leave open what follows a miss, but what it says must come to pass; and it knows the cause of the first.
fn came_to_pass(planned: &[String], built: &[String]) -> Result<(), String> {
    let verdict = |line: &String| -> &'static str {
        let words = [" depends on ", " miss: ", " hit"];
        words.into_iter().find(|word| line.contains(word)).unwrap_or("")
    };
    let wrong = || format!("planned\n{}\nbuilt\n{}", planned.join("\n"), built.join("\n"));
    if planned.len() != built.len() {
        return Err(wrong());
    }
    let mut is_first = true;
    for (planned, built) in planned.iter().zip(built) {
        let is_same = match verdict(planned) {
            " miss: " if std::mem::take(&mut is_first) => planned == built,
            " hit" | " miss: " => verdict(planned) == verdict(built),
            " depends on " => {
                is_first = false;
                true
            }
            _ => false,
        };
        if !is_same {
            return Err(wrong());
        }
    }
    Ok(())
}

/// What a base's digest is depends on the busybox of this machine.
fn without_digests(text: &str) -> String {
    let mut parts = text.split('(');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_digest = part
            .get(..12)
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match part.get(12..) {
            Some(rest) if is_digest => out.push_str(&format!("(…{rest}")),
            _ => out.push_str(&format!("({part}")),
        }
    }
    out
}

fn environment<'a>(command: &'a mut Command, place: &Path) -> &'a mut Command {
    command
        .env("BOX", BOX)
        .env("PLACE", place)
        .env("SEED", seed().dir.path())
        .env("CONTEXT", place.join("context"))
        .env("STORE", place.join("store"))
        .env("BOX_ROOT", place.join("store"))
        .env("MY_SECRET", "one")
}

fn shell(place: &Path, lines: &str) {
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", lines])
        .current_dir(place.join("context"));
    let output = environment(&mut command, place).output().unwrap();
    assert!(output.status.success(), "{lines}: {}", text(&output.stderr));
}

/// Builds, changes, builds again; what is wrong, if something is.
fn run(case: &Case, place: &Path) -> Result<(), String> {
    std::fs::create_dir_all(place.join("context")).unwrap();
    sh(&format!(
        "cp -a {} {}",
        seed().store().display(),
        place.join("store").display()
    ));
    shell(place, case.setup);
    build(place, case.boxfile, case.args, &[])?;
    shell(place, case.change);
    let then = if case.then.is_empty() {
        case.boxfile
    } else {
        case.then
    };
    let args = if case.then_args == "=" {
        case.args
    } else {
        case.then_args
    };
    std::fs::write(place.join("Boxfile"), then).unwrap();
    let planned = plan(place, args)?;
    let second = build(place, then, args, &[])?;
    let told = second.explained.join("\n");
    if told != case.expect {
        return Err(format!("expected\n{}\ngot\n{told}", case.expect));
    }
    came_to_pass(&planned, &second.explained)?;
    if case.is_pure {
        let cold = build(place, then, args, &["--no-cache"])?;
        if cold.id != second.id {
            return Err(format!("{} from the cache, {} without it", second.id, cold.id));
        }
    }
    Ok(())
}

/// All cases of a table; those that fail are told together.
#[track_caller]
fn check(cases: &[Case]) {
    let dir = tempfile::Builder::new().prefix("box-cases-").tempdir().unwrap();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let place: PathBuf = dir.path().join(number.to_string());
        if let Err(problem) = run(case, &place) {
            wrong.push(format!("── {}: {problem}", case.name));
        }
        std::fs::remove_dir_all(&place).unwrap();
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

const FILES_OF_THE_CONTEXT: &[Case] = &[
    Case {
        name: "nothing changes",
        ..CASE
    },
    Case {
        name: "content",
        change: "echo z > d/x",
        expect: "2 miss: `d/x` changed\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "the same size and time with other content",
        change: "touch -r d/x /tmp/stamp.$$; echo z > d/x; touch -r /tmp/stamp.$$ d/x; rm /tmp/stamp.$$",
        expect: "2 miss: `d/x` changed\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "times alone",
        change: "touch -d 2001-01-01 d/x d",
        ..CASE
    },
    Case {
        name: "a file is replaced by an equal one",
        change: "cp -p d/x d/z; mv d/z d/x",
        ..CASE
    },
    Case {
        name: "mode",
        change: "chmod 755 d/x",
        expect: "2 miss: mode of `d/x` 644 → 755\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "mode of a directory in it",
        setup: "mkdir -p d/sub; echo x > d/x; echo s > d/sub/s",
        change: "chmod 700 d/sub",
        expect: "2 miss: mode of `d/sub` 755 → 700\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "the owner of a context's file is root anyway",
        change: "chown 5:6 d/x",
        ..CASE
    },
    Case {
        name: "where a link leads",
        setup: "mkdir d; echo x > d/x; ln -s x d/link",
        change: "ln -sfn y d/link",
        expect: "2 miss: `d/link` changed\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "a file becomes a link",
        change: "rm d/y; ln -s x d/y",
        expect: "2 miss: `d/y` was a file and is a link\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "a file becomes a directory",
        change: "rm d/y; mkdir d/y",
        expect: "2 miss: `d/y` was a file and is a directory\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "an attribute of a file",
        change: "setfattr -n user.x -v 1 d/x",
        expect: "2 miss: attributes of `d/x` changed\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "another value of an attribute",
        setup: "mkdir d; echo x > d/x; setfattr -n user.x -v 1 d/x",
        change: "setfattr -n user.x -v 2 d/x",
        expect: "2 miss: attributes of `d/x` changed\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "an attribute of a directory is not copied",
        change: "setfattr -n user.x -v 1 d",
        ..CASE
    },
    Case {
        name: "a file gets another name",
        change: "mv d/y d/z",
        expect: "2 miss: `d/y` is now called `d/z`\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "a new file",
        change: "echo z > d/z",
        expect: "2 miss: `d/z` is new\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "a file is gone",
        change: "rm d/y",
        expect: "2 miss: `d/y` is gone\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "an empty directory",
        change: "mkdir d/empty",
        expect: "2 miss: `d/empty` is new\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "a named pipe",
        change: "mkfifo d/pipe",
        expect: "2 miss: `d/pipe` is new\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "a hard link of the context is two files",
        setup: "mkdir d; echo x > d/x; echo x > d/y",
        change: "ln -f d/x d/y",
        ..CASE
    },
    Case {
        name: "seven files at once",
        setup: "mkdir d; for i in 1 2 3 4 5 6 7; do echo $i > d/$i; done; echo x > d/x",
        change: "for i in 1 2 3 4 5 6 7; do echo new >> d/$i; done",
        expect: "2 miss: `d/1` changed; `d/2` changed; `d/3` changed; `d/4` changed; `d/5` changed; and 2 more files\n\
                     3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
    Case {
        name: "what is beside the directory",
        change: "echo z > a.txt",
        ..CASE
    },
    Case {
        name: "only what comes after the change",
        boxfile: "FROM base\nCOPY a.txt /\nRUN cat /a.txt > /o1\nCOPY b.txt /\nRUN cat /b.txt > /o2\n",
        change: "echo z > b.txt",
        expect: "2 hit\n3 hit\n4 miss: `b.txt` changed\n5 miss: `COPY b.txt /` before it gave another layer",
        ..CASE
    },
    Case {
        name: "a wildcard matches one more",
        boxfile: "FROM base\nCOPY *.txt /t/\n",
        change: "echo c > c.txt",
        expect: "2 miss: `c.txt` is new",
        ..CASE
    },
    Case {
        name: "a wildcard does not match it",
        boxfile: "FROM base\nCOPY *.txt /t/\n",
        change: "echo c > c.md",
        expect: "2 hit",
        ..CASE
    },
    Case {
        name: "all of the context",
        boxfile: "FROM base\nCOPY . /all\n",
        change: "mkdir e; echo 1 > e/f",
        expect: "2 miss: `e` is new; `e/f` is new",
        ..CASE
    },
    Case {
        name: "back to what it was",
        change: "echo z > d/x; \"$BOX\" build -q --network none -f \"$PLACE/Boxfile\" . >/dev/null; echo x > d/x",
        ..CASE
    },
    Case {
        name: "ADD unpacks an archive whose content changed",
        setup: "mkdir t; echo 1 > t/f; tar -C t --mtime=@0 -cf t.tar .",
        boxfile: "FROM base\nADD t.tar /t/\n",
        change: "echo 2 > t/f; tar -C t --mtime=@0 -cf t.tar .",
        expect: "2 miss: `t.tar` changed",
        ..CASE
    },
    Case {
        name: "another directory with the same files",
        change: "cp -a \"$CONTEXT\" \"$PLACE/elsewhere\"; mv \"$CONTEXT\" \"$PLACE/old\"; mv \"$PLACE/elsewhere\" \"$CONTEXT\"",
        ..CASE
    },
    Case {
        name: "a change in another directory",
        change: "cp -a \"$CONTEXT\" \"$PLACE/elsewhere\"; mv \"$CONTEXT\" \"$PLACE/old\"; mv \"$PLACE/elsewhere\" \"$CONTEXT\"; echo z > \"$CONTEXT/d/x\"",
        expect: "2 miss: `d/x` changed\n3 miss: `COPY d /d` before it gave another layer",
        ..CASE
    },
];

#[test]
fn files_of_the_context() {
    check(FILES_OF_THE_CONTEXT);
}

const ALL: Case = Case {
    setup: "echo a > a.txt; echo b > b.log; echo b.log > .dockerignore; mkdir s; echo s > s/f",
    boxfile: "FROM base\nCOPY . /all\n",
    expect: "2 hit",
    ..CASE
};

const IGNORE_RULES: &[Case] = &[
    Case {
        name: "an ignored file changes",
        change: "echo z > b.log",
        ..ALL
    },
    Case {
        name: "one more is ignored",
        setup: "mkdir s; echo 1 > s/a; echo 2 > s/b; echo none > .dockerignore",
        boxfile: "FROM base\nCOPY s /s\n",
        change: "echo s/b > .dockerignore",
        expect: "2 miss: `s/b` is gone",
        ..ALL
    },
    Case {
        name: "one is ignored no more",
        setup: "mkdir s; echo 1 > s/a; echo 2 > s/b; echo s/b > .dockerignore",
        boxfile: "FROM base\nCOPY s /s\n",
        change: "rm .dockerignore",
        expect: "2 miss: `s/b` is new",
        ..ALL
    },
    Case {
        name: "a comment in the ignore file",
        boxfile: "FROM base\nCOPY s /s\n",
        change: "echo '# nothing' >> .dockerignore",
        ..ALL
    },
    Case {
        name: "the ignore file is a file of the context",
        change: "echo '# nothing' >> .dockerignore",
        expect: "2 miss: `.dockerignore` changed",
        ..ALL
    },
    Case {
        name: "an exception brings one back",
        setup: "mkdir s; echo 1 > s/a; echo 2 > s/b; echo 's/*' > .dockerignore; echo '!s/a' >> .dockerignore",
        boxfile: "FROM base\nCOPY s /s\n",
        change: "echo '!s/b' >> .dockerignore",
        expect: "2 miss: `s/b` is new",
        ..ALL
    },
    Case {
        name: "the ignore file of box goes before Docker's",
        setup: "mkdir s; echo 1 > s/a; echo 2 > s/b; echo s/b > .dockerignore",
        boxfile: "FROM base\nCOPY s /s\n",
        change: "echo nothing > .boxignore",
        expect: "2 miss: `s/b` is new",
        ..ALL
    },
    Case {
        name: "what --exclude leaves out changes",
        boxfile: "FROM base\nCOPY --exclude=f s /s\n",
        change: "echo z > s/f",
        ..ALL
    },
    Case {
        name: "--exclude changes",
        boxfile: "FROM base\nCOPY --exclude=f s /s\n",
        then: "FROM base\nCOPY --exclude=g s /s\n",
        expect: "2 miss: the instruction was `COPY --exclude=f s /s`, is `COPY --exclude=g s /s`",
        ..ALL
    },
];

#[test]
fn ignore_rules() {
    check(IGNORE_RULES);
}

const ARG: Case = Case {
    boxfile: "FROM base\nARG V=1\nRUN echo $V > /v\nRUN true > /w\n",
    args: "--build-arg V=1",
    then_args: "--build-arg V=2",
    expect: "3 miss: ARG V 1 → 2\n4 miss: ARG V 1 → 2 (the line never mentions it: declare it later); `RUN echo $V > /v` before it gave another layer",
    ..CASE
};

const ARGUMENTS_AND_VARIABLES: &[Case] = &[
    Case {
        name: "an ARG that the line reads",
        ..ARG
    },
    Case {
        name: "the default is what was given",
        then_args: "",
        expect: "3 hit\n4 hit",
        ..ARG
    },
    Case {
        name: "an ARG that a script reads",
        setup: "echo 'echo $V > /v' > s.sh",
        boxfile: "FROM base\nARG V\nCOPY s.sh /\nRUN sh /s.sh\n",
        expect: "3 hit\n4 miss: ARG V 1 → 2 (the line never mentions it: declare it later)",
        ..ARG
    },
    Case {
        name: "an ARG that is declared later",
        boxfile: "FROM base\nRUN echo $V > /v\nARG V\nRUN echo $V > /w\n",
        expect: "2 hit\n4 miss: ARG V 1 → 2",
        ..ARG
    },
    Case {
        name: "an ARG of another stage",
        boxfile: "FROM base AS one\nRUN echo > /v\nFROM base AS two\nARG V\nRUN echo $V > /w\nCOPY --from=one /v /v\n",
        expect: "one 2 hit\ntwo 3 miss: ARG V 1 → 2\ntwo 4 miss: `RUN echo $V > /w` before it gave another layer",
        ..ARG
    },
    Case {
        name: "an ARG that nobody declares",
        boxfile: "FROM base\nRUN echo $V > /v\n",
        expect: "2 hit",
        ..ARG
    },
    Case {
        name: "another default",
        args: "",
        then_args: "",
        then: "FROM base\nARG V=3\nRUN echo $V > /v\nRUN true > /w\n",
        expect: "3 miss: ARG V 1 → 3\n4 miss: ARG V 1 → 3 (the line never mentions it: declare it later); `RUN echo $V > /v` before it gave another layer",
        ..ARG
    },
    Case {
        name: "an ARG gets a value",
        boxfile: "FROM base\nARG V\nRUN echo $V > /v\n",
        args: "",
        expect: "3 miss: ARG V=2 is new",
        ..ARG
    },
    Case {
        name: "an ARG has no value any more",
        boxfile: "FROM base\nARG V\nRUN echo $V > /v\n",
        then_args: "",
        expect: "3 miss: ARG V=1 is gone",
        ..ARG
    },
    Case {
        name: "an ARG is declared that has no value",
        args: "",
        then_args: "",
        boxfile: "FROM base\nRUN echo > /v\n",
        then: "FROM base\nARG NOTHING\nRUN echo > /v\n",
        expect: "3 hit",
        ..ARG
    },
    Case {
        name: "an ARG in a path of COPY",
        boxfile: "FROM base\nARG V\nCOPY a.txt /$V\n",
        expect: "3 miss: `/1` became `/2`",
        ..ARG
    },
    Case {
        name: "an ARG chooses what COPY reads",
        boxfile: "FROM base\nARG V\nCOPY $V.txt /f\n",
        args: "--build-arg V=a",
        then_args: "--build-arg V=b",
        expect: "3 miss: `a.txt` is gone; `b.txt` is new",
        ..ARG
    },
    Case {
        name: "an ARG that COPY does not read",
        boxfile: "FROM base\nARG V\nCOPY a.txt /f\n",
        expect: "3 hit",
        ..ARG
    },
    Case {
        name: "an ARG that an ENV hides",
        boxfile: "FROM base\nARG V\nENV V=fixed\nRUN echo $V > /v\n",
        expect: "4 hit",
        ..ARG
    },
    Case {
        name: "an ARG that becomes an ENV",
        boxfile: "FROM base\nARG V\nENV W=$V\nRUN echo $W > /v\n",
        expect: "4 miss: ARG V 1 → 2 (the line never mentions it: declare it later); ENV W 1 → 2",
        ..ARG
    },
    Case {
        name: "an ARG whose name promises a secret",
        boxfile: "FROM base\nARG API_TOKEN\nRUN test -n $API_TOKEN > /v\n",
        args: "--build-arg API_TOKEN=hunter1",
        then_args: "--build-arg API_TOKEN=hunter2",
        expect: "3 miss: ARG API_TOKEN changed (its values are not shown)",
        ..ARG
    },
    Case {
        name: "a proxy that is not declared",
        boxfile: "FROM base\nRUN echo > /v\n",
        args: "--build-arg HTTP_PROXY=http://one",
        then_args: "--build-arg HTTP_PROXY=http://two",
        expect: "2 hit",
        ..ARG
    },
    Case {
        name: "a proxy that is declared, with a password",
        boxfile: "FROM base\nARG HTTP_PROXY\nRUN echo > /v\n",
        args: "--build-arg HTTP_PROXY=http://me:secret@one",
        then_args: "--build-arg HTTP_PROXY=http://me:secret@two",
        expect: "3 miss: ARG HTTP_PROXY http://one → http://two (the line never mentions it: declare it later)",
        ..ARG
    },
    Case {
        name: "a global ARG for FROM",
        boxfile: "ARG V=base\nFROM $V\nRUN echo > /v\n",
        args: "",
        then_args: "--build-arg V=other",
        expect: "2 miss: the base changed: base (…) → other (…)",
        ..ARG
    },
    Case {
        name: "an ENV",
        args: "",
        then_args: "",
        boxfile: "FROM base\nENV E=1\nRUN echo > /v\n",
        then: "FROM base\nENV E=2\nRUN echo > /v\n",
        expect: "3 miss: ENV E 1 → 2",
        ..ARG
    },
    Case {
        name: "an ENV with spaces, and none",
        args: "",
        then_args: "",
        boxfile: "FROM base\nENV E=\"a b\" F=\nRUN echo > /v\n",
        then: "FROM base\nENV E=\"a c\" G=\nRUN echo > /v\n",
        expect: "3 miss: ENV E \"a b\" → \"a c\"; ENV F=\"\" is gone; ENV G=\"\" is new",
        ..ARG
    },
    Case {
        name: "an ENV after the step",
        args: "",
        then_args: "",
        boxfile: "FROM base\nRUN echo > /v\n",
        then: "FROM base\nRUN echo > /v\nENV E=2\n",
        expect: "2 hit",
        ..ARG
    },
    Case {
        name: "an ENV and COPY",
        args: "",
        then_args: "",
        boxfile: "FROM base\nENV E=1\nCOPY d /d\n",
        then: "FROM base\nENV E=2\nCOPY d /d\n",
        expect: "3 hit",
        ..ARG
    },
    Case {
        name: "the order of ENVs",
        args: "",
        then_args: "",
        boxfile: "FROM base\nENV A=1\nENV B=2\nRUN echo > /v\n",
        then: "FROM base\nENV B=2 A=1\nRUN echo > /v\n",
        expect: "3 hit",
        ..ARG
    },
];

#[test]
fn arguments_and_variables() {
    check(ARGUMENTS_AND_VARIABLES);
}

const RUN: Case = Case {
    boxfile: "FROM base\nRUN echo 1 > /v\n",
    expect: "2 hit",
    ..CASE
};

const INSTRUCTIONS: &[Case] = &[
    Case {
        name: "another command",
        then: "FROM base\nRUN echo 2 > /v\n",
        expect: "2 miss: the instruction was `RUN echo 1 > /v`, is `RUN echo 2 > /v`",
        ..RUN
    },
    Case {
        name: "small letters",
        then: "from base\nrun echo 1 > /v\n",
        ..RUN
    },
    Case {
        name: "comments and blank lines",
        then: "# hello\n\nFROM base\n\n# run\nRUN echo 1 > /v\n",
        ..RUN
    },
    Case {
        name: "JSON form instead of words",
        boxfile: "FROM base\nCOPY a.txt /f\n",
        then: "FROM base\nCOPY [\"a.txt\", \"/f\"]\n",
        ..RUN
    },
    Case {
        name: "exec form instead of shell form",
        boxfile: "FROM base\nRUN echo 1\n",
        then: "FROM base\nRUN [\"echo\", \"1\"]\n",
        expect: "2 miss: the instruction was `RUN echo 1`, is `RUN [\"echo\", \"1\"]`",
        ..RUN
    },
    Case {
        name: "labels, ports and the command to run",
        then: "FROM base\nLABEL a=b\nEXPOSE 80\nCMD [\"x\"]\nVOLUME /data\nSTOPSIGNAL 9\nRUN echo 1 > /v\n",
        expect: "7 hit",
        ..RUN
    },
    Case {
        name: "a limit",
        then: "FROM base\nLIMIT pids=100\nRUN echo 1 > /v\n",
        expect: "3 hit",
        ..RUN
    },
    Case {
        name: "a user",
        boxfile: "FROM base\nUSER user\nRUN id > /tmp/v || true\n",
        then: "FROM base\nUSER root\nRUN id > /tmp/v || true\n",
        expect: "3 miss: USER user → root",
        ..RUN
    },
    Case {
        name: "a working directory",
        boxfile: "FROM base\nWORKDIR /tmp\nRUN echo > /v\n",
        then: "FROM base\nWORKDIR /etc\nRUN echo > /v\n",
        expect: "2 miss: the instruction was `WORKDIR /tmp`, is `WORKDIR /etc`\n3 miss: WORKDIR /tmp → /etc",
        ..RUN
    },
    Case {
        name: "a working directory that is made",
        boxfile: "FROM base\nWORKDIR /a\nRUN echo > v\n",
        then: "FROM base\nWORKDIR /b\nRUN echo > v\n",
        expect: "2 miss: the instruction was `WORKDIR /a`, is `WORKDIR /b`\n3 miss: WORKDIR /a → /b; `WORKDIR /b` before it gave another layer",
        ..RUN
    },
    Case {
        name: "a shell",
        boxfile: "FROM base\nSHELL [\"/bin/sh\", \"-c\"]\nRUN echo > /v\n",
        then: "FROM base\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo > /v\n",
        expect: "3 miss: SHELL \"/bin/sh -c\" → \"/bin/sh -ec\"",
        ..RUN
    },
    Case {
        name: "a heredoc of RUN",
        boxfile: "FROM base\nRUN <<EOF\necho 1 > /v\necho same\nEOF\n",
        then: "FROM base\nRUN <<EOF\necho 2 > /v\necho same\nEOF\n",
        expect: "2 miss: `echo 1 > /v` became `echo 2 > /v`",
        ..RUN
    },
    Case {
        name: "a heredoc that is a program",
        boxfile: "FROM base\nRUN <<EOF\n#!/bin/sh\necho 1 > /v\nEOF\n",
        then: "FROM base\nRUN <<EOF\n#!/bin/sh\necho 2 > /v\nEOF\n",
        expect: "2 miss: the heredoc that is run changed",
        ..RUN
    },
    Case {
        name: "a heredoc of COPY",
        boxfile: "FROM base\nCOPY <<EOF /v\n1\nEOF\n",
        then: "FROM base\nCOPY <<EOF /v\n2\nEOF\n",
        expect: "2 miss: the heredoc EOF changed",
        ..RUN
    },
    Case {
        name: "a variable in a heredoc of COPY",
        boxfile: "FROM base\nARG V=1\nCOPY <<EOF /v\n$V\nEOF\n",
        then_args: "--build-arg V=2",
        expect: "3 miss: the heredoc EOF changed",
        ..RUN
    },
    Case {
        name: "a step before that makes no layer",
        then: "FROM base\nRUN true\nRUN echo 1 > /v\n",
        expect: "2 miss: the instruction was `RUN echo 1 > /v`, is `RUN true`\n3 hit",
        ..RUN
    },
    Case {
        name: "a step before",
        then: "FROM base\nRUN echo 0 > /u\nRUN echo 1 > /v\n",
        expect: "2 miss: the instruction was `RUN echo 1 > /v`, is `RUN echo 0 > /u`\n3 miss: `RUN echo 0 > /u` before it gave another layer",
        ..RUN
    },
    Case {
        name: "a step less",
        boxfile: "FROM base\nRUN echo 0 > /u\nRUN echo 1 > /v\n",
        then: "FROM base\nRUN echo 1 > /v\n",
        expect: "2 miss: a step before it is gone, or gives no layer now",
        ..RUN
    },
    Case {
        name: "two steps change places",
        boxfile: "FROM base\nRUN echo 0 > /u\nRUN echo 1 > /v\n",
        then: "FROM base\nRUN echo 1 > /v\nRUN echo 0 > /u\n",
        expect: "2 miss: a step before it is gone, or gives no layer now\n3 miss: `RUN echo 1 > /v` before it gave another layer",
        ..RUN
    },
    Case {
        name: "a step at the end",
        then: "FROM base\nRUN echo 1 > /v\nRUN echo 2 > /w\n",
        expect: "2 hit\n3 miss: never built before",
        ..RUN
    },
    Case {
        name: "another step that makes an equal layer",
        boxfile: "FROM base\nRUN echo 1 > /v\nRUN cat /v > /w\n",
        then: "FROM base\nRUN printf '1\\n' > /v\nRUN cat /v > /w\n",
        expect: "2 miss: the instruction was `RUN echo 1 > /v`, is `RUN printf '1\\n' > /v`\n3 hit",
        ..RUN
    },
    Case {
        name: "a comment in a script that makes an equal layer",
        setup: "echo 'echo 1 > /v' > s.sh",
        boxfile: "FROM base AS one\nCOPY s.sh /\nRUN sh /s.sh\nFROM base\nCOPY --from=one /v /v\nRUN cat /v > /w\n",
        change: "echo '# comment' >> s.sh",
        expect: "one 2 miss: `s.sh` changed\none 3 miss: `COPY s.sh /` before it gave another layer\n2 hit\n3 hit",
        ..RUN
    },
    Case {
        name: "an included file",
        setup: "echo 'RUN echo 1 > /v' > part",
        boxfile: "FROM base\nINCLUDE part\n",
        change: "echo 'RUN echo 2 > /v' > part",
        expect: "2 miss: the instruction was `RUN echo 1 > /v`, is `RUN echo 2 > /v`",
        ..RUN
    },
    Case {
        name: "the destination of COPY",
        boxfile: "FROM base\nCOPY a.txt /f\n",
        then: "FROM base\nCOPY a.txt /g\n",
        expect: "2 miss: the instruction was `COPY a.txt /f`, is `COPY a.txt /g`",
        ..RUN
    },
    Case {
        name: "--chown",
        boxfile: "FROM base\nCOPY --chown=1 a.txt /f\n",
        then: "FROM base\nCOPY --chown=2 a.txt /f\n",
        expect: "2 miss: the instruction was `COPY --chown=1 a.txt /f`, is `COPY --chown=2 a.txt /f`",
        ..RUN
    },
    Case {
        name: "a name of --chown that means another number",
        boxfile: "FROM base\nRUN echo new:x:20:20::/: >> /etc/passwd\nCOPY --chown=new a.txt /f\n",
        then: "FROM base\nRUN echo new:x:21:21::/: >> /etc/passwd\nCOPY --chown=new a.txt /f\n",
        expect: "2 miss: the instruction was `RUN echo new:x:20:20::/: >> /etc/passwd`, is `RUN echo new:x:21:21::/: >> /etc/passwd`\n\
                     3 miss: `RUN echo new:x:21:21::/: >> /etc/passwd` before it gave another layer",
        ..RUN
    },
    Case {
        name: "--chmod",
        boxfile: "FROM base\nCOPY --chmod=600 a.txt /f\n",
        then: "FROM base\nCOPY --chmod=640 a.txt /f\n",
        expect: "2 miss: the instruction was `COPY --chmod=600 a.txt /f`, is `COPY --chmod=640 a.txt /f`",
        ..RUN
    },
    Case {
        name: "--link does not see what is below",
        boxfile: "FROM base\nRUN echo 1 > /v\nCOPY --link a.txt /f\n",
        then: "FROM base\nRUN echo 2 > /v\nCOPY --link a.txt /f\n",
        expect: "2 miss: the instruction was `RUN echo 1 > /v`, is `RUN echo 2 > /v`\n3 hit",
        ..RUN
    },
    Case {
        name: "--parents",
        boxfile: "FROM base\nCOPY d/x /p/\n",
        then: "FROM base\nCOPY --parents d/x /p/\n",
        expect: "2 miss: the instruction was `COPY d/x /p/`, is `COPY --parents d/x /p/`",
        ..RUN
    },
];

#[test]
fn instructions() {
    check(INSTRUCTIONS);
}

const STAGES: Case = Case {
    setup: "echo 1 > one; echo 2 > two",
    boxfile: "FROM base AS work\nCOPY one two /w/\nFROM base\nCOPY --from=work /w/one /one\nRUN cat /one > /v\n",
    expect: "work 2 hit\n2 hit\n3 hit",
    ..CASE
};

const BASES_AND_STAGES: &[Case] = &[
    Case {
        name: "another image of the base's name",
        change: "\"$BOX\" tag other base",
        expect: "2 miss: the base changed: base (…) → base (…)\n3 miss: the base changed: base (…) → base (…)",
        ..CASE
    },
    Case {
        name: "the base under another name",
        change: "\"$BOX\" tag base same",
        then: "FROM same\nCOPY d /d\nRUN cat /d/x > /out\n",
        ..CASE
    },
    Case {
        name: "the base is imported once more",
        change: "\"$BOX\" import --progress quiet \"$SEED/base.tar\" base > /dev/null",
        ..CASE
    },
    Case {
        name: "an archive as the base",
        setup: "mkdir r; echo 1 > r/f; tar -C r --mtime=@0 -cf r.tar .",
        boxfile: "FROM ./r.tar\nCOPY <<EOF /g\nx\nEOF\n",
        change: "echo 2 > r/f; tar -C r --mtime=@0 -cf r.tar .",
        expect: "1 miss: this archive was not unpacked before\n2 miss: the base changed: ./r.tar (…) → ./r.tar (…)",
        ..CASE
    },
    Case {
        name: "nothing as the base",
        boxfile: "FROM scratch\nCOPY d /d\n",
        then: "FROM base\nCOPY d /d\n",
        expect: "2 miss: the base changed: scratch → base (…)",
        ..CASE
    },
    Case {
        name: "nothing in two stages",
        ..STAGES
    },
    Case {
        name: "what is copied from a stage",
        change: "echo z > one",
        expect: "work 2 miss: `one` changed\n2 miss: `w/one` changed\n3 miss: `COPY --from=work /w/one /one` before it gave another layer",
        ..STAGES
    },
    Case {
        name: "what is not copied from a stage",
        change: "echo z > two",
        expect: "work 2 miss: `two` changed\n2 hit\n3 hit",
        ..STAGES
    },
    Case {
        name: "a stage of another name",
        then: "FROM base AS other\nCOPY one two /w/\nFROM base\nCOPY --from=other /w/one /one\nRUN cat /one > /v\n",
        expect: "other 2 hit\n2 hit\n3 hit",
        ..STAGES
    },
    Case {
        name: "another stage with the same file",
        boxfile: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/one\nFROM base AS other\nCOPY one /w/\nFROM base\nCOPY --from=work /w/one /one\n",
        then: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/one\nFROM base AS other\nCOPY one /w/\nFROM base\nCOPY --from=other /w/one /one\n",
        expect: "other 2 miss: never built before\n2 hit",
        ..STAGES
    },
    Case {
        name: "a mode in a stage",
        boxfile: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/one && chmod 600 /w/one\nFROM base\nCOPY --from=work /w /w\n",
        then: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/one && chmod 640 /w/one\nFROM base\nCOPY --from=work /w /w\n",
        expect: "work 2 miss: the instruction was `RUN mkdir /w && echo 1 > /w/one && chmod 600 /w/one`, is `RUN mkdir /w && echo 1 > /w/one && chmod 640 /w/one`\n\
                     2 miss: mode of `w/one` 600 → 640",
        ..STAGES
    },
    Case {
        name: "an owner in a stage",
        boxfile: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/one && chown 1 /w/one\nFROM base\nCOPY --from=work /w /w\n",
        then: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/one && chown 2 /w/one\nFROM base\nCOPY --from=work /w /w\n",
        expect: "work 2 miss: the instruction was `RUN mkdir /w && echo 1 > /w/one && chown 1 /w/one`, is `RUN mkdir /w && echo 1 > /w/one && chown 2 /w/one`\n\
                     2 miss: owner of `w/one` 1:0 → 2:0",
        ..STAGES
    },
    Case {
        name: "a hard link in a stage",
        boxfile: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/a && cp /w/a /w/b\nFROM base\nCOPY --from=work /w /w\n",
        then: "FROM base AS work\nRUN mkdir /w && echo 1 > /w/a && ln /w/a /w/b\nFROM base\nCOPY --from=work /w /w\n",
        expect: "work 2 miss: the instruction was `RUN mkdir /w && echo 1 > /w/a && cp /w/a /w/b`, is `RUN mkdir /w && echo 1 > /w/a && ln /w/a /w/b`\n\
                     2 miss: `w/b` is another hard link",
        ..STAGES
    },
    Case {
        name: "a stage that nobody needs",
        boxfile: "FROM base AS unused\nCOPY one /one\nFROM base\nRUN echo 1 > /v\n",
        change: "echo z > one",
        expect: "2 hit",
        ..STAGES
    },
    Case {
        name: "a stage on a stage",
        boxfile: "FROM base AS work\nCOPY one /one\nFROM work\nRUN cat /one > /v\n",
        change: "echo z > one",
        expect: "work 2 miss: `one` changed\n2 miss: `COPY one /one` before it gave another layer",
        ..STAGES
    },
    Case {
        name: "a named context",
        setup: "mkdir n; echo 1 > n/f; echo 2 > n/g",
        boxfile: "FROM base\nCOPY --from=more f /f\n",
        args: "--build-context more=n",
        change: "echo z > n/f",
        expect: "2 miss: `f` changed",
        ..STAGES
    },
    Case {
        name: "another file of a named context",
        setup: "mkdir n; echo 1 > n/f; echo 2 > n/g",
        boxfile: "FROM base\nCOPY --from=more f /f\n",
        args: "--build-context more=n",
        change: "echo z > n/g",
        expect: "2 hit",
        ..STAGES
    },
    Case {
        name: "from an image",
        boxfile: "FROM base\nCOPY --from=other /etc /e\n",
        change: "\"$BOX\" tag base other",
        expect: "2 miss: `etc/other` is gone",
        ..STAGES
    },
];

#[test]
fn bases_and_stages() {
    check(BASES_AND_STAGES);
}

const BIND: Case = Case {
    setup: "mkdir s; echo 1 > s/f; echo 2 > s/g; echo 3 > h",
    boxfile: "FROM base\nRUN --mount=type=bind,source=s,target=/m cat /m/f > /v\n",
    expect: "2 hit",
    ..CASE
};

const MOUNTS: &[Case] = &[
    Case {
        name: "what is mounted",
        change: "echo z > s/f",
        expect: "2 miss: `s/f` changed",
        ..BIND
    },
    Case {
        name: "what is mounted and not read",
        change: "echo z > s/g",
        expect: "2 miss: `s/g` changed",
        ..BIND
    },
    Case {
        name: "what is not mounted",
        change: "echo z > h",
        ..BIND
    },
    Case {
        name: "one file is mounted",
        boxfile: "FROM base\nRUN --mount=type=bind,source=h,target=/h cat /h > /v\n",
        change: "chmod 600 h",
        expect: "2 miss: mode of `h` 644 → 600",
        ..BIND
    },
    Case {
        name: "where it is mounted",
        boxfile: "FROM base\nARG T=/m\nRUN --mount=type=bind,source=s,target=$T echo > /v\n",
        then_args: "--build-arg T=/n",
        expect: "3 miss: ARG T /m → /n (the line never mentions it: declare it later); a mount: \"the bind mount at /m (ro)\" → \"the bind mount at /n (ro)\"",
        ..BIND
    },
    Case {
        name: "whether it may be written",
        boxfile: "FROM base\nARG HOW=false\nRUN --mount=type=bind,source=s,target=/m,rw=$HOW echo > /v\n",
        then_args: "--build-arg HOW=true",
        expect: "3 miss: ARG HOW false → true (the line never mentions it: declare it later); a mount: \"the bind mount at /m (ro)\" → \"the bind mount at /m (rw)\"",
        ..BIND
    },
    Case {
        name: "from a stage",
        boxfile: "FROM base AS work\nCOPY h s/g /w/\nFROM base\nRUN --mount=type=bind,from=work,source=/w,target=/m cat /m/h > /v\n",
        change: "echo z > h",
        expect: "work 2 miss: `h` changed\n2 miss: `w/h` changed",
        ..BIND
    },
    Case {
        name: "all of a stage",
        boxfile: "FROM base AS work\nCOPY h s/g /w/\nFROM base\nRUN --mount=type=bind,from=work,target=/m cat /m/w/h > /v\n",
        change: "echo z > h",
        expect: "work 2 miss: `h` changed\n2 miss: the bind mount at /m (ro) changed",
        ..BIND
    },
    Case {
        name: "the content of a cache is in no key",
        boxfile: "FROM base\nRUN --mount=type=cache,target=/c echo >> /c/n\nRUN --mount=type=cache,target=/c echo > /v\n",
        expect: "2 hit\n3 hit",
        ..BIND
    },
    Case {
        name: "another cache",
        boxfile: "FROM base\nRUN --mount=type=cache,id=c,target=/c echo > /v\n",
        then: "FROM base\nRUN --mount=type=cache,id=d,target=/c echo > /v\n",
        expect: "2 miss: the instruction was `RUN --mount=type=cache,id=c,target=/c echo > /v`, is `RUN --mount=type=cache,id=d,target=/c echo > /v`",
        ..BIND
    },
    Case {
        name: "the size of a tmpfs",
        boxfile: "FROM base\nRUN --mount=type=tmpfs,target=/t,size=1m echo > /v\n",
        then: "FROM base\nRUN --mount=type=tmpfs,target=/t,size=2m echo > /v\n",
        expect: "2 miss: the instruction was `RUN --mount=type=tmpfs,target=/t,size=1m echo > /v`, is `RUN --mount=type=tmpfs,target=/t,size=2m echo > /v`",
        ..BIND
    },
    Case {
        name: "what a secret holds",
        boxfile: "FROM base\nRUN --mount=type=secret,id=s test -s /run/secrets/s && echo > /v\n",
        args: "--secret id=s,env=MY_SECRET",
        then_args: "--secret id=s,src=h",
        ..BIND
    },
    Case {
        name: "another secret",
        setup: "echo hunter1 > h",
        boxfile: "FROM base\nRUN --mount=type=secret,id=s,target=/k test -s /k && echo > /v\n",
        then: "FROM base\nRUN --mount=type=secret,id=t,target=/k test -s /k && echo > /v\n",
        args: "--secret id=s,src=h --secret id=t,src=h",
        expect: "2 miss: the instruction was `RUN --mount=type=secret,id=s,target=/k test -s /k && echo > /v`, is `RUN --mount=type=secret,id=t,target=/k test -s /k && echo > /v`",
        ..BIND
    },
    Case {
        name: "a mount more",
        boxfile: "FROM base\nRUN echo > /v\n",
        then: "FROM base\nRUN --mount=type=tmpfs,target=/t echo > /v\n",
        expect: "2 miss: the instruction was `RUN echo > /v`, is `RUN --mount=type=tmpfs,target=/t echo > /v`",
        ..BIND
    },
];

#[test]
fn mounts() {
    check(MOUNTS);
}

const ONE: Case = Case {
    setup: "echo a > a.txt",
    boxfile: "FROM base\nCOPY a.txt /\nRUN umask > /v\n",
    ..CASE
};

const WHAT_SURROUNDS_A_BUILD: &[Case] = &[
    Case {
        name: "the umask",
        change: "umask 077; \"$BOX\" build -q --network none -f \"$PLACE/Boxfile\" . >/dev/null",
        ..ONE
    },
    Case {
        name: "the umask of the cold build",
        change: "rm -r \"$STORE\"; cp -a \"$SEED/store\" \"$STORE\"; umask 077; \"$BOX\" build -q --network none -f \"$PLACE/Boxfile\" . >/dev/null",
        ..ONE
    },
    Case {
        name: "locale, home and time zone",
        change: "rm -r \"$STORE\"; cp -a \"$SEED/store\" \"$STORE\"; LC_ALL=tr_TR HOME=/nowhere TZ=Asia/Tokyo \"$BOX\" build -q --network none -f \"$PLACE/Boxfile\" . >/dev/null",
        ..ONE
    },
    Case {
        name: "limits of the caller",
        then_args: "--pids-limit 100",
        ..ONE
    },
    Case {
        name: "labels of the caller",
        then_args: "--label a=b",
        ..ONE
    },
    Case {
        name: "the network",
        boxfile: "FROM base\nRUN echo > /v\n",
        then: "FROM base\nRUN --network=host echo > /v\n",
        expect: "2 miss: the network none → host",
        ..ONE
    },
    Case {
        name: "/etc/hosts",
        then_args: "--add-host a:1.2.3.4",
        expect: "2 hit\n3 miss: /etc/hosts \"\" → \"a 1.2.3.4\"",
        ..ONE
    },
    Case {
        name: "SOURCE_DATE_EPOCH",
        then_args: "--build-arg SOURCE_DATE_EPOCH=1800000000",
        expect: "2 miss: SOURCE_DATE_EPOCH none → 1800000000\n3 miss: SOURCE_DATE_EPOCH none → 1800000000",
        ..ONE
    },
    Case {
        name: "times of the clock",
        then_args: "--mtimes real",
        expect: "2 miss: --mtimes logical → real\n3 miss: --mtimes logical → real; `COPY a.txt /` before it gave another layer",
        is_pure: false,
        ..ONE
    },
    Case {
        name: "the platform",
        boxfile: "FROM scratch\nCOPY a.txt /\n",
        args: "--platform linux/amd64",
        then_args: "--platform linux/arm64",
        expect: "2 miss: the platform linux/amd64 → linux/arm64",
        ..ONE
    },
    Case {
        name: "--no-cache",
        then_args: "--no-cache",
        expect: "2 miss: --no-cache\n3 miss: --no-cache",
        is_pure: false,
        ..ONE
    },
    Case {
        name: "--no-cache-filter",
        boxfile: "FROM base AS one\nRUN echo > /v\nFROM base AS two\nRUN echo > /w\nCOPY --from=one /v /v\n",
        then_args: "--no-cache-filter ONE",
        expect: "one 2 miss: --no-cache-filter names its stage\ntwo 2 hit\ntwo 3 hit",
        ..ONE
    },
    Case {
        name: "--no-cache-filter by number",
        boxfile: "FROM base AS one\nRUN echo > /v\nFROM one\nRUN echo > /w\n",
        then_args: "--no-cache-filter=1",
        expect: "one 2 hit\n2 miss: --no-cache-filter names its stage",
        ..ONE
    },
    Case {
        name: "a step that is never taken from the cache",
        boxfile: "FROM base\nRUN --cache=never echo > /v\nRUN echo > /w\n",
        expect: "2 miss: it says --cache=never\n3 hit",
        ..ONE
    },
    Case {
        name: "a step whose time is over",
        boxfile: "FROM base\nRUN --cache=ttl:1s echo > /v\nRUN echo > /w\n",
        change: "sleep 2.1",
        expect: "2 miss: it was done longer ago than its --cache=ttl:1s allows\n3 hit",
        ..ONE
    },
    Case {
        name: "a step whose time is not over",
        boxfile: "FROM base\nRUN --cache=ttl:1h echo > /v\nRUN echo > /w\n",
        ..ONE
    },
    Case {
        name: "all records are gone",
        change: "\"$BOX\" prune > /dev/null",
        expect: "2 miss: never built before\n3 miss: never built before",
        ..ONE
    },
    Case {
        name: "the steps' records are gone",
        change: "rm -r \"$STORE/records/step\"",
        expect: "2 miss: its record was removed\n3 miss: its record was removed",
        ..ONE
    },
    Case {
        name: "the lists of files are gone",
        change: "rm -r \"$STORE/records/files\"; echo z > a.txt",
        expect: "2 miss: a.txt changed\n3 miss: `COPY a.txt /` before it gave another layer",
        ..ONE
    },
    Case {
        name: "a layer is gone",
        change: "for layer in $(ls -t \"$STORE/layers\" | head -1); do rm -r \"$STORE/layers/$layer\" \"$STORE/meta/$layer\"; done",
        expect: "2 hit\n3 miss: its layer was removed, or is damaged",
        ..ONE
    },
    Case {
        name: "a damaged record",
        change: "for record in $(find \"$STORE/records/step\" -type f); do printf x >> $record; done",
        expect: "2 miss: its record was removed\n3 miss: its record was removed",
        ..ONE
    },
];

#[test]
fn what_surrounds_a_build() {
    check(WHAT_SURROUNDS_A_BUILD);
}
