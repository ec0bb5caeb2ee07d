//! From an upper directory to a layer and its canonical tar.

#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]

mod common;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use box_store::layer::EPOCH;
use box_store::{Digest, Layer, OverlayXattrs, PrepareOptions, Stamp, StoreError, Tree};
use common::*;
use rustix::fs::{CWD, FileType, Gid, Mode, Uid};

fn chown(path: &Path, uid: u32, gid: u32) {
    rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).unwrap();
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    rustix::fs::lgetxattr(path, name, &mut value[..])
        .ok()
        .map(|length| value[..length].to_vec())
}

#[test]
fn the_bytes_of_a_small_tar_are_held() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    upper.file("dir/hello", "hello\n").dir("dir/sub");
    std::os::unix::fs::symlink("hello", upper.path("dir/link")).unwrap();
    fs::hard_link(upper.path("dir/hello"), upper.path("dir/twin")).unwrap();
    for (path, mode) in [("dir", 0o755), ("dir/hello", 0o4755), ("dir/sub", 0o1777)] {
        fs::set_permissions(upper.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    chown(&upper.path("dir/sub"), 1000, 2_097_152);
    upper.xattr("dir/sub", "user.note", b"a\0b");
    let layer = upper.commit();
    // Changing this digest changes every layer there is: only with a new version of the format.
    assert_eq!(
        layer.diff_id().unwrap().to_string(),
        "sha256:bb5d3e3e7b461262def69422d8d38dc308ce73e58445200350301c9e3b736903"
    );
}

#[test]
fn an_empty_step_is_an_empty_layer() {
    let fixture = Fixture::new();
    let layer = fixture.prepare(&[]).commit();
    assert!(layer.is_empty());
    assert_eq!(
        layer.diff_id().unwrap().0,
        Digest::of(&[0; 1024]),
        "two empty blocks"
    );
    assert_eq!((layer.size(), layer.entries(), layer.id_pages()), (0, 0, &[][..]));
}

/// What is removed is removed beside the work, so it may take a moment.
fn nothing_is_left_but_the_owner(fixture: &Fixture) {
    let left = || listing(&fixture.root().join("tmp"));
    soon(|| left().len() == 3);
}

fn soon(is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "it is not so");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn commit_renames_and_copies_nothing() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    upper.file("file", "x");
    let inode = fs::metadata(upper.path("file")).unwrap().ino();
    let layer = upper.commit();
    assert_eq!(
        layer.path(),
        fixture
            .root()
            .canonicalize()
            .unwrap()
            .join("layers")
            .join(layer.diff_id().unwrap().hex())
    );
    assert_eq!(fs::metadata(layer.path().join("file")).unwrap().ino(), inode);
    nothing_is_left_but_the_owner(&fixture);
}

#[test]
fn a_dropped_snapshot_leaves_nothing() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    upper.file("a/b/c", "x");
    drop(upper);
    nothing_is_left_but_the_owner(&fixture);
    assert_eq!(listing(&fixture.root().join("layers")).len(), 1);
}

#[test]
fn order_is_by_path_components() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    upper
        .file("a/z", "")
        .file("a-b", "")
        .file("a.b", "")
        .file("B", "")
        .file("a/b/c", "")
        .file("ab", "");
    assert_eq!(
        names(&upper.commit()),
        ["B", "a/", "a/b/", "a/b/c", "a/z", "a-b", "a.b", "ab"]
    );
}

#[test]
fn removals_only_of_what_is_there() {
    let fixture = Fixture::new();
    let lower = fixture.written(&[], &[("d/a", "1"), ("d/b", "1"), ("gone", "1")]);
    let upper = fixture.prepare(&[lower.clone()]);
    upper
        .whiteout("d/a")
        .whiteout("d/nothing")
        .whiteout("gone")
        .whiteout("nothing");
    let before = mtime(&upper.path("d"));
    let layer = upper.commit();
    assert_eq!(names(&layer), ["d/", "d/.wh.a", ".wh.gone"]);
    assert!(!layer.path().join("d/nothing").exists(), "on disk it is gone too");
    assert_eq!(mtime(&layer.path().join("d")), before);
    let tree = Tree::new(&[lower, layer]);
    assert!(tree.lookup("d/a".as_ref()).unwrap().is_none());
    assert!(tree.lookup("d/b".as_ref()).unwrap().is_some());
    assert!(tree.lookup("gone".as_ref()).unwrap().is_none());
}

