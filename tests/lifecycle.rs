//! Containers in the background: their whole life, by the commands.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Bench, OrdinaryUser, Traces, success, text};
use serde_json::Value;

/// Starts one in the background; `line` is for a shell.
fn start(bench: &Bench, options: &[&str], line: &str) -> String {
    let args = [
        &["run", "-d", "--network", "none"],
        options,
        &["busybox", "sh", "-c", line],
    ]
    .concat();
    bench.ok(args).trim().to_owned()
}

fn inspect(bench: &Bench, name: &str) -> Value {
    let found: Value = serde_json::from_str(&bench.ok(["inspect", "--type", "container", name])).unwrap();
    found[0].clone()
}

fn state(bench: &Bench, name: &str, field: &str) -> Value {
    inspect(bench, name)["State"][field].clone()
}

/// Waits until it is so, for ten seconds.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const FOREVER: &str = "trap 'exit 5' TERM; while true; do sleep 0.05; done";

#[test]
fn a_whole_life() {
    let bench = Bench::with_busybox();
    let before = Traces::of(&bench);
    let id = start(
        &bench,
        &["--name", "one", "-l", "kind=test"],
        &format!("echo begun; {FOREVER}"),
    );
    assert_eq!(id.len(), 64);
    eventually("it runs", || bench.ok(["logs", "one"]) == "begun\n");
    let listed: Value = serde_json::from_str(&bench.ok(["ps", "--format", "json"])).unwrap();
    assert_eq!(
        (&listed[0]["Names"], &listed[0]["State"]),
        (&"one".into(), &"running".into())
    );
    assert!(bench.ok(["ps"]).contains(" Up "));
    assert_eq!(
        bench
            .ok(["ps", "-q", "--no-trunc", "--filter", "label=kind=test"])
            .trim(),
        id
    );
    assert_eq!(bench.ok(["ps", "-q", "--filter", "label=kind=other"]), "");
    assert_eq!(state(&bench, "one", "Running"), true);
    let pid = state(&bench, "one", "Pid").as_i64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());

    assert_eq!(bench.ok(["stop", "one"]), "one\n");
    assert_eq!(bench.ok(["ps", "-q"]), "");
    assert!(bench.ok(["ps", "-a"]).contains("Exited (5)"));
    assert_eq!(bench.ok(["wait", "one"]), "5\n");
    assert_eq!(
        Traces::of(&bench),
        before,
        "one that does not run leaves nothing running"
    );

    // What it wrote is there when it is started again.
    bench.ok(["start", &id[..10]]);
    bench.ok(["exec", "one", "touch", "/kept"]);
    bench.ok(["restart", "-t", "1", "one"]);
    bench.ok(["exec", "one", "ls", "/kept"]);
    bench.ok(["rename", "one", "other"]);
    assert!(bench.fails(1, ["stop", "one"]).contains("no container named"));
    assert!(bench.fails(1, ["rm", "other"]).contains("runs"));
    assert_eq!(bench.ok(["kill", "other"]), "other\n");
    assert_eq!(bench.ok(["wait", "other"]), "137\n");
    assert_eq!(bench.ok(["logs", "other"]), "begun\nbegun\nbegun\n");
    bench.ok(["rm", "other"]);
    assert_eq!(bench.ok(["ps", "-aq"]), "");
    assert_eq!(Traces::of(&bench), before);
    assert!(
        bench.ok(["fsck"]).contains("all is well"),
        "{}",
        bench.ok(["fsck"])
    );
}

