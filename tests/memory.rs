//! Registries that send without end, or what unpacks to very much: a pull ends, and has had little memory.
#![allow(clippy::unwrap_used)] // a test that panics has failed
#![allow(clippy::print_stdout)] // what was measured
#![cfg(target_arch = "x86_64")] // the tracer knows its registers alone

mod common;
#[allow(dead_code, unreachable_pub)] // the tests of the store use the rest
#[path = "../store/tests/common/registry.rs"]
mod fake;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::tracer;
use common::{Bench, sh};
use fake::{Act, Content, FakeRegistry, Request};

/// The most memory that a pull may have.
const MOST: u64 = 64 << 20;
/// What "without end" is here: much more than that.
const ENDLESS: u64 = 4 << 30;
const TEN_GB: u64 = 10_000_000_000;

/// What a registry has after a push of an image whose layer unpacks to 256 MiB of zeros.
fn content() -> Content {
    static CONTENT: OnceLock<Content> = OnceLock::new();
    let make = || {
        let bench = Bench::new();
        let context = bench.context("context", &[("a", "a\n")]);
        sh(&format!("truncate -s 256M {}/zeros", context.display()));
        bench.build(&context, "FROM scratch\nCOPY . /\n", &["-t", "zeros"]);
        let registry = FakeRegistry::start(Content::new(), |_, _| None);
        let name = registry.name("r:1").to_string();
        let args = ["push", "-q", "zeros", &name].map(str::to_owned);
        let traced = tracer::run(&bench, &args, &[], None);
        assert_eq!(traced.code, Some(0), "{}", traced.stderr);
        println!("push of 256 MiB of zeros: at most {} KiB", traced.peak >> 10);
        assert!(traced.peak < MOST, "a push had {} KiB", traced.peak >> 10);
        let content = registry.content.lock().unwrap().clone();
        let sent: usize = content.values().map(|(_, bytes)| bytes.len()).sum();
        assert!(sent < 2 << 20, "{sent} bytes were sent");
        content
    };
    CONTENT.get_or_init(make).clone()
}

/// Pulls; gives what box said, none if it succeeded.
fn pull(
    what: &str,
    content: Content,
    script: impl Fn(usize, &Request) -> Option<Act> + Send + Sync + 'static,
) -> Option<String> {
    let bench = Bench::new();
    let registry = FakeRegistry::start(content, script);
    let args = ["pull", "-q", &registry.name("r:1").to_string()].map(str::to_owned);
    let begun = Instant::now();
    let traced = tracer::run(&bench, &args, &[], None);
    let (time, peak) = (begun.elapsed(), traced.peak);
    println!(
        "{what}: {} KiB at most, {time:.1?}: {}",
        peak >> 10,
        traced.stderr.trim()
    );
    assert!(peak > 1 << 20, "{what}: the memory was not measured: {peak}");
    assert!(peak <= MOST, "{what}: it had {} KiB", peak >> 10);
    assert!(time < Duration::from_secs(60), "{what}: it took {time:?}");
    assert!(!traced.stderr.contains("panicked"), "{what}: {}", traced.stderr);
    let left = std::fs::read_dir(bench.store().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "{what}: something stays in tmp/");
    let checked = bench.ok(["fsck"]);
    assert!(checked.contains("all is well"), "{what}: {checked}");
    let code = traced.code.unwrap_or_else(|| panic!("{what}: it was killed"));
    assert!(matches!(code, 0 | 1), "{what}: {code}: {}", traced.stderr);
    (code != 0).then_some(traced.stderr)
}

#[track_caller]
fn refused(
    what: &str,
    expected: &str,
    script: impl Fn(usize, &Request) -> Option<Act> + Send + Sync + 'static,
) {
    let told = pull(what, content(), script);
    let told = told.unwrap_or_else(|| panic!("{what}: it was pulled"));
    assert!(told.contains(expected), "{what}: {told}");
}

fn flood(head: &str, again: &[u8]) -> Act {
    let again = again.repeat((64 << 10) / again.len() + 1);
    Act::Flood(head.replace('\n', "\r\n"), again, ENDLESS)
}

/// An answer that says how long it is.
fn announced(status: u16) -> Act {
    flood(
        &format!("HTTP/1.1 {status} X\nContent-Length: {TEN_GB}\n\n"),
        b" ",
    )
}

/// An answer in chunks without end.
fn chunked(status: u16) -> Act {
    flood(
        &format!("HTTP/1.1 {status} X\nTransfer-Encoding: chunked\n\n"),
        b"10\r\n                \r\n",
    )
}

fn is_manifest(request: &Request) -> bool {
    request.path.contains("/manifests/")
}

#[test]
fn endless_manifests() {
    let long = "longer than";
    refused("a manifest of 10 GB", long, |_, r| {
        is_manifest(r).then(|| announced(200))
    });
    refused("an endless manifest", long, |_, r| {
        is_manifest(r).then(|| chunked(200))
    });
    let until_closed = || flood("HTTP/1.1 200 X\nConnection: close\n\n", b" ");
    refused("a manifest until the end", long, move |_, r| {
        is_manifest(r).then(until_closed)
    });
    refused("an endless refusal", "does not let you", |_, r| {
        is_manifest(r).then(|| chunked(403))
    });
    refused("an endless failure", "answered 500", |_, r| {
        is_manifest(r).then(|| chunked(500))
    });
}

