//! Limits, figures, and what happens when the runner is killed.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use box_runner::*;
use support::{Fixture, PROBE, cgroups_of};

#[test]
fn memory() {
    let f = Fixture::new();
    let mut spec = f.spec(&["/bin/probe", "eat", "200"]);
    spec.limits.memory = Some(64 << 20);
    let ran = f.run(&spec);
    assert_eq!(ran.outcome.status, Status::Signaled(9), "{}", ran.stdout);
    assert!(ran.outcome.oom_killed);
    let peak = ran.outcome.usage.peak_memory.unwrap();
    assert!(peak > 60 << 20 && peak <= 64 << 20, "{peak}");
    let mut spec = f.spec(&["/bin/probe", "eat", "32"]);
    spec.limits.memory = Some(64 << 20);
    let ran = f.run(&spec);
    assert_eq!((ran.stdout.as_str(), ran.outcome.oom_killed), ("ate=32\n", false));
    assert!(ran.outcome.usage.peak_memory.unwrap() > 32 << 20);
}

#[test]
fn pids() {
    let f = Fixture::new();
    let mut spec = f.spec(&["/bin/probe", "fork-bomb"]);
    spec.limits.pids = Some(64);
    let ran = f.run(&spec);
    assert_eq!(ran.stdout, "started=63\n");
    let ran = f.run(&f.spec(&["/bin/probe", "fork-bomb"]));
    assert_eq!(ran.stdout, "started=2047\n");
}

#[test]
fn cpus() {
    let f = Fixture::new();
    let mut spec = f.spec(&["sh", "-c", "while :; do :; done"]);
    spec.limits.millicpus = Some(500);
    spec.limits.time = Some(Duration::from_secs(2));
    let outcome = f.run(&spec).outcome;
    assert!(outcome.timed_out);
    let cpu = (outcome.usage.cpu_user + outcome.usage.cpu_system).as_secs_f64();
    assert!(cpu > 0.3 && cpu < 1.25, "{cpu}");
}

#[test]
fn time() {
    let f = Fixture::new();
    let mut spec = f.spec(&["sleep", "100"]);
    spec.limits.time = Some(Duration::from_millis(200));
    let started = Instant::now();
    let outcome = f.run(&spec).outcome;
    assert!(outcome.timed_out && outcome.status == Status::Signaled(9));
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(outcome.usage.wall >= Duration::from_millis(100));
}

#[test]
fn times_are_read_back() {
    let f = Fixture::new();
    // The work is done by a child: it counts as well.
    let usage = f
        .sh("(i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done)")
        .outcome
        .usage;
    assert!(
        usage.cpu_user + usage.cpu_system > Duration::from_millis(5),
        "{usage:?}"
    );
    assert!(usage.wall > Duration::from_millis(5));
}

/// Starts the probe as a runner of its own and waits until its container runs.
fn hold(f: &Fixture, owner: &str) -> (std::process::Child, i32) {
    let rootfs = f.rootfs();
    let dir = rootfs.upper.parent().unwrap().to_owned();
    let mut runner = Command::new(PROBE)
        .args(["outside", "hold", owner])
        .arg(dir)
        .arg(f.lower())
        .args(["sh", "-c", "echo started; (sleep 1000 &); sleep 1000"])
        .stdout(ProcessStdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap() == "started"));
    let first = first_process(runner.id() as i32);
    (runner, first)
}

/// The container's first process: the child of the runner's child.
fn first_process(runner: i32) -> i32 {
    let child = |pid: i32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace()
            .next()
            .unwrap_or_else(|| panic!("{pid} has no child"))
            .parse()
            .unwrap()
    };
    child(child(runner))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}

#[test]
fn a_killed_runner_takes_its_container_along() {
    let f = Fixture::new();
    let owner = format!("killed{}", std::process::id());
    let (mut runner, first) = hold(&f, &owner);
    assert!(lives(first));
    runner.kill().unwrap();
    runner.wait().unwrap();
    wait_until("the container ends", || !lives(first));
    let left = cgroups_of(&owner);
    assert!(!left.is_empty());
    // As a container that runs containers would leave them.
    left.iter()
        .for_each(|group| fs::create_dir_all(group.join("inner/most")).unwrap());
    let dead = owner.clone();
    wait_until("its cgroups are reaped", || {
        reap(None, false, &|o| o != dead).unwrap();
        cgroups_of(&owner).is_empty()
    });
}

