//! SIGKILL of the command, of the monitor and of a container's first process at seeded moments spread over a container's life: `ps` says what
//! is so, exit codes are right, and nothing is left. 100 moments; BOX_LONG=1 tries 1,000. BOX_KILL_SEED repeats a run.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Bench, Random, Traces};
use serde_json::Value;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    /// `box run -d`.
    Command,
    /// `box run --rm` in the foreground, which is its own monitor.
    Foreground,
    Monitor,
    First,
}

const VICTIMS: [Victim; 4] = [
    Victim::Command,
    Victim::Foreground,
    Victim::Monitor,
    Victim::First,
];

fn pids(wanted: impl Fn(&str) -> bool) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            wanted(&String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}

fn kill(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).is_ok()
}

fn listed(bench: &Bench) -> Vec<Value> {
    let all: Value = serde_json::from_str(&bench.ok(["ps", "-a", "--format", "json"])).unwrap();
    all.as_array().unwrap().clone()
}

/// Starts one, kills somebody after a while, and says in which phase that was.
fn one(bench: &Bench, victim: Victim, name: &str, delay: Duration) -> String {
    let line = format!("sleep 0.06; : {name}; exit 7");
    let kind = if victim == Victim::Foreground {
        "--rm"
    } else {
        "-d"
    };
    let args = [
        "run",
        kind,
        "--network",
        "none",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        &line,
    ];
    let mut child = bench
        .command(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(delay);
    let first = pids(|text| text.starts_with("sh -c") && text.contains(name));
    let monitors =
        pids(|text| text.contains("__box_monitor") && text.contains(bench.store().to_str().unwrap()));
    let phase = match (first.is_empty(), monitors.is_empty()) {
        (false, _) => "runs",
        (true, false) => "begins or ends",
        (true, true) => "before or after",
    };
    let is_killed = match victim {
        Victim::Command | Victim::Foreground => child.kill().is_ok(),
        Victim::Monitor => monitors.into_iter().any(kill),
        Victim::First => first.into_iter().any(kill),
    };
    child.wait().unwrap();
    format!(
        "{victim:?}, {phase}{}",
        if is_killed { "" } else { ", nobody there" }
    )
}

/// Whoever is said to run is there.
fn check_truth(container: &Value, context: &str) {
    if container["State"] == "running" {
        let pid = container["Pid"].as_i64().unwrap();
        let again = std::path::Path::new("/proc").join(pid.to_string()).exists();
        // It may have ended since.
        let is_young = container["Status"].as_str().unwrap().starts_with("Up less");
        assert!(again || is_young, "{context}: {container}");
    }
}

/// Waits until nothing runs any more; all that is said meanwhile is so.
fn until_quiet(bench: &Bench, context: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let there = listed(bench);
        there.iter().for_each(|container| check_truth(container, context));
        // A monitor may have begun though who started it was killed.
        let is_quiet =
            pids(|text| text.contains("__box_monitor") && text.contains(bench.store().to_str().unwrap()))
                .is_empty();
        if is_quiet && there.iter().all(|container| container["State"] != "running") {
            break;
        }
        assert!(Instant::now() < deadline, "{context}: {there:?}");
    }
}

#[test]
fn nothing_is_left_and_everything_said_is_so() {
    let bench = Bench::with_busybox();
    let seed = std::env::var("BOX_KILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_261_128);
    let moments: u64 = if std::env::var_os("BOX_LONG").is_some() {
        1000
    } else {
        100
    };
    let mut random = Random(seed);
    let before = Traces::of(&bench);
    // From the command's start to a while after the container's end, on this machine as it is now.
    let begun = Instant::now();
    bench.ok([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "measured",
        "busybox",
        "sleep",
        "0.06",
    ]);
    bench.ok(["wait", "measured"]);
    let whole = begun.elapsed();
    bench.ok(["rm", "measured"]);
    let mut phases: BTreeMap<String, u32> = BTreeMap::new();
    for moment in 0..moments {
        let victim = VICTIMS[(moment % 4) as usize];
        let part = whole.as_nanos() as u64 / moments;
        let delay = Duration::from_nanos(part * moment + random.next() % part.max(1));
        let name = format!("k{moment}");
        let phase = one(&bench, victim, &name, delay);
        let context = format!("seed {seed}, moment {moment}, {phase}");
        *phases.entry(phase.clone()).or_default() += 1;
        until_quiet(&bench, &context);
        for container in listed(&bench) {
            assert_ne!(victim, Victim::Foreground, "{context}: --rm left {container}");
            let code = container["ExitCode"].as_i64().unwrap();
            let expect: &[i64] = match (victim, container["State"].as_str().unwrap()) {
                (_, "created") => &[0],
                (Victim::Command, _) => &[7],
                (Victim::Monitor, _) | (Victim::First, _) => &[7, 137],
                (Victim::Foreground, _) => &[],
            };
            assert!(expect.contains(&code), "{context}: {container}");
            bench.ok(["rm", "-f", container["Names"].as_str().unwrap()]);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Traces::of(&bench) != before && Instant::now() < deadline {
            bench.ok(["ps", "-q"]);
        }
        assert_eq!(Traces::of(&bench), before, "{context}");
        bench.ok(["ps", "-q"]);
        let left: Vec<_> = std::fs::read_dir(bench.store().join("tmp"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{context}: {left:?}");
    }
    println!("seed {seed}, phases: {phases:#?}");
    let runs = phases
        .iter()
        .filter(|(phase, _)| phase.contains("runs"))
        .map(|(_, n)| n)
        .sum::<u32>();
    let begins = phases
        .iter()
        .filter(|(phase, _)| phase.contains("begins"))
        .map(|(_, n)| n)
        .sum::<u32>();
    assert!(runs > 0 && begins > 0, "the moments meet the phases: {phases:#?}");
    assert!(bench.ok(["fsck"]).contains("all is well"));
}
