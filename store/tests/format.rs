//! The format of the store, byte by byte, as docs/store-format.md tells it. What fails here fails for every store there is.
#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]

mod common;

use std::fs;

use box_store::{DiffId, Digest, ImageConfig, RecordKind, Reference, StoreOptions};
use common::*;

fn sealed(class: &str, header: &str, body: &str) -> String {
    let rest = format!("{header}\n{body}");
    format!("box-record 1 {class}\n{}\n{rest}", Digest::of(rest.as_bytes()))
}

fn fixture() -> Fixture {
    Fixture::with(StoreOptions {
        boot_id: Some("boot".into()),
        ..StoreOptions::default()
    })
}

#[test]
fn a_record() {
    let fixture = fixture();
    let (key, kept) = (Digest::of(b"key"), Digest::of(b"kept"));
    fixture
        .store
        .put_record(&RecordKind::new("step").unwrap(), &key, b"opaque bytes", &[kept])
        .unwrap();
    let file = fs::read_to_string(fixture.root().join(format!(
        "records/step/{}/{}",
        &key.hex()[..2],
        key.hex()
    )))
    .unwrap();
    let header = format!(r#"{{"key":"{}","keeps":["{kept}"],"length":12}}"#, key.hex());
    assert_eq!(file, sealed("step", &header, "opaque bytes"));
}

#[test]
fn a_name() {
    let fixture = fixture();
    let image = fixture.store.put_image(&ImageConfig::default()).unwrap();
    fixture
        .store
        .tag(&Reference::parse("app:1").unwrap(), &image.id)
        .unwrap();
    let file = fs::read_to_string(fixture.root().join("names/docker.io%2Flibrary%2Fapp%3A1")).unwrap();
    let header = format!(
        r#"{{"key":"docker.io/library/app:1","keeps":["{}"],"length":71}}"#,
        image.id
    );
    assert_eq!(file, sealed("name", &header, &image.id.to_string()));
}

#[test]
fn an_image() {
    let fixture = fixture();
    let layer = DiffId(Digest::of(b"layer"));
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids.push(layer);
    let image = fixture.store.put_image(&config).unwrap();
    let file = fs::read_to_string(fixture.root().join("images").join(image.id.hex())).unwrap();
    let header = format!(
        r#"{{"key":"{}","keeps":["{}","{layer}"],"length":20}}"#,
        image.id.hex(),
        image.id
    );
    assert_eq!(
        file,
        sealed("image", &header, &format!(r#"{{"built":{}}}"#, image.built))
    );
}

#[test]
fn a_layer() {
    let fixture = fixture();
    let lower = fixture.written(&[], &[("f", "text")]);
    let upper = fixture.prepare(&[lower.clone()]);
    let stamp = mtime(&lower.path().join("f"));
    upper
        .file_at("copy", "text", stamp)
        .file_at("old", "text", box_store::Stamp::new(1_600_000_000, 5));
    let layer = upper.commit();
    let diff_id = layer.diff_id().unwrap();
    let file = fs::read_to_string(fixture.root().join("meta").join(diff_id.hex())).unwrap();
    let (start, committed) = (layer.facts().times.start, layer.facts().committed);
    let body = format!(
        r#"{{"times":{{"logical":315532801,"threshold":{},"start":[{},{}],"exceptions":[[[{},{}],315532800]]}},"newest":1600000000,"newest_on_disk":[{3},{4}],"window":[[{3},{4}],[{3},{4}]],"committed":[{},{}],"size":8,"entries":2,"opaque":0,"id_pages":[0],"tree_digest":"{diff_id}","tar_size":3072,"boot_id":"boot"}}"#,
        start.sec - 60,
        start.sec,
        start.nsec,
        stamp.sec,
        stamp.nsec,
        committed.sec,
        committed.nsec,
    );
    let header = format!(r#"{{"key":"{}","length":{}}}"#, diff_id.hex(), body.len());
    assert_eq!(file, sealed("layer", &header, &body));
    fixture.store.sync().unwrap();
    assert_eq!(
        fs::read(fixture.root().join("synced").join(diff_id.hex())).unwrap(),
        b""
    );
}

#[test]
fn a_volume() {
    let fixture = fixture();
    let mut new = box_store::NewVolume::default();
    new.labels.insert("a".into(), "b".into());
    new.is_anonymous = true;
    fixture
        .store
        .create_volume(&"data".parse().unwrap(), &new)
        .unwrap();
    let dir = fixture.root().join("volumes/data");
    let created = fixture.store.volumes().unwrap()[0].created;
    let body = format!(r#"{{"created":{created},"labels":{{"a":"b"}},"anonymous":true}}"#);
    let header = format!(r#"{{"key":"data","length":{}}}"#, body.len());
    let file = fs::read_to_string(dir.join("volume")).unwrap();
    assert_eq!(file, sealed("volume", &header, &body));
    assert_eq!(fs::read(dir.join("lock")).unwrap(), b"");
    assert!(dir.join("data").is_dir());
}

#[test]
fn a_config_is_canonical() {
    let fixture = fixture();
    let config: ImageConfig = serde_json::from_str(
        r#"{"os":"linux","config":{"Env":["A=1"],"Cmd":null,"Zone":1},"architecture":"amd64"}"#,
    )
    .unwrap();
    let image = fixture.store.put_image(&config).unwrap();
    let blob = fs::read_to_string(fixture.root().join("blobs/sha256").join(image.id.hex())).unwrap();
    let expected = r#"{"architecture":"amd64","config":{"Env":["A=1"],"Zone":1},"os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}"#;
    assert_eq!(blob, expected);
}