#[test]
fn runner_and_keeper_killed_at_once() {
    let f = Fixture::new();
    let owner = format!("both{}", std::process::id());
    let (mut runner, first) = hold(&f, &owner);
    let keeper = fs::read_to_string(format!("/proc/{0}/task/{0}/children", runner.id())).unwrap();
    let keeper: i32 = keeper.trim().parse().unwrap();
    unsafe { libc::kill(keeper, libc::SIGSTOP) };
    runner.kill().unwrap();
    runner.wait().unwrap();
    unsafe { libc::kill(keeper, libc::SIGKILL) };
    let dead = owner.clone();
    reap(None, false, &|o| o != dead).unwrap();
    wait_until("the container ends", || !lives(first));
    wait_until("its cgroups are gone", || {
        reap(None, false, &|o| o != dead).unwrap();
        cgroups_of(&owner).is_empty()
    });
}

#[test]
fn a_killed_keeper_is_an_error() {
    let f = Fixture::new();
    let spec = f.spec(&["sleep", "1000"]);
    let own = std::process::id();
    let running = f.runtime.spawn(&spec, &f.user, Stdio::null()).unwrap();
    // Other tests of this process run beside; the keeper is found by its container's command.
    let keeper = all_children(own as i32).into_iter().find(|pid| {
        let container = all_children(*pid);
        container.iter().any(|c| {
            fs::read_to_string(format!("/proc/{c}/cmdline")).unwrap_or_default() == "sleep\x001000\0"
        })
    });
    unsafe { libc::kill(keeper.unwrap(), libc::SIGKILL) };
    assert!(matches!(running.wait(), Err(RunnerError::InitDied { .. })));
}

fn all_children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|p| p.parse::<i32>().ok()));
    }
    found
}

/// Without the trees of version 1 in sight, the group is made in the one of version 2 and entered
/// by clone; it has no controllers on this machine, so nothing is limited there.
#[test]
fn version_2_alone() {
    let f = Fixture::new();
    let rootfs = f.rootfs();
    let script = "set -e
        awk '$0 ~ / - cgroup / {print $5}' /proc/self/mountinfo | while read m; do umount $m; done
        exec \"$@\"";
    let owner = format!("two{}", std::process::id());
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", PROBE, "outside", "hold", &owner])
        .arg(rootfs.upper.parent().unwrap())
        .arg(f.lower())
        .args([
            "sh",
            "-c",
            "grep 0:: /proc/self/cgroup; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x",
        ])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        out.contains("0::/\n") && out.contains("cgroup.procs") && out.contains("code=1"),
        "{out}"
    );
    assert!(cgroups_of(&owner).is_empty());
}

#[test]
fn living_owners_are_left_alone() {
    let f = Fixture::new();
    let spec = f.spec(&["sleep", "1000"]);
    let running = f.runtime.spawn(&spec, &f.user, Stdio::null()).unwrap();
    let own = f.owner.clone();
    let before = cgroups_of(&own).len();
    assert!(before > 0);
    reap(None, false, &|_| true).unwrap();
    assert_eq!(cgroups_of(&own).len(), before);
    running.handle().kill().unwrap();
    running.wait().unwrap();
    assert!(cgroups_of(&own).is_empty());
}

#[test]
fn killed_at_any_moment() {
    let f = Fixture::new();
    let mut phases = std::collections::BTreeSet::new();
    for step in 0..40u64 {
        let owner = format!("any{}x{step}", std::process::id());
        let rootfs = f.rootfs();
        let dir = rootfs.upper.parent().unwrap().to_owned();
        let mut runner = Command::new(PROBE)
            .args(["outside", "hold", &owner])
            .arg(&dir)
            .arg(f.lower())
            .args(["sleep", "1234"])
            .stdout(ProcessStdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(step * 400));
        let children = all_children(runner.id() as i32);
        let below: Vec<i32> = children.iter().flat_map(|c| all_children(*c)).collect();
        phases.insert((children.len(), below.len(), cgroups_of(&owner).len()));
        runner.kill().unwrap();
        runner.wait().unwrap();
        wait_until("all processes end", || {
            !children.iter().chain(&below).any(|p| lives(*p))
        });
        let dead = owner.clone();
        wait_until("all cgroups go", || {
            reap(None, false, &|o| o != dead).unwrap();
            cgroups_of(&owner).is_empty()
        });
    }
    assert!(phases.len() >= 3, "only these phases were hit: {phases:?}");
    wait_until("no container is left", || {
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .all(|e| fs::read_to_string(e.path().join("cmdline")).unwrap_or_default() != "sleep\x001234\0")
    });
}
