//! Hostile rootfs archives: none writes outside, each ends in a clear error, and no trace is left.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::{Path, PathBuf};

use common::{Bench, OrdinaryUser, sh, text};

/// Writes the archive `name` with tests/hostile.py.
fn archive(bench: &Bench, name: &str) -> PathBuf {
    let file = bench.path(&format!("{name}.tar"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile.py");
    sh(&format!(
        "python3 {script} {name} {} {}",
        file.display(),
        bench.path("canary").display()
    ));
    sh(&format!("chmod 644 {}", file.display()));
    file
}

/// Everything below a directory with type, size, mode and content's hash.
fn listing(directory: &Path) -> String {
    let dir = directory.display();
    sh(&format!(
        "cd {dir} && find . -printf '%p %y %s %m %U %l\\n' | sort && find . -type f -exec sha256sum {{}} + | sort"
    ))
}

/// Names of layers, blobs, images and temporary files: what an import adds.
fn contents(store: &Path) -> String {
    let dir = store.display();
    sh(&format!(
        "cd {dir} && find layers meta blobs names tmp -mindepth 1 -maxdepth 2 2>/dev/null | sort"
    ))
}

const CASES: [(&str, &str); 15] = [
    ("absolute-through-link", "link"),
    ("dotdot", ".."),
    ("dotdot-inside", ".."),
    ("symlink-then-file", "link"),
    ("symlink-absolute-then-file", "link"),
    ("hardlink-out", "link"),
    ("hardlink-dotdot", ".."),
    ("hardlink-through-symlink", "link"),
    ("whiteout-dot", ".wh."),
    ("whiteout-dotdot", ".wh."),
    ("whiteout-of-parent", ".wh."),
    ("pax-size-conflict", ""),
    ("truncated", ""),
    ("huge-uid", ""),
    ("long-name", ""),
];

#[test]
fn each_is_refused_and_leaves_no_trace() {
    let bench = Bench::with_busybox();
    std::fs::create_dir(bench.path("canary")).unwrap();
    std::fs::write(bench.path("canary/file"), "untouched").unwrap();
    let (outside, store) = (listing(&bench.path("canary")), contents(&bench.store()));
    for (name, word) in CASES {
        let file = archive(&bench, name);
        let output = bench.run(["import", "--progress", "quiet", file.to_str().unwrap(), "evil"]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {message}");
        assert!(
            message.contains(word) && message.lines().count() <= 4,
            "{name}: {message}"
        );
        assert!(!message.contains("panicked"), "{name}: {message}");
        assert_eq!(listing(&bench.path("canary")), outside, "{name}");
        assert_eq!(contents(&bench.store()), store, "{name}");
        let context = bench.context("context", &[("Boxfile", "FROM ./evil.tar\nRUN true\n")]);
        std::fs::copy(&file, context.join("evil.tar")).unwrap();
        let output = bench.run(["build", "-q", context.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output.stderr));
        assert_eq!(contents(&bench.store()), store, "{name}");
    }
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let bench = Bench::with_busybox();
    let bomb = bench.path("bomb.tar.gz");
    // 1 GiB of zeros in 1 MB.
    sh(&format!(
        "truncate -s 1G {0}.zeros && tar -C {1} -czf {0} $(basename {0}).zeros && rm {0}.zeros",
        bomb.display(),
        bench.dir.path().display()
    ));
    assert!(std::fs::metadata(&bomb).unwrap().len() < 1_100_000);
    let store = contents(&bench.store());
    let message = bench.fails(
        1,
        [
            "import",
            "--progress",
            "quiet",
            "--max-size",
            "256m",
            bomb.to_str().unwrap(),
            "bomb",
        ],
    );
    assert!(
        message.contains("268435456") || message.contains("256") || message.contains("268"),
        "{message}"
    );
    assert_eq!(contents(&bench.store()), store);
}

#[test]
fn device_nodes_are_roots_alone() {
    let bench = Bench::with_busybox();
    std::fs::create_dir(bench.path("canary")).unwrap();
    let file = archive(&bench, "device");
    bench.ok(["import", "--progress", "quiet", file.to_str().unwrap(), "device"]);
    let user = OrdinaryUser::new(&bench);
    let output = user
        .command(["import", "--progress", "quiet", file.to_str().unwrap(), "device"])
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("dev/disk") && message.contains("device"),
        "an error that names the entry: {message}"
    );
}

#[test]
fn a_device_of_an_image_does_not_work_in_its_container() {
    let bench = Bench::with_busybox();
    std::fs::create_dir(bench.path("canary")).unwrap();
    let file = archive(&bench, "busybox-with-device");
    // The rootfs is busybox's, with a block device node beside it.
    let merged = bench.path("merged.tar");
    sh(&format!(
        "cp {} {1} && tar -Af {1} {2}",
        bench.busybox_tar().display(),
        merged.display(),
        file.display()
    ));
    bench.ok([
        "import",
        "--progress",
        "quiet",
        merged.to_str().unwrap(),
        "device",
    ]);
    let view = bench.sh(
        "device",
        "test -b /disk && { cat /disk 2>&1 >/dev/null || true; }",
    );
    assert!(
        view.contains("denied") || view.contains("not permitted"),
        "{view}"
    );
}
