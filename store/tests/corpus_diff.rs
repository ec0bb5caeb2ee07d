//! Layers made of changes, by the tables of containerd's suite (`BOX_CORPUS`): a real overlay is changed, committed,
//! and its layer applied again elsewhere. Needs root.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use box_store::{
    ActiveSnapshot, ApplyOptions, DiffId, Digest, Layer, LayerBlob, PrepareOptions, Store, StoreOptions, Tree,
};
use serde_json::Value;

fn tables() -> Option<PathBuf> {
    let Some(root) = std::env::var_os("BOX_CORPUS") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "BOX_CORPUS must name the corpus on CI"
        );
        println!("NOT TRIED: BOX_CORPUS names no directory with cases of other tools");
        return None;
    };
    Some(Path::new(&root).join("corpus/open/tables"))
}

fn cases(name: &str) -> Vec<Value> {
    let Some(tables) = tables() else { return Vec::new() };
    let path = tables.join(name);
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("the corpus lacks {}: {e}", path.display()));
    let table: Value = serde_json::from_slice(&bytes).unwrap();
    table["cases"].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Does to the tree what the case says.
fn change(root: &Path, ops: &Value) {
    for op in ops.as_array().unwrap() {
        let at = |key: &str| root.join(text(&op[key]).trim_start_matches('/'));
        let path = at("path");
        let mode = op["mode"].as_str().map(|m| u32::from_str_radix(m, 8).unwrap());
        match text(&op["op"]) {
            "mkdir" => fs::create_dir_all(&path).unwrap(),
            "write" => {
                let two_zeros = op.get("content_b64").map(|_| "\0\0");
                fs::write(&path, two_zeros.unwrap_or(text(&op["content"]))).unwrap();
            }
            "symlink" => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(text(&op["target"]), &path).unwrap();
            }
            "link" => fs::hard_link(at("target"), &path).unwrap(),
            "remove" if path.is_dir() && !path.is_symlink() => fs::remove_dir_all(&path).unwrap(),
            "remove" => fs::remove_file(&path).unwrap(),
            "socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            "chmod" => {}
            other => panic!("the corpus has an operation that is not known: {other}"),
        }
        if let Some(mode) = mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// A mounted overlay, unmounted with the handle.
struct Mount(PathBuf);

impl Mount {
    fn new(snapshot: &ActiveSnapshot, at: &Path) -> Mount {
        fs::create_dir(at).unwrap();
        let dirs = snapshot.dirs();
        let lower: Vec<_> = dirs.lower.iter().map(|d| d.display().to_string()).collect();
        let (upper, work) = (dirs.upper.display(), dirs.work.display());
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        let done = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(at)
            .status();
        assert!(done.unwrap().success(), "mount {options}");
        Mount(at.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// What can be seen of a tree; sockets are never in an image.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root)
        .min_depth(1)
        .into_iter()
        .map(Result::unwrap)
    {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        let what = match meta.file_type() {
            t if t.is_symlink() => format!("-> {}", fs::read_link(entry.path()).unwrap().display()),
            t if t.is_file() => format!("{:o} {:?}", meta.mode() & 0o7777, fs::read(entry.path()).unwrap()),
            t if t.is_dir() => format!("{:o} directory", meta.mode() & 0o7777),
            _ => continue,
        };
        all.insert(entry.path().strip_prefix(root).unwrap().to_path_buf(), what);
    }
    all
}

fn seen_in(tree: &Tree, path: &Path, all: &mut BTreeMap<PathBuf, String>) {
    use box_store::beneath::Kind;
    for (name, entry) in tree.read_dir(path).unwrap() {
        let path = path.join(name);
        let mode = entry.metadata.mode;
        let what = match entry.metadata.kind {
            Kind::Symlink => format!("-> {}", Path::new(&tree.read_link(&path).unwrap()).display()),
            Kind::File => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut tree.open_file(&path).unwrap(), &mut bytes).unwrap();
                format!("{mode:o} {bytes:?}")
            }
            _ => format!("{mode:o} directory"),
        };
        let is_dir = entry.metadata.kind == Kind::Directory;
        all.insert(path.clone(), what);
        if is_dir {
            seen_in(tree, &path, all);
        }
    }
}

struct Done {
    _dir: tempfile::TempDir,
    store: Store,
    lower: Layer,
    diff: Layer,
    changed: BTreeMap<PathBuf, String>,
}

fn run(case: &Value) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let (base, archive) = (dir.path().join("base"), dir.path().join("base.tar"));
    fs::create_dir(&base).unwrap();
    if case.get("base_tree").is_some() {
        fs::create_dir_all(base.join("etc")).unwrap();
        fs::create_dir_all(base.join("home/derek")).unwrap();
        fs::write(base.join("etc/hosts"), "hosts").unwrap();
    }
    change(&base, &case["lower"]);
    let done = Command::new("tar")
        .arg("-C")
        .arg(&base)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(done.unwrap().success());
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let lower = store
        .apply_archive(fs::File::open(&archive).unwrap(), &ApplyOptions::default())
        .unwrap();
    let snapshot = store
        .prepare(std::slice::from_ref(&lower), &PrepareOptions::default())
        .unwrap();
    let merged = dir.path().join("merged");
    let mount = Mount::new(&snapshot, &merged);
    change(&merged, &case["changes"]);
    let changed = seen(&merged);
    drop(mount);
    let diff = snapshot.commit().unwrap();
    Done {
        _dir: dir,
        store,
        lower,
        diff,
        changed,
    }
}