#[test]
fn an_opaque_directory() {
    for (options, attribute) in [
        (Default::default(), "trusted.overlay.opaque"),
        (user_mode(), "user.overlay.opaque"),
    ] {
        let fixture = Fixture::with(options);
        let lower = fixture.written(&[], &[("d/a", "1"), ("d/sub/b", "1")]);
        let upper = fixture.prepare(&[lower.clone()]);
        upper
            .file("d/new", "2")
            .dir("d/sub")
            .dir("fresh")
            .whiteout("d/a")
            .xattr("d", attribute, b"y");
        upper
            .xattr("fresh", attribute, b"y")
            .xattr("d/sub", attribute, b"y");
        let layer = upper.commit();
        assert_eq!(
            names(&layer),
            ["d/", "d/.wh..wh..opq", "d/new", "d/sub/", "fresh/"],
            "{attribute}"
        );
        assert!(xattr(&layer.path().join("d"), attribute).is_some());
        assert_eq!(
            xattr(&layer.path().join("fresh"), attribute),
            None,
            "there is nothing below it"
        );
        let tree = Tree::new(&[lower, layer]);
        let seen: Vec<_> = tree
            .read_dir("d".as_ref())
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(seen, ["new", "sub"]);
        assert!(tree.lookup("d/sub/b".as_ref()).unwrap().is_none());
    }
}

#[test]
fn root_and_user_stores_give_equal_digests() {
    let make = |options, opaque| {
        let fixture = Fixture::with(options);
        let lower = fixture.written(&[], &[("d/a", "1")]);
        let upper = fixture.prepare(&[lower]);
        upper.file("d/new", "2").xattr("d", opaque, b"y").file("e", "");
        upper.commit().diff_id().unwrap()
    };
    assert_eq!(
        make(Default::default(), "trusted.overlay.opaque"),
        make(user_mode(), "user.overlay.opaque")
    );
}

#[test]
fn overlay_attributes_are_stripped_whoever_set_them() {
    let fixture = Fixture::new();
    let lower = fixture.written(&[], &[("d/a", "1")]);
    let upper = fixture.prepare(&[lower]);
    upper.file("d/f", "x").file("plain", "x");
    for name in [
        "user.overlay.opaque",
        "user.overlay.redirect",
        "trusted.overlay.origin",
        "trusted.overlay.metacopy",
    ] {
        upper
            .xattr("d", name, b"y")
            .xattr("d/f", name, b"/etc/shadow")
            .xattr("", name, b"y");
    }
    upper
        .xattr("d/f", "user.keep", b"me")
        .xattr("d/f", "trusted.other", b"no");
    let layer = upper.commit();
    assert_eq!(names(&layer), ["d/", "d/f", "plain"]);
    for path in ["", "d", "d/f"] {
        for name in [
            "user.overlay.opaque",
            "user.overlay.redirect",
            "trusted.overlay.origin",
            "trusted.overlay.metacopy",
        ] {
            assert_eq!(xattr(&layer.path().join(path), name), None, "{path} {name}");
        }
    }
    let (_, file) = &entries(&layer)[1];
    assert_eq!(file.pax.keys().collect::<Vec<_>>(), ["SCHILY.xattr.user.keep"]);
}

#[test]
fn hard_links_point_to_the_first_path() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    upper.file("z", "content").dir("a");
    fs::hard_link(upper.path("z"), upper.path("a/first")).unwrap();
    fs::hard_link(upper.path("z"), upper.path("m")).unwrap();
    upper.xattr("z", "user.x", b"1");
    std::os::unix::fs::symlink("t", upper.path("s1")).unwrap();
    fs::hard_link(upper.path("s1"), upper.path("s2")).unwrap();
    let layer = upper.commit();
    let found: Vec<_> = entries(&layer)
        .into_iter()
        .map(|(name, entry)| (name, entry.flag, entry.link))
        .collect();
    assert_eq!(
        found,
        [
            ("a/".to_owned(), b'5', None),
            ("a/first".to_owned(), b'0', None),
            ("m".to_owned(), b'1', Some(b"a/first".to_vec())),
            ("s1".to_owned(), b'2', Some(b"t".to_vec())),
            ("s2".to_owned(), b'1', Some(b"s1".to_vec())),
            ("z".to_owned(), b'1', Some(b"a/first".to_vec())),
        ]
    );
    assert_eq!(layer.size(), 7, "counted once");
}

