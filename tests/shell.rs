//! A person at a terminal in a build: `--shell-on-error` and `--shell-at`. What they do there gets into no layer and no record.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::pty::{AtTerminal, Streams};
use common::{Bench, OrdinaryUser, Traces, sh, success, text};

/// Fails until somebody puts a file into its cache.
const BOXFILE: &str = "FROM busybox\n\
    ENV GREETING=hello\n\
    RUN echo boxer:x:7:8::/:/bin/sh >> /etc/passwd && mkdir -p /work && chown 7:8 /work\n\
    WORKDIR /work\n\
    USER boxer\n\
    ARG NAME=argument\n\
    RUN --mount=type=secret,id=s,mode=0444 --mount=type=cache,target=/cache,mode=0777 --mount=type=bind,target=/context,rw --mount=type=tmpfs,target=/scratch \
        echo made > made && cat /run/secrets/s && ls /cache/ok\n\
    RUN echo after > after\n";

/// What a shell writes, and nothing else holds.
const MARK: &str = "written-by-a-person";

fn context(bench: &Bench, boxfile: &str) -> PathBuf {
    bench.context("context", &[("Boxfile", boxfile), ("secret", "top-secret\n")])
}

fn arguments(context: &Path, extra: &[&str]) -> Vec<String> {
    let secret = format!("id=s,src={}", context.join("secret").display());
    let fixed = ["build", "--network", "none", "--secret", &secret];
    let context = context.to_str().unwrap();
    let words = fixed.iter().chain(extra).chain([&context]);
    words.map(|word| (*word).to_owned()).collect()
}

fn at_terminal(bench: &Bench, context: &Path, extra: &[&str]) -> AtTerminal {
    AtTerminal::start(&bench.command(arguments(context, extra)), Streams::All)
}

/// The same again, when what is being killed has had time to die.
fn settled(bench: &Bench, before: &Traces) -> Traces {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Traces::of(bench) != *before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    Traces::of(bench)
}

/// Where in this directory something of a shell is: files that hold the mark, and such that are named so.
fn marks(store: &Path) -> String {
    let store = store.display();
    sh(&format!(
        "grep -rl {MARK} {store} || true; find {store} -name '*{MARK}*'"
    ))
}

/// Nothing is left of a shell: on the machine, among the unfinished, or anywhere in the store.
#[track_caller]
fn assert_clean(bench: &Bench, store: &Path, before: &Traces) {
    assert_eq!(settled(bench, before), *before);
    let unfinished: Vec<_> = std::fs::read_dir(store.join("tmp")).unwrap().collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
    assert_eq!(marks(store), "", "what was written is kept");
}

/// Looks around in the container of the failed step of `BOXFILE`, and leaves its marks.
fn look_around(shell: &mut AtTerminal) {
    shell.expect("exit code 1");
    shell.expect("To try again: /bin/sh -c \"$BOX_STEP\"");
    shell.expect("When this shell ends, the build fails.");
    let facts = [
        ("id -u; id -g; pwd", "7\n8\n/work\n"),
        ("cat made; ls", "made\nmade\n"),
        ("echo $GREETING $NAME $TERM", "hello argument xterm\n"),
        ("cat /run/secrets/s", "top-secret\n"),
        ("ls /context/Boxfile; ls -A /scratch", "/context/Boxfile\n"),
        ("hostname; ls /sys/class/net", "box\nlo\n"),
        ("stty size; tty", "33 200\n/dev/pts/0\n"),
        (
            "/bin/sh -c \"$BOX_STEP\" 2>&1; echo $?",
            "top-secret\nls: /cache/ok: No such file or directory\n1\n",
        ),
    ];
    for (line, answer) in facts {
        assert_eq!(shell.say(line), answer, "{line}");
    }
    shell.say(&format!(
        "echo {MARK} > {MARK}; cp {MARK} made; cp {MARK} /scratch"
    ));
    shell.say(&format!("cp {MARK} /tmp; cp {MARK} /context; ls /tmp"));
    // A cache is no part of a layer or a key: what helps the step may stay.
    assert_eq!(shell.say("touch /cache/ok; ls /cache"), "ok\n");
}

