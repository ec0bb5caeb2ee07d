//! Named volumes: what is made stays, what is used can't be removed, what is empty is filled once.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use box_store::disk::{Disk, DiskOp, Faults};
use box_store::gc::GcOptions;
use box_store::{Layer, NewVolume, StoreOptions, VolumeError, VolumeName, VolumeSource};
use common::Fixture;

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn labelled(key: &str, value: &str) -> NewVolume {
    NewVolume {
        labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        ..NewVolume::default()
    }
}

fn nobody(_: &VolumeName) -> Vec<String> {
    Vec::new()
}

fn take(f: &Fixture, volume: &str, layers: &[Layer], path: &str) -> box_store::VolumeUse {
    let path = Path::new(path);
    let source = VolumeSource { layers, path };
    let new = NewVolume::default();
    f.store.use_volume(&name(volume), &new, Some(&source)).unwrap()
}

#[test]
fn a_volume_is_made_once_and_listed() {
    let f = Fixture::new();
    assert!(f.store.volumes().unwrap().is_empty());
    assert!(f.store.create_volume(&name("data"), &labelled("a", "b")).unwrap());
    assert!(!f.store.create_volume(&name("data"), &labelled("c", "d")).unwrap());
    let info = f.store.volume(&name("data")).unwrap().unwrap();
    assert_eq!(info.labels, labelled("a", "b").labels);
    assert_eq!(info.data, f.root().join("volumes/data/data"));
    assert_eq!(fs::metadata(&info.data).unwrap().mode() & 0o7777, 0o755);
    assert!(info.created > 1_700_000_000 && !info.is_anonymous && !info.is_damaged);
    assert_eq!(f.reopen(StoreOptions::default()).volumes().unwrap(), [info]);
    assert!(f.store.volume(&name("other")).unwrap().is_none());
    assert_eq!(
        fs::read_dir(f.root().join("tmp")).unwrap().count(),
        2,
        "a lock and a directory"
    );
}

#[test]
fn what_is_used_or_needed_stays() {
    let f = Fixture::new();
    let used = f
        .store
        .use_volume(&name("data"), &NewVolume::default(), None)
        .unwrap();
    fs::write(used.data().join("file"), "kept").unwrap();
    let other = f.reopen(StoreOptions::default());
    assert!(other.is_volume_in_use(&name("data")).unwrap());
    let refused = other.remove_volume(&name("data"), &nobody);
    assert!(matches!(refused, Err(VolumeError::InUse { .. })));
    drop(used);
    assert!(!other.is_volume_in_use(&name("data")).unwrap());
    let refused = other.remove_volume(&name("data"), &|_| vec!["web".to_owned()]);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("belongs to web; remove")
    );
    other.store_gc();
    assert_eq!(
        fs::read_to_string(f.root().join("volumes/data/data/file")).unwrap(),
        "kept"
    );
    other.remove_volume(&name("data"), &nobody).unwrap();
    let missing = other.remove_volume(&name("data"), &nobody);
    assert!(matches!(missing, Err(VolumeError::Missing { .. })));
    assert!(!other.is_volume_in_use(&name("data")).unwrap());
}

trait Collect {
    fn store_gc(&self);
}

impl Collect for box_store::Store {
    fn store_gc(&self) {
        let options = GcOptions {
            wait: std::time::Duration::ZERO,
            ..GcOptions::default()
        };
        // Another handle may be open in this test, which only makes it give up.
        let _ = self.collect(&options);
    }
}

