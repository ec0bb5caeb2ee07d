//! Equal builds at once end in one digest, and one's failure does not poison another.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use common::{Bench, success, text};

const BOXFILE: &str =
    "FROM busybox\nCOPY a /a\nRUN sleep 0.2 && seq 1 20000 > /numbers\nRUN sort -r /numbers > /sorted\n";

#[test]
fn four_equal_builds_at_once() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "a"), ("Boxfile", BOXFILE)]);
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = bench.command(["build", "-q", "--network", "none", "-t", "same"]);
            command
                .arg(&context)
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let ids: Vec<String> = children
        .into_iter()
        .map(|c| success(c.wait_with_output().unwrap()))
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    assert_eq!(bench.sh("same", "head -n 1 /sorted").trim(), "9999");
}

#[test]
fn a_killed_build_does_not_poison_its_equal() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("a", "a"), ("Boxfile", BOXFILE)]);
    let start = || {
        bench
            .command(["build", "-q", "--network", "none"])
            .arg(&context)
            .stdout(std::process::Stdio::piped())
            .spawn()
    };
    let mut first = start().unwrap();
    let second = start().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(120));
    first.kill().unwrap();
    first.wait().unwrap();
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn different_builds_at_once() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[]);
    let files: Vec<_> = (0..4)
        .map(|n| {
            let file = bench.path(&format!("Boxfile.{n}"));
            std::fs::write(
                &file,
                format!("FROM busybox\nRUN echo shared > /shared\nRUN echo {n} > /own\n"),
            )
            .unwrap();
            file
        })
        .collect();
    let children: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(n, file)| {
            let mut command =
                bench.command(["build", "-q", "--network", "none", "-t", &format!("own{n}"), "-f"]);
            command
                .arg(file)
                .arg(&context)
                .stderr(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in children {
        success(child.wait_with_output().unwrap());
    }
    for n in 0..4 {
        assert_eq!(
            bench.sh(&format!("own{n}"), "cat /shared /own"),
            format!("shared\n{n}\n")
        );
    }
}

/// Of four Boxfiles: what they share, and a step of its own; the last one's fails. Each step says in a cache mount when it begins and ends.
fn of_four(n: usize) -> String {
    let step = |name: &str, more: &str| {
        format!(
            "RUN --network=none --mount=type=cache,target=/c echo {name}-begun >> /c/log; echo {name} begins; sleep 0.5; {more} \
             echo {name} > /{name}; echo {name}-done >> /c/log\n"
        )
    };
    let end = if n == 3 { "exit 3;" } else { "" };
    format!(
        "FROM busybox AS early\n{}FROM busybox\n{}COPY --from=early /early /\n{}",
        step("early", ""),
        step("shared", ""),
        step(&format!("own{n}"), end)
    )
}

/// Sixteen builds at once, four of each Boxfile. `act` is given them when all have begun, with the files that they write into.
fn sixteen(
    bench: &Bench,
    act: impl FnOnce(&mut [(std::process::Child, std::path::PathBuf)]) -> Option<usize>,
) -> Vec<String> {
    let context = bench.context("context", &[]);
    let mut builds: Vec<_> = (0..16)
        .map(|n| {
            let (file, told) = (
                bench.path(&format!("Boxfile.{n}")),
                bench.path(&format!("told.{n}")),
            );
            std::fs::write(&file, of_four(n % 4)).unwrap();
            let mut command = bench.command(["build", "--progress", "plain", "-t", &format!("own{n}"), "-f"]);
            command
                .arg(&file)
                .arg(&context)
                .stdout(std::process::Stdio::null());
            let child = command
                .stderr(std::fs::File::create(&told).unwrap())
                .spawn()
                .unwrap();
            (child, told)
        })
        .collect();
    let killed = act(&mut builds);
    for (n, (child, told)) in builds.iter_mut().enumerate() {
        let status = child.wait().unwrap();
        let told = std::fs::read_to_string(told).unwrap();
        let expected = match n % 4 {
            _ if killed == Some(n) => None,
            3 => Some(1),
            _ => Some(0),
        };
        let is_right = status.code() == expected || (expected == Some(1) && !status.success());
        assert!(is_right, "build {n}: {status}: {told}");
    }
    for n in (0..16).filter(|n| n % 4 != 3 && killed != Some(*n)) {
        let own = format!("own{}", n % 4);
        let said = bench.sh(&format!("own{n}"), &format!("cat /early /shared /{own}"));
        assert_eq!(said, format!("early\nshared\n{own}\n"));
    }
    let log = common::sh(&format!(
        "cat {}/cache-mounts/*/0/data/log",
        bench.store().display()
    ));
    assert!(bench.ok(["fsck"]).contains("all is well"));
    log.lines().map(str::to_owned).collect()
}

fn times(log: &[String], what: &str) -> usize {
    log.iter().filter(|line| *line == what).count()
}

#[test]
fn sixteen_builds_of_four_boxfiles_do_each_shared_step_once() {
    let bench = Bench::with_busybox();
    let log = sixteen(&bench, |_| None);
    for step in ["early", "shared", "own0", "own1", "own2"] {
        let counted = (
            times(&log, &format!("{step}-begun")),
            times(&log, &format!("{step}-done")),
        );
        assert_eq!(counted, (1, 1), "{step}: {log:?}");
    }
    // Whoever comes to a step that fails does it, and fails alone.
    assert_eq!(
        (times(&log, "own3-begun"), times(&log, "own3-done")),
        (4, 0),
        "{log:?}"
    );
}

#[test]
fn of_sixteen_builds_another_takes_over_from_the_killed_one() {
    let bench = Bench::with_busybox();
    let log = sixteen(&bench, |builds| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let does = |told: &std::path::Path| {
                std::fs::read_to_string(told)
                    .is_ok_and(|told| told.lines().any(|line| line.ends_with("shared begins")))
            };
            if let Some(n) = builds.iter().position(|(_, told)| does(told)) {
                builds[n].0.kill().unwrap();
                return Some(n);
            }
            assert!(std::time::Instant::now() < deadline, "nobody does the step");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    assert_eq!(
        (times(&log, "shared-begun"), times(&log, "shared-done")),
        (2, 1),
        "{log:?}"
    );
    for step in ["early", "own0", "own1", "own2"] {
        assert_eq!(times(&log, &format!("{step}-done")), 1, "{step}: {log:?}");
    }
}
