//! SIGKILL of `box build` at seeded moments spread over its phases: the next build succeeds with the right digest, and nothing is
//! left of the killed one. 50 moments; BOX_LONG=1 tries 1,000. BOX_KILL_SEED repeats a run.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Bench, Random, Traces};

const BOXFILE: &str = "FROM ./rootfs.tar\nCOPY files /files\nRUN seq 1 200 | while read n; do echo $n > /tmp/$n; done\n\
                       RUN dd if=/dev/urandom of=/dev/shm/x bs=1M count=4 2>/dev/null; dd if=/dev/zero of=/big bs=1M count=16 2>/dev/null\n\
                       FROM busybox\nCOPY --from=0 /files /files\nRUN rm -r /files/0\n";

/// Stages side by side, with steps that two of them have in common, and a layer that is hashed beside what follows.
const PARALLEL: &str = "FROM ./rootfs.tar AS base\nCOPY files /files\n\
                        FROM base AS a\nRUN seq 1 200 | while read n; do echo $n > /tmp/$n; done\nRUN echo a > /a\n\
                        FROM base AS b\nRUN seq 1 200 | while read n; do echo $n > /tmp/$n; done\nRUN dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null\n\
                        FROM busybox AS c\nRUN --mount=type=cache,target=/c,sharing=locked echo c > /c/c; seq 1 3000 > /numbers\n\
                        FROM busybox AS d\nRUN --mount=type=cache,target=/c,sharing=locked echo d > /c/d; sleep 0.05; seq 1 2000 > /numbers\n\
                        FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /big /\nCOPY --from=c /numbers /c\nCOPY --from=d /numbers /d\nRUN rm /a\n";

fn context(bench: &Bench) -> std::path::PathBuf {
    context_of(bench, BOXFILE)
}

fn context_of(bench: &Bench, boxfile: &str) -> std::path::PathBuf {
    let names: Vec<(String, String)> = (0..200)
        .map(|n| (format!("files/{}/{n}", n % 10), n.to_string()))
        .collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    files.push(("Boxfile", boxfile));
    let context = bench.context("context", &files);
    std::fs::copy(bench.busybox_tar(), context.join("rootfs.tar")).unwrap();
    context
}

/// Everything in the store that a killed build could leave: temporary files of the dead.
fn temporary(bench: &Bench) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(bench.store().join("tmp")) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Starts a build whose progress is read as it comes; returns when it ended or was killed, with the phase it was in.
fn build_until(
    bench: &Bench,
    context: &std::path::Path,
    kill_after: Option<Duration>,
) -> (Option<i32>, String, Duration) {
    let mut command = bench.command([
        "build",
        "--progress",
        "json",
        "--no-cache",
        "--network",
        "none",
        "-t",
        "result",
    ]);
    let mut child = command
        .arg(context)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let phase = std::sync::Arc::new(std::sync::Mutex::new(String::from("start")));
    let seen = phase.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            let name = event["event"].as_str().unwrap_or_default();
            if name != "step_output" {
                *seen.lock().unwrap() = format!(
                    "{name} {}",
                    event["step"]
                        .as_str()
                        .or(event["id"].as_str())
                        .unwrap_or_default()
                );
            }
        }
    });
    let start = Instant::now();
    let code = match kill_after {
        None => child.wait().unwrap().code(),
        Some(delay) => {
            std::thread::sleep(delay);
            let at = phase.lock().unwrap().clone();
            child.kill().unwrap();
            let status = child.wait().unwrap();
            reader.join().unwrap();
            return (status.code(), at, start.elapsed());
        }
    };
    reader.join().unwrap();
    let at = phase.lock().unwrap().clone();
    (code, at, start.elapsed())
}

#[test]
fn nothing_is_left_of_a_killed_build() {
    campaign(BOXFILE, 50);
}

#[test]
fn nothing_is_left_of_a_killed_build_of_many_stages() {
    campaign(PARALLEL, 25);
}

