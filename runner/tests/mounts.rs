//! Mounts of overlays and files.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use box_runner::{FileContent, Mount, MountKind, RootFs};
use support::Fixture;

/// An overlay of its own on one layer, with a symlink that leads out of what is mounted.
fn overlay(f: &Fixture, source: &str, target: &str, read_only: bool) -> Mount {
    let dir = f.dir.join("bound");
    for name in ["layer/dir", "active/upper", "active/work"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::write(dir.join("layer/dir/file"), "from the layer\n").unwrap();
    if !dir.join("layer/link").exists() {
        symlink("/dir/file", dir.join("layer/link")).unwrap();
    }
    let layers = RootFs {
        lower: vec![dir.join("layer")],
        upper: dir.join("active/upper"),
        work: dir.join("active/work"),
        ..f.rootfs()
    };
    let source = source.into();
    Mount {
        kind: MountKind::Overlay { layers, source },
        target: target.into(),
        read_only,
    }
}

#[track_caller]
fn check(mount: impl FnOnce(&Fixture) -> Mount, line: &str, expected: &str) {
    let f = Fixture::new();
    let mut spec = f.spec(&["sh", "-c", line]);
    spec.mounts.push(mount(&f));
    assert_eq!(f.run(&spec).stdout, expected, "{line}");
}

#[test]
fn a_directory_of_an_overlay() {
    let line = "cat /m/file; echo x > /m/new 2>/dev/null || echo read-only; ls /m; stat -c %u:%g /m/file";
    check(
        |f| overlay(f, "dir", "/m", true),
        line,
        "from the layer\nread-only\nfile\n0:0\n",
    );
    check(
        |f| overlay(f, "dir", "/m", false),
        line,
        "from the layer\nfile\nnew\n0:0\n",
    );
    check(|f| overlay(f, "", "/m", true), "ls /m", "dir\nlink\n");
}

#[test]
fn a_file_of_an_overlay_also_by_a_link() {
    let line = "cat /etc/bound; grep -c ' /etc/bound ' /proc/self/mountinfo";
    check(
        |f| overlay(f, "dir/file", "/etc/bound", true),
        line,
        "from the layer\n1\n",
    );
    check(
        |f| overlay(f, "link", "/etc/bound", true),
        line,
        "from the layer\n1\n",
    );
}

#[test]
fn what_is_read_only_stays_so() {
    let line = "mount -o remount,bind,rw /m 2>/dev/null; echo x > /m/file 2>/dev/null || echo read-only";
    check(|f| overlay(f, "dir", "/m", true), line, "read-only\n");
}

#[test]
fn a_file_in_memory() {
    let file = |mode, target: &str| Mount {
        kind: MountKind::File {
            content: FileContent(b"#!/bin/sh\necho ran\n".to_vec()),
            mode,
            uid: 7,
            gid: 8,
        },
        target: target.into(),
        read_only: true,
    };
    let line = "stat -c %a:%u:%g /run/secrets/x; tail -n 1 /run/secrets/x; echo y > /run/secrets/x || echo no; \
                /run/secrets/x; echo $?";
    check(
        |_| file(0o400, "/run/secrets/x"),
        line,
        "400:7:8\necho ran\nno\n126\n",
    );
    check(|_| file(0o755, "/dev/pipes/x"), "/dev/pipes/x", "ran\n");
}

#[test]
fn a_secret_is_not_shown_by_debug() {
    let content = FileContent(b"hunter2".to_vec());
    assert_eq!(format!("{content:?}"), "7 bytes");
}