#[test]
fn the_container_of_a_failed_step_is_opened() {
    let bench = Bench::with_busybox();
    let context = context(&bench, BOXFILE);
    bench.ok(["gc"]);
    let before = Traces::of(&bench);
    let mut shell = at_terminal(
        &bench,
        &context,
        &["--progress", "plain", "--shell-on-error", "-t", "it"],
    );
    look_around(&mut shell);
    assert_ne!(marks(&bench.store()), "", "marks would be found");
    shell.prompt();
    shell.press("exit 42\n");
    let (status, shown, _) = shell.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    let told = shown.rsplit("exit 42").next().unwrap();
    assert!(
        told.contains("error: ") && told.contains("exit code 1"),
        "{shown}"
    );
    assert!(told.contains("box build logs"), "{shown}");
    assert_clean(&bench, &bench.store(), &before);
    assert!(!bench.ok(["images"]).contains("it"), "no image was made");
    assert!(!bench.ok(["build", "logs"]).contains("top-secret"));

    // The step was helped, and has no trace of who helped it.
    let command = bench
        .command(arguments(&context, &["-q", "-t", "it"]))
        .output()
        .unwrap();
    success(command);
    assert_eq!(bench.sh("it", "cd /work; ls; cat made"), "after\nmade\nmade\n");
    let twin = Bench::with_busybox();
    let helped = BOXFILE.replace("ls /cache/ok", "true");
    let theirs = twin
        .command(arguments(&self::context(&twin, &helped), &["-q"]))
        .output()
        .unwrap();
    let layers = |bench: &Bench, image: &str| {
        let image: serde_json::Value = serde_json::from_str(&bench.ok(["inspect", image])).unwrap();
        image[0]["RootFS"]["Layers"].as_array().unwrap().len()
    };
    assert_eq!(layers(&bench, "it"), layers(&twin, success(theirs).trim()));
    assert!(bench.ok(["fsck"]).contains("all is well"));
}

#[test]
fn an_ordinary_user_is_let_in_too() {
    let bench = Bench::new();
    let user = OrdinaryUser::new(&bench);
    let tar = bench.busybox_tar();
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    let context = context(&bench, BOXFILE);
    let before = Traces::of(&bench);
    let arguments = |extra: &[&str]| arguments(&context, extra);
    let command = user.command(arguments(&["--shell-on-error"]));
    let mut shell = AtTerminal::start(&command, Streams::All);
    look_around(&mut shell);
    shell.prompt();
    shell.press("\x04");
    let (status, shown, _) = shell.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert_clean(&bench, &user.home().join("store"), &before);
    let command = user.command(arguments(&["--shell-at", "8"]));
    let mut shell = AtTerminal::start(&command, Streams::All);
    assert_eq!(shell.say("id -u; ls; cat made"), "7\nmade\nmade\n");
    shell.prompt();
    shell.press("exit 5\n");
    assert_eq!(shell.end().0.code(), Some(5));
    assert_clean(&bench, &user.home().join("store"), &before);
    user.ok(["fsck"]);
}

/// Whose containers have one id alone: the layers lie otherwise on the disk.
#[test]
fn a_user_with_a_single_id_is_let_in_too() {
    let bench = Bench::new();
    let user = OrdinaryUser::without_subids(&bench);
    let tar = bench.busybox_tar();
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    let boxfile = "FROM busybox\nWORKDIR /work\n\
        RUN --mount=type=secret,id=s --mount=type=bind,target=/c,rw echo made > made && rm /c/Boxfile && false\n";
    let context = context(&bench, boxfile);
    let before = Traces::of(&bench);
    let command = user.command(arguments(&context, &["--shell-on-error"]));
    let mut shell = AtTerminal::start(&command, Streams::All);
    assert_eq!(
        shell.say("cat made /run/secrets/s; ls /c"),
        "made\ntop-secret\nsecret\n"
    );
    shell.say(&format!("echo {MARK} > {MARK}"));
    shell.prompt();
    shell.press("exit\n");
    let (status, shown, _) = shell.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert_clean(&bench, &user.home().join("store"), &before);
}

