//! Containers in trouble: what a review of their life has found, each held by a test.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, sh, text};

fn start(bench: &Bench, options: &[&str], line: &str) -> String {
    let args = [
        &["run", "-d", "--network", "none"],
        options,
        &["busybox", "sh", "-c", line],
    ]
    .concat();
    bench.ok(args).trim().to_owned()
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for its end, which must come.
#[track_caller]
fn ends(child: &mut Child) -> Option<i32> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const FOREVER: &str = "trap 'exit 5' TERM; while true; do sleep 0.05; done";

#[test]
fn the_beginning_of_an_id_is_no_name() {
    let bench = Bench::with_busybox();
    let id = start(&bench, &[], FOREVER);
    let name = &id[..3];
    start(&bench, &["--replace", "--name", name], FOREVER);
    assert_eq!(bench.ok(["ps", "-q"]).lines().count(), 2, "the other one goes on");
    bench.ok([
        "create",
        "--network",
        "none",
        "--name",
        &id[..4],
        "busybox",
        "true",
    ]);
    bench.ok(["rename", &id[..4], &id[..5]]);
}

#[test]
fn a_full_disk_keeps_nobody_from_stopping() {
    let bench = Bench::with_busybox();
    let full = bench.path("full");
    std::fs::create_dir(&full).unwrap();
    let script = "set -e; mount -t tmpfs -o size=24m none \"$0\"; export BOX_ROOT=\"$0/store\"; \
                  \"$2\" import --progress quiet \"$1\" busybox >/dev/null; \
                  run() { \"$2\" run -d --network none --name \"$1\" busybox sh -c 'trap \"exit 5\" TERM; dd if=/dev/zero of=/big bs=64k 2>/dev/null; while :; do sleep 0.05; done' >/dev/null; }; \
                  run f \"$2\"; while [ \"$(stat -f -c %a \"$0\")\" -gt 0 ]; do sleep 0.1; done; sleep 0.2; \
                  timeout 20 \"$2\" stop -t 5 f; timeout 20 \"$2\" rm -f f; \"$2\" ps -aq; umount -l \"$0\"";
    let output = std::process::Command::new("unshare")
        .args(["-m", "bash", "-c", script])
        .arg(&full)
        .arg(bench.busybox_tar())
        .arg(common::BOX)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout), "f\nf\n");
}

#[test]
fn what_is_about_to_run_is_not_pruned() {
    let bench = Bench::with_busybox();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                bench.ok(["container", "prune", "-f"]);
            }
        });
        let runs = || {
            for _ in 0..15 {
                bench.ok(["run", "--rm", "--network", "none", "busybox", "true"]);
                let id = bench.ok(["run", "-d", "--network", "none", "busybox", "sleep", "100"]);
                bench.ok(["rm", "-f", id.trim()]);
            }
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(runs));
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        result.unwrap();
    });
}

#[test]
fn the_users_terminal_is_nobody_elses() {
    let bench = Bench::with_busybox();
    start(&bench, &["--name", "c"], FOREVER);
    for command in [
        "exec c",
        "exec -i c",
        "run --rm --network none busybox",
        "run --rm -i --network none busybox",
    ] {
        let line = format!(
            "script -qec \"{} {command} ls -l /proc/self/fd\" /dev/null </dev/null",
            common::BOX
        );
        let mut shell = std::process::Command::new("bash");
        let output = shell
            .args(["-c", &line])
            .env("BOX_ROOT", bench.store())
            .output()
            .unwrap();
        let said = text(&output.stdout);
        assert!(
            said.contains("pipe:") && !said.contains("/dev/pts"),
            "{command}: {said}"
        );
    }
}

