//! `index.json` lists the named images whose manifest and blobs are here, and no others.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use box_store::gc::GcOptions;
use box_store::transfer::archive::save_oci;
use box_store::{Digest, Image, Reference, Store, StoreOptions};
use common::Fixture;

const EMPTY: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

fn index(fixture: &Fixture) -> String {
    fs::read_to_string(fixture.root().join("index.json")).unwrap()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// An image of one layer that was saved, so that its manifest and its blobs are here.
fn saved(fixture: &Fixture, names: &[&str]) -> Image {
    let layer = fixture.written(&[], &[("file", "text")]);
    let image = fixture.image(&[&layer]);
    for text in names {
        fixture.store.tag(&name(text), &image.id).unwrap();
    }
    let images = [(image.clone(), names.iter().map(|text| name(text)).collect())];
    save_oci(&fixture.store, &images, &mut Vec::new()).unwrap();
    image
}

#[test]
fn names_come_and_go() {
    let fixture = Fixture::new();
    assert_eq!(index(&fixture), EMPTY);
    let image = saved(&fixture, &["app:1"]);
    let entry = |name: &str| {
        let text = index(&fixture);
        let start = text
            .find(r#"{"mediaType":"application/vnd.oci.image.manifest"#)
            .unwrap();
        let size: usize = text[start..].find(r#""size":"#).unwrap() + start;
        let size = text[size + 7..].split(',').next().unwrap().to_owned();
        let digest = text[start..]
            .split("\"digest\":\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned();
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#
        )
    };
    let whole = |entries: String| {
        let sum = Digest::of(format!("[{entries}]").as_bytes());
        let head = EMPTY.strip_suffix("]}").unwrap();
        format!(r#"{head}{entries}],"annotations":{{"box.manifests":"{sum}"}}}}"#)
    };
    let one = entry("docker.io/library/app:1");
    assert_eq!(index(&fixture), whole(one.clone()));

    fixture.store.tag(&name("aaa:2"), &image.id).unwrap();
    let two = format!("{},{one}", entry("docker.io/library/aaa:2"));
    assert_eq!(index(&fixture), whole(two));

    // The name goes to an image that nobody packed.
    let other = fixture.image(&[]);
    fixture.store.tag(&name("aaa:2"), &other.id).unwrap();
    assert_eq!(index(&fixture), whole(one));

    assert!(fixture.store.untag(&name("app:1")).unwrap());
    assert_eq!(index(&fixture), EMPTY);
}

#[test]
fn an_image_whose_blob_is_gone_is_not_listed() {
    let fixture = Fixture::new();
    let image = saved(&fixture, &["app:1"]);
    let manifest: serde_json::Value = serde_json::from_str(&index(&fixture)).unwrap();
    let digest: Digest = manifest["manifests"][0]["digest"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let manifest = fixture.store.read_blob(&digest, 1 << 20).unwrap().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let blobs = fixture.root().join("blobs/sha256");
    fs::remove_file(blobs.join(layer.strip_prefix("sha256:").unwrap())).unwrap();
    fixture.store.tag(&name("app:1"), &image.id).unwrap();
    assert_eq!(index(&fixture), EMPTY);

    // Writing it for others makes the blob again.
    save_oci(&fixture.store, &[(image, vec![name("app:1")])], &mut Vec::new()).unwrap();
    assert_ne!(index(&fixture), EMPTY);
}

#[test]
fn a_damaged_index_is_found_and_made_again() {
    let fixture = Fixture::new();
    saved(&fixture, &["app:1"]);
    let whole = index(&fixture);
    let path = fixture.root().join("index.json");
    let other = whole.replace("library/app:1", "library/app:2");
    let extra = whole.replace(r#""schemaVersion":2"#, r#""schemaVersion":2,"more":1"#);
    for damaged in [other.as_str(), extra.as_str(), &whole[..40], "", "{}", "\u{0}"] {
        fs::write(&path, damaged).unwrap();
        let findings = fixture.store.check(false).unwrap().findings;
        assert_eq!(findings.len(), 1, "{damaged}: {findings:?}");
        assert!(findings[0].name.ends_with("index.json"), "{findings:?}");
        fixture.store.check(true).unwrap();
        assert_eq!(index(&fixture), whole);
        assert!(fixture.store.check(false).unwrap().findings.is_empty());
    }
}

#[test]
fn an_older_index_is_no_damage_and_is_brought_up_to_date() {
    let fixture = Fixture::new();
    let image = saved(&fixture, &["app:1"]);
    let path = fixture.root().join("index.json");
    let older = index(&fixture);
    fixture.store.tag(&name("app:2"), &image.id).unwrap();
    let newer = index(&fixture);
    // As a command leaves it that is killed after it wrote the name.
    fs::write(&path, &older).unwrap();
    assert!(fixture.store.check(false).unwrap().findings.is_empty());
    fixture.store.tag(&name("app:2"), &image.id).unwrap();
    assert_eq!(index(&fixture), newer);

    fs::write(&path, &older).unwrap();
    // The collector wants to be alone.
    let Fixture { dir, store } = fixture;
    drop(store);
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    store.collect(&GcOptions::default()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
