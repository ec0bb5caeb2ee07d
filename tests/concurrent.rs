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
