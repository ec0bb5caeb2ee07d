//! Images that are too big for the disk: the error says so and how it is cured, nothing temporary stays, and the store goes on.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::Path;
use std::process::Command;

use common::registry::Registry;
use common::{Bench, text};

/// In a mount namespace of its own, with a small file system at `$DISK`. `try NAME ARGS…` tells the exit code and what stays in `tmp/`.
const SCRIPT: &str = r#"set -eu
mount -t tmpfs -o size=8m none "$DISK"
export BOX_ROOT="$DISK/store"
try() { code=0; "$BOX" "$@" || code=$?; echo "== $1 $code, $(find "$BOX_ROOT/tmp" -mindepth 1 | wc -l) left"; }
"$BOX" load -i "$SMALL" >/dev/null
try "$@"
"$BOX" fsck
try rmi small
try load -i "$SMALL"
try tag small again
try gc
try rmi small again
try prune
find "$BOX_ROOT/layers" "$BOX_ROOT/blobs/sha256" -mindepth 1 -maxdepth 1 | wc -l
"$BOX" load -i "$SMALL" >/dev/null
"$BOX" fsck
"#;

/// Stores with an image that fits and one that doesn't.
struct Setup {
    bench: Bench,
    small: String,
}

impl Setup {
    fn new() -> Self {
        let bench = Bench::with_busybox();
        let context = bench.context("small", &[("a", "a\n")]);
        let boxfile = "FROM scratch\nCOPY a /a\n";
        bench.build(&context, boxfile, &["-t", "small"]);
        let small = bench.path("small.tar").display().to_string();
        bench.ok(["save", "-o", &small, "small"]);
        std::fs::create_dir(bench.path("disk")).unwrap();
        Self { bench, small }
    }

    /// A context with bytes that don't compress, more than the disk has.
    fn big(&self) -> String {
        let context = self
            .bench
            .context("big", &[("Boxfile", "FROM scratch\nCOPY big /\n")]);
        common::sh(&format!("head -c 16M /dev/urandom > {}/big", context.display()));
        context.display().to_string()
    }

    /// An image of that.
    fn build_big(&self) {
        self.bench.ok(["build", "-q", "-t", "big", &self.big()]);
    }

    /// Runs box on the small disk, which must fail for that; gives all that was told.
    fn fails(&self, args: &[&str], code: i32) -> String {
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", SCRIPT, "sh"])
            .args(args)
            .env("DISK", self.bench.path("disk"))
            .env("SMALL", &self.small)
            .env("BOX", Path::new(common::BOX))
            .output()
            .unwrap();
        let (out, told) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}: {out}\n{told}");
        let command = args[0];
        let expected = format!("== {command} {code}, 0 left");
        assert!(out.contains(&expected), "{args:?}: {expected}: {out}\n{told}");
        for next in ["rmi", "load", "tag", "gc", "prune"] {
            let expected = format!("== {next} 0, 0 left");
            assert!(
                out.contains(&expected),
                "{args:?}: {next} afterwards: {out}\n{told}"
            );
        }
        let is_emptied = out.lines().any(|line| line == "0");
        assert!(is_emptied, "{args:?}: something is not collected: {out}\n{told}");
        assert_eq!(out.matches("all is well").count(), 2, "{args:?}: {out}\n{told}");
        assert!(
            told.contains("No space left on device"),
            "{args:?}: the reason: {told}"
        );
        assert!(!told.contains("panicked"), "{args:?}: {told}");
        told
    }

    fn fails_with_the_cure(&self, args: &[&str], code: i32) {
        let told = self.fails(args, code);
        let cure = "the disk of the store is full; free some space there, or choose another place";
        assert!(told.contains(cure), "{args:?}: the cure: {told}");
    }
}

#[test]
fn a_pull_of_too_much() {
    let (setup, registry) = (Setup::new(), Registry::start());
    setup.build_big();
    let name = registry.name("big:1");
    setup.bench.ok(["push", "-q", "big", &name]);
    setup.fails_with_the_cure(&["pull", "-q", &name], 125);
}

#[test]
fn a_load_of_too_much() {
    let setup = Setup::new();
    setup.build_big();
    let saved = setup.bench.path("big.tar").display().to_string();
    setup.bench.ok(["save", "-o", &saved, "big"]);
    setup.fails_with_the_cure(&["load", "-i", &saved], 125);
}

#[test]
fn a_build_of_too_much() {
    let setup = Setup::new();
    let context = setup.big();
    setup.fails_with_the_cure(&["build", "-q", "-t", "big", &context], 1);
}

/// A step's own program is told by the kernel, and tells the user.
#[test]
fn a_step_that_writes_too_much() {
    let setup = Setup::new();
    let tar = setup.bench.busybox_tar();
    let context = setup.bench.context("step", &[]);
    std::fs::copy(tar, context.join("rootfs.tar")).unwrap();
    let boxfile = "FROM ./rootfs.tar\nRUN dd if=/dev/zero of=/big bs=64k count=256\n";
    std::fs::write(context.join("Boxfile"), boxfile).unwrap();
    let args = ["build", "--network", "none", context.to_str().unwrap()];
    setup.fails(&args, 1);
}