/// Kills builds at so many moments; at 1,000 with BOX_LONG.
#[allow(clippy::print_stdout)] // which phases were met is worth knowing
fn campaign(boxfile: &str, moments: u64) {
    let bench = Bench::with_busybox();
    let context = context_of(&bench, boxfile);
    let seed = std::env::var("BOX_KILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_261_123);
    let moments = if std::env::var_os("BOX_LONG").is_some() {
        1000
    } else {
        moments
    };
    let mut random = Random(seed);

    let before = Traces::of(&bench);
    let (code, _, whole) = build_until(&bench, &context, None);
    assert_eq!(code, Some(0));
    let id = bench.ok(["build", "-q", "--network", "none", context.to_str().unwrap()]);
    let clean = temporary(&bench);

    let mut phases: BTreeMap<String, u32> = BTreeMap::new();
    for moment in 0..moments {
        // Stratified: each moment falls into its own part of the build, so all phases are met.
        let part = whole.as_nanos() as u64 / moments;
        let delay = Duration::from_nanos(part * moment + random.next() % part.max(1));
        let (code, phase, _) = build_until(&bench, &context, Some(delay));
        *phases
            .entry(if code == Some(0) {
                "ended before".into()
            } else {
                phase.clone()
            })
            .or_default() += 1;

        let again = bench.ok(["build", "-q", "--network", "none", context.to_str().unwrap()]);
        assert_eq!(again, id, "seed {seed}, moment {moment}, killed at {phase}");
        let deadline = Instant::now() + Duration::from_secs(5);
        while Traces::of(&bench) != before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(
            Traces::of(&bench),
            before,
            "seed {seed}, moment {moment}, killed at {phase}"
        );
        assert_eq!(
            temporary(&bench),
            clean,
            "seed {seed}, moment {moment}, killed at {phase}"
        );
    }
    let cold = bench.ok([
        "build",
        "-q",
        "--no-cache",
        "--network",
        "none",
        context.to_str().unwrap(),
    ]);
    assert_eq!(cold, id, "a cold build after all that");
    assert!(bench.ok(["fsck"]).contains("all is well"));
    println!("killed {moments} builds (seed {seed}), in these phases:");
    for (phase, count) in &phases {
        println!("  {count:4}  {phase}");
    }
    assert!(
        phases.len() >= 4,
        "the moments met {} phases only: {phases:?}",
        phases.len()
    );
}

/// The children of a process' threads.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let words = lists.collect::<Vec<_>>().join(" ");
    words
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect()
}

fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match poll() {
            Some(found) => return found,
            None if Instant::now() > deadline => panic!("waited for {what} in vain"),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[test]
fn a_started_child_does_not_pass_for_the_killed_build() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM busybox\nRUN true\n")]);
    let clean = temporary(&bench);
    // Whoever box starts waits 5 seconds before it becomes another program: meanwhile it has all that box has open.
    let mut tracer = std::process::Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "trace=execveat", "-e"])
        .args(["inject=execveat:delay_enter=5000000", "--"])
        .arg(common::BOX)
        .args(["build", "-q", "--network", "none"])
        .arg(&context)
        .env("BOX_ROOT", bench.store())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let box_pid = wait_for("box", || {
        children(tracer.id()).into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "box")
        })
    });
    let keeper = wait_for("the container's keeper", || children(box_pid).first().copied());
    let kill =
        |pid: u32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL);
    kill(box_pid).unwrap();
    wait_for("box to die", || {
        (!std::path::Path::new(&format!("/proc/{box_pid}")).exists()).then_some(())
    });
    assert!(
        std::path::Path::new(&format!("/proc/{keeper}/fd")).exists(),
        "the child is still there"
    );
    bench.ok(["images"]);
    let left = temporary(&bench);
    kill(keeper).unwrap();
    tracer.wait().unwrap();
    assert_eq!(left, clean);
}

