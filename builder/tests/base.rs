//! Bases that are archives, in the context and behind a URL.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use box_store::digest::Digest;
use common::World;

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

/// Serves one file with an ETag; says what was asked.
fn serve(bytes: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/rootfs.tar.gz", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map(|line| line.unwrap())
                .take_while(|line| !line.is_empty())
                .collect();
            let is_known = head
                .iter()
                .any(|line| line.to_lowercase().starts_with("if-none-match: \"one\""));
            log.lock()
                .unwrap()
                .push(if is_known { "again" } else { "first" }.to_owned());
            let answer = match is_known {
                true => b"HTTP/1.1 304 Not Modified\r\nETag: \"one\"\r\nConnection: close\r\n\r\n".to_vec(),
                false => {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        bytes.len()
                    );
                    [head.as_bytes(), &bytes].concat()
                }
            };
            let _ = stream.write_all(&answer);
        }
    });
    (url, asked)
}

#[test]
fn archives_behind_urls_are_asked_for_again_unless_pinned() {
    let world = World::new();
    let bytes = archive(&world, "far", "rootfs.tar.gz", "-cz");
    let (url, asked) = serve(bytes.clone());
    let text = format!("FROM {url}\nRUN put /x\n");
    let (image, ran) = world.build(&text);
    assert_eq!(ran.len(), 1);
    assert_eq!(world.read(&image, "/etc/name"), "far");
    assert!(world.events.told("FetchProgress"));
    let (again, ran) = world.build(&text);
    assert!(ran.is_empty());
    assert_eq!(again.id, image.id);
    assert_eq!(*asked.lock().unwrap(), ["first", "again"]);
    let pinned = format!("FROM --checksum={} {url}\nRUN put /x\n", Digest::of(&bytes));
    world.build(&pinned);
    assert_eq!(
        asked.lock().unwrap().len(),
        2,
        "what is pinned and here is not asked for"
    );
    let error = world.fail(&format!("FROM --checksum={} {url}\n", Digest::of(b"other")));
    assert!(
        error.contains("FROM") && error.contains(&Digest::of(b"other").hex()),
        "{error}"
    );
}
