//! Logs of builds: numbered, whole, bounded; counted, checked and collected with the store.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Read;

use box_store::gc::{GcOptions, Prune};
use box_store::{BuildLog, LogBounds, Store, StoreOptions};
use common::Fixture;

const MANY: LogBounds = LogBounds {
    count: 100,
    bytes: 1 << 30,
};

/// A log with some bytes of output.
fn log(store: &Store, bounds: LogBounds, bytes: usize) -> BuildLog {
    let log = store.new_build_log(bounds).unwrap();
    let mut events = log.create("events").unwrap();
    log.write(&mut events, b"{\"event\":\"build\"}\n").unwrap();
    let mut output = log.create("3.log").unwrap();
    log.write(&mut output, &vec![b'x'; bytes]).unwrap();
    log
}

fn numbers(store: &Store) -> Vec<u64> {
    let logs = store.build_logs().unwrap();
    logs.iter().map(|info| info.number).collect()
}

#[test]
fn logs_are_numbered_and_whole() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let first = log(store, MANY, 5 << 20);
    let second = log(store, MANY, 1);
    assert_eq!((first.number(), second.number()), (1, 2));
    drop(second);
    let running: Vec<bool> = store
        .build_logs()
        .unwrap()
        .iter()
        .map(|info| info.is_running)
        .collect();
    assert_eq!(running, [true, false]);
    let mut bytes = Vec::new();
    let file = store.open_build_log(1, "3.log").unwrap();
    file.unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 5 << 20);
    assert!(store.open_build_log(1, "4.log").unwrap().is_none());
    assert!(store.open_build_log(3, "3.log").unwrap().is_none());
    for name in ["../x", "a/b", "", ".", "..", ".x", "/etc/passwd"] {
        assert!(store.open_build_log(1, name).is_err(), "{name:?}");
        assert!(first.create(name).is_err(), "{name:?}");
    }
}

#[test]
fn the_oldest_go_but_for_those_that_are_written() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let few = LogBounds { count: 3, ..MANY };
    let running = log(store, few, 1);
    for _ in 0..5 {
        drop(log(store, few, 1));
    }
    assert_eq!(numbers(store), [1, 4, 5, 6]);
    drop(running);
    drop(log(store, few, 1));
    assert_eq!(numbers(store), [5, 6, 7]);
    // However large the newest is, it is there; it only takes the place of the others.
    let small = LogBounds {
        count: 100,
        bytes: 1 << 20,
    };
    drop(log(store, small, 3 << 20));
    assert_eq!(numbers(store), [5, 6, 7, 8]);
    drop(log(store, small, 1));
    assert_eq!(numbers(store), [9]);
}

#[test]
fn many_at_once_get_a_number_each() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..5).for_each(|_| drop(log(store, MANY, 1))));
        }
    });
    assert_eq!(numbers(store), (1..=40).collect::<Vec<u64>>());
}

#[test]
fn they_are_counted_checked_and_collected() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        drop(log(&fixture.store, MANY, 100_000));
    }
    let root = fixture.root();
    assert!(fixture.store.usage().unwrap().build_logs >= 300_000);
    assert!(fixture.store.check(false).unwrap().findings.is_empty());
    // What a killed build leaves is no damage; what can't be told is.
    fs::create_dir(root.join("builds/4")).unwrap();
    fs::write(root.join("builds/3/events"), "{\"event\":\"build\"}\n{\"ev").unwrap();
    assert!(fixture.store.check(false).unwrap().findings.is_empty());
    fs::write(root.join("builds/2/events"), "\0\0\0\n").unwrap();
    fs::create_dir(root.join("builds/004")).unwrap();
    let findings = fixture.store.check(true).unwrap().findings;
    let found: Vec<_> = findings
        .iter()
        .map(|finding| (finding.what, finding.name.as_str()))
        .collect();
    assert_eq!(found, [("build log", "004"), ("build log", "2")]);
    assert!(fixture.store.check(false).unwrap().findings.is_empty());
    assert_eq!(numbers(&fixture.store), [1, 3, 4]);

    let Fixture { dir, store } = fixture;
    drop(store);
    let collect = |prune| {
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        let options = GcOptions {
            prune,
            ..GcOptions::default()
        };
        store.collect(&options).unwrap();
        numbers(&store)
    };
    assert_eq!(collect(Prune::Nothing), [1, 3, 4]);
    assert_eq!(
        collect(Prune::OlderThan(std::time::Duration::from_secs(3600))),
        [1, 3, 4]
    );
    assert_eq!(collect(Prune::Above(150_000)), [3, 4]);
    assert!(collect(Prune::Unused).is_empty());
    assert_eq!(fs::read_dir(root.join("builds")).unwrap().count(), 0);
}
