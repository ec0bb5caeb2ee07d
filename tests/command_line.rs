//! What a person or a program at the command line meets: signals, exit codes, quiet and machine-readable progress.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use common::{Bench, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `box run` of a process 1 that heeds no signal; returns when it runs.
fn stubborn(bench: &Bench) -> Child {
    let line = "trap '' INT TERM; echo begun; while :; do sleep 1; done";
    let mut command = bench.command(["run", "--rm", "--network", "none", "busybox", "sh", "-c", line]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    child
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
}

#[test]
fn the_third_interrupt_kills_a_stubborn_container() {
    let bench = Bench::with_busybox();
    let mut child = stubborn(&bench);
    send(&child, Signal::SIGINT);
    send(&child, Signal::SIGINT);
    assert!(child.try_wait().unwrap().is_none(), "the command ignores it");
    send(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 9));
    assert!(
        text(&output.stderr).contains("one more kills it"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_terminal_that_hangs_up_takes_the_container_along() {
    let bench = Bench::with_busybox();
    let mut child = stubborn(&bench);
    send(&child, Signal::SIGHUP);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
}

#[test]
fn a_build_ends_with_its_signals_code() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM busybox\nRUN echo begun && sleep 600\n")]);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut command = bench.command(["build", "--progress", "plain", "--network", "none"]);
        let mut child = command.arg(&context).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|l| l.unwrap().ends_with("| begun")), "the step runs");
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(128 + signal as i32));
    }
}

#[test]
fn a_failing_step_shows_its_last_lines_however_quiet() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM busybox\nRUN echo important; exit 3\n")]);
    let context = context.to_str().unwrap();
    for progress in [
        &["-q"][..],
        &["--progress", "quiet"],
        &["--progress", "tty"],
        &["--progress", "plain"],
    ] {
        let mut args = vec!["build", "--network", "none"];
        args.extend(progress);
        args.push(context);
        let message = bench.fails(1, args);
        assert!(
            message.contains("important") && message.contains("exit code 3"),
            "{progress:?}: {message}"
        );
    }
}

#[test]
fn json_progress_is_json_to_the_end() {
    let bench = Bench::with_busybox();
    let last = |boxfile: &str| {
        let context = bench.context("c", &[("Boxfile", boxfile)]);
        let mut command = bench.command(["build", "--progress", "json"]);
        let output = command.arg(&context).output().unwrap();
        let lines = text(&output.stderr);
        let events: Vec<serde_json::Value> =
            lines.lines().map(|l| serde_json::from_str(l).expect(l)).collect();
        (
            events.last().unwrap().clone(),
            text(&output.stdout).trim().to_owned(),
        )
    };
    let (end, id) = last("FROM busybox\nRUN --network=none true\n");
    assert_eq!(
        (end["event"].as_str(), end["image"].as_str()),
        (Some("build_finished"), Some(id.as_str()))
    );
    let (end, _) = last("FROM busybox\nRUN --network=none false\n");
    assert_eq!(
        (end["event"].as_str(), end["code"].as_u64()),
        (Some("build_failed"), Some(1))
    );
    let (end, _) = last("FROM busybox\nCOPPY a b\n");
    assert!(end["text"].as_str().unwrap().contains("COPY"), "{end}");
}

#[test]
fn an_image_does_not_depend_on_where_its_archive_lay() {
    let bench = Bench::new();
    let tar = bench.busybox_tar();
    let copy = bench.path("elsewhere.tar");
    std::fs::copy(&tar, &copy).unwrap();
    let import = |path: &std::path::Path| bench.ok(["import", "--progress", "quiet", path.to_str().unwrap()]);
    assert_eq!(import(&tar), import(&copy));
}

#[test]
fn what_box_does_not_have_yet_is_named() {
    let bench = Bench::new();
    for args in [
        &["search", "x"][..],
        &["run", "--gpus", "all", "x"],
        &["build", "--squash", "."],
        &["system"],
    ] {
        let message = bench.fails(125, args);
        assert!(message.contains("not supported yet"), "{args:?}: {message}");
    }
}

#[test]
fn an_image_without_a_path_gets_one_as_from_buildkit() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM busybox\nLABEL a=$PATH\n")]);
    bench.ok(["build", "-q", "-t", "x", context.to_str().unwrap()]);
    let inspected: serde_json::Value = serde_json::from_str(&bench.ok(["inspect", "x"])).unwrap();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(inspected[0]["Config"]["Env"][0], format!("PATH={path}"));
    assert_eq!(inspected[0]["Config"]["Labels"]["a"], path);
}
