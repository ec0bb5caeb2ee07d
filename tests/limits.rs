//! Limits hold, their breach is explained, and one that can't be enforced is refused.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::{Path, PathBuf};

use common::{Bench, OrdinaryUser, USER_ID, sh, text};

/// Fills memory in small pieces, so that the peak is near the limit.
const HOG: &str = "RUN dd if=/dev/zero of=/dev/shm/x bs=1M count=48 && tail /dev/zero\n";

fn fails(bench: &Bench, boxfile: &str, extra: &[&str]) -> String {
    let context = bench.context("empty", &[]);
    let output = bench.try_build(&context, boxfile, extra);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn too_much_memory_is_killed_and_named() {
    let bench = Bench::with_busybox();
    let message = fails(
        &bench,
        &format!("FROM busybox\nLIMIT memory=64M\nRUN true\n{HOG}"),
        &[],
    );
    assert!(
        message.contains("memory") && message.contains("64"),
        "the limit is named: {message}"
    );
    assert!(message.contains("peak"), "the peak is named: {message}");
    assert!(message.contains(":4:"), "the line is named: {message}");
    let message = fails(
        &bench,
        &format!("FROM busybox\n{}", HOG.replace("RUN ", "RUN --memory=64M ")),
        &[],
    );
    assert!(message.contains("peak"), "{message}");
    let message = fails(&bench, &format!("FROM busybox\n{HOG}"), &["--memory", "64m"]);
    assert!(message.contains("peak"), "{message}");
    bench.build(
        &bench.context("empty", &[]),
        "FROM busybox\nRUN true\nLIMIT memory=64M\nRUN true\n",
        &[],
    );
}

#[test]
fn a_fork_bomb_ends() {
    let bench = Bench::with_busybox();
    let bomb = "RUN f() { f | f & }; f; sleep 1; i=0; while [ $i -lt 200 ]; do sleep 9 & i=$((i+1)); done\n";
    let message = fails(&bench, &format!("FROM busybox\nLIMIT pids=64\n{bomb}"), &[]);
    assert!(message.contains(":3:"), "{message}");
}

#[test]
fn cpu_time_is_limited_and_read_back() {
    let bench = Bench::with_busybox();
    let context = bench.context("empty", &[]);
    let file = bench.path("Boxfile");
    let spin = "end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do :; done";
    std::fs::write(&file, format!("FROM busybox\nLIMIT cpus=0.5\nRUN {spin}\n")).unwrap();
    let output = bench
        .command(["build", "--progress", "json", "-f"])
        .arg(&file)
        .arg(&context)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let events = text(&output.stderr);
    let mut step = events
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let step = step.rfind(|e| e["event"] == "step_finished" && e["cpu_ms"].as_u64() > Some(100));
    let step = step.unwrap_or_else(|| panic!("no finished step in {events}"));
    let (wall, cpu) = (
        step["wall_ms"].as_f64().unwrap(),
        step["cpu_ms"].as_f64().unwrap(),
    );
    // Not a timing that decides by luck: without the limit the ratio is near 1.
    assert!(cpu / wall < 0.75, "half a CPU, but {cpu} of {wall} ms: {step}");
}

#[test]
fn time_is_limited() {
    let bench = Bench::with_busybox();
    let message = fails(&bench, "FROM busybox\nLIMIT time=2s\nRUN sleep 600\n", &[]);
    assert!(message.contains("2s") && message.contains(":3:"), "{message}");
    let message = fails(&bench, "FROM busybox\nRUN --timeout=1s sleep 600\n", &[]);
    assert!(message.contains("1s"), "{message}");
}

#[test]
fn limits_of_run() {
    let bench = Bench::with_busybox();
    let run = |options: &[&str], line: &str| {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", line]);
        bench.run(args)
    };
    let output = run(&["-m", "32m"], "tail /dev/zero");
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("memory"),
        "{}",
        text(&output.stderr)
    );
    let output = run(
        &["--pids-limit", "8"],
        "i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done",
    );
    assert_ne!(output.status.code(), Some(0));
}

/// A cgroup of each controller (v1) or of the one tree (v2) that belongs to the ordinary user; removed at the end.
struct Delegated {
    directories: Vec<PathBuf>,
    name: String,
}

