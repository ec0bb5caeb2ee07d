//! The store as a whole: what is written when, and what becomes of it after a kill, a crash, a reboot.

#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use box_store::disk::{Disk, DiskOp, Faults};
use box_store::{
    DiffId, Digest, ImageConfig, PrepareOptions, RecordKind, Reference, Store, StoreError, StoreOptions,
};
use common::*;

fn boot(id: &str) -> StoreOptions {
    StoreOptions {
        boot_id: Some(id.to_owned()),
        ..StoreOptions::default()
    }
}

fn step() -> RecordKind {
    RecordKind::new("step").unwrap()
}

fn config(layers: &[DiffId]) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids = layers.to_vec();
    config
}

#[test]
fn a_store_of_another_format_is_refused() {
    let fixture = Fixture::new();
    fs::write(fixture.root().join("version"), "2\n").unwrap();
    let error = Store::open(&fixture.root(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Format { .. }), "{error}");
}

#[test]
fn the_layout_is_held() {
    let fixture = Fixture::new();
    let root = fixture.root();
    assert_eq!(fs::read(root.join("version")).unwrap(), b"1\n");
    assert_eq!(
        fs::read(root.join("oci-layout")).unwrap(),
        br#"{"imageLayoutVersion":"1.0.0"}"#
    );
    let layer = fixture.written(&[], &[("f", "x")]);
    let diff_id = layer.diff_id().unwrap();
    let image = fixture.store.put_image(&config(&[diff_id])).unwrap();
    let key = Digest::of(b"key");
    fixture
        .store
        .put_record(&step(), &key, b"bytes", &[diff_id.0])
        .unwrap();
    fixture
        .store
        .tag(&Reference::parse("localhost:5000/a/b:c").unwrap(), &image.id)
        .unwrap();
    for path in [
        format!("blobs/sha256/{}", image.id.hex()),
        format!("images/{}", image.id.hex()),
        format!("layers/{}/f", diff_id.hex()),
        format!("meta/{}", diff_id.hex()),
        format!("synced/{}", diff_id.hex()),
        format!("records/step/{}/{}", &key.hex()[..2], key.hex()),
        "names/localhost%3A5000%2Fa%2Fb%3Ac".to_owned(),
    ] {
        assert!(root.join(&path).exists(), "{path}");
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&root).unwrap());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn two_processes_make_a_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = Store::open(&root, StoreOptions::default()).unwrap();
                store.put_blob(b"x").unwrap();
            });
        }
    });
    let store = Store::open(&root, StoreOptions::default()).unwrap();
    assert!(store.read_blob(&Digest::of(b"x"), 10).unwrap().is_some());
}

#[test]
fn doing_it_again_writes_nothing() {
    let fixture = Fixture::new();
    let diff_id = fixture.written(&[], &[("f", "x")]).diff_id().unwrap();
    let image = fixture.store.put_image(&config(&[diff_id])).unwrap();
    let (key, name) = (Digest::of(b"key"), Reference::parse("app").unwrap());
    fixture
        .store
        .put_record(&step(), &key, b"bytes", &[diff_id.0])
        .unwrap();
    fixture.store.tag(&name, &image.id).unwrap();
    let Fixture { dir, store } = fixture;
    drop(store);
    let before = listing(&dir.path().join("store"));
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let layer = store.layer(&diff_id).unwrap().unwrap();
    assert_eq!(
        store.get_record(&step(), &key).unwrap().unwrap().keeps,
        [diff_id.0]
    );
    store
        .put_record(&step(), &key, b"bytes", &[layer.diff_id().unwrap().0])
        .unwrap();
    assert_eq!(store.put_image(&config(&[diff_id])).unwrap(), image);
    store.tag(&name, &image.id).unwrap();
    store.sync().unwrap();
    assert_eq!(store.resolve("app").unwrap().unwrap().id, image.id);
    drop(store);
    assert_eq!(listing(&dir.path().join("store")), before);
}

