//! Registries that misbehave: the right result, or an error in time that says what is wrong, and nothing left behind.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use box_store::registry::{
    Credential, NoCredentials, RegistryError, RegistryOptions, TransferProgress, pull, push,
};
use box_store::transfer::{NoProgress, Progress};
use box_store::{Digest, Image, Reference};
use common::Fixture;
use common::registry::{Act, Content, FakeRegistry, Request, Script};

struct Silent;

impl TransferProgress for Silent {
    fn blob(&self, _digest: &Digest, _size: u64) -> Box<dyn Progress> {
        Box::new(NoProgress)
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// Short patience, so that tests are short.
fn options() -> RegistryOptions<'static> {
    let mut options = RegistryOptions::new(&NoCredentials);
    options.limits.retries = 2;
    options.limits.retry_delay = Duration::from_millis(5);
    options.limits.max_delay = Duration::from_millis(50);
    options.limits.patience = Duration::from_millis(400);
    options.limits.connect_timeout = Duration::from_millis(400);
    options
}

/// `u` with the password `p`.
fn credential() -> Credential {
    Credential::Basic {
        username: "u".to_owned(),
        password: "p".to_owned(),
    }
}

/// An image of two layers, one of them with some bytes that don't compress.
fn image(fixture: &Fixture) -> Image {
    let mut state = 1u64;
    let noise: String = (0..60_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + ((state >> 33) % 90) as u8)
        })
        .collect();
    let first = fixture.written(&[], &[("a", "first"), ("noise", &noise)]);
    let second = fixture.written(std::slice::from_ref(&first), &[("b", "second")]);
    fixture.image(&[&first, &second])
}

/// What a good registry holds after a push of the image.
fn pushed() -> (Fixture, Image, Content) {
    let fixture = Fixture::new();
    let image = image(&fixture);
    let registry = FakeRegistry::start(Content::new(), |_, _| None);
    push(&fixture.store, &image, &registry.name("r:1"), &options(), &Silent).unwrap();
    let content = registry.content.lock().unwrap().clone();
    (fixture, image, content)
}

fn is_clean(fixture: &Fixture) {
    let tmp = fixture.root().join("tmp");
    let owners = std::fs::read_dir(tmp).unwrap().map(|owner| owner.unwrap().path());
    for owner in owners.filter(|owner| owner.is_dir()) {
        assert_eq!(std::fs::read_dir(&owner).unwrap().count(), 0, "{owner:?}");
    }
}

/// Pulls while the script says how the registry behaves.
fn pulled(
    script: impl Fn(usize, &Request) -> Option<Act> + Send + Sync + 'static,
) -> (Result<Image, RegistryError>, Vec<Request>, Image) {
    let (_source, image, content) = pushed();
    let registry = FakeRegistry::start(content, script);
    let fixture = Fixture::new();
    let name = registry.name("r:1");
    let begun = Instant::now();
    let result = pull(&fixture.store, &name, &options(), &Silent);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "it took {:?}",
        begun.elapsed()
    );
    is_clean(&fixture);
    if result.is_err() {
        assert!(fixture.store.names().unwrap().is_empty());
        assert!(fixture.store.images().unwrap().is_empty());
    }
    (result.map(|pulled| pulled.image), registry.requests(), image)
}

#[track_caller]
fn mends(script: impl Fn(usize, &Request) -> Option<Act> + Send + Sync + 'static) -> Vec<Request> {
    let (result, requests, image) = pulled(script);
    assert_eq!(result.unwrap().id, image.id);
    requests
}

#[track_caller]
fn fails(expected: &str, script: impl Fn(usize, &Request) -> Option<Act> + Send + Sync + 'static) {
    let (result, _, _) = pulled(script);
    let error = result.expect_err("it was pulled").to_string();
    assert!(error.contains(expected), "{error}");
}

/// Is large enough to be cut: the layer with the noise.
fn is_large(request: &Request, content: &Content) -> bool {
    request.is_blob() && content[request.path.trim_start_matches("/v2/")].1.len() > 20_000
}

