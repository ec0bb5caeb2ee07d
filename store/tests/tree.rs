//! The merged view, written layers and fix-up lowers.

#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use box_store::layer::EPOCH;
use box_store::{Attrs, Digest, Layer, MountStub, PrepareOptions, StoreError, Tree};
use common::*;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn writer(fixture: &Fixture, lowers: &[Layer]) -> box_store::LayerWriter {
    fixture
        .store
        .layer_writer(lowers, &PrepareOptions::default())
        .unwrap()
}

fn read(tree: &Tree, file: &str) -> String {
    let mut text = String::new();
    tree.open_file(path(file))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}

#[test]
fn layers_merge() {
    let fixture = Fixture::new();
    let one = fixture.written(&[], &[("d/a", "1"), ("d/b", "1"), ("file", "1"), ("dir/x", "1")]);
    let upper = fixture.prepare(&[one.clone()]);
    upper
        .file("d/b", "2")
        .file("d/c", "2")
        .file("file/now", "a directory")
        .file("dir", "a file");
    let two = upper.commit();
    let tree = Tree::new(&[one, two]);
    assert_eq!(
        (read(&tree, "/d/a"), read(&tree, "d/b"), read(&tree, "d/c")),
        ("1".into(), "2".into(), "2".into())
    );
    assert_eq!(read(&tree, "file/now"), "a directory");
    assert!(tree.lookup(path("dir/x")).unwrap().is_none());
    assert!(matches!(
        tree.read_dir(path("dir")),
        Err(StoreError::NotADirectory { .. })
    ));
    assert!(matches!(
        tree.open_file(path("nothing")),
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        tree.lookup(path("d/../x")),
        Err(StoreError::BadPath { .. })
    ));
}

#[test]
fn links_lead_nowhere_but_into_the_view() {
    let fixture = Fixture::new();
    let mut layer = writer(&fixture, &[]);
    layer
        .file(path("real/dir/file"), &attrs(0o644), &mut &b"x"[..])
        .unwrap();
    for (link, target) in [
        ("abs", "/real/dir"),
        ("rel", "real/dir"),
        ("real/up", "../../../real"),
        ("out", "../../../../etc"),
        ("loop1", "loop2"),
        ("loop2", "loop1"),
        ("dangling", "nothing/here"),
        ("chain", "abs/../up/dir/file"),
    ] {
        layer
            .symlink(path(link), OsStr::new(target), &attrs(0o777))
            .unwrap();
    }
    let tree = Tree::new(&[layer.commit().unwrap()]);
    for (from, to, exists) in [
        ("/abs/file", "real/dir/file", true),
        ("rel/./file", "real/dir/file", true),
        ("real/up/dir", "real/dir", true),
        ("out/passwd", "etc/passwd", false),
        ("../../../real", "real", true),
        ("dangling", "nothing/here", false),
        ("dangling/more", "nothing/here/more", false),
        ("chain", "real/dir/file", true),
        ("/", "", true),
        ("new/../real", "real", true),
    ] {
        let resolved = tree.resolve(path(from), true).unwrap();
        assert_eq!(
            (resolved.path.to_str().unwrap(), resolved.entry.is_some()),
            (to, exists),
            "{from}"
        );
    }
    assert_eq!(tree.resolve(path("/abs"), false).unwrap().path, path("abs"));
    assert!(matches!(
        tree.resolve(path("loop1"), true),
        Err(StoreError::TooManyLinks { .. })
    ));
    assert!(matches!(
        tree.resolve(path("real/dir/file/x"), true),
        Err(StoreError::NotADirectory { .. })
    ));
}

#[test]
fn what_is_equal_below_is_left_out() {
    let fixture = Fixture::new();
    let make = |lowers: &[Layer], content: &str, owner: u32| {
        let mut layer = writer(&fixture, lowers);
        let owned = Attrs {
            uid: owner,
            ..attrs(0o644)
        };
        layer.directory(path("app"), &attrs(0o755)).unwrap();
        let digest = layer
            .file(path("app/file"), &owned, &mut content.as_bytes())
            .unwrap();
        assert_eq!(digest, Digest::of(content.as_bytes()));
        layer
            .symlink(path("app/link"), OsStr::new("file"), &attrs(0o777))
            .unwrap();
        layer.fifo(path("app/fifo"), &attrs(0o600)).unwrap();
        layer.commit().unwrap()
    };
    let first = make(&[], "one", 0);
    assert_eq!(names(&first), ["app/", "app/fifo", "app/file", "app/link"]);
    let lowers = [first];
    assert!(make(&lowers, "one", 0).is_empty());
    assert_eq!(names(&make(&lowers, "two", 0)), ["app/", "app/file"]);
    assert_eq!(names(&make(&lowers, "one", 7)), ["app/", "app/file"]);
}