#[test]
fn without_a_terminal_it_is_refused() {
    let bench = Bench::with_busybox();
    let context = context(&bench, BOXFILE);
    for option in [&["--shell-on-error"][..], &["--shell-at", "2"]] {
        let said = bench.fails(125, arguments(&context, option));
        assert!(said.contains(&format!("{} opens a shell", option[0])), "{said}");
        assert!(said.contains("no terminal") && said.contains("hint: "), "{said}");
    }
    // With a terminal to show it on, but nobody to type.
    let mut command = Command::new("script");
    let line = format!(
        "{} build --shell-on-error {} < /dev/null",
        common::BOX,
        context.display()
    );
    command
        .args(["-qec", &line, "/dev/null"])
        .env("BOX_ROOT", bench.store());
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stdout).contains("no terminal"),
        "{}",
        text(&output.stdout)
    );
    assert!(
        !bench.store().join("logs").exists() || bench.ok(["build", "logs", "--list"]).lines().count() <= 1
    );
    // Neither does what builds nothing open one.
    for option in [&["--shell-on-error"][..], &["--shell-at", "2"]] {
        let plan = [&["plan"], option, &[context.to_str().unwrap()]].concat();
        assert!(bench.fails(125, plan).contains("box plan builds nothing"));
    }
    for with in ["--check", "--call=outline"] {
        bench.fails(125, arguments(&context, &["--shell-on-error", with]));
        bench.fails(125, arguments(&context, &["--shell-at", "2", with]));
    }
    for with in [
        &["-t", "x"][..],
        &["-o", "out"],
        &["--check-reproducible"],
        &["--iidfile", "f"],
    ] {
        bench.fails(125, arguments(&context, &[&["--shell-at", "2"], with].concat()));
    }
}

#[test]
fn whatever_shows_the_progress() {
    let bench = Bench::with_busybox();
    let context = context(&bench, BOXFILE);
    for mode in ["plain", "tty", "quiet", "json"] {
        let mut shell = at_terminal(&bench, &context, &["--progress", mode, "--shell-on-error"]);
        assert_eq!(shell.say("ls"), "made\n", "{mode}");
        if mode == "plain" {
            // Another build of the same step is not held up by people.
            let mut other = Command::new("timeout");
            other.args(["60", common::BOX]).args(arguments(&context, &["-q"]));
            let other = other.env("BOX_ROOT", bench.store()).output().unwrap();
            assert_eq!(other.status.code(), Some(1), "{}", text(&other.stderr));
        }
        shell.prompt();
        shell.press("exit 0\n");
        let (status, shown, _) = shell.end();
        assert_eq!(
            status.code(),
            Some(1),
            "a shell that ends well heals nothing: {shown}"
        );
        if mode != "json" {
            assert!(shown.contains("This is its container"), "{mode}: {shown}");
            assert!(
                shown.rsplit("exit 0").next().unwrap().contains("error: "),
                "{mode}: {shown}"
            );
            continue;
        }
        let events: Vec<serde_json::Value> = shown
            .lines()
            .filter_map(|line| serde_json::from_str(line.trim_end()).ok())
            .collect();
        let at = |name: &str| events.iter().position(|event| event["event"] == name);
        let (opened, closed) = (at("shell_opened").unwrap(), at("shell_closed").unwrap());
        assert_eq!(closed, opened + 1, "{shown}");
        assert!(
            at("step_failed") < Some(opened) && at("build_failed") > Some(closed),
            "{shown}"
        );
        let opened = &events[opened];
        assert_eq!(opened["occasion"], "failed");
        assert_eq!(opened["error"], "exit code 1");
        assert_eq!((&opened["index"], &opened["total"]), (&7.into(), &8.into()));
        assert_eq!(opened["command"], "/bin/sh -c \"$BOX_STEP\"");
    }
    // Where standard output is for the result, the shell is shown beside it.
    let command = bench.command(arguments(&context, &["--shell-on-error"]));
    let mut shell = AtTerminal::start(&command, Streams::WithoutOutput);
    assert_eq!(shell.say("ls"), "made\n");
    shell.prompt();
    shell.press("touch /cache/ok; exit 3\n");
    let (status, _, output) = shell.end();
    assert_eq!((status.code(), output.as_str()), (Some(1), ""));
    // Nobody is let in where nothing fails.
    let shell = at_terminal(&bench, &context, &["--shell-on-error", "--progress", "plain"]);
    let (status, shown, _) = shell.end();
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(shown.contains("sha256:") && !shown.contains("shell"), "{shown}");
}