#[test]
fn an_unsynced_layer_of_an_earlier_boot_is_verified_or_dropped() {
    let fixture = Fixture::with(boot("one"));
    let whole = fixture.written(&[], &[("f", "whole")]).diff_id().unwrap();
    let torn = fixture.written(&[], &[("f", "torn")]).diff_id().unwrap();
    fs::write(fixture.root().join("layers").join(torn.hex()).join("f"), "").unwrap();
    let store = fixture.reopen(boot("one"));
    assert!(
        store.layer(&torn).unwrap().is_some(),
        "within a boot nothing is torn"
    );
    let store = fixture.reopen(boot("two"));
    assert!(store.layer(&whole).unwrap().is_some());
    assert!(store.layer(&torn).unwrap().is_none());
    assert!(!fixture.root().join("layers").join(torn.hex()).exists());
    assert_eq!(
        fixture.written(&[], &[("f", "torn")]).diff_id().unwrap(),
        torn,
        "and can be made again"
    );
}

#[test]
fn a_synced_layer_is_trusted_in_later_boots() {
    let fixture = Fixture::with(boot("one"));
    let diff_id = fixture.written(&[], &[("f", "x")]).diff_id().unwrap();
    fixture.store.sync().unwrap();
    let before = listing(&fixture.root().join("meta"));
    assert!(fixture.reopen(boot("two")).layer(&diff_id).unwrap().is_some());
    assert_eq!(
        listing(&fixture.root().join("meta")),
        before,
        "and not looked through"
    );
}

#[test]
fn a_torn_layer_is_replaced_when_it_is_made_again() {
    let fixture = Fixture::with(boot("one"));
    let diff_id = fixture.written(&[], &[("f", "x")]).diff_id().unwrap();
    fs::write(
        fixture.root().join("layers").join(diff_id.hex()).join("f"),
        "torn",
    )
    .unwrap();
    let later = Fixture {
        store: fixture.reopen(boot("two")),
        dir: fixture.dir,
    };
    let layer = later.written(&[], &[("f", "x")]);
    assert_eq!(fs::read(layer.path().join("f")).unwrap(), b"x");
    assert!(layer.path().ends_with(diff_id.hex()));
}

#[test]
fn a_tree_without_a_record_does_not_exist() {
    let fixture = Fixture::new();
    let diff_id = fixture.written(&[], &[("f", "x")]).diff_id().unwrap();
    let meta = fixture.root().join("meta").join(diff_id.hex());
    let mut bytes = fs::read(&meta).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&meta, bytes).unwrap();
    let later = Fixture {
        store: fixture.reopen(Default::default()),
        dir: fixture.dir,
    };
    assert!(later.store.layer(&diff_id).unwrap().is_none());
    assert_eq!(later.written(&[], &[("f", "x")]).diff_id().unwrap(), diff_id);
    assert!(
        later
            .reopen(Default::default())
            .layer(&diff_id)
            .unwrap()
            .is_some()
    );
}

#[test]
fn records() {
    let fixture = Fixture::new();
    let key = Digest::of(b"key");
    assert_eq!(fixture.store.get_record(&step(), &key).unwrap(), None);
    fixture.store.put_record(&step(), &key, b"one", &[]).unwrap();
    fixture.store.put_record(&step(), &key, b"two", &[key]).unwrap();
    let record = fixture.store.get_record(&step(), &key).unwrap().unwrap();
    assert_eq!(
        (record.bytes.as_slice(), record.keeps.as_slice()),
        (&b"two"[..], &[key][..])
    );
    let path = fixture.store.layout().record("step", &key);
    fs::write(&path, "damaged").unwrap();
    assert_eq!(fixture.store.get_record(&step(), &key).unwrap(), None);
    assert!(!path.exists(), "a damaged record is dropped");
    fixture.store.put_record(&step(), &key, b"three", &[]).unwrap();
    assert!(fixture.store.remove_record(&step(), &key).unwrap());
    assert!(!fixture.store.remove_record(&step(), &key).unwrap());
}