#[test]
fn special_files() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, upper.path("fifo"), FileType::Fifo, mode, 0).unwrap();
    let device = rustix::fs::makedev(259, 1_000_000);
    rustix::fs::mknodat(CWD, upper.path("block"), FileType::BlockDevice, mode, device).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, upper.path("char"), FileType::CharacterDevice, mode, null).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(upper.path("socket")).unwrap();
    let layer = upper.commit();
    let found: Vec<_> = entries(&layer)
        .into_iter()
        .map(|(name, entry)| (name, entry.flag))
        .collect();
    assert_eq!(
        found,
        [
            ("block".to_owned(), b'4'),
            ("char".to_owned(), b'3'),
            ("fifo".to_owned(), b'6')
        ]
    );
    let bytes = tar_of(&layer);
    assert_eq!(
        (&bytes[329..336], &bytes[337..344]),
        (&b"0000403"[..], &b"3641100"[..])
    );
    assert_eq!(layer.facts().sockets, 1);
    assert!(!layer.path().join("socket").exists());
}

#[test]
fn names_that_are_long_or_not_utf8() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    let long = format!("{}/{}", "d".repeat(60), "f".repeat(60));
    upper.file(&long, "x");
    fs::write(upper.0.dirs().upper.join(bytes(b"\xff\xfe")), "x").unwrap();
    let very_long = [vec![0xff; 100], vec![b'x'; 50]].concat();
    fs::write(upper.0.dirs().upper.join(bytes(&very_long)), "x").unwrap();
    std::os::unix::fs::symlink("t".repeat(300), upper.path("link")).unwrap();
    let layer = upper.commit();
    let entries = entries(&layer);
    assert_eq!(
        entries
            .iter()
            .find(|(name, _)| *name == long)
            .unwrap()
            .1
            .pax
            .keys()
            .collect::<Vec<_>>(),
        ["path"]
    );
    let link = &entries.iter().find(|(name, _)| name == "link").unwrap().1;
    assert_eq!(link.link.as_deref(), Some("t".repeat(300).as_bytes()));
    let raw = &entries.last().unwrap().1;
    assert_eq!(raw.pax["hdrcharset"], b"BINARY");
    assert_eq!(raw.pax["path"], very_long);
    let archive = tar_of(&layer);
    let paths: Vec<_> = tar::Archive::new(&archive[..])
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path_bytes().into_owned())
        .collect();
    assert!(paths.contains(&b"\xff\xfe".to_vec()) && paths.contains(&very_long));
}

#[test]
fn numbers_too_large_for_ustar() {
    let fixture = Fixture::new();
    let upper = fixture.prepare_with(
        &[],
        &PrepareOptions {
            mtimes: box_store::Mtimes::Real,
            ..Default::default()
        },
    );
    upper
        .file_at("far", "", Stamp::new(9_000_000_000, 0))
        .file_at("early", "", Stamp::new(-5, 999_999_999));
    upper.file("owned", "");
    chown(&upper.path("owned"), 2_097_151, 4_000_000_000);
    let layer = upper.commit();
    let found = entries(&layer);
    assert_eq!(found[0].1.pax["mtime"], b"-5");
    assert_eq!(found[1].1.pax["mtime"], b"9000000000");
    assert_eq!((found[2].1.uid, found[2].1.gid), (2_097_151, 4_000_000_000));
    assert_eq!(found[2].1.pax.keys().collect::<Vec<_>>(), ["gid"]);
    assert_eq!(layer.id_pages(), [0, 2_097_151 >> 16, 4_000_000_000 >> 16]);
}

#[test]
fn file_capabilities_are_version_2() {
    let version_3 = |root: u32| [&[1, 0, 0, 3, 0, 32, 0, 0][..], &[0; 12], &root.to_le_bytes()].concat();
    let tar_value = |value: &[u8]| {
        let fixture = Fixture::new();
        let upper = fixture.prepare(&[]);
        upper
            .file("ping", "x")
            .xattr("ping", "security.capability", value);
        entries(&upper.commit())[0].1.pax["SCHILY.xattr.security.capability"].clone()
    };
    let version_2 = [&[1, 0, 0, 2, 0, 32, 0, 0][..], &[0; 12]].concat();
    assert_eq!(tar_value(&version_2), version_2);
    assert_eq!(tar_value(&version_3(0)), version_2);
}

#[test]
fn an_attribute_that_a_tar_cannot_name_is_an_error() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    upper.file("f", "x").xattr("f", "user.a=b", b"c");
    let error = upper.0.commit().unwrap_err();
    assert!(error.to_string().contains("user.a=b"), "{error}");
}