#[test]
fn broken_connections_are_mended() {
    // Each attempt brings a little more.
    let (_, _, content) = pushed();
    let large = content.clone();
    let requests = mends(move |_, request| is_large(request, &large).then_some(Act::Cut(9_000)));
    let ranges: Vec<_> = requests
        .iter()
        .filter_map(|request| request.header("range"))
        .collect();
    assert!(
        ranges.contains(&"bytes=9000-") && ranges.contains(&"bytes=18000-"),
        "{ranges:?}"
    );
    // The second answer is whole, though only a part was asked for.
    let large = content.clone();
    mends(
        move |_, request| match (is_large(request, &large), request.header("range")) {
            (true, None) => Some(Act::Cut(9_000)),
            (true, Some(_)) => Some(Act::Whole),
            _ => None,
        },
    );
    // Errors that pass.
    for status in [429, 500, 502, 503] {
        let count = std::sync::atomic::AtomicUsize::new(0);
        mends(move |_, _| {
            let is_first = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2;
            is_first.then(|| Act::Answer(status, vec![("Retry-After", "0".to_owned())], Vec::new()))
        });
    }
}

#[test]
fn what_does_not_get_further_ends() {
    let (_, _, content) = pushed();
    let large = content.clone();
    fails("broken off", move |_, request| {
        is_large(request, &large).then_some(Act::Cut(0))
    });
    fails("answered 429", |_, request| {
        request
            .is_blob()
            .then(|| Act::Answer(429, vec![("Retry-After", "3600".to_owned())], Vec::new()))
    });
    fails("answered 503", |_, _| {
        Some(Act::Answer(503, Vec::new(), Vec::new()))
    });
    let large = content.clone();
    fails("came in", move |_, request| {
        is_large(request, &large).then_some(Act::Slow(Duration::from_millis(200)))
    });
    fails("no answer", |_, request| {
        request
            .path
            .contains("manifests")
            .then_some(Act::Silence(Duration::from_secs(3)))
    });
    fails("redirect", |_, request| {
        let here = vec![("Location", request.path.clone())];
        request.is_blob().then_some(Act::Answer(307, here, Vec::new()))
    });
}

#[test]
fn wrong_bytes_are_no_image() {
    let (_, _, content) = pushed();
    fails("has the digest", |_, request| {
        // The first blob is the config.
        (request.is_blob() && !request.path.contains("uploads")).then(|| Act::Other(b"{}".to_vec()))
    });
    let large = content.clone();
    fails("layer sha256:", move |_, request| {
        is_large(request, &large).then(|| {
            let mut bytes = large[request.path.trim_start_matches("/v2/")].1.clone();
            let last = bytes.len() - 12;
            bytes[last] ^= 1;
            Act::Other(bytes)
        })
    });
    let large = content.clone();
    fails("longer than the", move |_, request| {
        is_large(request, &large).then(|| {
            let bytes = large[request.path.trim_start_matches("/v2/")].1.clone();
            Act::Other([bytes, vec![0; 100]].concat())
        })
    });
    fails("makes no sense", |_, request| {
        request
            .path
            .contains("manifests")
            .then(|| Act::Other(b"no JSON".to_vec()))
    });
    fails("longer than", |_, request| {
        request
            .path
            .contains("manifests")
            .then(|| Act::Other(vec![b' '; 5 << 20]))
    });
    let both = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[]}"#;
    fails("manifest and an index at once", |_, request| {
        let index = (
            "Content-Type",
            "application/vnd.oci.image.index.v1+json".to_owned(),
        );
        request
            .path
            .contains("manifests")
            .then(|| Act::Answer(200, vec![index], both.to_vec()))
    });
    let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
    fails("Docker's first format", |_, request| {
        let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let kind = ("Content-Type", kind.to_owned());
        request
            .path
            .contains("manifests")
            .then(|| Act::Answer(200, vec![kind], old.to_vec()))
    });
}