#[test]
fn blobs_are_verified_both_ways() {
    let fixture = Fixture::new();
    let mut writer = fixture.store.blob_writer().unwrap();
    writer.write_all(b"content").unwrap();
    assert!(matches!(
        writer.commit(Some(&Digest::of(b"other"))),
        Err(StoreError::Mismatch { .. })
    ));
    let mut writer = fixture.store.blob_writer().unwrap();
    writer.write_all(b"aborted").unwrap();
    drop(writer);
    assert_eq!(listing(&fixture.root().join("tmp")).len(), 3);
    let digest = fixture.store.put_blob(b"content").unwrap();
    let mut read = Vec::new();
    fixture
        .store
        .blob(&digest)
        .unwrap()
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert_eq!(read, b"content");
    fs::write(fixture.store.layout().blob(&digest), "damaged").unwrap();
    assert!(
        fixture
            .store
            .blob(&digest)
            .unwrap()
            .unwrap()
            .read_to_end(&mut read)
            .is_err()
    );
    assert!(fixture.store.read_blob(&digest, 100).is_err());
    fixture.store.put_blob(b"content").unwrap();
    assert_eq!(
        fixture.store.read_blob(&digest, 100).unwrap().unwrap(),
        b"content",
        "putting it again mends it"
    );
    assert!(matches!(
        fixture.store.read_blob(&digest, 3),
        Err(StoreError::TooLarge { .. })
    ));
}

#[test]
fn names_and_ids() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let one = store.put_image(&config(&[])).unwrap();
    let two = store
        .put_image(&ImageConfig {
            author: Some("x".into()),
            ..config(&[])
        })
        .unwrap();
    let name = |text: &str| Reference::parse(text).unwrap();
    store.tag(&name("app"), &one.id).unwrap();
    store.tag(&name("other:1"), &one.id).unwrap();
    store.tag(&name("app"), &two.id).unwrap();
    let id = |text: &str| store.resolve(text).unwrap().map(|image| image.id);
    assert_eq!(id("app"), Some(two.id));
    assert_eq!(id("docker.io/library/app:latest"), Some(two.id));
    assert_eq!(id("other:1"), Some(one.id));
    assert_eq!(id("other"), None);
    assert_eq!(id(&one.id.to_string()), Some(one.id));
    assert_eq!(id(&one.id.hex()), Some(one.id));
    assert_eq!(id(&one.id.hex()[..12]), Some(one.id));
    assert_eq!(id(&format!("sha256:{}", &one.id.hex()[..12])), Some(one.id));
    assert!(store.resolve("Not A Name").is_err());
    let familiar: Vec<_> = store
        .names()
        .unwrap()
        .iter()
        .map(|name| name.reference.to_string())
        .collect();
    assert_eq!(familiar, ["app:latest", "other:1"]);
    assert_eq!(store.images().unwrap().len(), 2);
    assert!(matches!(
        store.remove_image(&one.id),
        Err(StoreError::SeveralNames { .. })
    ));
    assert!(store.untag(&name("other:1")).unwrap() && !store.untag(&name("other:1")).unwrap());
    assert!(store.remove_image(&one.id).unwrap());
    assert_eq!(id(&one.id.hex()), None);
    let long = name(&format!("example.com/{}", vec!["a".repeat(30); 8].join("/")));
    store.tag(&long, &two.id).unwrap();
    assert_eq!(id(&long.full()), Some(two.id));
    assert_eq!(store.names().unwrap().len(), 2);
}

#[test]
fn an_ambiguous_beginning_of_an_id() {
    let fixture = Fixture::new();
    let mut first_digits = std::collections::HashMap::new();
    for number in 0.. {
        let image = fixture
            .store
            .put_image(&ImageConfig {
                author: Some(format!("{number}")),
                ..config(&[])
            })
            .unwrap();
        let digits = image.id.hex()[..2].to_owned();
        if first_digits.insert(digits.clone(), image.id).is_some() {
            let error = fixture.store.resolve(&digits).unwrap_err();
            assert!(
                matches!(error, StoreError::AmbiguousId { count: 2, .. }),
                "{error}"
            );
            return;
        }
    }
}