#[test]
fn a_file_written_back_to_what_is_below_still_counts() {
    let fixture = Fixture::new();
    let lowers = [fixture.written(&[], &[("f", "below")])];
    let mut layer = writer(&fixture, &lowers);
    layer.file(path("f"), &attrs(0o644), &mut &b"other"[..]).unwrap();
    layer.file(path("f"), &attrs(0o644), &mut &b"below"[..]).unwrap();
    let layer = layer.commit().unwrap();
    assert_eq!(read(&Tree::new(&[lowers[0].clone(), layer]), "f"), "below");
}

#[test]
fn parents_take_the_attributes_of_the_directory_below() {
    let fixture = Fixture::new();
    let mut layer = writer(&fixture, &[]);
    let special = Attrs {
        uid: 5,
        gid: 6,
        xattrs: vec![("user.x".into(), b"y".to_vec())],
        ..attrs(0o1750)
    };
    layer.directory(path("a/special"), &special).unwrap();
    let below = layer.commit().unwrap();
    let layer = fixture.written(&[below], &[("a/special/new/file", "x")]);
    let entries = entries(&layer);
    let found: Vec<_> = entries
        .iter()
        .map(|(name, entry)| (name.as_str(), entry.mode, entry.uid))
        .collect();
    assert_eq!(
        found,
        [
            ("a/", 0o755, 0),
            ("a/special/", 0o1750, 5),
            ("a/special/new/", 0o755, 0),
            ("a/special/new/file", 0o644, 0)
        ]
    );
    assert_eq!(entries[1].1.pax["SCHILY.xattr.user.x"], b"y");
}

#[test]
fn all_of_a_written_layer_has_one_time_on_disk() {
    let fixture = Fixture::new();
    let mut layer = writer(&fixture, &[]);
    layer.file(path("a/b/c"), &attrs(0o644), &mut &b"x"[..]).unwrap();
    layer
        .symlink(path("a/link"), OsStr::new("x"), &attrs(0o777))
        .unwrap();
    layer.hard_link(path("a/b/d"), path("a/b/c")).unwrap();
    let layer = layer.commit().unwrap();
    let stamps: Vec<_> = ["a", "a/b", "a/b/c", "a/link"]
        .map(|name| mtime(&layer.path().join(name)))
        .into();
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
    assert_eq!(names(&layer), ["a/", "a/b/", "a/b/c", "a/b/d", "a/link"]);
}