#[test]
fn sparse_files_are_written_whole() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    let mut file = fs::File::create(upper.path("sparse")).unwrap();
    file.seek(SeekFrom::Start(3 << 20)).unwrap();
    file.write_all(b"end").unwrap();
    drop(file);
    let layer = upper.commit();
    let found = &entries(&layer)[0].1;
    assert_eq!(found.content.len(), (3 << 20) + 3);
    assert!(found.content.ends_with(b"end"));
    assert_eq!(layer.size(), (3 << 20) + 3);
    let blocks = fs::metadata(layer.path().join("sparse")).unwrap().blocks();
    assert!(blocks < 100, "still sparse on disk");
}

#[test]
fn a_large_layer_is_usable_before_its_digest() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    fs::write(upper.path("large"), vec![7; 64 << 20]).unwrap();
    let layer = upper.0.commit().unwrap();
    let early = layer.path();
    assert_eq!(fs::metadata(early.join("large")).unwrap().len(), 64 << 20);
    let next = fixture.prepare(&[layer.clone()]);
    let lower = next.0.dirs().lower[0].clone();
    next.file("next", "x");
    let second = next.0.commit().unwrap();
    let diff_id = layer.diff_id().unwrap();
    assert!(layer.is_ready());
    assert!(layer.path().ends_with(diff_id.hex()));
    assert!(
        early.join("large").exists() && lower.join("large").exists(),
        "paths given out stay good"
    );
    second.diff_id().unwrap();
    assert_eq!(
        fixture.store.layer(&diff_id).unwrap().unwrap().diff_id().unwrap(),
        diff_id
    );
    drop((layer, second));
    fixture.store.sync().unwrap();
    nothing_is_left_but_the_owner(&fixture);
}

#[test]
fn an_equal_diff_is_stored_once() {
    let fixture = Fixture::new();
    let make = || {
        let upper = fixture.prepare(&[]);
        upper.file("same", "content");
        upper.commit()
    };
    let (first, second) = (make(), make());
    assert_eq!(first.diff_id().unwrap(), second.diff_id().unwrap());
    assert_ne!(first.path(), second.path(), "ours lives as long as its handle");
    assert!(second.path().join("same").exists());
    let own = second.path();
    drop(second);
    soon(|| !own.exists());
    assert!(first.path().join("same").exists());
    assert_eq!(fs::read_dir(fixture.root().join("layers")).unwrap().count(), 1);
}

#[test]
fn many_commits_of_one_layer_at_once() {
    let fixture = Fixture::new();
    for size in [10, 400 << 10] {
        let digests: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        // A process of its own, as far as locks go.
                        let store = fixture.reopen(Default::default());
                        let active = store.prepare(&[], &PrepareOptions::default()).unwrap();
                        fs::write(active.dirs().upper.join("f"), vec![1; size]).unwrap();
                        active.commit().unwrap().diff_id().unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        let layer = fixture.store.layer(&digests[0]).unwrap().unwrap();
        assert_eq!(Digest::of(&tar_of(&layer)), digests[0].0);
    }
}

#[test]
fn the_root_directory_is_listed_only_if_changed() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    fs::set_permissions(upper.path(""), fs::Permissions::from_mode(0o700)).unwrap();
    upper.file("f", "");
    let changed = upper.commit();
    let (name, root) = &entries(&changed)[0];
    assert_eq!(
        (name.as_str(), root.flag, root.mode, root.mtime),
        ("./", b'5', 0o700, EPOCH as u64)
    );
    let upper = fixture.prepare(&[changed.clone()]);
    assert_eq!(
        fs::metadata(upper.path("")).unwrap().mode() & 0o7777,
        0o700,
        "the next step sees it"
    );
    upper.file("g", "");
    assert_eq!(names(&upper.commit()), ["g"]);
    assert_eq!(Tree::new(&[changed]).root_attrs().mode, 0o700);
}

#[test]
fn a_link_in_the_upper_is_never_followed() {
    let fixture = Fixture::new();
    let canary = fixture.dir.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "secret").unwrap();
    rustix::fs::lsetxattr(
        canary.join("secret"),
        "user.overlay.x",
        b"1",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let lower = fixture.written(&[], &[("etc/passwd", "x"), ("dir/f", "x")]);
    let upper = fixture.prepare(&[lower]);
    std::os::unix::fs::symlink(&canary, upper.path("etc")).unwrap();
    std::os::unix::fs::symlink(canary.join("secret"), upper.path("file")).unwrap();
    let layer = upper.commit();
    assert_eq!(names(&layer), ["etc", "file"]);
    assert!(xattr(&canary.join("secret"), "user.overlay.x").is_some());
}