#[test]
fn an_empty_volume_gets_what_the_image_holds() {
    let f = Fixture::new();
    let upper = f.prepare(&[]);
    upper
        .dir("srv/data")
        .file("srv/data/one", "1")
        .file("srv/data/.hidden", "h");
    let at = |path: &str| upper.path(path);
    fs::hard_link(at("srv/data/one"), at("srv/data/two")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("srv/data/link")).unwrap();
    std::os::unix::fs::chown(at("srv/data/one"), Some(7), Some(8)).unwrap();
    fs::set_permissions(at("srv/data/one"), fs::Permissions::from_mode(0o4751)).unwrap();
    rustix::fs::setxattr(
        at("srv/data/one"),
        "user.note",
        b"text",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    std::os::unix::fs::chown(at("srv/data"), Some(9), Some(10)).unwrap();
    fs::set_permissions(at("srv/data"), fs::Permissions::from_mode(0o1770)).unwrap();
    // What the image's links say is meant inside of the image.
    std::os::unix::fs::symlink("../../../srv", at("link")).unwrap();
    let seconds = fs::metadata(at("srv/data/one")).unwrap().mtime();
    let layers = [upper.commit()];
    let used = take(&f, "data", &layers, "/link/data");
    let stat = |path: &str| fs::symlink_metadata(used.data().join(path)).unwrap();
    let one = stat("one");
    assert_eq!(
        (one.uid(), one.gid(), one.mode() & 0o7777, one.nlink()),
        (7, 8, 0o4751, 2)
    );
    assert_eq!(one.mtime(), seconds);
    assert_eq!(one.ino(), stat("two").ino());
    assert!(stat("link").is_symlink() && stat(".hidden").is_file());
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(used.data().join("one"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"text");
    let top = stat("");
    assert_eq!(
        (top.uid(), top.gid(), top.mode() & 0o7777),
        (9, 10, 0o1770),
        "as the image's directory"
    );
    assert!(!f.root().join("volumes/data/fill").exists());
    // Once only: what is removed stays so.
    fs::remove_file(used.data().join("one")).unwrap();
    drop(used);
    assert!(!take(&f, "data", &layers, "/srv/data").data().join("one").exists());
}

#[track_caller]
fn check_nothing_comes_of(path: &str) {
    let f = Fixture::new();
    let upper = f.prepare(&[]);
    upper.file("file", "text").dir("empty");
    std::os::unix::fs::symlink("loop", upper.path("loop")).unwrap();
    std::os::unix::fs::symlink("/../../../../../..", upper.path("out")).unwrap();
    let layers = [upper.commit()];
    let used = take(&f, "data", &layers, path);
    assert_eq!(fs::read_dir(used.data()).unwrap().count(), 0, "{path}");
}

#[test]
fn what_is_no_directory_of_the_image_gives_nothing() {
    for path in [
        "/none",
        "/file",
        "/file/x",
        "/loop",
        "/loop/x",
        "/empty",
        "/out/etc",
        "/out/root",
    ] {
        check_nothing_comes_of(path);
    }
}

#[test]
fn two_first_users_fill_it_once() {
    let f = Fixture::new();
    let files: Vec<(String, String)> = (0..200)
        .map(|n| (format!("data/{n}"), format!("{n}\n")))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let layers = [f.written(&[], &files)];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let used = take(&f, "data", &layers, "/data");
                assert_eq!(fs::read_dir(used.data()).unwrap().count(), 200);
                let file = fs::metadata(used.data().join("0")).unwrap();
                // Each sees the same files, which nobody replaces.
                assert_eq!(file.ino(), fs::metadata(used.data().join("0")).unwrap().ino());
            });
        }
    });
}