#[test]
fn a_pipe_that_is_held_elsewhere_holds_up_nobody() {
    let bench = Bench::with_busybox();
    start(&bench, &["--name", "c"], &format!("echo begun; {FOREVER}"));
    let found: serde_json::Value = serde_json::from_str(&bench.ok(["inspect", "c"])).unwrap();
    let pid = found[0]["State"]["Pid"].as_i64().unwrap();
    let held = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{pid}/fd/1"))
        .unwrap();
    let begun = Instant::now();
    bench.ok(["stop", "c"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.ok(["logs", "c"]), "begun\n");
    drop(held);
}

#[test]
fn all_are_paused_and_none_falls_ill() {
    let bench = Bench::with_busybox();
    let health = [
        "--health-cmd",
        "sleep 500 & exit 0",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "1s",
        "--health-retries",
        "1",
    ];
    start(&bench, &[&["--name", "c"], &health[..]].concat(), FOREVER);
    eventually("it is healthy, whatever its check leaves", || {
        bench.ok(["ps"]).contains("(healthy)")
    });
    bench.ok(["pause", "c"]);
    bench.ok(["unpause", "c"]);
    bench.ok([
        "exec",
        "-d",
        "c",
        "sh",
        "-c",
        "while :; do echo >>/tick; sleep 0.01; done",
    ]);
    eventually("it ticks", || {
        bench.run(["exec", "c", "ls", "/tick"]).status.success()
    });
    bench.ok(["pause", "c"]);
    let ticks = || std::fs::metadata(tick(&bench)).unwrap().len();
    let then = ticks();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ticks(), then, "also what was begun after an earlier pause");
    bench.ok(["unpause", "c"]);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!bench.ok(["ps"]).contains("unhealthy"));
    bench.ok(["pause", "c"]);
    assert!(bench.fails(125, ["exec", "c", "true"]).contains("box unpause"));
    let begun = Instant::now();
    bench.ok(["stop", "-t", "0", "c"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

fn tick(bench: &Bench) -> std::path::PathBuf {
    let containers = std::fs::read_dir(bench.store().join("containers")).unwrap();
    let mut found = containers.map(|entry| entry.unwrap().path().join("upper/tick"));
    found.find(|path| path.exists()).unwrap()
}

#[test]
fn signals_pass_input_that_nobody_reads() {
    let bench = Bench::with_busybox();
    let line = "trap 'echo got; exit 7' INT; echo up; while :; do sleep 0.05; done";
    let mut command = bench.command(["run", "-i", "--network", "none", "busybox", "sh", "-c", line]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::spawn(move || while stdin.write_all(&[b'y'; 65536]).is_ok() {});
    let mut stdout = child.stdout.take().unwrap();
    let mut up = [0; 3];
    stdout.read_exact(&mut up).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    sh(&format!("kill -INT {}", child.id()));
    assert_eq!(ends(&mut child), Some(7));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got\n");
}

#[test]
fn a_slow_reader_loses_nothing() {
    let bench = Bench::with_busybox();
    let line = "i=0; while [ $i -lt 200000 ]; do echo line number $i; i=$((i+1)); done";
    let mut command = bench.command([
        "run",
        "--network",
        "none",
        "--name",
        "c",
        "busybox",
        "sh",
        "-c",
        line,
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut all = vec![0; 1000];
    stdout.read_exact(&mut all).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(bench.ok(["ps"]).contains(" Up "), "it waits for its reader");
    stdout.read_to_end(&mut all).unwrap();
    assert_eq!(ends(&mut child), Some(0));
    let expect: String = (0..200_000).map(|n| format!("line number {n}\n")).collect();
    assert!(text(&all) == expect, "{} of {} bytes", all.len(), expect.len());
    assert!(bench.ok(["logs", "c"]) == expect);
    // One that never reads again holds up neither the end nor others.
    let mut command = bench.command([
        "run",
        "--network",
        "none",
        "--name",
        "d",
        "busybox",
        "sh",
        "-c",
        line,
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    bench.ok(["stop", "-t", "0", "d"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(child.stdout.take());
    assert_eq!(ends(&mut child), Some(137));
}

#[test]
fn whose_input_it_is() {
    let bench = Bench::with_busybox();
    let mut command = bench.command(["run", "-i", "--network", "none", "--name", "c", "busybox", "cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it runs", || bench.ok(["ps"]).contains(" Up "));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("its input ends with the one who started it", || {
        bench.ok(["ps", "-q"]).is_empty()
    });
    bench.ok(["run", "-di", "--network", "none", "--name", "d", "busybox", "cat"]);
    let mut attached = bench
        .command(["attach", "d"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    attached.stdin.take().unwrap().write_all(b"one\n").unwrap();
    eventually("it was read", || bench.ok(["logs", "d"]) == "one\n");
    assert!(
        bench.ok(["ps"]).contains(" Up "),
        "the end of another one's input is not its own"
    );
    attached.kill().unwrap();
    attached.wait().unwrap();
    assert!(bench.ok(["ps"]).contains(" Up "));
}

#[test]
fn several_at_once() {
    let bench = Bench::with_busybox();
    bench.ok([
        "create",
        "--network",
        "none",
        "--name",
        "a",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(bench.ok(["wait", "a"]), "0\n", "nothing of it runs");
    let mut starting: Vec<Child> = (0..6)
        .map(|_| {
            bench
                .command(["start", "a"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in &mut starting {
        assert_eq!(ends(child), Some(0));
    }
    for name in ["b", "c", "d"] {
        bench.ok([
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            name,
            "busybox",
            "sleep",
            "1000",
        ]);
    }
    let begun = Instant::now();
    bench.ok(["stop", "-t", "1", "a", "b", "c", "d"]);
    assert!(
        begun.elapsed() < Duration::from_millis(3500),
        "{:?}",
        begun.elapsed()
    );
    bench.fails(
        125,
        [
            "run",
            "--network",
            "none",
            "--name",
            "e",
            "--cidfile",
            "/no/such/dir",
            "busybox",
            "true",
        ],
    );
    assert!(!bench.ok(["ps", "-a"]).contains(" e"));
    let mut child = bench
        .command([
            "run",
            "--rm",
            "--network",
            "none",
            "--name",
            "fg",
            "busybox",
            "sleep",
            "1000",
        ])
        .spawn()
        .unwrap();
    eventually("it runs", || bench.run(["exec", "fg", "true"]).status.success());
    assert!(bench.fails(125, ["attach", "fg"]).contains("foreground"));
    bench.ok(["rm", "-f", "fg"]);
    assert_eq!(ends(&mut child), Some(137));
}

#[test]
fn a_machine_that_goes_down() {
    let bench = Bench::with_busybox();
    start(&bench, &["--name", "s", "--restart", "unless-stopped"], FOREVER);
    start(&bench, &["--name", "u", "--restart", "unless-stopped"], FOREVER);
    bench.ok(["stop", "u"]);
    eventually("only one monitor is there", || {
        sh(&format!("pgrep -fc '__box_monitor {}'", bench.store().display())).trim() == "1"
    });
    sh(&format!(
        "pkill -TERM -f '__box_monitor {}'",
        bench.store().display()
    ));
    eventually("it ends in order", || {
        let ended = bench.ok(["ps", "-aq", "--filter", "exited=5", "--filter", "name=s"]);
        !ended.is_empty()
    });
    assert_eq!(
        bench.ok(["start", "--restart-policy"]),
        "s\n",
        "and is started with the machine"
    );
}