/// Applied on the same base in another store, the layer gives the changed tree.
fn check_roundtrip(id: &str, done: &Done) {
    let dir = tempfile::tempdir().unwrap();
    let other = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let layers: Vec<Layer> = [&done.lower, &done.diff]
        .iter()
        .map(|layer| {
            let mut tar = Vec::new();
            layer.write_tar(&mut tar).unwrap();
            let about = LayerBlob {
                diff_id: layer.diff_id().unwrap(),
                digest: None,
                logical_time: None,
            };
            assert_eq!(about.diff_id, DiffId(Digest::of(&tar)), "{id}");
            other
                .apply_blob(&tar[..], &about, &ApplyOptions::default())
                .unwrap()
        })
        .collect();
    let mut found = BTreeMap::new();
    seen_in(&Tree::new(&layers), Path::new(""), &mut found);
    assert_eq!(found, done.changed, "{id}");
}

#[test]
fn changes_become_the_entries_they_should() {
    for case in cases("archive__containerd_diff.json") {
        let id = text(&case["id"]);
        let done = run(&case);
        let mut bytes = Vec::new();
        done.diff.write_tar(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let names = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().to_path_buf());
        let found: std::collections::BTreeSet<PathBuf> = names.collect();
        // Box sorts by path, and so links to the first path; which entries there are is the same. An overlay does not
        // copy up a link's other names, which are as they were: those are not in the layer.
        let untouched = ["d1", "d1/f1", "d4", "d4/f1"].map(PathBuf::from);
        let is_links = id == "diff-HardlinkParentInclusion";
        let expected = case["expect_entries"].as_array().unwrap().iter();
        let expected = expected.map(|e| PathBuf::from(text(&e["name"]).trim_end_matches('/')));
        let expected: std::collections::BTreeSet<PathBuf> = expected
            .filter(|path| !is_links || found.contains(path) || !untouched.contains(path))
            .collect();
        assert_eq!(found, expected, "{id}");
        check_roundtrip(id, &done);
        drop(done.store);
    }
}

#[test]
fn what_is_committed_and_applied_is_what_was_there() {
    for case in cases("archive__containerd_diff_roundtrip.json") {
        check_roundtrip(text(&case["id"]), &run(&case));
    }
}
