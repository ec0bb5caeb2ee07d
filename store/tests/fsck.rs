//! Every damage is found, and what is repaired can be made again.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use box_store::gc::GcOptions;
use box_store::transfer::archive::save_oci;
use box_store::{Digest, RecordKind, Reference, Store, StoreOptions};
use common::Fixture;

/// A store with layers, images, names, blobs and records.
fn filled() -> Fixture {
    let fixture = Fixture::new();
    let text = "some text of a file ".repeat(2000);
    let base = fixture.written(&[], &[("etc/passwd", "root"), ("big", &text)]);
    let next = fixture.written(std::slice::from_ref(&base), &[("next", "one"), ("d/e/f", "two")]);
    let layers = [&base, &next].map(|layer| layer.diff_id().unwrap());
    let image = fixture.image(&[&base, &next]);
    let name = Reference::parse("image:1").unwrap();
    fixture.store.tag(&name, &image.id).unwrap();
    save_oci(&fixture.store, &[(image, vec![name])], std::io::sink()).unwrap();
    let kind = RecordKind::new("step").unwrap();
    for n in 0..3 {
        let key = Digest::of(&[n]);
        fixture
            .store
            .put_record(&kind, &key, b"a record", &[layers[0].0])
            .unwrap();
    }
    fixture.store.sync().unwrap();
    fixture
}

/// Files with bytes in them that the store promises something of.
fn files(root: &Path) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let is_meant = |path: &Path| {
        let rest = path.strip_prefix(root).unwrap();
        !["locks", "tmp", "cache-mounts", "version"]
            .iter()
            .any(|not| rest.starts_with(not))
    };
    all.flatten()
        .filter(|entry| entry.file_type().is_file() && entry.metadata().unwrap().len() > 0)
        .map(|entry| entry.path().to_owned())
        .filter(|path| is_meant(path))
        .collect()
}

fn flip(path: &Path, bit: u64) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}

fn open(fixture: &Fixture) -> Store {
    fixture.reopen(StoreOptions::default())
}

#[test]
fn a_whole_store_has_no_findings() {
    let fixture = filled();
    let checked = open(&fixture).check(false).unwrap();
    assert!(checked.findings.is_empty(), "{checked:?}");
    assert!(checked.count >= 15, "{checked:?}");
    assert_eq!(open(&fixture).check(true).unwrap(), checked);
}

/// The short form flips 150 bits, the long one (BOX_LONG=1) 2000.
#[test]
fn every_flipped_bit_is_found() {
    let fixture = filled();
    let files = files(&fixture.root());
    let mut kinds = std::collections::BTreeMap::<String, u32>::new();
    let mut state = 7u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let count = if std::env::var_os("BOX_LONG").is_some() {
        2000
    } else {
        150
    };
    for _ in 0..count {
        let path = &files[next(files.len() as u64) as usize];
        let bit = next(fs::metadata(path).unwrap().len() * 8);
        flip(path, bit);
        let checked = open(&fixture).check(false).unwrap();
        assert!(!checked.findings.is_empty(), "bit {bit} of {path:?}");
        flip(path, bit);
        let first = path.strip_prefix(fixture.root()).unwrap().iter().next().unwrap();
        *kinds.entry(first.to_string_lossy().into_owned()).or_default() += 1;
    }
    println!("{kinds:?}");
    for kind in ["blobs", "images", "layers", "meta", "names", "records"] {
        assert!(kinds.contains_key(kind), "{kinds:?}");
    }
    assert!(open(&fixture).check(false).unwrap().findings.is_empty());
}