#[test]
fn refusals_end_at_once() {
    let basic = ("WWW-Authenticate", "Basic realm=\"x\"".to_owned());
    let said = br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#;
    let challenge = basic.clone();
    fails("does not let you pull r: who are you", move |_, _| {
        Some(Act::Answer(401, vec![challenge.clone()], said.to_vec()))
    });
    // With credentials that it does not take, too.
    let credential = credential();
    let registry = FakeRegistry::start(Content::new(), move |_, _| {
        Some(Act::Answer(401, vec![basic.clone()], said.to_vec()))
    });
    let fixture = Fixture::new();
    let mut options = options();
    options.credentials = &credential;
    let error = pull(&fixture.store, &registry.name("r:1"), &options, &Silent).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    let told: Vec<_> = registry
        .requests()
        .iter()
        .filter(|request| request.header("authorization").is_some())
        .cloned()
        .collect();
    assert_eq!(told.len(), 1, "the password is shown once: {told:?}");
    // A token server that is not reached safely gets nothing.
    fails("not reached by HTTPS", |_, _| {
        let challenge = "Bearer realm=\"ftp://192.0.2.1/token\",service=\"s\"".to_owned();
        Some(Act::Answer(
            401,
            vec![("WWW-Authenticate", challenge)],
            Vec::new(),
        ))
    });
}

/// Tokens that last a second; the password goes to the token server alone.
#[test]
fn tokens_are_got_and_renewed() {
    let (_source, image, content) = pushed();
    let tokens = FakeRegistry::start(Content::new(), |number, request| {
        let expected = "/token?service=s&scope=repository%3Ar%3Apull";
        assert_eq!(request.path, expected);
        let token = format!(r#"{{"token":"t{number}"}}"#);
        Some(Act::Answer(200, Vec::new(), token.into_bytes()))
    });
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.address);
    // The second token is asked for although the first should still be good.
    let registry = FakeRegistry::start(content, move |_, request| {
        let good = match request.is_blob() {
            true => "Bearer t1",
            false => "Bearer t0",
        };
        (request.header("authorization") != Some(good))
            .then(|| Act::Answer(401, vec![("WWW-Authenticate", realm.clone())], Vec::new()))
    });
    let credential = credential();
    let fixture = Fixture::new();
    let mut options = options();
    options.credentials = &credential;
    let pulled = pull(&fixture.store, &registry.name("r:1"), &options, &Silent).unwrap();
    assert_eq!(pulled.image.id, image.id);
    let asked = tokens.requests();
    assert_eq!(asked.len(), 2);
    assert!(
        asked
            .iter()
            .all(|request| request.header("authorization") == Some("Basic dTpw"))
    );
    let all = registry.requests();
    assert!(
        all.iter()
            .all(|request| request.header("authorization") != Some("Basic dTpw"))
    );
}

#[test]
fn tokens_stay_with_their_registry() {
    let (_source, image, content) = pushed();
    let elsewhere = FakeRegistry::start(content.clone(), |_, _| None);
    let other = elsewhere.address;
    let registry = FakeRegistry::start(content, move |_, request| {
        if request.header("authorization").is_none() {
            let basic = ("WWW-Authenticate", "Basic realm=\"x\"".to_owned());
            return Some(Act::Answer(401, vec![basic], Vec::new()));
        }
        let there = vec![("Location", format!("http://{other}{}", request.path))];
        request.is_blob().then_some(Act::Answer(307, there, Vec::new()))
    });
    let credential = credential();
    let fixture = Fixture::new();
    let mut options = options();
    options.credentials = &credential;
    let pulled = pull(&fixture.store, &registry.name("r:1"), &options, &Silent).unwrap();
    assert_eq!(pulled.image.id, image.id);
    let told = elsewhere.requests();
    assert_eq!(told.len(), 3);
    assert!(
        told.iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[test]
fn pushes_go_on_or_end() {
    let fixture = Fixture::new();
    let image = image(&fixture);
    let pushed = |script: Box<Script>| {
        let registry = FakeRegistry::start(Content::new(), script);
        let result = push(&fixture.store, &image, &registry.name("r:1"), &options(), &Silent);
        is_clean(&fixture);
        let content = registry.content.lock().unwrap().clone();
        let is_named = content.contains_key("r/manifests/1");
        assert_eq!(
            result.is_ok(),
            is_named,
            "a name is given at the end, and only then"
        );
        result.map(|pushed| pushed.sent)
    };
    assert_eq!(pushed(Box::new(|_, _| None)).unwrap(), 3);
    // One failure of each kind of request is mended.
    for method in ["HEAD", "POST", "PUT"] {
        let done = std::sync::atomic::AtomicBool::new(false);
        let sent = pushed(Box::new(move |_, request| {
            let is_one = request.method == method && !done.swap(true, std::sync::atomic::Ordering::Relaxed);
            is_one.then(|| Act::Answer(503, Vec::new(), Vec::new()))
        }));
        assert!(sent.is_ok(), "{method}: {sent:?}");
    }
    let said = br#"{"errors":[{"message":"read only"}]}"#;
    let error = pushed(Box::new(move |_, request| {
        (request.method == "POST").then(|| Act::Answer(403, Vec::new(), said.to_vec()))
    }));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("does not let you push to r: read only"), "{error}");
    let error = pushed(Box::new(|_, request| {
        (request.method == "PUT").then_some(Act::Silence(Duration::from_secs(2)))
    }));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("nothing was taken") || error.contains("no answer") || error.contains("broken off"),
        "{error}"
    );
}