#[test]
fn a_hard_link_to_a_file_below_copies_it_up() {
    let fixture = Fixture::new();
    let lower = fixture.written(&[], &[("f", "below")]);
    let mut layer = writer(&fixture, &[lower.clone()]);
    layer.hard_link(path("g"), path("f")).unwrap();
    let layer = layer.commit().unwrap();
    assert_eq!(names(&layer), ["f", "g"]);
    assert_eq!(time(&layer, "f"), EPOCH);
    let mut failing = writer(&fixture, &[lower]);
    assert!(matches!(
        failing.hard_link(path("h"), path("nothing")),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn a_file_replaces_a_directory_and_the_other_way_round() {
    let fixture = Fixture::new();
    let lower = fixture.written(&[], &[("f", "x"), ("d/a", "x")]);
    let mut layer = writer(&fixture, &[lower.clone()]);
    layer
        .file(path("d"), &attrs(0o600), &mut &b"now a file"[..])
        .unwrap();
    layer
        .file(path("f/now"), &attrs(0o600), &mut &b"a directory"[..])
        .unwrap();
    layer
        .file(path("own/a/b"), &attrs(0o600), &mut &b"x"[..])
        .unwrap();
    layer.file(path("own/a"), &attrs(0o600), &mut &b"y"[..]).unwrap();
    layer
        .file(path("own/a/c"), &attrs(0o600), &mut &b"z"[..])
        .unwrap();
    let layer = layer.commit().unwrap();
    assert_eq!(names(&layer), ["d", "f/", "f/now", "own/", "own/a/", "own/a/c"]);
    let tree = Tree::new(&[lower, layer]);
    assert_eq!(
        (read(&tree, "d"), read(&tree, "f/now")),
        ("now a file".into(), "a directory".into())
    );
}

#[test]
fn a_source_that_fails_leaves_nothing_in_the_way() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let fixture = Fixture::new();
    let mut layer = writer(&fixture, &[]);
    let error = layer.file(path("d/f"), &attrs(0o644), &mut Failing).unwrap_err();
    assert!(
        error.to_string().contains("d/f") && error.to_string().contains("gone"),
        "{error}"
    );
    layer
        .file(path("d/f"), &attrs(0o644), &mut &b"again"[..])
        .unwrap();
    assert_eq!(read(&Tree::new(&[layer.commit().unwrap()]), "d/f"), "again");
}

#[test]
fn paths_of_a_written_layer_stay_inside() {
    let fixture = Fixture::new();
    let canary = fixture.dir.path().join("canary");
    fs::create_dir(&canary).unwrap();
    let mut layer = writer(&fixture, &[]);
    layer
        .symlink(path("link"), canary.as_os_str(), &attrs(0o777))
        .unwrap();
    for name in ["../x", "a/../../x", ""] {
        let result = layer.file(path(name), &attrs(0o644), &mut &b"x"[..]);
        assert!(matches!(result, Err(StoreError::BadPath { .. })), "{name}");
    }
    // What stands in the way is replaced, as nothing else could be meant by a resolved path.
    layer
        .file(path("link/file"), &attrs(0o644), &mut &b"x"[..])
        .unwrap();
    assert_eq!(names(&layer.commit().unwrap()), ["link/", "link/file"]);
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
}

#[test]
fn the_root_directory_can_be_written() {
    let fixture = Fixture::new();
    let mut layer = writer(&fixture, &[]);
    layer.directory(path("/"), &attrs(0o700)).unwrap();
    let layer = layer.commit().unwrap();
    assert_eq!(names(&layer), ["./"]);
    assert!(!layer.is_empty());
    let mut again = writer(&fixture, &[layer]);
    again.directory(path("/"), &attrs(0o700)).unwrap();
    assert!(again.commit().unwrap().is_empty());
}

fn stubs(paths: &[&str]) -> PrepareOptions {
    let stub = |text: &&str| match text.strip_suffix('/') {
        Some(dir) => MountStub::Directory(dir.into()),
        None => MountStub::File(text.into()),
    };
    PrepareOptions {
        mount_stubs: paths.iter().map(stub).collect(),
        ..PrepareOptions::default()
    }
}

#[test]
fn stubs_are_in_a_lower_of_their_own() {
    let fixture = Fixture::new();
    let mut layer = writer(&fixture, &[]);
    layer
        .directory(
            path("etc"),
            &Attrs {
                uid: 3,
                ..attrs(0o700)
            },
        )
        .unwrap();
    layer
        .symlink(
            path("etc/resolv.conf"),
            OsStr::new("../run/resolv.conf"),
            &attrs(0o777),
        )
        .unwrap();
    layer
        .file(path("etc/hosts"), &attrs(0o644), &mut &b"own"[..])
        .unwrap();
    layer.directory(path("proc"), &attrs(0o555)).unwrap();
    let lowers = [layer.commit().unwrap()];
    let options = stubs(&[
        "/proc/",
        "/sys/",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/hostname",
    ]);
    let upper = fixture.prepare_with(&lowers, &options);
    let dirs = upper.0.dirs();
    assert_eq!(dirs.lower.len(), 2);
    let fixup = dirs.lower[0].clone();
    let held: Vec<_> = listing(&fixup)
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(held, ["", "etc", "etc/hostname", "run", "run/resolv.conf", "sys"]);
    let etc = fs::metadata(fixup.join("etc")).unwrap();
    assert_eq!(
        (etc.mode() & 0o777, etc.uid()),
        (0o700, 3),
        "it hides nothing of the directory below"
    );
    assert_eq!(mtime(&fixup.join("etc")), mtime(&lowers[0].path().join("etc")));
    // The same plan, the same directory, also in another process; a damaged one is made again.
    fs::remove_file(fixup.join("etc/hostname")).unwrap();
    let other = fixture.reopen(Default::default());
    let layer = other.layer(&lowers[0].diff_id().unwrap()).unwrap().unwrap();
    assert_eq!(other.prepare(&[layer], &options).unwrap().dirs().lower[0], fixup);
    assert!(fixup.join("etc/hostname").exists());
    assert!(upper.commit().is_empty(), "a stub is no change");
    assert_eq!(
        fixture
            .prepare_with(&lowers, &stubs(&["/etc/hosts"]))
            .0
            .dirs()
            .lower
            .len(),
        1,
        "nothing is missing"
    );
}

/// A layer of an archive that lists files only, never their directories.
fn archive_of_files(fixture: &Fixture, files: &[&str]) -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, file, &b"x"[..]).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    let about = box_store::LayerBlob {
        diff_id: box_store::DiffId(Digest::of(&bytes)),
        digest: None,
        logical_time: None,
    };
    fixture
        .store
        .apply_blob(&bytes[..], &about, &box_store::ApplyOptions::default())
        .unwrap()
}

