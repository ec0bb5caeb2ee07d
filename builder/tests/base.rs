//! Bases that are archives, in the context and behind a URL.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::Command;

use box_store::digest::Digest;
use common::World;
use common::server::{Served, Server};

/// A small rootfs as a tar, made by the system's tar.
fn archive(world: &World, text: &str, name: &str, pack: &str) -> Vec<u8> {
    let dir = tempfile::TempDir::new().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/name"), text).unwrap();
    let path = world.context().join(name);
    let tar = Command::new("tar")
        .args([
            pack,
            "--mtime=@1000000000",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--sort=name",
            "-f",
        ])
        .arg(&path)
        .args(["-C".as_ref(), dir.path().as_os_str(), "etc".as_ref()])
        .status()
        .unwrap();
    assert!(tar.success());
    fs::read(path).unwrap()
}

#[test]
fn archives_of_the_context_are_unpacked_once() {
    let world = World::new();
    archive(&world, "debian", "rootfs.tar", "-c");
    archive(&world, "debian", "rootfs.tar.xz", "-cJ");
    let (plain, _) = world.build("FROM ./rootfs.tar\nRUN put /x\n");
    assert_eq!(world.read(&plain, "/etc/name"), "debian");
    assert_eq!(world.events.count("FetchStarted"), 1);
    let history = &plain.config.history[0];
    assert_eq!(history.created_by.as_deref(), Some("FROM ./rootfs.tar"));
    assert_eq!(history.created.as_deref(), Some("2001-09-09T01:46:40Z"));
    assert_eq!(plain.config.created.as_deref(), Some("2001-09-09T01:46:41Z"));
    let (again, ran) = world.build("FROM ./rootfs.tar\nRUN put /x\n");
    assert!(ran.is_empty());
    assert_eq!(again.id, plain.id);
    assert_eq!(world.events.count("FetchStarted"), 0);
    // Packed otherwise, it is the same layer, and what follows is there already.
    let (packed, ran) = world.build("FROM ./rootfs.tar.xz\nRUN put /x\n");
    assert!(ran.is_empty());
    assert_eq!(packed.config.rootfs, plain.config.rootfs);
}

#[test]
fn a_wrong_archive_is_refused() {
    let world = World::new();
    let bytes = archive(&world, "debian", "rootfs.tar", "-c");
    let digest = Digest::of(&bytes);
    world.build(&format!("FROM --checksum={digest} ./rootfs.tar\n"));
    let other = Digest::of(b"other");
    let error = world.fail(&format!("FROM --checksum={other} ./rootfs.tar\n"));
    assert!(
        error.contains("does not match") && error.contains(&digest.to_string()),
        "{error}"
    );
    let error = world.fail("FROM ./missing.tar\n");
    assert!(
        error.starts_with("Boxfile:1: FROM ./missing.tar") && error.contains("not found"),
        "{error}"
    );
    world.file("short.tar", std::str::from_utf8(&bytes[..1000]).unwrap());
    let error = world.fail("FROM ./short.tar\n");
    assert!(error.contains("cannot unpack ./short.tar"), "{error}");
    std::os::unix::fs::symlink("../../store", world.context().join("out.tar")).unwrap();
    assert!(world.fail("FROM ./out.tar\n").contains("not found"));
}

#[test]
fn archives_behind_urls_are_asked_for_again_unless_pinned() {
    let world = World::new();
    let bytes = archive(&world, "far", "rootfs.tar.gz", "-cz");
    let server = Server::start(Served::new(&bytes).etag("one"));
    let url = server.url("rootfs.tar.gz");
    let text = format!("FROM {url}\nRUN put /x\n");
    let (image, ran) = world.build(&text);
    assert_eq!(ran.len(), 1);
    assert_eq!(world.read(&image, "/etc/name"), "far");
    assert!(world.events.told("FetchProgress"));
    let (again, ran) = world.build(&text);
    assert!(ran.is_empty());
    assert_eq!(again.id, image.id);
    assert_eq!(server.asked(), ["/rootfs.tar.gz", "/rootfs.tar.gz unchanged"]);
    let pinned = format!("FROM --checksum={} {url}\nRUN put /x\n", Digest::of(&bytes));
    world.build(&pinned);
    assert_eq!(
        server.asked().len(),
        2,
        "what is pinned and here is not asked for"
    );
    let error = world.fail(&format!("FROM --checksum={} {url}\n", Digest::of(b"other")));
    assert!(
        error.contains("FROM") && error.contains(&Digest::of(b"other").hex()),
        "{error}"
    );
}
