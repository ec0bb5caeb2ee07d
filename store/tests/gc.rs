//! Collecting: what nothing leads to goes, what is alive stays, whatever else happens.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use box_store::gc::{Collected, GcOptions, Prune};
use box_store::transfer::archive::save_oci;
use box_store::{
    DiffId, Digest, Image, Layer, PrepareOptions, RecordKind, Reference, Store, StoreError, StoreOptions,
};
use common::Fixture;

fn tag(store: &Store, image: &Image, name: &str) {
    store.tag(&Reference::parse(name).unwrap(), &image.id).unwrap();
}

fn record(store: &Store, name: &str, layer: &Layer) -> Digest {
    let key = Digest::of(name.as_bytes());
    let keeps = [layer.diff_id().unwrap().0];
    store.put_record(&kind(), &key, name.as_bytes(), &keeps).unwrap();
    key
}

fn kind() -> RecordKind {
    RecordKind::new("step").unwrap()
}

/// A store with three layers: of a named image, of one without a name, of a record; and one that nobody wants.
struct World {
    fixture: Option<Fixture>,
    named: DiffId,
    nameless: DiffId,
    cached: DiffId,
    lost: DiffId,
}

impl World {
    fn new() -> World {
        let fixture = Fixture::new();
        let layer = |text: &str| fixture.written(&[], &[("file", text)]);
        let (named, nameless, cached, lost) = (layer("1"), layer("2"), layer("3"), layer("4"));
        tag(&fixture.store, &fixture.image(&[&named]), "named:1");
        fixture.image(&[&named, &nameless]);
        record(&fixture.store, "a", &cached);
        record(&fixture.store, "b", &named);
        fixture.store.put_blob(b"lost").unwrap();
        let ids = [&named, &nameless, &cached, &lost].map(|layer| layer.diff_id().unwrap());
        World {
            fixture: Some(fixture),
            named: ids[0],
            nameless: ids[1],
            cached: ids[2],
            lost: ids[3],
        }
    }

    /// The store's first handle is closed: what follows is other commands.
    fn closed(&mut self) -> Closed {
        let Fixture { dir, store } = self.fixture.take().unwrap();
        drop(store);
        Closed { dir }
    }
}

struct Closed {
    dir: tempfile::TempDir,
}

impl Closed {
    fn open(&self) -> Store {
        Store::open(&self.dir.path().join("store"), StoreOptions::default()).unwrap()
    }

    fn collect(&self, prune: Prune) -> Collected {
        let options = GcOptions {
            prune,
            wait: Duration::ZERO,
            dry_run: false,
        };
        self.open().collect(&options).unwrap()
    }

    fn has(&self, diff_id: &DiffId) -> bool {
        self.open().layer(diff_id).unwrap().is_some()
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }
}

#[test]
fn what_nothing_leads_to_goes() {
    let mut world = World::new();
    let closed = world.closed();
    let would = GcOptions {
        dry_run: true,
        ..GcOptions::default()
    };
    let would = closed.open().collect(&would).unwrap();
    assert!(closed.has(&world.lost));
    let did = closed.collect(Prune::Nothing);
    assert_eq!((would.layers, would.blobs, would.bytes), (1, 1, did.bytes));
    assert_eq!((did.images, did.records, did.layers, did.blobs), (0, 0, 1, 1));
    assert!(!closed.has(&world.lost) && !closed.root().join("layers").join(world.lost.hex()).exists());
    for diff_id in [world.named, world.nameless, world.cached] {
        assert!(closed.has(&diff_id));
    }
    let nothing = closed.collect(Prune::Nothing);
    assert_eq!((nothing.layers, nothing.blobs, nothing.bytes), (0, 0, 0));
    assert_eq!(nothing.left, did.left);
}