#[test]
fn implied_parents_hide_nothing() {
    let fixture = Fixture::new();
    let mut base = writer(&fixture, &[]);
    let special = Attrs {
        uid: 5,
        gid: 6,
        xattrs: vec![("user.x".into(), b"y".to_vec())],
        ..attrs(0o1750)
    };
    base.directory(path("usr"), &special).unwrap();
    base.directory(path("usr/bin"), &attrs(0o711)).unwrap();
    let base = base.commit().unwrap();
    let files = archive_of_files(&fixture, &["usr/bin/tool", "new/dir/file"]);
    let lowers = [base.clone(), files];
    let tree = Tree::new(&lowers);
    let (usr, _) = tree.dir_attrs(path("usr")).unwrap().unwrap();
    assert_eq!((usr.mode, usr.uid, usr.gid), (0o1750, 5, 6));
    let upper = fixture.prepare(&lowers);
    let fixup = upper.0.dirs().lower[0].clone();
    let held: Vec<_> = listing(&fixup)
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(held, ["", "usr", "usr/bin"]);
    let metadata = fs::metadata(fixup.join("usr")).unwrap();
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
        (0o1750, 5, 6)
    );
    assert_eq!(mtime(&fixup.join("usr")), mtime(&base.path().join("usr")));
    // A written layer on top takes the same attributes for the parents it makes.
    let top = fixture.written(&lowers, &[("usr/bin/more", "x")]);
    assert_eq!(entries(&top)[0].1.mode, 0o1750);
}

#[test]
fn what_later_layers_hide_is_weighed() {
    let fixture = Fixture::new();
    let big = "x".repeat(1000);
    let one = fixture.written(
        &[],
        &[
            ("d/a", &big),
            ("d/b", "four"),
            ("dir/x", "123"),
            ("dir/y", ""),
            ("kept", "12"),
        ],
    );
    let upper = fixture.prepare(&[one.clone()]);
    upper.file("d/a", "replaced").file("dir", "a file");
    let two = upper.commit();
    let weights = box_store::weigh::weigh(&[one, two], 2).unwrap();
    let lower = &weights[0];
    assert_eq!((lower.bytes, lower.files, lower.hidden), (1009, 5, 1003));
    let named = |files: &[(std::path::PathBuf, u64)]| -> Vec<(String, u64)> {
        files
            .iter()
            .map(|(path, size)| (path.display().to_string(), *size))
            .collect()
    };
    assert_eq!(named(&lower.largest), [("d/a".into(), 1000), ("d/b".into(), 4)]);
    assert_eq!(
        named(&lower.largest_hidden),
        [("d/a".into(), 1000), ("dir/x".into(), 3)]
    );
    assert_eq!((weights[1].bytes, weights[1].hidden), (14, 0));
}
