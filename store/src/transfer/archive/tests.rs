//! Images go out and come in, whole, odd and hostile.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::digest::Digest;
use crate::image::{History, ImageConfig, format_rfc3339};
use crate::layer::apply::archive::{Archive, Head};
use crate::root::StoreOptions;
use crate::snapshot::{Attrs, PrepareOptions};
use crate::stamp::Stamp;

struct Ground {
    _dir: tempfile::TempDir,
    store: Store,
}

fn ground() -> Ground {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    Ground { _dir: dir, store }
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// Two layers, the second changing a file of the first.
fn build(store: &Store) -> Image {
    let attrs = Attrs {
        mode: 0o644,
        ..Attrs::default()
    };
    let mut lowers = Vec::new();
    for content in [&b"one"[..], b"two"] {
        let mut writer = store.layer_writer(&lowers, &PrepareOptions::default()).unwrap();
        writer
            .file(std::path::Path::new("etc/file"), &attrs, &mut &content[..])
            .unwrap();
        lowers.push(writer.commit().unwrap());
    }
    let mut config = ImageConfig {
        os: "linux".into(),
        architecture: Platform::host().architecture,
        ..ImageConfig::default()
    };
    config.config.cmd = Some(vec!["/bin/true".into()]);
    config.rootfs.kind = "layers".into();
    for layer in &lowers {
        config.rootfs.diff_ids.push(layer.diff_id().unwrap());
        config.history.push(History {
            created: Some(format_rfc3339(layer.logical_time())),
            comment: Some("box".into()),
            ..History::default()
        });
    }
    store.put_image(&config).unwrap()
}

fn saved(store: &Store, image: &Image, names: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let names = names.iter().map(|n| name(n)).collect();
    save_oci(store, &[(image.clone(), names)], &mut out).unwrap();
    out
}

fn load(store: &Store, archive: &[u8]) -> Result<Vec<LoadedImage>, ArchiveError> {
    load_oci(store, archive, &LoadOptions::default())
}

#[track_caller]
fn refused(archive: &[u8], piece: &str) {
    let ground = ground();
    let error = load(&ground.store, archive).expect_err("an error").to_string();
    assert!(error.contains(piece), "expected {piece:?} in {error:?}");
    assert!(ground.store.names().unwrap().is_empty());
    assert!(ground.store.images().unwrap().is_empty());
}

#[test]
fn an_image_goes_round() {
    let (one, two) = (ground(), ground());
    let image = build(&one.store);
    let archive = saved(&one.store, &image, &["box.test/app:1"]);
    assert_eq!(
        saved(&one.store, &image, &["box.test/app:1"]),
        archive,
        "a second save is the same"
    );
    let loaded = load(&two.store, &archive).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].image.id, image.id);
    assert_eq!(loaded[0].names, [name("box.test/app:1")]);
    assert_eq!(two.store.resolve("box.test/app:1").unwrap().unwrap().id, image.id);
    assert_eq!(
        saved(&two.store, &image, &["box.test/app:1"]),
        archive,
        "and gives the same archive back"
    );
    let layers = two.store.image_layers(&image).unwrap();
    assert_eq!(fs::read(layers[1].path().join("etc/file")).unwrap(), b"two");
    // Equal builds are equal archives.
    let three = ground();
    let again = build(&three.store);
    assert_eq!(saved(&three.store, &again, &["box.test/app:1"]), archive);
}