impl Delegated {
    fn new() -> Self {
        let name = format!("delegated-{}", std::process::id());
        let mut directories = Vec::new();
        for controller in ["memory", "cpu", "cpuacct", "pids", "unified", "."] {
            let mount = Path::new("/sys/fs/cgroup").join(controller);
            let is_tree = mount.join("cgroup.procs").exists();
            if is_tree {
                let directory = mount.join(&name);
                std::fs::create_dir(&directory).unwrap();
                sh(&format!("chown -R {USER_ID}:{USER_ID} {}", directory.display()));
                directories.push(directory);
            }
        }
        Self { directories, name }
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for directory in &self.directories {
            let inside = walkdir::WalkDir::new(directory)
                .contents_first(true)
                .into_iter()
                .filter_map(Result::ok);
            for entry in inside.filter(|e| e.file_type().is_dir()) {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}

fn user_with_busybox(bench: &Bench) -> (OrdinaryUser, PathBuf) {
    let user = OrdinaryUser::new(bench);
    let tar = bench.busybox_tar();
    sh(&format!("chmod 644 {}", tar.display()));
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    let file = bench.path("Boxfile");
    std::fs::write(&file, format!("FROM busybox\nLIMIT memory=64M\n{HOG}")).unwrap();
    (user, file)
}

#[test]
fn an_ordinary_user_on_a_delegated_subtree_has_limits() {
    let bench = Bench::new();
    let (user, file) = user_with_busybox(&bench);
    let context = bench.context("empty", &[]);
    let delegated = Delegated::new();
    // The user's shell is inside the subtree, as a login session's would be: the test moves the command in.
    let mut command = user.command(["build", "--cgroup-parent", &delegated.name, "-f"]);
    command.arg(&file).arg(&context);
    let output = in_cgroups(&delegated, command).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("peak") && message.contains("64"), "{message}");
}

/// The command, started inside the delegated cgroups.
fn in_cgroups(delegated: &Delegated, command: std::process::Command) -> std::process::Command {
    let moves: Vec<String> = delegated
        .directories
        .iter()
        .map(|d| {
            format!(
                "mkdir {0}/session; chown -R {USER_ID} {0}/session; echo $$ > {0}/session/cgroup.procs",
                d.display()
            )
        })
        .collect();
    let mut outer = std::process::Command::new("sh");
    outer.args(["-c", &format!("{}; exec \"$@\"", moves.join("; ")), "sh"]);
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

#[test]
fn an_ordinary_user_without_one_is_told() {
    let bench = Bench::new();
    let (user, file) = user_with_busybox(&bench);
    let context = bench.context("empty", &[]);
    let output = user
        .command(["build", "-f"])
        .arg(&file)
        .arg(&context)
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert!(
        !output.status.success(),
        "a limit that can't be enforced is refused"
    );
    assert!(
        message.contains("memory") && message.contains("--limits=best-effort"),
        "{message}"
    );
    std::fs::write(&file, "FROM busybox\nLIMIT memory=64M\nRUN true\n").unwrap();
    user.ok([
        "build",
        "-q",
        "--limits=best-effort",
        "-f",
        file.to_str().unwrap(),
        context.to_str().unwrap(),
    ]);
}

/// A disk of the test's own: a file behind a loop device.
struct Disk(String);

impl Disk {
    fn new(bench: &Bench) -> Self {
        let file = bench.path("disk");
        std::fs::write(&file, vec![7; 4 << 20]).unwrap();
        let made = std::process::Command::new("losetup")
            .arg("-f")
            .arg("--show")
            .arg(&file)
            .output()
            .unwrap();
        assert!(made.status.success(), "a loop device: {}", text(&made.stderr));
        Self(text(&made.stdout).trim().to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        sh(&format!("losetup -d {}", self.0));
    }
}

#[test]
fn a_container_may_read_its_limits() {
    let bench = Bench::with_busybox();
    let line = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "-m",
        "64m",
        "-u",
        "1000",
        "busybox",
        "sh",
        "-c",
    ];
    assert_eq!(
        bench.ok(run.into_iter().chain([line])).trim(),
        (64 << 20).to_string()
    );
    let changing = "for file in $(find /sys/fs/cgroup -name '*.max' -o -name '*limit_in_bytes'); do echo 1 > $file && echo changed; done; true";
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "-m",
        "64m",
        "busybox",
        "sh",
        "-c",
    ];
    assert_eq!(bench.ok(run.into_iter().chain([changing])), "");
}

#[test]
fn devices_are_throttled() {
    let bench = Bench::with_busybox();
    let own = Disk::new(&bench);
    let disk = &own.0;
    let bytes = format!("{disk}:1mb");
    let shown = bench.ok([
        "run",
        "--rm",
        "--network",
        "none",
        "--device-read-bps",
        &bytes,
        "--device-write-bps",
        &bytes,
        "--device-read-iops",
        &format!("{disk}:1000"),
        "--device-write-iops",
        &format!("{disk}:900"),
        "busybox",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/blkio/blkio.throttle.*_device /sys/fs/cgroup/io.max 2>/dev/null; true",
    ]);
    for rate in ["1048576", "1000", "900"] {
        assert!(shown.contains(rate), "{rate}: {shown}");
    }
    let started = std::time::Instant::now();
    bench.ok([
        "run",
        "--rm",
        "--network",
        "none",
        "--device",
        &format!("{disk}:/dev/disk:r"),
        "--device-read-bps",
        &bytes,
        "busybox",
        "dd",
        "if=/dev/disk",
        "of=/dev/null",
        "bs=1M",
        "count=3",
        "iflag=direct",
    ]);
    // Three seconds' worth, but for what the kernel lets through at once.
    assert!(started.elapsed().as_secs_f64() > 1.5, "{:?}", started.elapsed());
    let message = bench.fails(
        125,
        [
            "run",
            "--rm",
            "--device-read-bps",
            "/dev/null:1mb",
            "busybox",
            "true",
        ],
    );
    assert!(
        message.contains("/dev/null") && message.contains("no block device"),
        "{message}"
    );
    let id = bench.ok([
        "create",
        "--device-write-iops",
        &format!("{disk}:7"),
        "busybox",
        "true",
    ]);
    let shown: serde_json::Value = serde_json::from_str(&bench.ok(["inspect", id.trim()])).unwrap();
    assert_eq!(
        shown[0]["HostConfig"]["BlkioDeviceWriteIOps"],
        serde_json::json!([{"Path": disk, "Rate": 7}])
    );
}