#[test]
fn depth_ends_in_an_error_or_a_layer_never_in_a_crash() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    let mut dir = rustix::fs::open(upper.path(""), rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..1500 {
        rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, "d", rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    drop(dir);
    if let Err(error) = upper.0.commit() {
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
}

/// Mounts the snapshot's overlay, runs a shell script in it, unmounts.
fn run_in_overlay(upper: &Upper, script: &str) {
    let dirs = upper.0.dirs();
    let point = tempfile::tempdir().unwrap();
    let lower: Vec<_> = dirs.lower.iter().map(|path| path.to_str().unwrap()).collect();
    let marks = if dirs.overlay_xattrs == OverlayXattrs::User {
        ",userxattr"
    } else {
        ""
    };
    let options = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=nofollow,metacopy=off,index=off,xino=off,volatile{marks}",
        lower.join(":"),
        dirs.upper.display(),
        dirs.work.display()
    );
    let script = format!(
        "set -e; mount -t overlay overlay -o {options} {0}; cd {0}; {script}",
        point.path().display()
    );
    let status = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .status()
        .unwrap();
    assert!(status.success());
}

fn overlay_base(fixture: &Fixture) -> Layer {
    let files = [
        ("etc/passwd", "root"),
        ("etc/old", "x"),
        ("usr/share/a", "a"),
        ("usr/share/b", "b"),
        ("opt/x/y", "z"),
    ];
    fixture.written(&[], &files)
}

#[test]
fn a_real_overlay() {
    for options in [Default::default(), user_mode()] {
        let fixture = Fixture::with(options);
        let base = overlay_base(&fixture);
        let upper = fixture.prepare_with(
            &[base.clone()],
            &PrepareOptions {
                mount_stubs: PrepareOptions::standard_stubs(),
                ..Default::default()
            },
        );
        run_in_overlay(
            &upper,
            "test -d proc && test -f etc/resolv.conf;
             rm etc/old; rm -r opt; mkdir opt; echo new > opt/new; rm -r usr/share; mkdir usr/share; echo c > usr/share/c;
             chmod 600 etc/passwd; cp -p usr/share/c copy; mkdir -p fresh/dir; ln usr/share/c hard; rm etc/hosts",
        );
        let layer = upper.commit();
        assert_eq!(
            names(&layer),
            [
                "copy",
                "etc/",
                "etc/.wh.old",
                "etc/passwd",
                "fresh/",
                "fresh/dir/",
                "hard",
                "opt/",
                "opt/.wh..wh..opq",
                "opt/new",
                "usr/",
                "usr/share/",
                "usr/share/.wh..wh..opq",
                "usr/share/c",
            ]
        );
        assert_eq!(time(&layer, "etc/passwd"), EPOCH, "a copy-up keeps its time");
        assert_eq!(time(&layer, "usr"), EPOCH + 1);
        // The next step sees the same, through a mount and without one.
        let next = fixture.prepare(&[base.clone(), layer.clone()]);
        run_in_overlay(
            &next,
            "test \"$(find . | LC_ALL=C sort | tr '\\n' ' ')\" = '. ./copy ./etc ./etc/passwd ./fresh ./fresh/dir ./hard ./opt ./opt/new ./usr ./usr/share ./usr/share/c '",
        );
        assert!(next.commit().is_empty());
        let tree = Tree::new(&[base, layer]);
        let seen: Vec<_> = tree
            .read_dir("/".as_ref())
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(seen, ["copy", "etc", "fresh", "hard", "opt", "usr"]);
    }
}

#[test]
fn a_tree_moves_to_its_place_while_it_is_mounted() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    fs::write(upper.path("large"), vec![3; 32 << 20]).unwrap();
    let layer = upper.0.commit().unwrap();
    let next = fixture.prepare(&[layer.clone()]);
    run_in_overlay(&next, "sleep 0.3; cat large | wc -c > size; echo more >> large");
    layer.diff_id().unwrap();
    let second = next.commit();
    assert_eq!(names(&second), ["large", "size"]);
    assert_eq!(fs::metadata(layer.path().join("large")).unwrap().len(), 32 << 20);
}