#[test]
fn endless_headers() {
    refused("endless headers", "", |_, _| {
        Some(flood("HTTP/1.1 200 X\n", b"X-Header: and so on\r\n"))
    });
    refused("an endless header", "", |_, _| {
        Some(flood("HTTP/1.1 200 X\nX-Header: ", b"and so on"))
    });
}

#[test]
fn endless_blobs() {
    for what in ["config", "layer"] {
        let is_it = move |r: &Request| r.is_blob() && is_config(r) == (what == "config");
        refused(&format!("a {what} longer than said"), "sha256:", move |_, r| {
            is_it(r).then(|| announced(200))
        });
        refused(&format!("an endless {what}"), "sha256:", move |_, r| {
            is_it(r).then(|| chunked(200))
        });
    }
    // A file of 8 GB in a layer of 10; of that 200 MiB come, and goes to the disk.
    let header = sh(
        "cd $(mktemp -d) && truncate -s 8000000000 file && { tar -cf - file || true; } | head -c 512; rm -r $PWD",
    );
    let mut content = content();
    for (path, (_, bytes)) in &mut content {
        if path.contains("/manifests/") {
            *bytes = enlarged(bytes);
        }
    }
    let asked = AtomicUsize::new(0);
    let told = pull("a layer of 10 GB", content, move |_, r| {
        let head = format!("HTTP/1.1 200 X\r\nContent-Length: {TEN_GB}\r\n\r\n{header}");
        let cut = Act::Flood(head, vec![0; 64 << 10], 200 << 20);
        let is_layer = r.is_blob() && !is_config(r);
        is_layer.then(|| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => cut,
            _ => Act::Answer(404, Vec::new(), Vec::new()),
        })
    });
    let told = told.expect("a layer of 10 GB");
    assert!(told.contains("sha256:"), "{told}");
}

/// The manifest with a layer of 10 GB.
fn enlarged(manifest: &[u8]) -> Vec<u8> {
    let mut manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    manifest["layers"][0]["size"] = TEN_GB.into();
    manifest.to_string().into_bytes()
}

fn is_config(request: &Request) -> bool {
    content().iter().any(|(path, (_, bytes))| {
        path.contains("/blobs/") && request.path.ends_with(path.as_str()) && bytes.starts_with(b"{")
    })
}

#[test]
fn circles() {
    refused("a circle of redirects", "redirect", |_, r| {
        let here = vec![("Location", r.path.clone())];
        r.is_blob().then(|| Act::Answer(307, here, Vec::new()))
    });
    refused("endless redirects", "redirect", |n, r| {
        let there = vec![("Location", format!("{}?{n}", r.path))];
        r.is_blob().then(|| Act::Answer(307, there, Vec::new()))
    });
    let tokens = FakeRegistry::start(Content::new(), |n, _| {
        let token = format!(r#"{{"token":"t{n}"}}"#);
        Some(Act::Answer(200, Vec::new(), token.into_bytes()))
    });
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.address);
    refused("tokens that are never good", "does not let you", move |_, _| {
        let challenge = vec![("WWW-Authenticate", realm.clone())];
        Some(Act::Answer(401, challenge, Vec::new()))
    });
    let tokens = FakeRegistry::start(Content::new(), |_, _| Some(chunked(200)));
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.address);
    refused("an endless token", "longer than", move |_, _| {
        let challenge = vec![("WWW-Authenticate", realm.clone())];
        Some(Act::Answer(401, challenge, Vec::new()))
    });
}

#[test]
fn much_from_little() {
    let told = pull("a small layer of 256 MiB of zeros", content(), |_, _| None);
    assert_eq!(told, None);
}

/// A cache elsewhere is written and read piece by piece.
#[test]
fn a_cache_that_travels_needs_little_memory() {
    let (a, b) = (Bench::new(), Bench::new());
    let context = a.context("context", &[]);
    sh(&format!(
        "head -c 96M /dev/urandom > {0}/one; head -c 32M /dev/urandom > {0}/two",
        context.display()
    ));
    let boxfile = a.path("Boxfile");
    std::fs::write(&boxfile, "FROM scratch\nCOPY one /\nCOPY two /\n").unwrap();
    let cache = a.path("cache").display().to_string();
    let words = |option: String| {
        let (file, context) = (boxfile.display().to_string(), context.display().to_string());
        ["build", "-q", "-f", &file, &option, &context].map(str::to_owned)
    };
    let check = |what: &str, bench: &Bench, option: String| {
        let traced = tracer::run(bench, &words(option), &[], None);
        assert_eq!(traced.code, Some(0), "{}", traced.stderr);
        println!("{what} of 128 MiB: at most {} KiB", traced.peak >> 10);
        assert!(traced.peak < MOST, "{what}: it had {} KiB", traced.peak >> 10);
    };
    check("export", &a, format!("--cache-to=type=local,dest={cache}"));
    check("import", &b, format!("--cache-from=type=local,src={cache}"));
}