#[test]
fn what_dead_owners_left_is_reaped_and_the_living_are_left_alone() {
    let fixture = Fixture::new();
    let active = fixture.store.prepare(&[], &PrepareOptions::default()).unwrap();
    let owner = fixture.store.owner().unwrap().to_string();
    let tmp = fixture.root().join("tmp");
    fs::create_dir_all(tmp.join("0123456789abcdef/5/upper/a")).unwrap();
    fs::write(tmp.join("0123456789abcdef.lock"), "").unwrap();
    fs::create_dir_all(tmp.join("fedcba9876543210/5")).unwrap();
    let other = fixture.reopen(Default::default());
    assert!(active.dirs().upper.exists());
    assert_eq!(
        listing(&tmp)
            .iter()
            .filter(|path| path.contains("0123") || path.contains("fedc"))
            .count(),
        0
    );
    assert!(other.owner_is_alive(&owner));
    assert!(!other.owner_is_alive("0123456789abcdef"));
    assert!(!other.owner_is_alive("../../etc"));
    drop(active);
    let Fixture { dir: _dir, store } = fixture;
    drop(store);
    assert!(!other.owner_is_alive(&owner));
}

#[test]
fn opening_and_reaping_at_once() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let store = fixture.reopen(Default::default());
                    let active = store.prepare(&[], &PrepareOptions::default()).unwrap();
                    fs::write(active.dirs().upper.join("f"), "x").unwrap();
                    active.commit().unwrap();
                }
            });
        }
    });
    assert_eq!(listing(&fixture.root().join("tmp")).len(), 1);
    assert_eq!(listing(&fixture.root().join("locks/layer")).len(), 1);
}

#[test]
fn a_lock_is_held_by_one() {
    let fixture = Fixture::new();
    let (key, inside, most) = (Digest::of(b"x"), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _guard = fixture.store.lock("step", &key).unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 0);
    let guard = fixture.store.lock("step", &key).unwrap();
    assert!(fixture.store.try_lock("step", &key).unwrap().is_none());
    assert!(
        fixture
            .store
            .try_lock("step", &Digest::of(b"y"))
            .unwrap()
            .is_some()
    );
    drop(guard);
    assert!(fixture.store.try_lock("step", &key).unwrap().is_some());
    assert!(fixture.store.lock("../x", &key).is_err());
}

/// Fails the operation with this number.
struct FailAt {
    op: Option<DiskOp>,
    at: usize,
    seen: AtomicUsize,
}

impl Faults for FailAt {
    fn check(&self, op: DiskOp, _path: &Path) -> std::io::Result<()> {
        let counts = self.op.is_none_or(|wanted| wanted == op);
        if counts && self.seen.fetch_add(1, Ordering::SeqCst) == self.at {
            return Err(std::io::Error::from_raw_os_error(28));
        }
        Ok(())
    }
}

fn build_and_tag(store: &Store) -> Result<Digest, StoreError> {
    let active = store.prepare(&[], &PrepareOptions::default())?;
    fs::write(active.dirs().upper.join("f"), "x").unwrap();
    let diff_id = active.commit()?.diff_id()?;
    store.put_record(&step(), &Digest::of(b"key"), b"bytes", &[diff_id.0])?;
    let image = store.put_image(&config(&[diff_id]))?;
    store.tag(&Reference::parse("app").unwrap(), &image.id)?;
    Ok(diff_id.0)
}

#[test]
fn an_error_at_any_operation_leaves_a_usable_store() {
    for at in 0.. {
        let fixture = Fixture::new();
        let faults = Arc::new(FailAt {
            op: None,
            at,
            seen: AtomicUsize::new(0),
        });
        let options = StoreOptions {
            disk: Disk::with_faults(faults.clone()),
            ..StoreOptions::default()
        };
        let result = Store::open(&fixture.root(), options).and_then(|store| build_and_tag(&store));
        if faults.seen.load(Ordering::SeqCst) <= at {
            result.unwrap();
            assert!(at > 15, "the faults were met: {at}");
            return;
        }
        if let Err(error) = &result {
            assert!(error.to_string().contains("No space left"), "{error}");
        }
        let store = fixture.reopen(boot("later"));
        if let Some(image) = store.resolve("app").unwrap() {
            assert_eq!(
                store.image_layers(&image).unwrap().len(),
                1,
                "a name leads to a whole image"
            );
        }
        build_and_tag(&store).unwrap();
    }
}

