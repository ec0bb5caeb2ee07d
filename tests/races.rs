//! A container that changes its paths while the host works on them: two seconds each, and nothing gets out, nothing hangs.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Bench, sh, text};

const SECRET: &str = "a secret of the host";

/// A container in which `line` prepares what a racer then exchanges for ever.
struct Race {
    bench: Bench,
    /// A directory of the host that nothing may reach: with a secret, and nothing else ever.
    outside: PathBuf,
}

impl Race {
    fn new(line: &str, pairs: &str) -> Self {
        let bench = Bench::with_busybox();
        let outside = bench.path("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), SECRET).unwrap();
        let racer = bench.path("racer");
        sh(&format!("gcc -static -O1 -o {} tests/racer.c", racer.display()));
        let bind = format!("{}:/racer:ro", racer.display());
        let line = line.replace("OUTSIDE", outside.to_str().unwrap());
        let line = format!("mkdir -p /r && cd /r && {line} && touch /ready && exec /racer {pairs}");
        bench.ok([
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            "c",
            "-v",
            &bind,
            "busybox",
            "sh",
            "-c",
            &line,
        ]);
        let end = Instant::now() + Duration::from_secs(10);
        while !bench.run(["exec", "c", "ls", "/ready"]).status.success() {
            assert!(Instant::now() < end, "{}", text(&bench.run(["logs", "c"]).stderr));
        }
        Self { bench, outside }
    }

    /// Does it again and again for two seconds; each time it must end in time, whether it can be done or not.
    fn run(&self, mut once: impl FnMut(&Bench, u32)) {
        let end = Instant::now() + Duration::from_secs(2);
        let mut count = 0;
        while Instant::now() < end {
            let begun = Instant::now();
            once(&self.bench, count);
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "round {count} took {:?}",
                begun.elapsed()
            );
            count += 1;
        }
        assert!(count > 3, "only {count} rounds");
        let there: Vec<_> = std::fs::read_dir(&self.outside)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(there, ["secret"], "something got out");
        assert_eq!(
            std::fs::read_to_string(self.outside.join("secret")).unwrap(),
            SECRET
        );
    }
}