#[test]
fn compressed_archives_and_directories_load_too() {
    let one = ground();
    let image = build(&one.store);
    let archive = saved(&one.store, &image, &["app"]);
    let two = ground();
    load(&two.store, &zstd::encode_all(&archive[..], 1).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    tar::Archive::new(&archive[..]).unpack(dir.path()).unwrap();
    let three = ground();
    let loaded = load_oci_layout(&three.store, dir.path(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded[0].image.id, image.id);
    assert_eq!(saved(&three.store, &image, &["app"]), archive);
}

#[test]
fn layers_of_box_are_newer_the_later_they_are() {
    use std::os::unix::fs::MetadataExt;
    let (one, two) = (ground(), ground());
    let image = build(&one.store);
    let before = Stamp::now();
    load(&two.store, &saved(&one.store, &image, &[])).unwrap();
    let layers = two.store.image_layers(&image).unwrap();
    let times: Vec<_> = layers
        .iter()
        .map(|layer| {
            let meta = fs::metadata(layer.path().join("etc/file")).unwrap();
            Stamp::new(meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap())
        })
        .collect();
    assert!(before < times[0] && times[0] < times[1], "{before:?} {times:?}");
    let originals = one.store.image_layers(&image).unwrap();
    for (layer, original) in layers.iter().zip(originals) {
        assert_eq!(layer.logical_time(), original.logical_time());
        let mut tars = [Vec::new(), Vec::new()];
        layer.write_tar(&mut tars[0]).unwrap();
        original.write_tar(&mut tars[1]).unwrap();
        assert!(tars[0] == tars[1]);
    }
}

#[test]
fn several_images_and_several_names() {
    let (one, two) = (ground(), ground());
    let image = build(&one.store);
    let mut other = image.config.clone();
    other.author = Some("someone".into());
    let other = one.store.put_image(&other).unwrap();
    let mut archive = Vec::new();
    let images = [
        (image.clone(), vec![name("a"), name("b:2")]),
        (other.clone(), vec![]),
    ];
    save_oci(&one.store, &images, &mut archive).unwrap();
    let loaded = load(&two.store, &archive).unwrap();
    assert_eq!(
        loaded.iter().map(|l| l.image.id).collect::<Vec<_>>(),
        [image.id, other.id]
    );
    assert_eq!(loaded[0].names, [name("a"), name("b:2")]);
    assert!(loaded[1].names.is_empty());
}

/// A layout that can be bent.
#[derive(Clone)]
struct Bent {
    blobs: BTreeMap<String, Vec<u8>>,
    index: Value,
    manifest: Value,
    version: Value,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

impl Bent {
    fn new() -> Bent {
        Bent::of(&[Archive::default().file("f", b"x").end()])
    }

    fn of(layers: &[Vec<u8>]) -> Bent {
        let diff_ids: Vec<_> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = serde_json::to_vec(&config).unwrap();
        let layer_type = "application/vnd.oci.image.layer.v1.tar";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|l| descriptor(layer_type, l)).collect::<Vec<_>>(),
        });
        let mut bent = Bent {
            blobs: BTreeMap::new(),
            index: json!({"schemaVersion": 2, "manifests": []}),
            manifest,
            version: json!({"imageLayoutVersion": "1.0.0"}),
        };
        bent.put(config);
        for layer in layers {
            bent.put(layer.clone());
        }
        bent
    }

    fn put(&mut self, bytes: Vec<u8>) {
        self.blobs.insert(Digest::of(&bytes).hex(), bytes);
    }

    /// Writes the manifest as it is now, and an index that leads to it.
    fn index(mut self) -> Bent {
        let manifest = serde_json::to_vec(&self.manifest).unwrap();
        self.index["manifests"] = json!([descriptor(MANIFEST, &manifest)]);
        self.put(manifest);
        self
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = Archive::default();
        for (hex, bytes) in &self.blobs {
            tar = tar.file(&format!("blobs/sha256/{hex}"), bytes);
        }
        tar = tar.file("index.json", &serde_json::to_vec(&self.index).unwrap());
        tar.file("oci-layout", &serde_json::to_vec(&self.version).unwrap())
            .end()
    }
}

#[test]
fn hand_made_layouts_load() {
    let ground = ground();
    let loaded = load(&ground.store, &Bent::new().index().tar()).unwrap();
    assert_eq!(loaded.len(), 1);
    assert!(loaded[0].names.is_empty());
    // The manifest comes back byte by byte, though box would write another one.
    let archive = saved(&ground.store, &loaded[0].image, &[]);
    let again = self::ground();
    assert_eq!(
        load(&again.store, &archive).unwrap()[0].manifest,
        loaded[0].manifest
    );
}