#[test]
fn a_failed_sync_is_an_error_and_is_tried_again() {
    let fixture = Fixture::new();
    let faults = Arc::new(FailAt {
        op: Some(DiskOp::Sync),
        at: 0,
        seen: AtomicUsize::new(0),
    });
    let options = StoreOptions {
        disk: Disk::with_faults(faults),
        ..StoreOptions::default()
    };
    let store = Store::open(&fixture.root(), options).unwrap();
    let error = build_and_tag(&store).unwrap_err();
    assert!(error.to_string().contains("sync"), "{error}");
    assert_eq!(store.names().unwrap(), []);
    build_and_tag(&store).unwrap();
    assert_eq!(store.names().unwrap().len(), 1);
    assert_eq!(fs::read_dir(fixture.root().join("synced")).unwrap().count(), 1);
}

/// What was made by a process that was killed before its sync is made durable by the first that builds on it.
#[test]
fn what_another_left_unsynced_is_synced_before_a_name_is_written() {
    let killed = Fixture::new();
    let diff_id = killed.written(&[], &[("f", "x")]).diff_id().unwrap();
    let image = killed.store.put_image(&config(&[diff_id])).unwrap();
    let syncs = || {
        let faults = Arc::new(FailAt {
            op: Some(DiskOp::Sync),
            at: usize::MAX,
            seen: AtomicUsize::new(0),
        });
        let options = StoreOptions {
            disk: Disk::with_faults(faults.clone()),
            ..StoreOptions::default()
        };
        (Store::open(&killed.root(), options).unwrap(), faults)
    };
    let marker = killed.root().join("synced").join(diff_id.hex());
    assert!(!marker.exists());
    let (store, seen) = syncs();
    store.layer(&diff_id).unwrap().unwrap();
    store.sync().unwrap();
    assert!(marker.exists(), "the layer has its marker");
    assert_eq!(seen.seen.load(Ordering::SeqCst), 1);
    // The layer is durable; the image need not be.
    for (name, expected) in [("app", 3), ("app", 0)] {
        let (store, seen) = syncs();
        assert_eq!(store.put_image(&config(&[diff_id])).unwrap(), image);
        store.tag(&Reference::parse(name).unwrap(), &image.id).unwrap();
        let count = seen.seen.load(Ordering::SeqCst);
        assert_eq!(
            count, expected,
            "the file system, the name and its directory; once"
        );
    }
}

/// As if a process made something in it at the same time, so many times.
struct Busy(AtomicUsize);

impl Faults for Busy {
    fn check(&self, op: DiskOp, path: &Path) -> std::io::Result<()> {
        let is_busy = op == DiskOp::Remove
            && path.ends_with("0123456789abcdef")
            && self
                .0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok();
        match is_busy {
            true => Err(std::io::ErrorKind::DirectoryNotEmpty.into()),
            false => Ok(()),
        }
    }
}

#[test]
fn what_a_dying_container_still_fills_is_removed_later() {
    let fixture = Fixture::new();
    let left = fixture.root().join("tmp/0123456789abcdef");
    let lock = fixture.root().join("tmp/0123456789abcdef.lock");
    for (times, stays) in [(3, false), (1000, true), (0, false)] {
        fs::create_dir_all(left.join("0/work")).unwrap();
        fs::write(&lock, "").unwrap();
        let options = StoreOptions {
            disk: Disk::with_faults(Arc::new(Busy(AtomicUsize::new(times)))),
            ..StoreOptions::default()
        };
        Store::open(&fixture.root(), options).unwrap();
        assert_eq!((left.exists(), lock.exists()), (stays, stays), "{times} times");
    }
}

#[test]
fn a_boxfile_names_no_image_by_a_few_digits() {
    let fixture = Fixture::new();
    let image = fixture.store.put_image(&config(&[])).unwrap();
    let hex = image.id.hex();
    for (digits, is_found) in [(4, false), (11, false), (12, true), (64, true)] {
        let found = fixture.store.resolve_base(&hex[..digits]).unwrap();
        assert_eq!(found.is_some(), is_found, "{digits} digits");
    }
    assert!(fixture.store.resolve(&hex[..4]).unwrap().is_some());
}