fn write(bench: &Bench, name: &str, content: &str) -> String {
    let path = bench.path(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_copy_into_a_directory_that_becomes_a_link() {
    let race = Race::new("mkdir a && ln -s OUTSIDE b", "a b");
    let file = write(&race.bench, "file", "copied");
    race.run(|bench, _| {
        bench.run(["cp", &file, "c:/r/a/file"]);
        bench.run(["cp", &file, "c:/r/a/"]);
    });
}

#[test]
fn a_copy_over_a_file_that_becomes_a_link() {
    let race = Race::new("echo > a && ln -s OUTSIDE/secret b", "a b");
    let file = write(&race.bench, "file", "copied");
    race.run(|bench, _| {
        bench.run(["cp", &file, "c:/r/a"]);
    });
}

#[test]
fn a_tar_into_a_directory_that_becomes_a_link() {
    let race = Race::new("mkdir -p a/sub && ln -s OUTSIDE b", "a b");
    let dir = race.bench.path("tar");
    sh(&format!(
        "mkdir -p {0}/a/sub && echo x > {0}/a/sub/file && tar -C {0} -cf {0}.tar a",
        dir.display()
    ));
    let tar = format!("{}.tar", dir.display());
    race.run(|bench, _| {
        let stdin = std::fs::File::open(&tar).unwrap();
        bench.command(["cp", "-", "c:/r"]).stdin(stdin).output().unwrap();
    });
}

#[test]
fn a_copy_of_a_file_that_becomes_a_link() {
    let race = Race::new("echo own > a && ln -s OUTSIDE/secret b", "a b");
    race.run(|bench, round| {
        for option in [&["cp"][..], &["cp", "-L"]] {
            let dest = bench.path(&format!("out{round}"));
            bench.run([option, &["c:/r/a", dest.to_str().unwrap()]].concat());
            let found = std::fs::read(&dest).unwrap_or_default();
            assert!(!text(&found).contains(SECRET) || dest.is_symlink(), "{option:?}");
            let _ = std::fs::remove_file(&dest);
        }
    });
}

#[test]
fn a_copy_of_a_file_that_becomes_a_pipe() {
    let race = Race::new("echo own > a && mkfifo b", "a b");
    race.run(|bench, _| {
        bench.run(["cp", "c:/r/a", "-"]);
    });
}

#[test]
fn a_copy_of_a_tree_whose_parts_become_links() {
    let race = Race::new(
        "mkdir -p t/a t/x && echo 1 > t/a/secret && ln -s OUTSIDE t/b && echo 2 > t/x/f",
        "t/a t/b",
    );
    race.run(|bench, round| {
        let dest = bench.path(&format!("tree{round}"));
        bench.run(["cp", "c:/r/t", dest.to_str().unwrap()]);
        let grep = format!(
            "! grep -rs --no-messages -F '{SECRET}' {} --exclude-dir=b",
            dest.display()
        );
        // Links are copied as links, and not followed by grep -r.
        sh(&grep);
        sh(&format!("rm -rf {}", dest.display()));
    });
}

#[test]
fn a_working_directory_that_becomes_a_link() {
    let race = Race::new(
        "mkdir a && ln -s /proc/self/fd/9 b && ln -s /proc/1/root c",
        "a b a c",
    );
    race.run(|bench, _| {
        let output = bench.run([
            "exec",
            "-w",
            "/r/a",
            "c",
            "sh",
            "-c",
            "pwd -P; ls -d ../../../../../../ready /ready",
        ]);
        if output.status.success() {
            assert!(
                text(&output.stdout).contains("/ready"),
                "{}",
                text(&output.stdout)
            );
        }
    });
}

#[test]
fn users_that_become_something_else() {
    let race = Race::new(
        "cp /etc/passwd p && mkfifo f && ln -s /dev/zero z && cp p /etc/passwd",
        "/etc/passwd f /etc/passwd z",
    );
    race.run(|bench, _| {
        bench.run(["exec", "-u", "root", "c", "true"]);
    });
}

#[test]
fn a_terminal_whose_devices_are_gone() {
    let race = Race::new(
        "mkdir d && ln -s OUTSIDE l && rm -f /dev/ptmx && ln -s OUTSIDE/secret /dev/ptmx",
        "d l",
    );
    race.run(|bench, _| {
        let line = format!("script -qec '{} exec -t c tty' /dev/null", common::BOX);
        let mut shell = std::process::Command::new("bash");
        let output = shell
            .args(["-c", &line])
            .env("BOX_ROOT", bench.store())
            .stdin(std::process::Stdio::null())
            .output();
        assert!(text(&output.unwrap().stdout).contains("/dev/pts/"));
    });
}

#[test]
fn a_container_that_ends_while_others_enter_it() {
    let race = Race::new("mkdir a b", "a b");
    let host = sh("readlink /proc/self/ns/mnt /proc/self/ns/pid").replace('\n', " ");
    race.run(|bench, _| {
        let entering: Vec<_> = (0..4)
            .map(|_| {
                let line = "readlink /proc/self/ns/mnt; readlink /proc/self/ns/pid; cat /proc/1/comm";
                let mut command = bench.command(["exec", "c", "sh", "-c", line]);
                command
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        bench.ok(["restart", "-t", "0", "c"]);
        for child in entering {
            let output = child.wait_with_output().unwrap();
            for namespace in text(&output.stdout).lines().filter(|line| line.contains(':')) {
                assert!(!host.contains(namespace), "it ran in the host's {namespace}");
            }
        }
    });
}

#[test]
fn a_container_that_is_removed_while_others_use_it() {
    let race = Race::new("mkdir a b", "a b");
    let file = write(&race.bench, "file", "x");
    race.run(|bench, round| {
        let name = format!("gone{round}");
        bench.ok([
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            &name,
            "busybox",
            "sleep",
            "1000",
        ]);
        let mut using: Vec<_> = [
            &["exec", &name, "sleep", "1000"][..],
            &["cp", &file, &format!("{name}:/x")],
            &["cp", &format!("{name}:/bin"), "-"],
            &["logs", "-f", &name],
            &["wait", &name],
        ]
        .iter()
        .map(|args| {
            let mut command = bench.command(*args);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
        bench.ok(["rm", "-f", &name]);
        for child in &mut using {
            child.wait().unwrap();
        }
        assert!(!bench.ok(["ps", "-a"]).contains(&name));
    });
}
