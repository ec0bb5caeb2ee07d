//! Collecting while others build and run, through the program.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use common::registry::Registry;
use common::{Bench, text};

/// Builders with a cache and without, pullers, and a collector that never stops: nobody fails, nothing is lost.
/// The long form (BOX_LONG=1) takes two minutes.
#[test]
fn builders_pullers_and_a_collector_get_on() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let long = std::env::var_os("BOX_LONG").is_some();
    let (builders, pullers, time) = if long { (8, 4, 120) } else { (4, 2, 10) };
    let context = bench.context("far", &[("a", "far")]);
    bench.build(
        &context,
        "FROM busybox\nCOPY a /far\nRUN cat /far /far > /twice\n",
        &["--network", "none", "-t", "far"],
    );
    let far: Vec<String> = (0..pullers).map(|n| registry.name(&format!("far:{n}"))).collect();
    for name in &far {
        bench.ok(["push", "-q", "far", name]);
    }
    bench.ok(["rmi", "far"]);
    let end = Instant::now() + Duration::from_secs(time);
    std::thread::scope(|scope| {
        for name in &far {
            let bench = &bench;
            scope.spawn(move || {
                while Instant::now() < end {
                    bench.ok(["pull", "-q", name]);
                    let told = bench.ok(["run", "--rm", "--network", "none", name, "cat", "/twice"]);
                    assert_eq!(told, "farfar");
                    bench.ok(["rmi", name]);
                }
            });
        }
        for builder in 0..builders {
            let bench = &bench;
            scope.spawn(move || {
                for round in 0.. {
                    if Instant::now() > end {
                        return;
                    }
                    let content = format!("{builder} {}", round / 2);
                    let context = bench.context(&format!("context{builder}"), &[("a", &content)]);
                    let boxfile = "FROM busybox\nCOPY a /a\nRUN cat /a > /b\nRUN cat /a /b > /c\n";
                    std::fs::write(context.join("Boxfile"), boxfile).unwrap();
                    let name = format!("image{builder}");
                    let args = [
                        "build",
                        "-q",
                        "--network",
                        "none",
                        "-t",
                        &name,
                        context.to_str().unwrap(),
                    ];
                    bench.ok(args);
                    let told = bench.ok(["run", "--rm", "--network", "none", &name, "cat", "/c"]);
                    assert_eq!(told, format!("{content}{content}"), "{name}");
                }
            });
        }
        let bench = &bench;
        scope.spawn(move || {
            let mut collected = 0;
            while Instant::now() < end {
                let what = if collected % 2 == 0 { "gc" } else { "prune" };
                bench.ok([what, "--wait", "60"]);
                collected += 1;
            }
            assert!(collected > 1, "the collector has its turn: {collected}");
        });
    });
    bench.ok(["prune"]);
    assert!(bench.ok(["fsck"]).contains("all is well"));
    for builder in 0..builders {
        bench.ok([
            "run",
            "--rm",
            "--network",
            "none",
            &format!("image{builder}"),
            "true",
        ]);
    }
}

/// A container that waits for a line, and then looks for a program of its image.
struct Waiting {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Waiting {
    fn start(bench: &Bench) -> Waiting {
        let script = "echo up; read line; ls /bin/busybox";
        let mut child = bench
            .command([
                "run",
                "--rm",
                "-i",
                "--network",
                "none",
                "busybox",
                "sh",
                "-c",
                script,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Waiting { child, out }
    }

    /// It finds it.
    fn finish(mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "/bin/busybox\n");
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_running_container_keeps_what_it_lies_on() {
    let bench = Bench::with_busybox();
    let container = Waiting::start(&bench);
    bench.ok(["rmi", "busybox"]);
    bench.ok(["prune", "--wait", "10"]);
    container.finish();
    let told = bench.ok(["prune"]);
    assert!(told.contains("1 layers"), "{told}");
    assert!(told.contains("0B are left"), "{told}");
}

#[test]
fn a_damaged_layer_stays_while_a_container_lies_on_it() {
    let bench = Bench::with_busybox();
    let container = Waiting::start(&bench);
    let mut files = walkdir::WalkDir::new(bench.store().join("layers"))
        .into_iter()
        .flatten();
    let damaged = files.find(|entry| entry.path().ends_with("etc/passwd")).unwrap();
    std::fs::write(damaged.path(), "damaged").unwrap();
    bench.run(["fsck", "--repair"]);
    let aside = || {
        std::fs::read_dir(bench.store().join("quarantine"))
            .unwrap()
            .count()
    };
    bench.ok(["gc", "--wait", "10"]);
    assert_eq!(aside(), 1, "the tree alone");
    container.finish();
    bench.ok(["gc"]);
    assert_eq!(aside(), 0);
}

#[test]
fn storage_can_be_bounded() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[]);
    for n in 0..4 {
        let boxfile = format!("FROM busybox\nRUN head -c 300000 /dev/zero > /z{n}\n");
        bench.build(&context, &boxfile, &[]);
    }
    let told = bench.ok(["prune", "--keep-storage", "3m"]);
    assert!(told.contains("removed"), "{told}");
    let df: serde_json::Value = serde_json::from_str(&bench.ok(["df", "--format", "json"])).unwrap();
    let total: u64 = ["imageLayers", "cacheLayers", "blobs"]
        .iter()
        .map(|key| df[key].as_u64().unwrap())
        .sum();
    assert!(total <= 3 << 20, "{df}");
    let output = bench.run(["prune", "--keep-storage", "1k"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("images with a name"), "{output:?}");
    let told = bench.fails(125, ["prune", "--older-than", "x"]);
    assert!(told.contains("no time"), "{told}");
}

/// With no byte free and no file more to be made, what is not needed can still be removed.
#[test]
fn a_full_disk_can_be_emptied() {
    let bench = Bench::new();
    let tar = bench.busybox_tar();
    let disk = bench.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = "set -e; mount -t tmpfs -o size=12m,nr_inodes=INODES none \"$0\"; \"$2\" --root \"$0/store\" import --progress quiet \"$1\" one >/dev/null; \
                  dd if=/dev/zero of=\"$0/fill\" bs=4k 2>/dev/null || true; n=0; while [ $n -lt 2000 ] && mkdir \"$0/d$((n=n+1))\" 2>/dev/null; do :; done; \
                  \"$2\" --root \"$0/store\" import --progress quiet \"$1\" two 2>&1 | head -1 || true; \
                  \"$2\" --root \"$0/store\" rmi one; \"$2\" --root \"$0/store\" prune; \"$2\" --root \"$0/store\" fsck; \
                  find \"$0/store/layers\" \"$0/store/tmp\" -mindepth 1 | wc -l";
    for inodes in ["0", "700"] {
        let output = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", &script.replace("INODES", inodes)])
            .args([&disk, &tar, std::path::Path::new(common::BOX)])
            .output()
            .unwrap();
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{inodes}: {told}");
        assert!(
            told.contains("No space left") || told.contains("disk of the store is full"),
            "{inodes}: {told}"
        );
        assert!(
            told.contains("1 layers") && told.contains("all is well") && told.ends_with("0\n"),
            "{inodes}: {told}"
        );
    }
}