#[test]
fn keys_and_signals() {
    let bench = Bench::with_busybox();
    let context = context(&bench, BOXFILE);
    let before = Traces::of(&bench);
    let open = || at_terminal(&bench, &context, &["--shell-on-error", "--progress", "plain"]);
    // Ctrl-C is the shell's business, and that of what it runs.
    let mut shell = open();
    shell.prompt();
    shell.press("\x03");
    shell.prompt();
    shell.press("echo be'gun'; sleep 1000\n");
    shell.expect("begun\r\n");
    shell.press("\x03");
    assert_eq!(shell.say("echo $?"), "130\n");
    shell.resize(20, 90);
    let deadline = Instant::now() + Duration::from_secs(10);
    while shell.say("stty size") != "20 90\n" {
        assert!(Instant::now() < deadline, "{}", shell.shown());
    }
    // What goes on in the background ends with it.
    shell.say("sleep 4321 & sleep 4321 & true");
    shell.prompt();
    shell.press("exit\n");
    assert_eq!(shell.end().0.code(), Some(1));
    assert_clean(&bench, &bench.store(), &before);

    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let mut shell = open();
        shell.say(&format!("trap '' TERM HUP INT; echo x > {MARK}"));
        sh(&format!("kill -{signal} {}", shell.id()));
        let (status, shown, _) = shell.end();
        assert_eq!(status.code(), Some(code), "{shown}");
        assert!(shown.contains("interrupted"), "{shown}");
        assert_clean(&bench, &bench.store(), &before);
    }
    // Killed at once, it takes the container with it.
    let mut shell = open();
    shell.say(&format!("echo x > {MARK}"));
    sh(&format!("kill -KILL {}", shell.id()));
    drop(shell);
    bench.ok(["gc"]);
    assert_clean(&bench, &bench.store(), &before);
}