#[test]
fn what_is_unused_can_be_pruned() {
    let mut world = World::new();
    let closed = world.closed();
    let did = closed.collect(Prune::Unused);
    assert_eq!((did.images, did.records, did.layers), (1, 2, 3));
    assert!(closed.has(&world.named));
    assert!(!closed.has(&world.nameless) && !closed.has(&world.cached));
    let store = closed.open();
    assert_eq!(store.images().unwrap().len(), 1);
    assert!(store.resolve("named:1").unwrap().is_some());
    assert!(store.get_record(&kind(), &Digest::of(b"a")).unwrap().is_none());
}

/// Sets when a record was used last.
fn age(root: &Path, key: &Digest, days: u64) {
    let path = root.join("records/step").join(&key.hex()[..2]).join(key.hex());
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(times)
        .unwrap();
    assert!(fs::metadata(&path).unwrap().mtime() > 0);
}

#[test]
fn the_longest_unused_goes_first() {
    let fixture = Fixture::new();
    let text = "x".repeat(100_000);
    let mut layers = Vec::new();
    for n in 0..6u64 {
        let layer = fixture.written(&[], &[("file", &format!("{n}{text}"))]);
        let key = record(&fixture.store, &n.to_string(), &layer);
        layers.push((layer.diff_id().unwrap(), key));
    }
    let closed = Closed { dir: fixture.dir };
    drop(fixture.store);
    for (n, (_, key)) in layers.iter().enumerate() {
        age(&closed.root(), key, 10 * (6 - n as u64));
    }
    let present = || {
        layers
            .iter()
            .map(|(diff_id, _)| closed.has(diff_id))
            .collect::<Vec<_>>()
    };
    // 60, 50, 40, 30, 20, 10 days.
    closed.collect(Prune::OlderThan(Duration::from_secs(45 * 86_400)));
    assert_eq!(present(), [false, false, true, true, true, true]);
    // Looking them up was reading, which may set their time.
    for (n, (_, key)) in layers.iter().enumerate().skip(2) {
        age(&closed.root(), key, 10 * (6 - n as u64));
    }
    let total = closed.collect(Prune::Nothing).left;
    let limit = total * 5 / 8;
    let did = closed.collect(Prune::Above(limit));
    assert!(did.left <= limit && did.left > limit / 2, "{did:?} of {limit}");
    assert_eq!(present(), [false, false, false, false, true, true]);
    assert_eq!(closed.collect(Prune::Above(limit)).records, 0, "it fits already");
    let did = closed.collect(Prune::Above(0));
    assert_eq!(did.left, 0);
}

#[test]
fn blobs_go_with_what_they_stand_for() {
    let fixture = Fixture::new();
    let layer = fixture.written(&[], &[("file", "1")]);
    let image = fixture.image(&[&layer]);
    let name = Reference::parse("saved:1").unwrap();
    fixture.store.tag(&name, &image.id).unwrap();
    save_oci(&fixture.store, &[(image, vec![name.clone()])], std::io::sink()).unwrap();
    drop(layer);
    let closed = Closed { dir: fixture.dir };
    drop(fixture.store);
    let blobs = || fs::read_dir(closed.root().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs(), 3, "config, manifest, layer");
    let did = closed.collect(Prune::Nothing);
    assert_eq!((did.blobs, blobs()), (0, 3));
    closed.open().untag(&name).unwrap();
    let did = closed.collect(Prune::Unused);
    assert_eq!((did.images, did.layers, did.blobs, blobs()), (1, 1, 3, 0));
    let left: Vec<_> = walkdir::WalkDir::new(closed.root().join("records"))
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn others_are_waited_for() {
    let mut world = World::new();
    let closed = world.closed();
    let other = closed.open();
    let options = GcOptions {
        wait: Duration::from_millis(50),
        ..GcOptions::default()
    };
    let error = closed.open().collect(&options).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(closed.has(&world.lost));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| closed.open().collect(&GcOptions::default()).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        // A newcomer waits for who waits; then both get on.
        drop(other);
        closed.open();
        waiting.join().unwrap()
    });
    assert_eq!(waiting.layers, 1);
}