#[test]
fn a_fill_that_was_killed_goes_on() {
    let f = Fixture::new();
    let layers = [f.written(&[], &[("data/a", "of the image"), ("data/b", "of the image")])];
    let new = NewVolume::default();
    let user = f.store.use_volume(&name("data"), &new, None).unwrap();
    // As a process leaves it that is killed between two files, while a container wrote one itself.
    let fill = f.root().join("volumes/data/fill");
    fs::create_dir(&fill).unwrap();
    fs::set_permissions(&fill, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(fill.join("b"), "on its way").unwrap();
    fs::write(fill.join("own"), "on its way").unwrap();
    fs::write(user.data().join("own"), "of the container").unwrap();
    let used = take(&f, "data", &layers, "/data");
    let read = |name: &str| fs::read_to_string(used.data().join(name)).ok();
    assert_eq!(read("b").as_deref(), Some("on its way"));
    assert_eq!(read("own").as_deref(), Some("of the container"));
    assert_eq!(read("a"), None);
    assert!(!fill.exists());
}

#[test]
fn a_fleeting_volume_goes_with_its_process() {
    let f = Fixture::new();
    let new = NewVolume {
        is_anonymous: true,
        is_fleeting: true,
        ..NewVolume::default()
    };
    let other = f.reopen(StoreOptions::default());
    let random = VolumeName::random().unwrap();
    let used = other.use_volume(&random, &new, None).unwrap();
    assert!(f.store.volumes().unwrap()[0].is_anonymous);
    drop((used, other));
    assert!(f.store.volumes().unwrap().is_empty());
    assert!(!f.root().join("volumes").join(random.as_str()).exists());
}

#[test]
fn a_damaged_record_costs_no_data() {
    let f = Fixture::new();
    f.store.create_volume(&name("data"), &labelled("a", "b")).unwrap();
    let record = f.root().join("volumes/data/volume");
    let mut bytes = fs::read(&record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&record, bytes).unwrap();
    fs::write(f.root().join("volumes/data/data/file"), "kept").unwrap();
    assert!(f.store.volume(&name("data")).unwrap().unwrap().is_damaged);
    let findings = f.store.check(false).unwrap().findings;
    assert_eq!((findings.len(), findings[0].what), (1, "volume"));
    assert!(f.store.check(true).unwrap().findings[0].is_repaired);
    assert!(f.store.check(false).unwrap().findings.is_empty());
    let info = f.store.volume(&name("data")).unwrap().unwrap();
    assert!(!info.is_damaged && info.labels.is_empty());
    assert!(info.data.join("file").exists());
}

/// Fails the n-th change of the disk, and tells whether there were so many.
struct FailAt {
    left: AtomicUsize,
}

impl Faults for FailAt {
    fn check(&self, _: DiskOp, _: &Path) -> std::io::Result<()> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1 => Err(std::io::Error::other("injected")),
            _ => Ok(()),
        }
    }
}

/// Whatever fails: there is no volume, or a whole one that is empty or filled; and the next one to ask gets a filled one.
#[test]
fn a_bad_disk_leaves_no_half_volume() {
    for fail_at in 1.. {
        let f = Fixture::new();
        let layers = [f.written(&[], &[("data/a", "1"), ("data/b", "2"), ("data/c/d", "3")])];
        let diff_id = layers[0].diff_id().unwrap();
        f.store.sync().unwrap();
        let faults = Arc::new(FailAt {
            left: AtomicUsize::new(0),
        });
        let bad = f.reopen(StoreOptions {
            disk: Disk::with_faults(faults.clone()),
            ..StoreOptions::default()
        });
        let of_bad = [bad.layer(&diff_id).unwrap().unwrap()];
        let source = VolumeSource {
            layers: &of_bad,
            path: Path::new("/data"),
        };
        let new = NewVolume::default();
        faults.left.store(fail_at, Ordering::SeqCst);
        let failed = bad.use_volume(&name("data"), &new, Some(&source)).is_err();
        let was_met = !(1..=fail_at).contains(&faults.left.load(Ordering::SeqCst));
        drop(bad);
        for info in f.store.volumes().unwrap() {
            assert!(!info.is_damaged, "operation {fail_at}");
        }
        assert!(
            f.store.check(false).unwrap().findings.is_empty(),
            "operation {fail_at}"
        );
        let used = take(&f, "data", &layers, "/data");
        let mut found: Vec<_> = fs::read_dir(used.data())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        found.sort();
        assert_eq!(found, ["a", "b", "c"], "operation {fail_at}");
        if !was_met {
            assert!(!failed && fail_at > 15, "{fail_at}");
            break;
        }
    }
}

/// Many take, fill and remove one volume: each gets a whole one or is told why not.
#[test]
fn takers_and_removers() {
    let f = Fixture::new();
    let layers = [f.written(&[], &[("data/a", "1"), ("data/b", "2")])];
    let until = std::time::Instant::now() + std::time::Duration::from_millis(700);
    let (taken, removed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while std::time::Instant::now() < until {
                    let used = take(&f, "data", &layers, "/data");
                    assert!(used.data().join("a").exists() && used.data().join("b").exists());
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                while std::time::Instant::now() < until {
                    match f.store.remove_volume(&name("data"), &nobody) {
                        Ok(()) => drop(removed.fetch_add(1, Ordering::Relaxed)),
                        Err(VolumeError::InUse { .. } | VolumeError::Missing { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    f.store.volumes().unwrap();
                    f.store.is_volume_in_use(&name("data")).unwrap();
                }
            });
        }
    });
    assert!(taken.load(Ordering::Relaxed) > 10 && removed.load(Ordering::Relaxed) > 1);
}