#[test]
fn output_is_kept_to_the_last_byte() {
    let bench = Bench::with_busybox();
    let line = "printf 'one\\n\\377\\000two\\nlast'; echo error >&2; exit 3";
    start(&bench, &["--name", "out"], line);
    assert_eq!(bench.ok(["wait", "out"]), "3\n");
    let output = bench.run(["logs", "out"]);
    assert_eq!(output.stdout, b"one\n\xff\0two\nlast");
    assert_eq!(output.stderr, b"error\n");
    let all = bench.run(["logs", "--tail", "1", "out"]);
    assert_eq!([all.stdout, all.stderr].concat(), b"last");
    assert_eq!(bench.ok(["logs", "--tail", "0", "out"]), "");
    assert_eq!(bench.ok(["logs", "--since", "2099-01-01", "out"]), "");
    assert_eq!(bench.ok(["logs", "--until", "1h", "out"]), "");
    assert!(
        bench
            .ok(["logs", "-t", "out"])
            .starts_with(&inspect(&bench, "out")["State"]["StartedAt"].as_str().unwrap()[..16])
    );
    bench.fails(125, ["logs", "--since", "soon", "out"]);
    // Followed to the end, and not beyond; a lot of it, over several files.
    let line = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; printf end";
    start(
        &bench,
        &[
            "--name",
            "many",
            "--log-opt",
            "max-size=100k",
            "--log-opt",
            "max-file=50",
        ],
        line,
    );
    let followed = bench.ok(["logs", "-f", "many"]);
    let expect: String = (0..20_000)
        .map(|n| format!("line {n}\n"))
        .chain(["end".to_owned()])
        .collect();
    assert!(followed == expect, "{} of {} bytes", followed.len(), expect.len());
    start(&bench, &["--name", "none", "--log-driver", "none"], "echo x");
    bench.ok(["wait", "none"]);
    assert!(bench.fails(1, ["logs", "none"]).contains("keeps no log"));
}

