//! What box saves is read by the tools that others use: skopeo, umoci, podman; and what they write is loaded.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use box_store::transfer::archive::{LoadOptions, load_oci, load_oci_layout, save_oci};
use box_store::{
    Attrs, ContainerConfig, History, Image, ImageConfig, PrepareOptions, Reference, Store, StoreOptions,
};

/// Whether a tool is there. On CI all must be.
fn has(tool: &str) -> bool {
    let found = Command::new(tool)
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "{tool} is needed for this test on CI"
    );
    if !found {
        println!("NOT TRIED: {tool} is not installed");
    }
    found
}

fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

fn image(store: &Store) -> Image {
    let attrs = |mode| Attrs {
        mode,
        ..Attrs::default()
    };
    let mut writer = store.layer_writer(&[], &PrepareOptions::default()).unwrap();
    writer.directory(Path::new("etc"), &attrs(0o755)).unwrap();
    writer
        .file(Path::new("etc/suid"), &attrs(0o4755), &mut &b"hello"[..])
        .unwrap();
    let layer = writer.commit().unwrap();
    let architecture = box_store::transfer::archive::Platform::host().architecture;
    let mut config = ImageConfig {
        os: "linux".into(),
        architecture,
        ..ImageConfig::default()
    };
    config.config = ContainerConfig {
        cmd: Some(vec!["/etc/suid".into()]),
        ..ContainerConfig::default()
    };
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids.push(layer.diff_id().unwrap());
    let created = Some("2001-09-09T01:46:40Z".into());
    config.created = created.clone();
    config.history.push(History {
        created,
        comment: Some("box".into()),
        ..History::default()
    });
    store.put_image(&config).unwrap()
}

struct Ground {
    dir: tempfile::TempDir,
    store: Store,
    image: Image,
}

/// A store, and an archive `image.tar` of one image.
fn ground() -> Ground {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let image = image(&store);
    let name = Reference::parse("box.test/app:1").unwrap();
    let file = fs::File::create(dir.path().join("image.tar")).unwrap();
    save_oci(&store, &[(image.clone(), vec![name])], file).unwrap();
    Ground { dir, store, image }
}

#[test]
fn skopeo_reads_and_writes() {
    if !has("skopeo") {
        return;
    }
    let Ground { dir, image, .. } = ground();
    let archive = format!("oci-archive:{}", dir.path().join("image.tar").display());
    let told = run(Command::new("skopeo").args(["inspect", &archive]));
    let diff_id = image.config.rootfs.diff_ids[0].to_string();
    assert!(told.contains("2001-09-09T01:46:40Z"), "{told}");
    let config = run(Command::new("skopeo").args(["inspect", "--config", &archive]));
    assert!(config.contains(&diff_id), "{config}");
    // Its copy is another archive and another layout of the same image.
    let other = dir.path().join("other.tar");
    run(Command::new("skopeo").args([
        "copy",
        &archive,
        &format!("oci-archive:{}:box.test/copy:2", other.display()),
    ]));
    let layout = dir.path().join("layout");
    run(Command::new("skopeo").args(["copy", &archive, &format!("oci:{}:tag", layout.display())]));
    let fresh = Store::open(&dir.path().join("fresh"), StoreOptions::default()).unwrap();
    let loaded = load_oci(&fresh, fs::File::open(other).unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded[0].image.id, image.id);
    assert_eq!(loaded[0].names, [Reference::parse("box.test/copy:2").unwrap()]);
    let loaded = load_oci_layout(&fresh, &layout, &LoadOptions::default()).unwrap();
    assert_eq!(loaded[0].image.id, image.id);
}

