//! Directories that outlive builds.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use box_store::{CacheMountSpec, CacheSharing, Store};
use common::Fixture;

fn spec(id: &str) -> CacheMountSpec {
    CacheMountSpec {
        id: id.to_owned(),
        base: String::new(),
        mode: 0o755,
        uid: 0,
        gid: 0,
    }
}

/// Two at once: whether the second one gets a directory, and whether it is the first one's.
#[track_caller]
fn check(first: CacheSharing, second: CacheSharing, expected: Option<bool>) {
    let f = Fixture::new();
    let store = &f.store;
    let held = store.cache_mount(&spec("a"), first).unwrap().unwrap();
    let got = store.cache_mount(&spec("a"), second).unwrap();
    assert_eq!(got.as_ref().map(|got| got.data() == held.data()), expected);
    drop((held, got));
    // A directory that nobody holds is there for everybody.
    for sharing in [first, second] {
        assert!(store.cache_mount(&spec("a"), sharing).unwrap().is_some());
    }
}

#[test]
fn sharing() {
    use CacheSharing::{Locked, Private, Shared};
    check(Shared, Shared, Some(true));
    check(Locked, Locked, None);
    check(Locked, Shared, None);
    check(Shared, Locked, None);
    check(Private, Private, Some(false));
    check(Shared, Private, Some(false));
}

#[test]
fn they_stay_and_keep_their_owner() {
    let f = Fixture::new();
    let store = &f.store;
    let asked = CacheMountSpec {
        mode: 0o1770,
        uid: 7,
        gid: 8,
        ..spec("/root/.cache")
    };
    let taken = store.cache_mount(&asked, CacheSharing::Shared).unwrap().unwrap();
    fs::write(taken.data().join("file"), "kept").unwrap();
    let metadata = fs::metadata(taken.data()).unwrap();
    assert_eq!(
        (
            metadata.permissions().mode() & 0o7777,
            metadata.uid(),
            metadata.gid()
        ),
        (0o1770, 7, 8)
    );
    drop(taken);
    let again = store.cache_mount(&asked, CacheSharing::Locked).unwrap().unwrap();
    assert_eq!(fs::read_to_string(again.data().join("file")).unwrap(), "kept");
    let other = store
        .cache_mount(&spec("/root/.cache"), CacheSharing::Locked)
        .unwrap()
        .unwrap();
    assert!(
        !other.data().join("file").exists(),
        "another owner, another directory"
    );
}

#[test]
fn an_id_stays_an_id() {
    let f = Fixture::new();
    let store = &f.store;
    for id in ["../../x", "/", "", "a\0b", "..", &"long".repeat(1000)] {
        let taken = store
            .cache_mount(&spec(id), CacheSharing::Shared)
            .unwrap()
            .unwrap();
        assert!(taken.data().starts_with(store.layout().cache_mounts()));
        assert_eq!(
            taken.data().components().count(),
            store.layout().cache_mounts().components().count() + 3
        );
    }
    let names: Vec<_> = store
        .cache_mounts()
        .unwrap()
        .into_iter()
        .map(|info| info.id)
        .collect();
    assert_eq!(names.len(), 6);
    assert!(names.contains(&"../../x".to_owned()));
}

fn ids(store: &Store) -> Vec<(String, usize, bool)> {
    let all = store.cache_mounts().unwrap().into_iter();
    all.map(|info| (info.id, info.instances, info.in_use)).collect()
}

#[test]
fn they_are_listed_and_removed() {
    let f = Fixture::new();
    let store = &f.store;
    assert_eq!(ids(store), []);
    let a = store
        .cache_mount(&spec("a"), CacheSharing::Private)
        .unwrap()
        .unwrap();
    let b = store
        .cache_mount(&spec("a"), CacheSharing::Private)
        .unwrap()
        .unwrap();
    fs::write(b.data().join("file"), vec![1; 1 << 20]).unwrap();
    drop(store.cache_mount(&spec("b"), CacheSharing::Shared).unwrap());
    drop(b);
    assert_eq!(ids(store), [("a".into(), 2, true), ("b".into(), 1, false)]);
    let listed = store.cache_mounts().unwrap();
    assert!(listed[0].size >= 1 << 20);
    assert!(
        !store.remove_cache_mount(&listed[0]).unwrap(),
        "one of a's is in use"
    );
    assert!(a.data().is_dir());
    assert!(store.remove_cache_mount(&listed[1]).unwrap());
    assert_eq!(ids(store), [("a".into(), 1, true)]);
    drop(a);
    assert!(store.remove_cache_mount(&listed[0]).unwrap());
    assert_eq!(ids(store), []);
    assert!(
        fs::read_dir(store.layout().cache_mounts())
            .unwrap()
            .next()
            .is_none()
    );
}

/// Taking and removing at once: nobody gets a directory that is gone.
#[test]
fn removed_while_they_are_taken() {
    let f = Fixture::new();
    let store = &f.store;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    if let Some(taken) = store.cache_mount(&spec("a"), CacheSharing::Shared).unwrap() {
                        fs::write(taken.data().join("file"), "x").unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                for info in store.cache_mounts().unwrap() {
                    store.remove_cache_mount(&info).unwrap();
                }
            }
        });
    });
}
