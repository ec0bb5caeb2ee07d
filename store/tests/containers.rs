//! Containers that are kept, by the store's own front.
#![allow(clippy::unwrap_used)] // a test that panics has failed

use box_store::disk::Durability;
use box_store::gc::{GcOptions, Prune};
use box_store::{DiffId, ImageConfig, Layer, NewContainer, PrepareOptions, Store, StoreError, StoreOptions};

fn layer(store: &Store, content: &str) -> Layer {
    let snapshot = store.prepare(&[], &PrepareOptions::default()).unwrap();
    std::fs::write(snapshot.dirs().upper.join("file"), content).unwrap();
    snapshot.commit().unwrap()
}

fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

fn create(store: &Store, id: &str, layers: &[Layer], is_transient: bool) -> Result<(), StoreError> {
    store.create_container(&NewContainer {
        id,
        config: b"what it is",
        state: b"new",
        layers,
        is_transient,
    })
}

#[test]
fn a_container_appears_whole_and_goes_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    assert!(store.container_ids().unwrap().is_empty());
    let layers = [layer(&store, "one"), layer(&store, "two")];
    create(&store, &id('a'), &layers, false).unwrap();
    create(&store, &id('b'), &layers, true).unwrap();
    assert!(
        create(&store, &id('a'), &layers, false).is_err(),
        "an id is given once"
    );
    assert_eq!(store.container_ids().unwrap(), [id('a'), id('b')]);
    let config = store.container_config(&id('a')).unwrap().unwrap();
    assert_eq!(config.bytes, b"what it is");
    let expect: Vec<_> = layers.iter().map(|layer| layer.diff_id().unwrap().0).collect();
    assert_eq!(config.keeps, expect);
    store.set_container_config(&id('a'), b"another").unwrap();
    let config = store.container_config(&id('a')).unwrap().unwrap();
    assert_eq!(
        (config.bytes.as_slice(), &config.keeps),
        (&b"another"[..], &expect)
    );
    store
        .set_container_state(&id('a'), b"runs", Durability::Later)
        .unwrap();
    assert_eq!(store.container_state(&id('a')).unwrap().unwrap().bytes, b"runs");
    assert_eq!(
        [
            store.container_is_transient(&id('a')).unwrap(),
            store.container_is_transient(&id('b')).unwrap()
        ],
        [false, true]
    );
    let dirs = store.container_dirs(&id('a'), &layers, &[]).unwrap();
    assert_eq!(dirs.lower, [layers[1].path(), layers[0].path()]);
    assert!(dirs.upper.is_dir() && dirs.work.is_dir());
    assert!(store.remove_container(&id('a')).unwrap());
    assert!(!store.remove_container(&id('a')).unwrap());
    assert!(store.container_config(&id('a')).unwrap().is_none());
    // What is gone is not made again by whoever comes too late.
    assert!(matches!(
        store.set_container_state(&id('a'), b"late", Durability::Later),
        Err(StoreError::NoSuchContainer { .. })
    ));
    assert_eq!(store.container_ids().unwrap(), [id('b')]);
}

#[test]
fn an_id_is_never_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    for wrong in ["", "..", "../../etc", "a/b", &id('A'), &id('a')[1..]] {
        assert!(create(&store, wrong, &[], false).is_err(), "{wrong}");
        assert!(store.container_config(wrong).is_err(), "{wrong}");
        assert!(store.container_dir(wrong).is_err(), "{wrong}");
        assert!(store.remove_container(wrong).is_err(), "{wrong}");
    }
    assert!(!dir.path().join("containers").exists());
}

#[test]
fn what_it_lies_on_is_not_collected_and_damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let diff_id: DiffId = {
        let layers = [layer(&store, "kept")];
        create(&store, &id('c'), &layers, false).unwrap();
        layer(&store, "not kept").diff_id().unwrap();
        layers[0].diff_id().unwrap()
    };
    store.sync().unwrap();
    let everything = GcOptions {
        prune: Prune::Unused,
        ..GcOptions::default()
    };
    assert_eq!(store.collect(&everything).unwrap().layers, 1);
    assert!(store.layer(&diff_id).unwrap().is_some());
    assert!(store.check(false).unwrap().findings.is_empty());
    let files = ["config", "state"].map(|name| dir.path().join("containers").join(id('c')).join(name));
    for file in &files {
        let good = std::fs::read(file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(file, &bad).unwrap();
            let found = store.check(false).unwrap().findings;
            assert!(
                found.iter().any(|finding| finding.what == "container"),
                "{file:?} at {at}"
            );
        }
        std::fs::write(file, &good).unwrap();
    }
    std::fs::write(&files[0], "").unwrap();
    assert!(
        store.collect(&everything).is_err(),
        "what it lies on can't be known"
    );
    store.remove_container(&id('c')).unwrap();
    store.collect(&everything).unwrap();
    assert!(store.layer(&diff_id).unwrap().is_none());
}

#[test]
fn several_remove_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    for round in 0..50 {
        create(&store, &id('e'), &[], true).unwrap();
        let removed: usize = std::thread::scope(|scope| {
            let removing: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| store.remove_container(&id('e')).unwrap()))
                .collect();
            removing
                .into_iter()
                .map(|thread| usize::from(thread.join().unwrap()))
                .sum()
        });
        assert_eq!(removed, 1, "round {round}");
    }
}

/// Containers and images go without a lock of others', also while somebody looks at all or collects.
#[test]
fn some_go_while_all_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let ids: Vec<String> = (0..40).map(|n| format!("{n:064x}")).collect();
    for round in 0..20 {
        let mut images = Vec::new();
        for id in &ids {
            create(&store, id, &[], true).unwrap();
            let config = ImageConfig {
                author: Some(id.clone()),
                ..ImageConfig::default()
            };
            images.push(store.put_image(&config).unwrap());
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (id, image) in ids.iter().zip(&images) {
                    assert!(store.remove_image(&image.id).unwrap());
                    assert!(store.remove_container(id).unwrap());
                }
            });
            while store.container_ids().unwrap().len() > 1 {
                let found = store.check(false).unwrap().findings;
                assert!(found.is_empty(), "round {round}: {found:?}");
                store.collect(&GcOptions::default()).unwrap();
            }
        });
    }
}