#[test]
fn what_a_container_lies_on_stays() {
    let fixture = Fixture::new();
    let layer = fixture.written(&[], &[("file", "1")]);
    let other = fixture.written(&[], &[("file", "2")]);
    let (used, unused) = (layer.diff_id().unwrap(), other.diff_id().unwrap());
    drop((layer, other));
    let closed = Closed { dir: fixture.dir };
    drop(fixture.store);
    let runs = closed.open();
    let options = PrepareOptions {
        mount_stubs: PrepareOptions::standard_stubs(),
        ..PrepareOptions::default()
    };
    let layer = runs.layer(&used).unwrap().unwrap();
    let snapshot = runs.prepare(std::slice::from_ref(&layer), &options).unwrap();
    let rest = runs.rest(snapshot.dirs()).unwrap();
    let did = closed.collect(Prune::Unused);
    assert_eq!(did.layers, 1);
    for lower in &snapshot.dirs().lower {
        assert!(lower.exists(), "{lower:?}");
    }
    assert!(closed.has(&used) && !closed.has(&unused));
    drop(rest);
    drop(snapshot);
    let did = closed.collect(Prune::Unused);
    assert_eq!(did.layers, 1);
    assert!(!closed.has(&used));
    assert_eq!(fs::read_dir(closed.root().join("locks/use")).unwrap().count(), 0);
}

#[test]
fn what_is_damaged_costs_nothing_else() {
    let mut world = World::new();
    let closed = world.closed();
    let root = closed.root();
    // A tree without a record, a record that is none, a marker without a layer.
    fs::create_dir(root.join("layers").join("0".repeat(64))).unwrap();
    fs::create_dir_all(root.join("records/step/00")).unwrap();
    fs::write(root.join("records/step/00").join("0".repeat(64)), "damaged").unwrap();
    fs::write(root.join("synced").join("1".repeat(64)), "").unwrap();
    let did = closed.collect(Prune::Nothing);
    assert_eq!(did.layers, 3);
    assert!(!root.join("layers").join("0".repeat(64)).exists());
    assert!(!root.join("records/step/00").join("0".repeat(64)).exists());
    // Of an image that can't be read nobody knows what it keeps.
    let damaged = fs::read_dir(root.join("images"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::write(&damaged, "damaged").unwrap();
    let error = closed.open().collect(&GcOptions::default()).unwrap_err();
    assert!(error.to_string().contains("remove it (box rmi)"), "{error}");
    assert!(closed.has(&world.named) && closed.has(&world.nameless));
    assert!(collect_is_alone(&closed));
}

/// After a failure the lock is shared again.
fn collect_is_alone(closed: &Closed) -> bool {
    let one = closed.open();
    let two = closed.open();
    one.images().is_ok() && two.images().is_ok()
}

#[test]
fn usage_tells_shared_and_own_apart() {
    let fixture = Fixture::new();
    let text = "x".repeat(100_000);
    let base = fixture.written(&[], &[("base", &text)]);
    let own = fixture.written(std::slice::from_ref(&base), &[("own", &text)]);
    let cached = fixture.written(&[], &[("cached", &text)]);
    tag(&fixture.store, &fixture.image(&[&base]), "base:1");
    tag(&fixture.store, &fixture.image(&[&base, &own]), "own:1");
    record(&fixture.store, "a", &cached);
    let usage = fixture.store.usage().unwrap();
    let of = |name: &str| {
        let mut images = usage.images.iter();
        images
            .find(|image| image.names[0].familiar() == name)
            .unwrap()
            .clone()
    };
    assert_eq!(of("base:1").own, 0);
    assert_eq!(of("base:1").shared, of("own:1").shared);
    assert!(of("own:1").own >= 100_000 && of("own:1").shared >= 100_000);
    assert_eq!(usage.image_layers, of("own:1").own + of("own:1").shared);
    assert!(usage.cache_layers >= 100_000 && usage.blobs > 0);
}