#[test]
fn names_come_from_annotations() {
    let cases: [(Value, &[&str]); 6] = [
        (json!({"org.opencontainers.image.ref.name": "latest"}), &[]),
        (json!({"org.opencontainers.image.ref.name": "app:1"}), &["app:1"]),
        (
            json!({"org.opencontainers.image.ref.name": "h.test/x"}),
            &["h.test/x"],
        ),
        (
            json!({"io.containerd.image.name": "docker.io/library/y:2", "org.opencontainers.image.ref.name": "2"}),
            &["y:2"],
        ),
        (json!({"io.containerd.image.name": "NOT A NAME"}), &[]),
        (json!({"other": "x:1"}), &[]),
    ];
    for (annotations, names) in cases {
        let mut bent = Bent::new().index();
        bent.index["manifests"][0]["annotations"] = annotations.clone();
        let ground = ground();
        let loaded = load(&ground.store, &bent.tar()).unwrap();
        assert_eq!(
            loaded[0].names,
            names.iter().map(|n| name(n)).collect::<Vec<_>>(),
            "{annotations}"
        );
    }
}

#[test]
fn platforms_are_chosen() {
    let nested = |platforms: &[(&str, &str)]| {
        let mut bent = Bent::new().index();
        let one = bent.index["manifests"][0].clone();
        let with = |(os, architecture): &(&str, &str)| {
            let mut one = one.clone();
            one["platform"] = json!({"os": os, "architecture": architecture});
            one
        };
        let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": platforms.iter().map(with).collect::<Vec<_>>()});
        let inner = serde_json::to_vec(&inner).unwrap();
        bent.index["manifests"] = json!([descriptor(INDEX, &inner)]);
        bent.put(inner);
        bent.tar()
    };
    let options = LoadOptions {
        platform: Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
        },
        ..LoadOptions::default()
    };
    let ground = ground();
    let archive = nested(&[("unknown", "unknown"), ("linux", "s390x"), ("linux", "amd64")]);
    assert_eq!(load_oci(&ground.store, &archive[..], &options).unwrap().len(), 1);
    let archive = nested(&[("linux", "s390x"), ("windows", "amd64"), ("unknown", "unknown")]);
    let error = load_oci(&ground.store, &archive[..], &options)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the archive has no image for linux/amd64; it has some for linux/s390x, windows/amd64"
    );
}

#[test]
fn cve_2021_41190_no_document_is_manifest_and_index_at_once() {
    let mut bent = Bent::new();
    bent.manifest["manifests"] = json!([]);
    refused(&bent.index().tar(), "a manifest and an index at once");
    let mut bent = Bent::new().index();
    bent.index["layers"] = json!([]);
    refused(&bent.tar(), "a manifest and an index at once");
    let mut bent = Bent::new();
    bent.manifest["mediaType"] = json!(INDEX);
    refused(&bent.index().tar(), "it says it is");
}

#[test]
fn cve_2024_3727_a_digest_is_never_a_path() {
    for digest in ["sha256:../../etc/passwd", "sha256:", "../x", "sha256:0/1"] {
        let mut bent = Bent::new();
        bent.manifest["layers"][0]["digest"] = json!(digest);
        refused(&bent.index().tar(), "manifest");
    }
}