#[test]
fn what_is_repaired_is_gone_and_can_be_made_again() {
    for part in [
        "blobs",
        "layers",
        "meta",
        "records",
        "names",
        "images",
        "index.json",
        "oci-layout",
    ] {
        let fixture = filled();
        let all = files(&fixture.root());
        let of_part = all
            .iter()
            .filter(|path| path.starts_with(fixture.root().join(part)));
        let damaged: Vec<_> = of_part.collect();
        assert!(!damaged.is_empty(), "{part}");
        damaged.iter().for_each(|path| flip(path, 3));
        let store = open(&fixture);
        let first = store.check(true).unwrap();
        assert!(!first.findings.is_empty(), "{part}");
        // An image without its layers stays, so that its name tells what to pull; all else is well again.
        let second = store.check(true).unwrap();
        let rest: Vec<_> = second
            .findings
            .iter()
            .filter(|finding| finding.what != "image" && finding.what != "name")
            .collect();
        assert!(rest.is_empty(), "{part}: {rest:?}");
        // What was damaged can be looked at until the next collection; the two files that are the same in every store are written anew.
        let aside = fixture.root().join("quarantine");
        let is_aside = fs::read_dir(&aside).is_ok_and(|mut entries| entries.next().is_some());
        assert_eq!(is_aside, !["index.json", "oci-layout"].contains(&part), "{part}");
        drop(store);
        let again = fixture.written(
            &[],
            &[
                ("etc/passwd", "root"),
                ("big", &"some text of a file ".repeat(2000)),
            ],
        );
        assert!(open(&fixture).layer(&again.diff_id().unwrap()).unwrap().is_some());
    }
}

/// A tree without a record is what a killed process leaves, and no damage; but what needs it says so.
#[test]
fn what_is_only_half_there_is_told_apart() {
    let fixture = filled();
    let root = fixture.root();
    let leftover = root.join("layers").join("0".repeat(64));
    fs::create_dir(&leftover).unwrap();
    assert_eq!(open(&fixture).check(false).unwrap().findings, []);
    assert!(leftover.exists(), "nothing is removed unless that is asked for");
    assert_eq!(open(&fixture).check(true).unwrap().findings, []);
    assert!(!leftover.exists());

    let problems = || -> Vec<String> {
        let checked = open(&fixture).check(false).unwrap();
        checked
            .findings
            .into_iter()
            .map(|finding| finding.problem)
            .collect()
    };
    let mut metas = fs::read_dir(root.join("meta")).unwrap();
    let meta = metas.next().unwrap().unwrap().path();
    let record = fs::read(&meta).unwrap();
    fs::remove_file(&meta).unwrap();
    let told = problems();
    assert!(
        told.iter().any(|problem| problem.contains("is not here")),
        "{told:?}"
    );
    fs::write(&meta, "?").unwrap();
    let told = problems();
    assert!(
        told.iter().any(|problem| problem == "its record is damaged"),
        "{told:?}"
    );
    fs::write(&meta, record).unwrap();
    let tree = root.join("layers").join(meta.file_name().unwrap());
    fs::rename(tree, root.join("away")).unwrap();
    let told = problems();
    for expected in ["a record, but no tree", "is not here"] {
        assert!(
            told.iter().any(|problem| problem.contains(expected)),
            "{expected}: {told:?}"
        );
    }
}

#[test]
fn what_was_put_aside_goes_with_the_next_collection() {
    let fixture = filled();
    let root = fixture.root();
    let blob = files(&root)
        .into_iter()
        .find(|path| path.starts_with(root.join("blobs")))
        .unwrap();
    let damaged = fixture.written(&[], &[("damaged", "text")]).diff_id().unwrap();
    flip(&blob, 3);
    flip(&root.join("layers").join(damaged.0.hex()).join("damaged"), 3);
    let Fixture { dir: _dir, store } = fixture;
    drop(store);
    let open = || Store::open(&root, StoreOptions::default()).unwrap();
    open().check(true).unwrap();
    let aside = root.join("quarantine");
    assert_eq!(
        fs::read_to_string(aside.join(format!("layer-{}/damaged", damaged.0.hex()))).unwrap(),
        "|ext"
    );
    assert!(
        aside
            .join(format!("blob-{}", blob.file_name().unwrap().to_str().unwrap()))
            .exists()
    );
    open().collect(&GcOptions::default()).unwrap();
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
    assert!(
        open()
            .check(false)
            .unwrap()
            .findings
            .iter()
            .all(|finding| finding.what == "image" || finding.what == "name")
    );
}