/// `docker save`'s archives, and what is saved as `docker load` reads it.
#[test]
fn archives_of_docker_come_and_go() {
    if !has("skopeo") {
        return;
    }
    let Ground { dir, image, .. } = ground();
    let saved = dir.path().join("image.tar");
    let as_docker = format!("docker-archive:{}", saved.display());
    let told = run(Command::new("skopeo").args(["inspect", "--config", &as_docker]));
    assert!(
        told.contains(&image.config.rootfs.diff_ids[0].to_string()),
        "{told}"
    );
    let other = dir.path().join("docker.tar");
    let to = format!("docker-archive:{}:box.test/copy:2", other.display());
    run(Command::new("skopeo").args(["copy", &as_docker, &to]));
    let fresh = Store::open(&dir.path().join("fresh"), StoreOptions::default()).unwrap();
    let loaded = load_oci(&fresh, fs::File::open(&other).unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded[0].image.id, image.id);
    assert_eq!(loaded[0].names, [Reference::parse("box.test/copy:2").unwrap()]);
    // And on: what was loaded so is saved like everything else.
    let again = dir.path().join("again.tar");
    let images = [(loaded[0].image.clone(), loaded[0].names.clone())];
    save_oci(&fresh, &images, fs::File::create(&again).unwrap()).unwrap();
    let far = Store::open(&dir.path().join("far"), StoreOptions::default()).unwrap();
    let loaded = load_oci(&far, fs::File::open(&again).unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded[0].image.id, image.id);
}

#[test]
fn zstd_layers_of_skopeo_load() {
    if !has("skopeo") {
        return;
    }
    let Ground { dir, image, .. } = ground();
    let archive = format!("oci-archive:{}", dir.path().join("image.tar").display());
    let layout = dir.path().join("layout");
    let to = format!("oci:{}:tag", layout.display());
    run(Command::new("skopeo").args([
        "copy",
        "--dest-compress-format",
        "zstd",
        "--dest-compress",
        &archive,
        &to,
    ]));
    let fresh = Store::open(&dir.path().join("fresh"), StoreOptions::default()).unwrap();
    let loaded = load_oci_layout(&fresh, &layout, &LoadOptions::default()).unwrap();
    assert_eq!(
        loaded[0].image.config.rootfs.diff_ids,
        image.config.rootfs.diff_ids
    );
}

#[test]
fn umoci_unpacks() {
    if !has("umoci") {
        return;
    }
    let Ground { dir, .. } = ground();
    let layout = dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    run(Command::new("tar")
        .arg("-xf")
        .arg(dir.path().join("image.tar"))
        .arg("-C")
        .arg(&layout));
    let listed = run(Command::new("umoci").arg("list").arg("--layout").arg(&layout));
    assert_eq!(listed.trim(), "box.test/app:1");
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    // umoci takes `:` in the name for the tag's beginning: give it a plain tag.
    fs::write(
        layout.join("index.json"),
        index.replace("\"box.test/app:1\"", "\"plain\""),
    )
    .unwrap();
    let bundle = dir.path().join("bundle");
    run(Command::new("umoci")
        .arg("unpack")
        .arg("--image")
        .arg(format!("{}:plain", layout.display()))
        .arg(&bundle));
    let file = bundle.join("rootfs/etc/suid");
    assert_eq!(fs::read(&file).unwrap(), b"hello");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o7777, 0o4755);
}

#[test]
fn podman_loads_and_saves() {
    if !has("podman") {
        return;
    }
    let Ground { dir, image, .. } = ground();
    let (graph, state) = (dir.path().join("graph"), dir.path().join("state"));
    let podman = || {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(&graph)
            .arg("--runroot")
            .arg(&state)
            .args(["--storage-driver", "vfs"]);
        command
    };
    let loaded = run(podman()
        .arg("load")
        .arg("-q")
        .arg("-i")
        .arg(dir.path().join("image.tar")));
    assert!(loaded.contains("box.test/app:1"), "{loaded}");
    let id = run(podman().args(["image", "inspect", "--format", "{{.Id}}", "box.test/app:1"]));
    assert_eq!(id.trim(), image.id.hex());
    let saved = dir.path().join("podman.tar");
    run(podman()
        .args(["save", "--format", "oci-archive", "-o"])
        .arg(&saved)
        .arg("box.test/app:1"));
    let fresh = Store::open(&dir.path().join("fresh"), StoreOptions::default()).unwrap();
    let loaded = load_oci(&fresh, fs::File::open(saved).unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded[0].image.id, image.id);
    assert_eq!(loaded[0].names, [Reference::parse("box.test/app:1").unwrap()]);
}

#[test]
fn the_store_itself_is_a_layout_with_whole_blobs() {
    let ground = ground();
    let root = ground.store.layout().root().to_path_buf();
    for entry in fs::read_dir(root.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let digest = box_store::Digest::of(&fs::read(&path).unwrap());
        assert_eq!(path.file_name().unwrap().to_str(), Some(digest.hex().as_str()));
    }
}