/// Gives up when it was asked so many times.
struct Impatient(AtomicUsize);

impl TransferProgress for Impatient {
    fn blob(&self, _digest: &Digest, _size: u64) -> Box<dyn Progress> {
        Box::new(NoProgress)
    }

    fn cancelled(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) > 200
    }
}

/// What lies in the store's `tmp/`.
fn temporary(fixture: &Fixture) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for owner in std::fs::read_dir(fixture.root().join("tmp")).unwrap() {
        let entries = std::fs::read_dir(owner.unwrap().path());
        found.extend(entries.into_iter().flatten().map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

/// Whether a layer of the store was packed.
fn is_packed(fixture: &Fixture) -> bool {
    let records = std::fs::read_dir(fixture.root().join("records")).unwrap();
    let mut kinds = records.map(|kind| kind.unwrap().file_name());
    kinds.any(|kind| kind.to_string_lossy().starts_with("packed"))
}

#[test]
fn packing_ends_with_the_push() {
    let fixture = Fixture::new();
    let large = "0123456789abcdef".repeat(4 << 20);
    let layer = fixture.written(&[], &[("large", &large)]);
    let image = fixture.image(&[&layer]);
    // What is left of making the layer.
    let before = temporary(&fixture);
    let mut options = options();
    options.packing = "zstd:19".parse().unwrap();
    let registry = FakeRegistry::start(Content::new(), |_, _| None);
    let cancelled = push(
        &fixture.store,
        &image,
        &registry.name("r:1"),
        &options,
        &Impatient(AtomicUsize::new(0)),
    );
    assert!(
        matches!(cancelled, Err(RegistryError::Cancelled)),
        "{cancelled:?}"
    );
    assert!(!is_packed(&fixture));
    assert_eq!(temporary(&fixture), before);
    // A registry that lets nobody write.
    let refusing = FakeRegistry::start(Content::new(), |_, request| {
        (request.method == "POST").then(|| Act::Answer(403, Vec::new(), Vec::new()))
    });
    let refused = push(&fixture.store, &image, &refusing.name("r:1"), &options, &Silent);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("does not let you push to r"), "{refused}");
    assert!(!is_packed(&fixture), "it does not wait until all is packed");
    assert_eq!(temporary(&fixture), before);
}

#[test]
fn names_of_hosts_are_checked() {
    let fixture = Fixture::new();
    for text in ["a_b.example/x:1", "host:99999/x:1"] {
        let Ok(name) = Reference::parse(text) else {
            continue;
        };
        let error = pull(&fixture.store, &name, &options(), &Silent).unwrap_err();
        let is_clear = matches!(
            error,
            RegistryError::BadHost { .. } | RegistryError::Connect { .. }
        );
        assert!(is_clear, "{text}: {error}");
    }
}
