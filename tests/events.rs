//! What `box events` tells.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use common::{Bench, OrdinaryUser};
use serde_json::Value;

/// What is kept, as `type action` with what is to be seen of it.
fn told(bench: &Bench, filters: &[&str]) -> Vec<String> {
    let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
    let args = ["events", "--until", "0s", "--format", "json"];
    let lines = bench.ok(args.into_iter().chain(filters));
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["scope"], "local");
        assert_eq!(
            event["timeNano"].as_i64().unwrap() / 1_000_000_000,
            event["time"].as_i64().unwrap()
        );
        let code = event["Actor"]["Attributes"]["exitCode"].as_str();
        let code = code.map(|code| format!(" {code}")).unwrap_or_default();
        let (kind, action) = (event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap());
        format!("{kind} {action}{code}")
    };
    lines.lines().map(event).collect()
}

#[test]
fn the_life_of_a_container() {
    let bench = Bench::with_busybox();
    let options = ["--network", "none", "--name", "one", "-l", "kind=a\x1bb"];
    bench.ok([&["run", "-d"][..], &options, &["busybox", "sleep", "1000"]].concat());
    bench.ok(["exec", "one", "true", "it"]);
    bench.ok(["pause", "one"]);
    bench.ok(["unpause", "one"]);
    bench.ok(["rename", "one", "two"]);
    bench.ok(["update", "--pids-limit", "50", "two"]);
    bench.ok(["stop", "-t", "0", "two"]);
    bench.ok(["rm", "two"]);
    let all = told(&bench, &["type=container"]);
    let wanted = [
        "container create",
        "container start",
        "container exec_start: true it",
        "container exec_die: true it 0",
        "container pause",
        "container unpause",
        "container rename",
        "container update",
        "container kill",
        "container die 137",
        "container stop",
        "container destroy",
    ];
    assert_eq!(all, wanted);
    assert_eq!(
        told(&bench, &["container=one", "event=create", "event=die"]),
        ["container create", "container die 137"]
    );
    assert_eq!(told(&bench, &["label=kind=a\x1bb"]).len(), wanted.len());
    assert!(told(&bench, &["label=kind=other"]).is_empty());
    assert_eq!(
        told(&bench, &["event=exec_die"]),
        ["container exec_die: true it 0"]
    );
    let shown = bench.ok(["events", "--until", "0s", "--filter", "event=rename"]);
    assert!(
        shown.contains(" container rename ") && shown.contains("oldName=one") && !shown.contains('\x1b'),
        "{shown}"
    );
    let failed = bench.run(["events", "--filter", "colour=red"]);
    assert_eq!(failed.status.code(), Some(125));
}

#[test]
fn one_that_goes_by_itself_and_images_volumes_and_networks() {
    let bench = Bench::with_busybox();
    let run = ["run", "--rm", "--network", "none", "--memory", "20m", "busybox"];
    let status = bench.run([&run[..], &["sh", "-c", "exit 3"]].concat()).status;
    assert_eq!(status.code(), Some(3));
    assert_eq!(
        told(&bench, &["type=container"]),
        [
            "container create",
            "container start",
            "container die 3",
            "container destroy"
        ]
    );
    bench.ok(["tag", "busybox", "other"]);
    bench.ok(["rmi", "other"]);
    bench.ok(["volume", "create", "data"]);
    bench.ok(["volume", "create", "data"]);
    bench.ok(["volume", "rm", "data"]);
    bench.ok(["network", "create", "net-of-events"]);
    bench.ok(["network", "rm", "net-of-events"]);
    assert_eq!(
        told(&bench, &["type=image", "type=volume", "type=network"]),
        [
            "image import",
            "image tag",
            "image tag",
            "image untag",
            "volume create",
            "volume destroy",
            "network create",
            "network destroy"
        ]
    );
    assert_eq!(
        told(&bench, &["volume=data"]),
        ["volume create", "volume destroy"]
    );
}

#[test]
fn they_are_told_as_they_come() {
    let bench = Bench::with_busybox();
    let mut following = bench.command(["events", "--filter", "type=container"]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let (to, told) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .for_each(|line| to.send(line).unwrap())
    });
    // What came before it listened is not told.
    let first = (0..100).find_map(|_| {
        bench.ok(["run", "--rm", "--network", "none", "busybox", "true"]);
        told.recv_timeout(Duration::from_millis(100)).ok()
    });
    assert!(first.is_some_and(|line| line.contains(" container ")));
    bench.ok([
        "run",
        "--rm",
        "--network",
        "none",
        "--name",
        "last",
        "busybox",
        "true",
    ]);
    let mut last = std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(20)).ok());
    assert!(last.any(|line| line.contains(" destroy ") && line.contains("name=last")));
    following.kill().unwrap();
    following.wait().unwrap();
    reading.join().unwrap();
}

#[test]
fn an_ordinary_users_own() {
    let bench = Bench::new();
    let user = OrdinaryUser::new(&bench);
    user.ok(["import", bench.busybox_tar().to_str().unwrap(), "busybox"]);
    user.ok(["run", "--rm", "--network", "none", "busybox", "true"]);
    let shown = user.ok(["events", "--since", "1h", "--until", "0s"]);
    let actions = ["import", "create", "start", "die", "destroy"];
    assert!(
        actions
            .iter()
            .all(|action| shown.contains(&format!(" {action} "))),
        "{shown}"
    );
}