#[test]
fn other_steps_are_stopped_before() {
    let bench = Bench::with_busybox();
    let shared = "--mount=type=cache,id=meeting,target=/m";
    let boxfile = format!(
        "FROM busybox AS long\nRUN {shared} touch /m/begun; sleep 600\n\
         FROM busybox AS bad\nRUN {shared} until [ -e /m/begun ]; do sleep 0.02; done; exit 7\n\
         FROM busybox AS worse\nRUN {shared} until [ -e /m/begun ]; do sleep 0.02; done; exit 7\n\
         FROM busybox\nCOPY --from=long / /l\nCOPY --from=bad / /b\nCOPY --from=worse / /w\n"
    );
    let context = context(&bench, &boxfile);
    let before = Traces::of(&bench);
    let mut shell = at_terminal(
        &bench,
        &context,
        &["--shell-on-error", "--progress", "plain", "--jobs", "3"],
    );
    shell.expect("exit code 7. This is its container");
    assert_eq!(shell.say("ls /m; echo $$"), "begun\n1\n");
    let others = || sh("ps -eo args").lines().any(|line| line.trim() == "sleep 600");
    let deadline = Instant::now() + Duration::from_secs(10);
    while others() {
        assert!(Instant::now() < deadline, "the other step goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    shell.prompt();
    shell.press("exit\n");
    let (status, shown, _) = shell.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert_eq!(
        shown.matches("This is its container").count(),
        1,
        "one person is let in once"
    );
    assert!(
        shown.contains("CANCELLED") && shown.contains("exit code 7"),
        "{shown}"
    );
    assert_clean(&bench, &bench.store(), &before);
}

#[test]
fn commands_of_every_form_are_tried_again() {
    let bench = Bench::with_busybox();
    let check = |boxfile: &str, retry: &str, lines: &[(&str, &str)]| {
        let context = context(&bench, boxfile);
        let mut shell = at_terminal(&bench, &context, &["--shell-on-error", "--progress", "plain"]);
        shell.expect(retry);
        for (line, answer) in lines {
            assert_eq!(shell.say(line), *answer, "{line}");
        }
        shell.prompt();
        shell.press("exit\n");
        assert_eq!(shell.end().0.code(), Some(1));
    };
    check(
        "FROM busybox\nRUN [\"sh\", \"-c\", \"echo \\\"it's\\\" $0; exit 4\", \"me\"]\n",
        "To try again: sh -c 'echo \"it'\\''s\" $0; exit 4' me.",
        &[("sh -c 'echo \"it'\\''s\" $0; exit 4' me; echo $?", "it's me\n4\n")],
    );
    check(
        "FROM busybox\nRUN [\"nothing-of-the-kind\"]\n",
        "To try again: nothing-of-the-kind.",
        &[("echo $BOX_STEP; pwd", "\n/\n")],
    );
    check(
        "FROM busybox\nRUN <<END\necho one\nfalse || exit 6\nEND\n",
        "exit code 6",
        &[("/bin/sh -c \"$BOX_STEP\"; echo $?", "one\n6\n")],
    );
    check(
        "FROM busybox\nSHELL [\"/bin/sh\", \"-eu\", \"-c\"]\nRUN false; echo not\n",
        "To try again: /bin/sh -eu -c \"$BOX_STEP\".",
        // The shell itself goes on after what fails.
        &[
            ("false; echo $unset", "\n"),
            ("/bin/sh -eu -c \"$BOX_STEP\"; echo $?", "1\n"),
        ],
    );
    check(
        "FROM busybox\nRUN --timeout=1s echo made > /made; sleep 60\n",
        "This is its container",
        &[("cat /made; sleep 2; echo there", "made\nthere\n")],
    );
    check(
        "FROM busybox\nLIMIT memory=64M\nRUN echo made > /made; tail /dev/zero\n",
        "This is its container",
        &[("cat /made; tail /dev/zero; echo $?", "made\nKilled\n137\n")],
    );
    check(
        "FROM busybox\nRUN --mount=type=bind,target=/c,rw echo changed >> /c/secret; exit 3\n",
        "exit code 3",
        &[
            ("cat /c/secret", "top-secret\nchanged\n"),
            ("rm /c/secret; ls /c", "Boxfile\n"),
        ],
    );
    assert_eq!(
        std::fs::read_to_string(bench.path("context/secret")).unwrap(),
        "top-secret\n"
    );
}

#[test]
fn where_no_shell_can_be_opened_the_failure_stays() {
    let bench = Bench::with_busybox();
    let program = bench.path("rootfs/bin/busybox");
    let directory = bench.path("context");
    let context = context(
        &bench,
        "FROM scratch\nCOPY busybox /prog/false\nRUN [\"/prog/false\"]\n",
    );
    std::fs::copy(program, directory.join("busybox")).unwrap();
    let shell = at_terminal(&bench, &context, &["--shell-on-error", "--progress", "plain"]);
    let (status, shown, _) = shell.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("no shell was opened in the step's container: the image has no /bin/sh"),
        "{shown}"
    );
    assert!(shown.contains("exit code 1"), "{shown}");
    let (status, shown, _) = at_terminal(&bench, &context, &["--shell-at", "3"]).end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("no shell was opened: the image has no /bin/sh"),
        "{shown}"
    );
    // A step that fails without a container has none to open.
    let context = self::context(&bench, "FROM busybox\nCOPY missing /\n");
    let (status, shown, _) = at_terminal(&bench, &context, &["--shell-on-error"]).end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(shown.contains("missing") && !shown.contains("shell"), "{shown}");
}

const STAGES: &str = "FROM busybox AS base\n\
    ENV WHERE=base\n\
    RUN echo base > /base\n\
    FROM busybox AS other\n\
    RUN echo other > /other\n\
    FROM busybox AS broken\n\
    RUN exit 9\n\
    FROM base\n\
    COPY Boxfile /copied\n\
    WORKDIR /work\n\
    ENV WHERE=last\n\
    RUN --mount=type=bind,from=other,source=/other,target=/mounted --mount=type=secret,id=s echo ran > ran; cat /mounted > got\n\
    COPY --from=broken / /broken\n";

