//! ADD: archives, URLs, and what they are placed on.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use box_store::digest::Digest;
use box_store::image::Image;
use common::World;
use common::server::{Served, Server};

/// When the files of the archives are from.
const THEN: i64 = 1_000_000_000;

/// Packs what `make` makes.
fn pack(world: &World, name: &str, how: &[&str], make: impl FnOnce(&Path)) -> Vec<u8> {
    let dir = tempfile::TempDir::new().unwrap();
    make(dir.path());
    let path = world.context().join(name);
    let tar = Command::new("tar")
        .args(["--mtime=@1000000000", "--numeric-owner", "--sort=name", "-f"])
        .arg(&path)
        .arg("-C")
        .arg(dir.path())
        .args(how)
        .status()
        .unwrap();
    assert!(tar.success());
    fs::read(path).unwrap()
}

/// One directory with one file, of user 7 and group 8.
fn simple(world: &World, name: &str, pack_as: &str, text: &str) -> Vec<u8> {
    pack(world, name, &[pack_as, "--owner=7", "--group=8", "etc"], |dir| {
        fs::create_dir(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/name"), text).unwrap();
        fs::set_permissions(dir.join("etc/name"), fs::Permissions::from_mode(0o640)).unwrap();
    })
}

fn mtime(world: &World, image: &Image, path: &str) -> i64 {
    world.entry(image, path).unwrap().canonical_mtime()
}

#[test]
fn an_archive_is_known_by_its_content() {
    let world = World::new();
    for (name, pack_as) in [
        ("plain", "-c"),
        ("g.txt", "-cz"),
        ("x", "-cJ"),
        ("b.tar.gz", "-cj"),
    ] {
        simple(&world, name, pack_as, name);
        let (image, _) = world.build(&format!("FROM scratch\nADD {name} /to/\n"));
        assert_eq!(world.list(&image), ["to", "to/etc", "to/etc/name"], "{name}");
        assert_eq!(world.read(&image, "to/etc/name"), name);
        assert_eq!(world.attrs(&image, "to/etc/name"), (0o640, 7, 8));
        assert_eq!(world.attrs(&image, "to"), (0o755, 0, 0));
        assert_eq!(mtime(&world, &image, "to/etc/name"), THEN);
    }
    let plain = fs::read(world.context().join("plain")).unwrap();
    fs::write(world.context().join("z"), zstd(&plain)).unwrap();
    let (image, _) = world.build("FROM scratch\nADD z /\n");
    assert_eq!(world.read(&image, "etc/name"), "plain");
    // What only looks like one is a file.
    world.file("a.tar", "no archive");
    fs::write(world.context().join("zeros.tar"), [0; 10240]).unwrap();
    fs::write(
        world.context().join("cut.gz"),
        &fs::read(world.context().join("g.txt")).unwrap()[..30],
    )
    .unwrap();
    let (image, _) = world.build("FROM scratch\nADD a.tar zeros.tar cut.gz /\n");
    assert_eq!(world.list(&image), ["a.tar", "cut.gz", "zeros.tar"]);
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new("zstd")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn unpacking_can_be_turned_off_and_never_is_on_for_copy() {
    let world = World::new();
    let bytes = simple(&world, "a.tar", "-c", "x");
    let (image, _) = world.build("FROM scratch\nADD --unpack=false a.tar /\n");
    assert_eq!(world.list(&image), ["a.tar"]);
    let (image, _) = world.build("FROM scratch\nCOPY a.tar /\n");
    assert_eq!(world.list(&image), ["a.tar"]);
    // A URL is unpacked only when it is asked for.
    let server = Server::start(Served::new(&bytes));
    let url = server.url("b.tar");
    let (image, _) = world.build(&format!("FROM scratch\nADD {url} /\n"));
    assert_eq!(world.list(&image), ["b.tar"]);
    let (image, _) = world.build(&format!("FROM scratch\nADD --unpack {url} /\n"));
    assert_eq!(world.list(&image), ["etc", "etc/name"]);
}

#[test]
fn owners_and_modes_are_the_archives_own() {
    let world = World::new();
    simple(&world, "a.tar", "-c", "x");
    world.file("plain", "y");
    let (image, _) = world.build("FROM scratch\nADD --chown=3:4 --chmod=701 a.tar plain /to/\n");
    assert_eq!(world.attrs(&image, "to/etc/name"), (0o640, 7, 8));
    assert_eq!(world.attrs(&image, "to/plain"), (0o701, 3, 4));
    assert_eq!(world.attrs(&image, "to"), (0o701, 3, 4));
}

#[test]
fn an_archive_replaces_what_is_there() {
    let world = World::new();
    world.file("f/etc", "a file");
    world.file("d/etc/name/deep", "a directory");
    world.file("d/etc/other", "stays");
    simple(&world, "a.tar", "-c", "x");
    let (image, _) = world.build("FROM scratch\nCOPY f /\nADD a.tar /\n");
    assert_eq!(world.list(&image), ["etc", "etc/name"]);
    let (image, _) = world.build("FROM scratch\nCOPY d /\nADD a.tar /\n");
    assert_eq!(world.list(&image), ["etc", "etc/name", "etc/other"]);
    assert_eq!(world.read(&image, "etc/name"), "x");
    // A link to a directory that the archive lists is replaced; the directory is not written to.
    symlink("/else", world.context().join("f/link")).unwrap();
    pack(&world, "l.tar", &["-c", "link"], |dir| {
        fs::create_dir(dir.join("link")).unwrap();
        fs::write(dir.join("link/in"), "in").unwrap();
    });
    let (image, _) = world.build("FROM scratch\nWORKDIR /else\nCOPY f /\nADD l.tar /\n");
    assert_eq!(world.list(&image), ["else", "etc", "link", "link/in"]);
}

#[test]
fn directories_that_are_not_listed_are_those_of_the_rootfs() {
    let world = World::new();
    pack(&world, "a.tar", &["-c", "var/run/act/pid", "etc/new"], |dir| {
        fs::create_dir_all(dir.join("var/run/act")).unwrap();
        fs::write(dir.join("var/run/act/pid"), "1").unwrap();
        fs::create_dir(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/new"), "2").unwrap();
    });
    fs::create_dir_all(world.context().join("base/var")).unwrap();
    symlink("/run", world.context().join("base/var/run")).unwrap();
    world.file("base/etc/old", "0");
    fs::set_permissions(
        world.context().join("base/etc"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    let (image, _) = world.build("FROM scratch\nWORKDIR /run\nCOPY base /\nADD a.tar /\n");
    let expected = [
        "etc",
        "etc/new",
        "etc/old",
        "run",
        "run/act",
        "run/act/pid",
        "var",
        "var/run",
    ];
    assert_eq!(world.list(&image), expected);
    assert_eq!(world.attrs(&image, "etc").0, 0o750);
    assert_eq!(world.attrs(&image, "run/act"), (0o755, 0, 0));
    // The same archive as a base lists them; which came first makes no difference.
    let other = World::new();
    fs::copy(world.context().join("a.tar"), other.context().join("a.tar")).unwrap();
    fs::create_dir_all(other.context().join("base/var")).unwrap();
    symlink("/run", other.context().join("base/var/run")).unwrap();
    other.file("base/etc/old", "0");
    fs::set_permissions(
        other.context().join("base/etc"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    other.build("FROM ./a.tar\n");
    let (again, _) = other.build("FROM scratch\nWORKDIR /run\nCOPY base /\nADD a.tar /\n");
    assert_eq!(again.config.rootfs, image.config.rootfs);
}

#[test]
fn what_an_archive_holds_decides() {
    let world = World::new();
    let text = "FROM scratch\nADD a.tar /\nRUN put /x\n";
    simple(&world, "a.tar", "-c", "one");
    let (one, ran) = world.build(text);
    assert_eq!(ran.len(), 1);
    // Equal size and time.
    let time = fs::metadata(world.context().join("a.tar"))
        .unwrap()
        .modified()
        .unwrap();
    simple(&world, "a.tar", "-c", "two");
    fs::File::options()
        .write(true)
        .open(world.context().join("a.tar"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let (two, ran) = world.build(text);
    assert_eq!(ran.len(), 1);
    assert_eq!(world.read(&two, "etc/name"), "two");
    // Back again, nothing is done twice; nor when it is an archive no more.
    simple(&world, "a.tar", "-c", "one");
    let (again, ran) = world.build(text);
    assert!(ran.is_empty());
    assert_eq!(again.id, one.id);
    let (image, ran) = world.build(&text.replace("ADD", "ADD --unpack=false"));
    assert_eq!(ran.len(), 1);
    assert_eq!(world.list(&image), ["a.tar", "x"]);
}

#[test]
fn bad_archives_leave_nothing_behind() {
    let world = World::new();
    let bytes = simple(&world, "a.tar", "-c", "x");
    world.build("FROM scratch\nADD a.tar /\n");
    let before = world.store_state();
    fs::write(world.context().join("short.tar"), &bytes[..700]).unwrap();
    let error = world.fail("FROM scratch\nADD short.tar /\n");
    assert!(
        error.contains("Boxfile:2") && error.contains("cannot unpack short.tar"),
        "{error}"
    );
    pack(
        &world,
        "out.tar",
        &["-c", "-P", "--transform=s,name,../../out,", "name"],
        |dir| {
            fs::write(dir.join("name"), "x").unwrap();
        },
    );
    let error = world.fail("FROM scratch\nADD out.tar /\n");
    assert!(error.contains("cannot unpack out.tar"), "{error}");
    let new: Vec<_> = world
        .store_state()
        .into_keys()
        .filter(|path| !before.contains_key(path))
        .collect();
    assert!(
        new.iter().all(|path| !path.to_string_lossy().contains("layers/")),
        "{new:?}"
    );
}

#[test]
fn urls_give_files() {
    let world = World::new();
    let server = Server::start(
        Served::new(b"one")
            .etag("1")
            .last_modified("Sun, 09 Sep 2001 01:46:40 GMT"),
    );
    let text = format!(
        "FROM scratch\nADD {} /to/\nRUN put /x\n",
        server.url("d/name?a=b")
    );
    let (one, ran) = world.build(&text);
    assert_eq!(ran.len(), 1);
    assert_eq!(world.list(&one), ["to", "to/name", "x"]);
    assert_eq!(world.attrs(&one, "to/name"), (0o600, 0, 0));
    assert_eq!(mtime(&world, &one, "to/name"), THEN);
    assert!(world.events.told("FetchProgress"));
    let (again, ran) = world.build(&text);
    assert!(ran.is_empty());
    assert_eq!(again.id, one.id);
    assert_eq!(server.asked(), ["/d/name?a=b", "/d/name?a=b unchanged"]);
    // Another time is another file, and so is another content.
    server.change(
        Served::new(b"one")
            .etag("2")
            .last_modified("Sun, 09 Sep 2001 01:46:50 GMT"),
    );
    let (image, _) = world.build(&text);
    assert_eq!(mtime(&world, &image, "to/name"), THEN + 10);
    server.change(Served::new(b"two").etag("3"));
    let (image, _) = world.build(&text);
    assert_eq!(world.read(&image, "to/name"), "two");
    // With nothing to tell it by, it is fetched each time; the content decides.
    server.change(Served::new(b"one").last_modified("Sun, 09 Sep 2001 01:46:40 GMT"));
    let (again, ran) = world.build(&text);
    assert!(ran.is_empty());
    assert_eq!(again.id, one.id);
}

#[test]
fn a_url_may_be_pinned() {
    let world = World::new();
    let server = Server::start(Served::new(b"one"));
    let (url, digest) = (server.url("name"), Digest::of(b"one"));
    let text = format!("FROM scratch\nADD --checksum={digest} --chown=1:2 --chmod=644 {url} /other\n");
    let (image, _) = world.build(&text);
    assert_eq!(world.read(&image, "other"), "one");
    assert_eq!(world.attrs(&image, "other"), (0o644, 1, 2));
    world.build(&text);
    assert_eq!(
        server.asked().len(),
        1,
        "what is pinned and here is not asked for"
    );
    let error = world.fail(&text.replace(&digest.hex(), &Digest::of(b"two").hex()));
    assert!(
        error.contains("Boxfile:2") && error.contains(&digest.hex()),
        "{error}"
    );
    let error = world.fail(&format!("FROM scratch\nADD --checksum={digest} plain /\n"));
    assert!(error.contains("--checksum"), "{error}");
}

#[test]
fn credentials_of_a_url_stay_out_of_the_image() {
    let world = World::new();
    let server = Server::start(Served::new(b"one"));
    for password in ["hidden", "a'hidden", "hidden@b"] {
        let url = server
            .url("name")
            .replace("http://", &format!("http://user:{password}@"));
        let (image, _) = world.build(&format!("FROM scratch\nADD \"{url}\" /\n"));
        let config = serde_json::to_string(&image.config).unwrap();
        assert!(!config.contains("hidden"), "{config}");
        assert!(!world.events.told("hidden"));
    }
}