#[test]
fn other_commands_in_it() {
    let bench = Bench::with_busybox();
    start(&bench, &["--name", "c", "-e", "A=1", "-w", "/tmp"], FOREVER);
    let told = |args: &[&str]| bench.ok([&["exec"], args].concat());
    assert_eq!(
        told(&["-e", "B=2", "c", "sh", "-c", "echo $A $B $PWD"]),
        "1 2 /tmp\n"
    );
    assert_eq!(
        told(&["-u", "7:8", "-w", "/", "c", "sh", "-c", "id -u; id -g; pwd"]),
        "7\n8\n/\n"
    );
    assert_eq!(
        bench.run(["exec", "c", "sh", "-c", "exit 9"]).status.code(),
        Some(9)
    );
    assert!(bench.fails(127, ["exec", "c", "nothing"]).contains("not found"));
    bench.fails(126, ["exec", "c", "/etc"]);
    assert!(
        bench
            .fails(125, ["exec", "-u", "nobody-at-all", "c", "true"])
            .contains("nobody-at-all")
    );
    // It is confined as the container is, and belongs to it.
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; for n in /proc/self/ns/*; do readlink $n; done; cat /proc/self/uid_map";
    let own = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/1/status; for n in /proc/1/ns/*; do readlink $n; done; cat /proc/1/uid_map";
    assert_eq!(told(&["c", "sh", "-c", status]), told(&["c", "sh", "-c", own]));
    assert_eq!(
        told(&["c", "sh", "-c", "ls /proc/self/fd | wc -l"]),
        "4\n",
        "no descriptor leaks"
    );
    let group = |pid: &str| {
        told(&[
            "c",
            "sh",
            "-c",
            &format!("grep -E 'memory|pids|^0' /proc/{pid}/cgroup"),
        ])
    };
    assert_eq!(group("self"), group("1"));
    // Input is passed on, to its end.
    let mut cat = bench
        .command(["exec", "-i", "c", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cat.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(success(cat.wait_with_output().unwrap()), "through");
    // Signals are the command's, and so is the end of the one who asked.
    let line = "trap 'echo got; exit 4' TERM; echo up; while true; do sleep 0.05; done";
    let mut child = bench
        .command(["exec", "c", "sh", "-c", line])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::SIGTERM,
    )
    .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(4), "got\n")
    );
    let mut child = bench.command(["exec", "c", "sleep", "1234"]).spawn().unwrap();
    let sleeps = || bench.ok(["top", "c"]).contains("1234");
    eventually("it sleeps", sleeps);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("it is killed with the one who asked", || !sleeps());
    told(&["-d", "c", "sh", "-c", "echo detached > /tmp/d; sleep 1234"]);
    eventually("it goes on by itself", sleeps);
    assert_eq!(told(&["c", "cat", "/tmp/d"]), "detached\n");
    // A terminal of its own.
    let line = format!(
        "script -qec '{} exec -it c sh -c \"tty; stty size\"' /dev/null",
        common::BOX
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &line])
        .env("BOX_ROOT", bench.store())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        text(&output.stdout).contains("/dev/pts/0"),
        "{}",
        text(&output.stdout)
    );
    bench.ok(["pause", "c"]);
    assert!(bench.fails(125, ["exec", "c", "true"]).contains("paused"));
    bench.ok(["unpause", "c"]);
    bench.ok(["stop", "-t", "0", "c"]);
    assert!(bench.fails(1, ["exec", "c", "true"]).contains("does not run"));
}

#[test]
fn stopped_in_its_tracks() {
    let bench = Bench::with_busybox();
    start(
        &bench,
        &["--name", "p"],
        "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done",
    );
    eventually("it counts", || bench.ok(["logs", "p"]).lines().count() > 3);
    bench.ok(["pause", "p"]);
    assert!(bench.ok(["ps"]).contains("(paused)"));
    let then = bench.ok(["logs", "p"]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bench.ok(["logs", "p"]), then);
    let said = bench.fails(1, ["unpause", "nobody", "p"]);
    assert!(
        said.contains("nobody"),
        "one that fails does not keep the others: {said}"
    );
    assert_eq!(state(&bench, "p", "Paused"), false);
    eventually("it goes on", || bench.ok(["logs", "p"]) != then);
    bench.ok(["pause", "p"]);
    // A paused one can be stopped.
    bench.ok(["stop", "-t", "0", "p"]);
    assert_eq!(state(&bench, "p", "ExitCode"), 137);
}

#[test]
fn what_it_uses_and_may_use() {
    let bench = Bench::with_busybox();
    start(
        &bench,
        &["--name", "u", "-m", "64m", "--pids-limit", "50"],
        "while true; do :; done",
    );
    let stats: Value = serde_json::from_str(&bench.ok(["stats", "--no-stream", "--format", "json"])).unwrap();
    let of = &stats[0];
    assert_eq!(
        (&of["Name"], &of["MemoryLimit"], &of["Pids"]),
        (&"u".into(), &(64 << 20).into(), &1.into())
    );
    assert!(of["CpuPercent"].as_f64().unwrap() > 10.0, "{of}");
    assert!(of["Memory"].as_u64().unwrap() > 0);
    assert!(bench.ok(["top", "u"]).contains("while true"));
    bench.ok(["update", "-m", "32m", "--pids-limit", "20", "u"]);
    let stats: Value =
        serde_json::from_str(&bench.ok(["stats", "--no-stream", "--format", "json", "u"])).unwrap();
    assert_eq!(stats[0]["MemoryLimit"], 32 << 20);
    bench.ok(["update", "-m", "128m", "u"]);
    assert_eq!(inspect(&bench, "u")["HostConfig"]["Memory"], 128 << 20);
    bench.ok(["restart", "-t", "0", "u"]);
    let stats: Value =
        serde_json::from_str(&bench.ok(["stats", "--no-stream", "--format", "json", "u"])).unwrap();
    assert_eq!(stats[0]["MemoryLimit"], 128 << 20, "also the next time");
    // One that takes too much is told.
    start(
        &bench,
        &["--name", "oom", "-m", "16m"],
        "dd if=/dev/zero of=/dev/null bs=64M count=1",
    );
    bench.ok(["wait", "oom"]);
    assert_eq!(state(&bench, "oom", "OOMKilled"), true);
}

#[test]
fn started_again_by_itself() {
    let bench = Bench::with_busybox();
    start(
        &bench,
        &["--name", "f", "--restart", "on-failure:2"],
        "echo try; exit 1",
    );
    assert_eq!(bench.ok(["wait", "f"]), "1\n");
    assert_eq!(bench.ok(["logs", "f"]), "try\ntry\ntry\n");
    assert_eq!(inspect(&bench, "f")["RestartCount"], 2);
    start(&bench, &["--name", "good", "--restart", "on-failure"], "echo try");
    assert_eq!(bench.ok(["wait", "good"]), "0\n");
    assert_eq!(bench.ok(["logs", "good"]), "try\n");
    start(&bench, &["--name", "a", "--restart", "always"], "echo again");
    eventually("it is started again", || {
        bench.ok(["logs", "a"]).lines().count() >= 3
    });
    bench.ok(["stop", "a"]);
    let then = bench.ok(["logs", "a"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(bench.ok(["logs", "a"]), then);
    // When the machine starts, those run that should.
    start(&bench, &["--name", "s", "--restart", "unless-stopped"], FOREVER);
    bench.ok(["stop", "s"]);
    assert_eq!(bench.ok(["start", "--restart-policy"]), "a\n");
    bench.ok(["stop", "a"]);
    assert!(
        bench
            .fails(125, ["run", "--rm", "--restart", "always", "busybox"])
            .contains("cannot be used")
    );
}

#[test]
fn health() {
    let bench = Bench::with_busybox();
    let options = [
        "--name",
        "h",
        "--health-cmd",
        "echo looked; test -e /tmp/well",
        "--health-interval",
        "50ms",
        "--health-retries",
        "2",
    ];
    start(&bench, &options, FOREVER);
    let status = || {
        state(&bench, "h", "Health")["Status"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    eventually("it is unwell", || status() == "unhealthy");
    bench.ok(["exec", "h", "touch", "/tmp/well"]);
    eventually("it is well", || status() == "healthy");
    assert!(bench.ok(["ps"]).contains("(healthy)"));
    let last = state(&bench, "h", "Health")["Log"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&0.into(), &"looked\n".into())
    );
    assert_eq!(bench.ok(["ps", "-q", "--filter", "health=unhealthy"]), "");
    // A check that takes too long has failed.
    let options = [
        "--name",
        "slow",
        "--health-cmd",
        "sleep 60",
        "--health-interval",
        "10ms",
        "--health-timeout",
        "100ms",
        "--health-retries",
        "1",
    ];
    start(&bench, &options, FOREVER);
    eventually("it is too slow", || {
        state(&bench, "slow", "Health")["Status"] == "unhealthy"
    });
    let context = bench.context("health", &[]);
    let boxfile = "FROM busybox\nHEALTHCHECK --interval=50ms CMD true\nCMD [\"sleep\", \"1000\"]\n";
    bench.build(&context, boxfile, &["-t", "checked"]);
    bench.ok(["run", "-d", "--network", "none", "--name", "i", "checked"]);
    eventually("the image's check", || {
        state(&bench, "i", "Health")["Status"] == "healthy"
    });
    bench.ok([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "n",
        "--no-healthcheck",
        "checked",
    ]);
    assert_eq!(state(&bench, "n", "Health"), Value::Null);
}

#[test]
fn its_monitor_is_killed() {
    let bench = Bench::with_busybox();
    let before = Traces::of(&bench);
    start(&bench, &["--name", "k"], FOREVER);
    bench.ok([
        "run",
        "-d",
        "--rm",
        "--network",
        "none",
        "--name",
        "gone",
        "busybox",
        "sleep",
        "1000",
    ]);
    let store = bench.store();
    let kill = format!("pkill -KILL -f '__box_monitor {}'", store.display());
    common::sh(&kill);
    eventually("it dies with its monitor", || {
        bench.ok(["ps", "-q"]).is_empty() && Traces::of(&bench) == before
    });
    assert!(bench.ok(["ps", "-a"]).contains("Exited (137)"));
    assert_eq!(
        bench.ok(["ps", "-aq"]).lines().count(),
        1,
        "--rm holds after a kill, too"
    );
    assert_eq!(bench.ok(["wait", "k"]), "137\n");
    bench.ok(["start", "k"]);
    assert_eq!(bench.ok(["exec", "k", "echo", "again"]), "again\n");
    bench.ok(["rm", "-f", "k"]);
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn in_the_foreground() {
    let bench = Bench::with_busybox();
    let output = bench.run([
        "run",
        "--network",
        "none",
        "--name",
        "fg",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 6",
    ]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(text(&output.stdout), "out\n");
    assert!(text(&output.stderr).contains("err\n"));
    assert_eq!(bench.ok(["logs", "fg"]), "out\n", "what it said is kept");
    assert!(
        bench
            .fails(
                125,
                ["run", "--network", "none", "--name", "fg", "busybox", "true"]
            )
            .contains("in use")
    );
    bench.ok([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "fg",
        "--replace",
        "busybox",
        "sleep",
        "1000",
    ]);
    bench.ok([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "fg",
        "--replace",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(bench.ok(["ps", "-aq"]).lines().count(), 1);
    let mut cat = bench.command(["run", "-i", "--network", "none", "busybox", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let big = vec![b'x'; 3 << 20];
    let mut stdin = cat.stdin.take().unwrap();
    let copy = big.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&copy).unwrap());
    let output = cat.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.stdout == big, "{}", output.stdout.len());
    // Attached to the end, and detached by its end.
    start(&bench, &["--name", "at"], "sleep 0.5; echo late; exit 8");
    let output = bench.run(["attach", "at"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(8), "late\n")
    );
}

#[test]
fn its_own_monitor() {
    let bench = Bench::with_busybox();
    // A foreground one with --rm is a container as any other while it runs.
    let mut child = bench
        .command([
            "run",
            "--rm",
            "--network",
            "none",
            "--name",
            "rm",
            "busybox",
            "sh",
            "-c",
            FOREVER,
        ])
        .spawn()
        .unwrap();
    eventually("it is listed", || {
        bench.run(["exec", "rm", "true"]).status.success()
    });
    assert!(bench.fails(1, ["logs", "rm"]).contains("is not kept"));
    bench.ok(["stop", "rm"]);
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(bench.fails(1, ["wait", "rm"]).contains("no container named"));
}

#[test]
fn what_a_container_lies_on_stays() {
    let bench = Bench::with_busybox();
    let context = bench.context("keep", &[("file", "content\n")]);
    bench.build(&context, "FROM busybox\nCOPY file /\n", &["-t", "app"]);
    bench.ok([
        "create",
        "--network",
        "none",
        "--name",
        "k",
        "app",
        "cat",
        "/file",
    ]);
    bench.ok(["rmi", "app"]);
    bench.ok(["prune"]);
    assert_eq!(bench.ok(["start", "-a", "k"]), "content\n");
    bench.ok(["rm", "k"]);
    let layers = || std::fs::read_dir(bench.store().join("layers")).unwrap().count();
    let then = layers();
    bench.ok(["prune"]);
    assert_eq!(layers(), then - 1, "with the container its layer goes");
    // A damaged one is told, and can be removed.
    let id = bench.ok(["create", "--network", "none", "--name", "d", "busybox", "true"]);
    let config = bench.store().join("containers").join(id.trim()).join("config");
    let bytes = std::fs::read(&config).unwrap();
    std::fs::write(&config, &bytes[..bytes.len() - 1]).unwrap();
    assert!(bench.fails(125, ["gc"]).contains("box rm -f"));
    assert!(text(&bench.run(["fsck"]).stdout).contains("container"));
    bench.ok(["rm", "-f", id.trim()]);
    bench.ok(["gc"]);
}

#[test]
fn files_both_ways() {
    let bench = Bench::with_busybox();
    let dir = bench.context("files", &[("d/sub/g", "deep"), ("d/f", "flat")]);
    std::os::unix::fs::symlink("f", dir.join("d/l")).unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    start(&bench, &["--name", "c"], FOREVER);
    bench.ok(["exec", "c", "mkdir", "/opt"]);
    for running in [true, false] {
        bench.ok(["cp", &at("d"), "c:/tmp"]);
        bench.ok(["cp", &at("d/f"), "c:/tmp/renamed"]);
        bench.ok(["cp", &format!("{}/.", at("d")), "c:/mnt/"]);
        let back = bench.path(&format!("back-{running}"));
        bench.ok(["cp", "c:/tmp/d", back.to_str().unwrap()]);
        common::sh(&format!(
            "diff -r --no-dereference {} {}",
            at("d"),
            back.display()
        ));
        bench.ok(["cp", "c:/tmp/renamed", &format!("{}/one", back.display())]);
        assert_eq!(std::fs::read_to_string(back.join("one")).unwrap(), "flat");
        assert!(
            bench
                .fails(1, ["cp", "c:/no", back.to_str().unwrap()])
                .contains("cannot find /no")
        );
        assert!(
            bench
                .fails(1, ["cp", &at("d/f"), "c:/no/such/place"])
                .contains("no directory")
        );
        assert!(
            bench
                .fails(1, ["cp", &at("d"), "c:/tmp/renamed"])
                .contains("is no directory")
        );
        // As a tar, both ways.
        let line = format!(
            "{0} cp c:/tmp/d - | tar -t | sort; (tar -C {1} -c d; sleep 0.2; head -c 200000 /dev/zero) | {0} cp - c:/opt",
            common::BOX,
            dir.display()
        );
        let output = std::process::Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("mkdir -p x; {line}")])
            .current_dir(&dir)
            .env("BOX_ROOT", bench.store())
            .output();
        let _ = success(output.unwrap());
        if running {
            assert_eq!(
                bench.ok([
                    "exec",
                    "c",
                    "sh",
                    "-c",
                    "cat /opt/d/f /mnt/f /mnt/sub/g; stat -c %u /tmp/d/f"
                ]),
                "flatflatdeep0\n"
            );
            bench.ok(["stop", "c"]);
        }
    }
    // A link in the container leads nowhere but into the container.
    let outside = bench.path("outside");
    std::fs::create_dir(&outside).unwrap();
    bench.ok(["start", "c"]);
    bench.ok(["exec", "c", "ln", "-s", outside.to_str().unwrap(), "/tmp/out"]);
    bench.fails(1, ["cp", &at("d/f"), "c:/tmp/out/f"]);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    let secret = bench.path("secret");
    std::fs::write(&secret, "host").unwrap();
    bench.ok(["exec", "c", "ln", "-s", secret.to_str().unwrap(), "/tmp/secret"]);
    bench.fails(1, ["cp", "-L", "c:/tmp/secret", outside.to_str().unwrap()]);
}

#[test]
fn an_ordinary_user_has_all_of_it() {
    let bench = Bench::new();
    let user = OrdinaryUser::new(&bench);
    let tar = bench.busybox_tar();
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    let line = format!("echo begun; {FOREVER}");
    user.ok([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "u",
        "busybox",
        "sh",
        "-c",
        &line,
    ]);
    eventually("it runs", || user.ok(["logs", "u"]) == "begun\n");
    assert_eq!(
        user.ok([
            "exec",
            "u",
            "sh",
            "-c",
            "id -u; for p in self 1; do readlink /proc/$p/ns/user; done | uniq | wc -l"
        ]),
        "0\n1\n"
    );
    let file = user.home().join("file");
    std::fs::write(&file, "mine").unwrap();
    user.ok(["cp", file.to_str().unwrap(), "u:/tmp/"]);
    assert_eq!(user.ok(["exec", "u", "cat", "/tmp/file"]), "mine");
    assert!(user.ok(["top", "u"]).contains("sleep") || user.ok(["top", "u"]).contains("trap"));
    assert_eq!(user.ok(["stop", "u"]), "u\n");
    assert_eq!(user.ok(["wait", "u"]), "5\n");
    user.ok(["start", "u"]);
    user.ok(["rm", "-f", "u"]);
    assert_eq!(user.ok(["ps", "-aq"]), "");
}

#[test]
fn many_at_once() {
    let bench = Bench::with_busybox();
    let before = Traces::of(&bench);
    let count = if std::env::var_os("BOX_LONG").is_some() {
        50
    } else {
        12
    };
    let children: Vec<_> = (0..count)
        .map(|n| {
            bench
                .command([
                    "run",
                    "-d",
                    "--network",
                    "none",
                    "--name",
                    &format!("m{n}"),
                    "busybox",
                    "sleep",
                    "1000",
                ])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(bench.ok(["ps", "-q"]).lines().count(), count);
    let names: Vec<String> = (0..count).map(|n| format!("m{n}")).collect();
    let children: Vec<_> = names
        .iter()
        .map(|name| {
            bench
                .command(["rm", "-f", name])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(bench.ok(["ps", "-aq"]), "");
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn limits_that_few_have() {
    let bench = Bench::with_busybox();
    let options = [
        "--name",
        "l",
        "-m",
        "32m",
        "--memory-swap",
        "48m",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    let id = start(&bench, &options, FOREVER);
    let group = |controller: &str, file: &str| {
        let line = format!("cat /sys/fs/cgroup/{controller}/box-*-{}/{file}", &id[..12]);
        common::sh(&line).trim().to_owned()
    };
    assert_eq!(
        group("memory", "memory.memsw.limit_in_bytes"),
        (48 << 20).to_string()
    );
    assert_eq!(group("cpu", "cpu.shares"), "512");
    assert_eq!(group("cpuset", "cpuset.cpus"), "0");
    assert_eq!(
        bench.ok(["exec", "l", "grep", "Cpus_allowed_list", "/proc/self/status"]),
        "Cpus_allowed_list:\t0\n"
    );
    let refused = |options: &[&str], expect: &str| {
        let args = [
            &["run", "--rm", "--network", "none"],
            options,
            &["busybox", "true"],
        ]
        .concat();
        let said = bench.fails(125, args);
        assert!(said.contains(expect), "{options:?}: {said}");
    };
    refused(&["--cpuset-cpus", "4096"], "cpuset-cpus");
    refused(&["--cpuset-cpus", "../x"], "list of processors");
    refused(&["-m", "32m", "--memory-swap", "16m"], "memory and swap");
    refused(&["--memory-swap", "16m"], "--memory");
    assert!(text(&bench.run(["stop", "-t", "0", "l"]).stdout).contains('l'));
}

#[test]
fn an_ordinary_end_leaves_nothing_to_reap() {
    let bench = Bench::with_busybox();
    let left = || std::fs::read_dir(bench.store().join("tmp")).unwrap().count();
    bench.ok(["run", "--rm", "--network", "none", "busybox", "true"]);
    assert_eq!(left(), 0);
    bench.ok(["run", "--network", "none", "--name", "a", "busybox", "true"]);
    eventually("its monitor is gone", || left() == 0);
    start(&bench, &["--name", "b"], FOREVER);
    bench.ok(["exec", "b", "true"]);
    bench.ok(["stop", "b"]);
    eventually("its monitor is gone, too", || left() == 0);
}

#[test]
fn a_directory_is_no_stream() {
    let bench = Bench::with_busybox();
    start(&bench, &["--name", "s"], FOREVER);
    let directory = || Stdio::from(std::fs::File::open("/").unwrap());
    for args in [
        &[
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "busybox",
            "ls",
            "/proc/self/fd/0/",
        ][..],
        &["exec", "-i", "s", "ls", "/proc/self/fd/0/"],
    ] {
        let output = bench.command(args).stdin(directory()).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(125),
            "{args:?}: {}",
            text(&output.stdout)
        );
        assert!(
            text(&output.stderr).contains("is a directory"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_profile_of_system_calls() {
    let bench = Bench::with_busybox();
    let file = |name: &str, text: &str| {
        let path = bench.path(name);
        std::fs::write(&path, text).unwrap();
        format!("seccomp={}", path.display())
    };
    let run = |option: &str, line: &str| {
        let args = [
            "run",
            "--rm",
            "--network",
            "none",
            "--security-opt",
            option,
            "busybox",
            "sh",
            "-c",
            line,
        ];
        bench.run(args)
    };
    let no_links = file(
        "a",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["symlink","symlinkat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#,
    );
    let output = run(&no_links, "ln -s a /tmp/b; grep Seccomp: /proc/self/status");
    assert!(
        text(&output.stderr).contains("Permission denied"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout), "Seccomp:\t2\n");
    if let Some(data) = std::env::var_os("BOX_DATA") {
        // Docker's own, with all its conditions.
        let dockers = format!("seccomp={}/docker-seccomp-default.json", data.to_str().unwrap());
        let output = run(&dockers, "unshare -U true; mount -t tmpfs x /mnt; echo fine");
        assert_eq!(text(&output.stdout), "fine\n");
        assert_eq!(
            text(&output.stderr).to_lowercase().matches("permi").count(),
            2,
            "{}",
            text(&output.stderr)
        );
    }
    for wrong in [
        file("b", "{"),
        file("c", r#"{"defaultAction":"SCMP_ACT_DANCE"}"#),
        "seccomp=/no/such/file".to_owned(),
    ] {
        let output = run(&wrong, "true");
        assert_eq!(output.status.code(), Some(125), "{wrong}");
    }
    start(&bench, &["--name", "p", "--security-opt", &no_links], FOREVER);
    let output = bench.run(["exec", "p", "ln", "-s", "a", "/tmp/b"]);
    assert!(
        text(&output.stderr).contains("Permission denied"),
        "also for other commands in it"
    );
}