#[test]
fn layouts_that_lie_are_refused() {
    let bend = |bend: &dyn Fn(&mut Bent)| {
        let mut bent = Bent::new();
        bend(&mut bent);
        bent.index().tar()
    };
    let after = |bend: &dyn Fn(&mut Bent)| {
        let mut bent = Bent::new().index();
        bend(&mut bent);
        bent.tar()
    };
    refused(
        &bend(&|b| b.manifest["mediaType"] = json!(INDEX)),
        "it says it is",
    );
    refused(
        &bend(&|b| b.manifest["schemaVersion"] = json!(1)),
        "schemaVersion",
    );
    refused(
        &bend(&|b| b.manifest["layers"][0]["size"] = json!(1)),
        "is said to have 1",
    );
    refused(
        &bend(&|b| b.manifest["layers"][0]["digest"] = json!("sha512:00")),
        "manifest",
    );
    refused(
        &bend(&|b| b.manifest["layers"][0]["mediaType"] = json!("application/x-evil")),
        "unknown media type",
    );
    refused(
        &bend(&|b| b.manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm")),
        "not that of an image",
    );
    refused(
        &bend(&|b| b.manifest["layers"] = json!([])),
        "it has 0 layers, its config 1",
    );
    refused(&bend(&|b| b.manifest["config"] = json!({})), "makes no sense");
    refused(&bend(&|b| b.manifest = json!([])), "makes no sense");
    refused(
        &after(&|b| b.version = json!({"imageLayoutVersion": "2.0.0"})),
        "imageLayoutVersion",
    );
    refused(&after(&|b| b.version = json!(null)), "imageLayoutVersion");
    refused(&after(&|b| b.index = json!({"schemaVersion": 2})), "index.json");
    refused(
        &after(&|b| b.index = json!({"schemaVersion": 2, "manifests": []})),
        "no image for",
    );
    refused(
        &after(&|b| b.index["manifests"][0]["mediaType"] = json!("application/x-other")),
        "no image for",
    );
    refused(
        &after(&|b| b.index["manifests"][0]["size"] = json!(7)),
        "is said to have 7",
    );
    refused(
        &after(&|b| b.blobs.retain(|_, bytes| bytes.len() < 1000)),
        "is missing",
    );
    refused(
        &after(&|b| b.blobs.values_mut().for_each(|bytes| bytes[0] ^= 1)),
        "is damaged",
    );
    let huge = json!({"schemaVersion": 2, "x": "y".repeat(5 << 20), "manifests": []});
    refused(&after(&|b| b.index = huge.clone()), "larger than 4194304 bytes");
}

#[test]
fn what_is_not_oci_is_said_to_be_something_else() {
    let docker = Archive::default()
        .file("manifest.json", b"[]")
        .file("repositories", b"{}")
        .end();
    refused(&docker, "no image for");
    let docker = Archive::default()
        .file("manifest.json", br#"[{"Config":"../c.json","Layers":[]}]"#)
        .end();
    refused(&docker, "is not in the archive");
    refused(
        &Archive::default().file("etc/passwd", b"").end(),
        "no archive of images: it has no index.json",
    );
    refused(
        &Archive::default().file("index.json", b"{}").end(),
        "it has no oci-layout",
    );
    refused(b"garbage", "shorter than one header");
    refused(&[], "it is empty");
    let link = Archive::default().sym("index.json", "/etc/passwd").end();
    refused(&link, "not a regular file");
    let mut cut = Bent::new().index().tar();
    cut.truncate(2000);
    refused(&cut, "cut off");
    let hex = Digest::of(b"").hex();
    let pipe = Archive::default().head(Head {
        name: format!("blobs/sha256/{hex}").as_bytes(),
        flag: b'6',
        ..Head::default()
    });
    refused(&pipe.end(), "not a regular file");
}

#[test]
fn indexes_in_circles_and_in_depth_end() {
    let mut bent = Bent::new().index();
    for _ in 0..6 {
        let inner =
            serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": bent.index["manifests"]})).unwrap();
        bent.index["manifests"] = json!([descriptor(INDEX, &inner)]);
        bent.put(inner);
    }
    refused(&bent.tar(), "too deep");
    let mut bent = Bent::new().index();
    let one = json!({"mediaType": "application/x-other", "digest": Digest::of(b"").to_string(), "size": 0});
    bent.index["manifests"] = json!(vec![one; 10_001]);
    refused(&bent.tar(), "too many");
}

#[test]
fn a_bad_layer_names_its_blob_and_no_image_comes_of_it() {
    refused(
        &Bent::of(&[Archive::default().file("../x", b"").end()])
            .index()
            .tar(),
        "contains `..`",
    );
    refused(
        &Bent::of(&[Archive::default().file("x", b"").end(), b"junk".to_vec()])
            .index()
            .tar(),
        "layer sha256:",
    );
    let mut bent = Bent::new();
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"other").to_string()]}});
    let config = serde_json::to_vec(&config).unwrap();
    bent.manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", &config);
    bent.put(config);
    refused(&bent.index().tar(), "uncompressed digest should be");
}

#[test]
fn a_layout_directory_may_be_odd() {
    let dir = tempfile::tempdir().unwrap();
    let ground = ground();
    let load = || {
        load_oci_layout(&ground.store, dir.path(), &LoadOptions::default())
            .unwrap_err()
            .to_string()
    };
    assert!(load().contains("no oci-layout"));
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    assert!(load().contains("no index.json"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("index.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert!(load().contains("not a regular file"), "a FIFO does not block");
    let gone: PathBuf = dir.path().join("nowhere");
    assert!(load_oci_layout(&ground.store, &gone, &LoadOptions::default()).is_err());
}