/// A shell there, which answers these lines, writes its mark and ends with 23; gives all that was shown.
#[track_caller]
fn at_point(bench: &Bench, context: &Path, point: &[&str], said: &str, lines: &[(&str, &str)]) -> String {
    let before = Traces::of(bench);
    let options = [&["--progress", "plain", "--shell-at"], point].concat();
    let mut shell = at_terminal(bench, context, &options);
    shell.expect(said);
    for (line, answer) in lines {
        assert_eq!(shell.say(line), *answer, "{point:?} {line}");
    }
    shell.say(&format!("echo {MARK} > /{MARK}"));
    shell.prompt();
    shell.press("exit 23\n");
    let (status, shown, _) = shell.end();
    assert_eq!(status.code(), Some(23), "{shown}");
    assert!(!shown.contains("error") && !shown.contains("FAILED"), "{shown}");
    assert_clean(bench, &bench.store(), &before);
    shown
}

#[test]
fn who_waits_for_a_shell_is_told_for_what() {
    let bench = Bench::with_busybox();
    let boxfile =
        "FROM busybox\nRUN --mount=type=cache,id=q,sharing=locked,target=/c touch /c/begun; sleep 4\n";
    let context = context(&bench, boxfile);
    let mut other = bench
        .command(arguments(&context, &["--progress", "quiet"]))
        .spawn()
        .unwrap();
    let begun = format!("ls {}/cache-mounts/*/0/data/begun", bench.store().display());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !Command::new("sh")
        .args(["-c", &begun])
        .output()
        .unwrap()
        .status
        .success()
    {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut shell = at_terminal(&bench, &context, &["--progress", "plain", "--shell-at", "2"]);
    shell.expect("the shell waits for ");
    shell.expect("comes next");
    assert_eq!(shell.say("ls /c"), "begun\n");
    shell.press("exit\n");
    assert!(shell.end().0.success());
    assert!(other.wait().unwrap().success());
}

#[test]
fn a_shell_at_any_point() {
    let bench = Bench::with_busybox();
    let context = context(&bench, STAGES);
    let there = |point: &[&str], said, lines: &[(&str, &str)]| at_point(&bench, &context, point, said, lines);
    // In the state before what is no RUN, without mounts.
    there(
        &["4"],
        "[stage-3 4/6] ENV WHERE=last comes next",
        &[
            ("pwd; echo $WHERE", "/work\nbase\n"),
            ("ls /mounted", "ls: /mounted: No such file or directory\n"),
        ],
    );
    // Of what comes next nothing is built.
    there(
        &["6"],
        "[stage-3 6/6] COPY --from=broken / /broken comes next",
        &[("cat ran", "ran\n")],
    );
    there(
        &["2"],
        "[stage-3 2/6] COPY Boxfile /copied comes next",
        &[("ls /copied; pwd", "ls: /copied: No such file or directory\n/\n")],
    );
    there(
        &["base:3"],
        "[base 3/3] RUN echo base > /base comes next. To run it: /bin/sh -c \"$BOX_STEP\"",
        &[(
            "ls /base; echo $WHERE",
            "ls: /base: No such file or directory\nbase\n",
        )],
    );
    there(
        &["base"],
        "[base 3/3] RUN echo base > /base was the last step",
        &[("cat /base", "base\n")],
    );
    there(
        &["0:2"],
        "[base 2/3] ENV WHERE=base comes next",
        &[("echo $WHERE", "\n")],
    );
    there(&["3", "--target", "base"], "[base 3/3]", &[]);
    there(
        &["stage-3:3"],
        "[stage-3 3/6] WORKDIR /work comes next",
        &[("pwd; ls /copied", "/\n/copied\n")],
    );
    // A step that fails is looked at before it does.
    there(
        &["broken:2"],
        "[broken 2/2] RUN exit 9 comes next",
        &[("/bin/sh -c \"$BOX_STEP\"; echo $?", "9\n")],
    );
}

#[test]
fn what_is_done_by_hand_is_in_no_image_and_no_record() {
    let bench = Bench::with_busybox();
    let context = context(&bench, STAGES);
    let images = bench.ok(["images", "-q"]);
    // Before a RUN: with its mounts, and nothing of it done. What the point does not need is not built.
    let shown = at_point(
        &bench,
        &context,
        &["5"],
        "[stage-3 5/6] RUN --mount=type=bind,from=other",
        &[
            ("pwd; ls -A; echo $WHERE", "/work\nlast\n"),
            ("cat /mounted /run/secrets/s /base", "other\ntop-secret\nbase\n"),
            ("/bin/sh -c \"$BOX_STEP\"; cat ran got", "ran\nother\n"),
        ],
    );
    assert!(shown.contains("DONE") && !shown.contains("broken 1/"), "{shown}");
    // Again: every step is in the cache, and the state is the same.
    let again = [("ls -A; cat /mounted", "other\n")];
    let shown = at_point(&bench, &context, &["5", "--jobs", "1"], "comes next", &again);
    assert!(
        shown.contains("CACHED RUN echo base") && !shown.contains("DONE"),
        "{shown}"
    );
    assert_eq!(bench.ok(["images", "-q"]), images, "no image was made");
    assert!(bench.ok(["fsck"]).contains("all is well"));

    // What was built on the way is in the cache, and right.
    let secret = format!("id=s,src={}", context.join("secret").display());
    let said = bench.build_plain(
        &context,
        &STAGES.replace("COPY --from=broken / /broken\n", ""),
        &["--network", "none", "-t", "end", "--secret", &secret],
    );
    let cached = ["RUN echo base", "RUN echo other", "COPY Boxfile", "WORKDIR /work"];
    for step in cached {
        assert!(said.contains(&format!("CACHED {step}")), "{step}: {said}");
    }
    assert!(
        !said.contains("CACHED RUN --mount"),
        "what was run by hand is none of it: {said}"
    );
    assert!(!bench.sh("end", "ls / /work; cat /work/*").contains(MARK));
    assert_eq!(bench.sh("end", "cat /work/ran /work/got"), "ran\nother\n");
}

#[test]
fn points_that_are_not_there() {
    let bench = Bench::with_busybox();
    let context = context(&bench, STAGES);
    let check = |point: &[&str], code: i32, wanted: &[&str]| {
        let (status, shown, _) = at_terminal(&bench, &context, &[&["--shell-at"], point].concat()).end();
        assert_eq!(status.code(), Some(code), "{point:?}: {shown}");
        for wanted in wanted {
            assert!(shown.contains(wanted), "{point:?}: {shown}");
        }
        assert!(!shown.contains("DONE"), "nothing was built: {shown}");
    };
    check(&["7"], 1, &["no step 7", "2 to 6"]);
    check(&["18446744073709551615"], 1, &["no step 18446744073709551615"]);
    check(&["0"], 1, &["counted from 1"]);
    check(&["1"], 1, &["before step 1 there is nothing"]);
    check(&["base:4"], 1, &["no step 4", "2 to 3"]);
    check(&["nothing"], 1, &["target stage \"nothing\" could not be found"]);
    check(
        &["nothing:2"],
        1,
        &["target stage \"nothing\" could not be found"],
    );
    check(&["stage-0"], 1, &["target stage \"stage-0\" could not be found"]);
    check(&["base:x"], 125, &["is no place in a build"]);
    check(
        &["base:2", "--target", "other"],
        125,
        &["--target other", "one of them"],
    );
    check(&["base", "--tag", "x"], 125, &["--tag"]);
    assert!(
        bench.ok(["build", "logs", "--list"]).lines().count() <= 1,
        "no build did anything"
    );
}

#[test]
fn what_triggers_and_contexts_add_is_counted() {
    let bench = Bench::with_busybox();
    let context = context(&bench, "FROM busybox\nONBUILD RUN echo trigger > /trigger\n");
    success(
        bench
            .command(arguments(&context, &["-q", "-t", "parent"]))
            .output()
            .unwrap(),
    );
    let context = self::context(
        &bench,
        "FROM parent\nRUN echo own > /own\nRUN echo more > /more\n",
    );
    for (point, there) in [("2", ""), ("3", "/trigger\n"), ("4", "/own\n/trigger\n")] {
        let mut shell = at_terminal(&bench, &context, &["--progress", "plain", "--shell-at", point]);
        shell.expect(&format!("{point}/4] "));
        assert_eq!(shell.say("ls /own /trigger /more 2>&- | cat"), there);
        shell.prompt();
        shell.press("exit\n");
        assert_eq!(shell.end().0.code(), Some(0));
    }
    let context = self::context(&bench, "FROM busybox\n");
    let (status, shown, _) = at_terminal(&bench, &context, &["--shell-at", "2"]).end();
    assert_eq!(status.code(), Some(1));
    assert!(
        shown.contains("no step 2") && shown.contains("a stage with another step"),
        "{shown}"
    );
    let mut shell = at_terminal(
        &bench,
        &context,
        &["--progress", "plain", "--shell-at", "stage-0"],
    );
    shell.expect("[stage-0 1/1] FROM busybox was the last step of its stage");
    assert_eq!(shell.say("ls -d /bin"), "/bin\n");
    shell.prompt();
    shell.press("exit\n");
    assert_eq!(shell.end().0.code(), Some(0));
    // A directory as the base is a step of its own.
    let rootfs = format!("base={}", bench.path("rootfs").display());
    let context = self::context(&bench, "FROM base\nRUN echo own > /own\nRUN echo more > /more\n");
    let there = |point: &str, said: &str, line: &str, answer: &str| {
        let options = [
            "--progress",
            "plain",
            "--build-context",
            &rootfs,
            "--shell-at",
            point,
        ];
        let mut shell = at_terminal(&bench, &context, &options);
        shell.expect(said);
        assert_eq!(shell.say(line), answer);
        shell.prompt();
        shell.press("exit\n");
        assert_eq!(shell.end().0.code(), Some(0));
    };
    there(
        "3",
        "3/4] RUN echo own > /own comes next",
        "ls /own 2>&- | cat",
        "",
    );
    there(
        "4",
        "4/4] RUN echo more > /more comes next",
        "ls /own /more 2>&- | cat",
        "/own\n",
    );
    there(
        "stage-0",
        "4/4] RUN echo more > /more was the last",
        "ls /own /more | cat",
        "/more\n/own\n",
    );
    let options = ["--build-context", &rootfs, "--shell-at", "5"];
    let (status, shown, _) = at_terminal(&bench, &context, &options).end();
    assert_eq!(status.code(), Some(1));
    assert!(shown.contains("no step 5") && shown.contains("2 to 4"), "{shown}");
}

/// What is fetched only when somebody looks at it is there for whoever is let in, and made anew where it can't be had.
#[test]
fn layers_of_a_cache_elsewhere() {
    let boxfile = "FROM busybox AS other\nRUN echo other > /other\n\
        FROM busybox\nRUN echo one > /one\nRUN echo two > /two\nRUN --mount=type=bind,from=other,target=/o [ -e /cache/ok ]\n";
    let maker = Bench::with_busybox();
    let context = context(&maker, &boxfile.replace("[ -e /cache/ok ]", "true"));
    let cache = maker.path("cache");
    let to = format!("--cache-to=type=local,dest={},mode=max", cache.display());
    success(maker.command(arguments(&context, &["-q", &to])).output().unwrap());
    let from = format!("--cache-from=type=local,src={}", cache.display());
    for is_whole in [true, false] {
        if !is_whole {
            sh(&format!("rm {}/packs/*", cache.display()));
        }
        for option in [&["--shell-at", "4"][..], &["--shell-on-error"]] {
            let bench = Bench::with_busybox();
            let context = self::context(&bench, boxfile);
            let options = [&["--progress", "plain", &from], option].concat();
            let mut shell = at_terminal(&bench, &context, &options);
            assert_eq!(
                shell.say("cat /one /two /o/other"),
                "one\ntwo\nother\n",
                "{is_whole} {option:?}"
            );
            shell.prompt();
            shell.press("exit 3\n");
            let (status, shown, _) = shell.end();
            let code = if option.len() == 2 { 3 } else { 1 };
            assert_eq!(status.code(), Some(code), "{shown}");
            assert_eq!(shown.matches("BusyBox v").count(), 1, "let in once: {shown}");
            assert_eq!(shown.contains("DONE"), !is_whole, "{shown}");
        }
    }
}