#[test]
fn ctrl_c_leaves_nothing() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM busybox\nRUN echo begun && sleep 600\n")]);
    let before = Traces::of(&bench);
    let clean = temporary(&bench);
    let mut command = bench.command(["build", "--progress", "plain", "--network", "none"]);
    let mut child = command.arg(&context).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().ends_with("begun")), "the step runs");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "not waited for the step's own end"
    );
    assert_eq!(Traces::of(&bench), before);
    assert_eq!(temporary(&bench), clean);
}

/// One command of the campaign below.
struct Command {
    name: &'static str,
    args: Vec<String>,
    /// What makes it have something to do.
    before: Vec<Vec<String>>,
    /// Whose store: that of the pushes and saves, or that of the pulls and loads.
    is_far: bool,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn commands(registry: &common::registry::Registry, saved: &str) -> [Command; 6] {
    let name = registry.name("app:1");
    let clear = vec![words("prune"), words("images")];
    let gone = |name: &str| [vec![words(&format!("rmi -f {name}"))], clear.clone()].concat();
    [
        Command {
            name: "pull",
            args: words(&format!("pull -q {name}")),
            before: gone(&name),
            is_far: true,
        },
        Command {
            name: "load",
            args: words(&format!("load -i {saved}")),
            before: gone("result"),
            is_far: true,
        },
        Command {
            name: "push",
            args: words(&format!("push -q result {}", registry.name("other:1"))),
            before: Vec::new(),
            is_far: false,
        },
        Command {
            name: "save",
            args: words(&format!("save -o {saved} result")),
            before: Vec::new(),
            is_far: false,
        },
        Command {
            name: "prune",
            args: words("prune"),
            before: vec![
                words(&format!("pull -q {name}")),
                words(&format!("rmi -f {name}")),
            ],
            is_far: true,
        },
        Command {
            name: "tag",
            args: words("tag result again:1"),
            before: vec![words("rmi again:1")],
            is_far: false,
        },
    ]
}

/// SIGKILL of pull, push, load, save, prune and tag: afterwards the store is whole, the same command works, and nothing temporary stays.
#[test]
fn nothing_is_lost_when_a_transfer_is_killed() {
    let registry = common::registry::Registry::start();
    let (near, far) = (Bench::with_busybox(), Bench::with_busybox());
    let context = context(&near);
    near.ok([
        "build",
        "-q",
        "--network",
        "none",
        "-t",
        "result",
        context.to_str().unwrap(),
    ]);
    let name = registry.name("app:1");
    let saved = near.path("saved.tar").display().to_string();
    near.ok(["push", "result", &name]);
    near.ok(["save", "-o", &saved, "result"]);
    let commands = commands(&registry, &saved);
    let moments = if std::env::var_os("BOX_LONG").is_some() {
        100
    } else {
        8
    };
    let mut random = Random(20_261_128);
    for command in &commands {
        let bench = if command.is_far { &far } else { &near };
        let prepare = || command.before.iter().for_each(|args| drop(bench.run(args)));
        prepare();
        let start = Instant::now();
        bench.ok(&command.args);
        let whole = start.elapsed();
        let mut killed = 0;
        for moment in 0..moments {
            prepare();
            let part = whole.as_nanos() as u64 / moments;
            let delay = Duration::from_nanos(part * moment + random.next() % part.max(1));
            let mut child = bench.command(&command.args);
            let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(delay);
            child.kill().unwrap();
            killed += u32::from(child.wait().unwrap().code().is_none());
            let checked = bench.ok(["fsck"]);
            assert!(
                checked.contains("all is well"),
                "{} after {delay:?}: {checked}",
                command.name
            );
            bench.ok(&command.args);
            bench.ok(["images"]);
            let left = temporary(bench);
            assert!(left.is_empty(), "{} after {delay:?}: {left:?}", command.name);
        }
        println!("{}: {killed} of {moments} killed in {whole:?}", command.name);
        assert!(killed > 0, "{}", command.name);
    }
    // Everything still is what it was.
    far.ok(["pull", "-q", &name]);
    far.ok(["run", "--rm", "--network", "none", &name, "ls", "/files"]);
}
