//! Cases of other tools' test suites, read from the directory that `BOX_CORPUS` names.
//!
//! Each case passes, or is listed in [`JUSTIFIED`] with the reason why box does otherwise.

use crate::corpus::{corpus, read, table};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::beneath::Kind;
use crate::layer::apply::archive::{Archive, Head};
use crate::root::StoreOptions;
use crate::transfer::archive::{LoadOptions, load_oci, load_oci_layout};
use crate::tree::Tree;

const BELOW: &str = "the layer stands for itself: box (as Docker's overlay2) unpacks it without what is below, where this link or target is";
const DOTDOT: &str = "`..` in a name is an error, as with moby; this suite's tool clamps it to the root";

/// Where box does otherwise, and why.
const JUSTIFIED: &[(&str, &str)] = &[
    ("ctrd-HardlinkDirectRelative", DOTDOT),
    ("ctrd-SymlinkParentDirectory", DOTDOT),
    ("ctrd-SymlinkParentRelative", DOTDOT),
    ("umoci-SanitiseScoping-DotDotPrefix", DOTDOT),
    ("ctrd-SymlinkOverrideDirectory", BELOW),
    ("ctrd-SymlinkOverrideDirectoryRelative", BELOW),
    ("ctrd-DirectoryOverrideSymlink", BELOW),
    ("ctrd-WhiteoutSymlinkPath", BELOW),
    ("moby-ThroughAbsoluteSymlink-missing", BELOW),
    ("moby-HardlinkSourceThroughAbsoluteSymlink", BELOW),
    ("umoci-SymlinkScoping-RootPrefix", BELOW),
    ("umoci-SymlinkScoping-GarbagePrefix1", BELOW),
    ("umoci-SymlinkScoping-GarbagePrefix2", BELOW),
    ("umoci-SymlinkScoping-GarbagePrefix3", BELOW),
];

/// A place with things outside of the store that must stay.
struct Ground {
    _temp: tempfile::TempDir,
    base: PathBuf,
    store: Store,
}

impl Ground {
    fn new(outside: &Value) -> Ground {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().to_path_buf();
        fs::create_dir(base.join("out")).unwrap();
        for op in outside.as_array().unwrap_or(&Vec::new()) {
            let path = text(&op["path"]).replace("OUT", &base.join("out").to_string_lossy());
            let path = base.join(path.strip_prefix("../").unwrap_or(&path));
            match text(&op["op"]).as_str() {
                "mkdir" => fs::create_dir_all(&path).unwrap(),
                _ => fs::write(&path, text(&op["content"])).unwrap(),
            }
            if let Some(mode) = op["mode"].as_str() {
                let mode = u32::from_str_radix(mode, 8).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        let store = Store::open(&base.join("store"), StoreOptions::default()).unwrap();
        Ground {
            _temp: temp,
            base,
            store,
        }
    }

    fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        let walk = walkdir::WalkDir::new(&self.base).into_iter();
        for entry in walk
            .filter_entry(|e| e.file_name() != "store")
            .map(Result::unwrap)
        {
            let meta = entry.metadata().unwrap();
            let content = fs::read(entry.path()).unwrap_or_default();
            seen.insert(
                entry.path().to_path_buf(),
                format!("{:o} {content:?}", meta.mode()),
            );
        }
        seen
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn mode(value: &Value, default: u32) -> u32 {
    value
        .as_str()
        .map_or(default, |m| u32::from_str_radix(m, 8).unwrap())
}

/// The entries of a layer, as they are.
fn layer_tar(entries: &Value, base: &Path) -> Vec<u8> {
    let mut tar = Archive::default();
    for entry in entries.as_array().unwrap() {
        let place = |value: &Value| {
            let out = base.join("out").to_string_lossy().into_owned();
            text(value).replace("OUT", &out).replace("ROOTNAME", "tree")
        };
        let (name, link) = (place(&entry["name"]), place(&entry["link"]));
        let data = match entry["content_b64"].as_str() {
            Some("AAEC") => "\0\u{1}\u{2}".to_owned(),
            Some(other) => panic!("unexpected content {other}"),
            None => text(&entry["content"]),
        };
        let (flag, default) = match text(&entry["type"]).as_str() {
            "file" => (b'0', 0o644),
            "dir" => (b'5', 0o755),
            "symlink" => (b'2', 0o777),
            "hardlink" => (b'1', 0o644),
            "fifo" => (b'6', 0o644),
            "pax-global-header" => (b'g', 0o644),
            other => panic!("unexpected type {other}"),
        };
        let mode = mode(&entry["mode"], default);
        let (name, link) = (name.as_bytes(), link.as_bytes());
        let fits = |text: &[u8]| text.len() <= 100;
        if !fits(name) {
            tar = tar.extension(b'L', name);
        }
        if !fits(link) {
            tar = tar.extension(b'K', link);
        }
        let cut = |text| if fits(text) { text } else { &text[..100] };
        let (name, link) = (cut(name), cut(link));
        tar = tar.head(Head {
            name,
            link,
            flag,
            mode,
            data: data.as_bytes(),
            ..Head::default()
        });
    }
    tar.end()
}

/// What lies there before, as a layer of its own.
fn before_tar(ops: &Value) -> Option<Vec<u8>> {
    let ops = ops.as_array().filter(|ops| !ops.is_empty())?;
    let mut tar = Archive::default();
    for op in ops {
        let name = text(&op["path"]);
        tar = match text(&op["op"]).as_str() {
            "mkdir" => tar.dir(&name),
            "symlink" => tar.sym(&name, &text(&op["target"])),
            _ => tar.file(&name, text(&op["content"]).as_bytes()),
        };
    }
    Some(tar.end())
}

fn apply(store: &Store, tar: &[u8]) -> Result<Layer, ApplyError> {
    let about = LayerBlob {
        diff_id: DiffId(Digest::of(tar)),
        digest: None,
        logical_time: None,
    };
    store.apply_blob(tar, &about, &ApplyOptions::default())
}

/// Why the case fails; nothing if it passes.
fn failure(case: &Value) -> Option<String> {
    let ground = Ground::new(&case["outside"]);
    let before = ground.outside();
    let mut layers: Vec<Layer> = Vec::new();
    let tars = case["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer_tar(layer, &ground.base));
    let mut error = None;
    for tar in before_tar(&case["pre"]).into_iter().chain(tars) {
        match apply(&ground.store, &tar) {
            Ok(layer) => layers.push(layer),
            Err(e) => error = error.or(Some(e.to_string())),
        }
    }
    if ground.outside() != before {
        return Some("WHAT IS OUTSIDE WAS TOUCHED".to_owned());
    }
    match (text(&case["expect"]["result"]).as_str(), &error) {
        ("ok", Some(e)) => return Some(format!("unexpected error: {e}")),
        ("error", None) => return Some("no error".to_owned()),
        (_, Some(_)) => return None,
        _ => {}
    }
    let tree = Tree::new(&layers);
    let checks = case["expect"]["checks"].as_array().cloned().unwrap_or_default();
    checks.iter().find_map(|check| wrong(check, &tree))
}

/// Where a path leads in the view, from its root.
fn at(tree: &Tree, path: &Value) -> Option<crate::tree::TreeEntry> {
    let path = Path::new("/").join(text(path));
    tree.resolve(&path, true).ok()?.entry
}

fn lies_at(tree: &Tree, path: &Value) -> Option<crate::tree::TreeEntry> {
    let path = Path::new("/").join(text(path));
    tree.resolve(&path, false).ok()?.entry
}

fn wrong(check: &Value, tree: &Tree) -> Option<String> {
    let fail = || Some(format!("not as it should be: {check}"));
    let (key, value) = check.as_object()?.iter().find(|(key, _)| *key != "resolve")?;
    let good = match key.as_str() {
        "file_equals" => at(tree, &value["path"]).is_some_and(|entry| {
            let mut content = Vec::new();
            let read = tree
                .open_file(&entry.path)
                .and_then(|mut f| f.read_to_end(&mut content).at("read", ""));
            read.is_ok() && content == text(&value["content"]).as_bytes()
        }),
        "absent" => lies_at(tree, value).is_none(),
        "exists" => lies_at(tree, value).is_some(),
        "type" => lies_at(tree, &value["path"]).is_some_and(|entry| entry.metadata.kind == Kind::Directory),
        "empty_dir" => tree
            .read_dir(Path::new(&text(value)))
            .is_ok_and(|list| list.is_empty()),
        "mode" => {
            at(tree, &value["path"]).is_some_and(|entry| entry.metadata.mode == mode(&value["mode"], 0))
        }
        "symlink" => tree
            .read_link(Path::new(&text(&value["path"])))
            .is_ok_and(|t| t == *text(&value["target"])),
        "both_symlinks_same_target" => {
            let target = |n: usize| {
                tree.read_link(Path::new(text(&value[n]).trim_start_matches('/')))
                    .ok()
            };
            target(0).is_some() && target(0) == target(1)
        }
        "same_inode" => {
            let inode = |n: usize| at(tree, &value[n]).map(|entry| entry.metadata.inode);
            inode(0).is_some() && inode(0) == inode(1)
        }
        // What is outside was compared as a whole.
        "outside_untouched" | "note" => true,
        "no_leak" => !leaks(tree, Path::new("")),
        other => panic!("the corpus has a check that is not known: {other}"),
    };
    if good { None } else { fail() }
}

fn leaks(tree: &Tree, path: &Path) -> bool {
    tree.read_dir(path)
        .unwrap()
        .into_iter()
        .any(|(name, entry)| match entry.metadata.kind {
            Kind::Directory => leaks(tree, &path.join(name)),
            Kind::File => {
                let mut content = String::new();
                let _ = tree
                    .open_file(&path.join(name))
                    .unwrap()
                    .read_to_string(&mut content);
                content.contains("RANDOM-SECRET")
            }
            _ => false,
        })
}

#[test]
fn tables_of_other_tools() {
    let Some(root) = corpus() else { return };
    let tables = ["containerd_apply", "moby_untar_breakouts", "umoci_extract"];
    let cases = tables
        .iter()
        .flat_map(|name| table(&root, &format!("archive__{name}.json")));
    let (mut passed, mut justified, mut failed) = (0, Vec::new(), Vec::new());
    for case in cases {
        let id = text(&case["id"]);
        let reason = JUSTIFIED
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, reason)| *reason);
        match (failure(&case), reason) {
            (None, None) => passed += 1,
            (None, Some(_)) => failed.push(format!("{id}: passes, but is listed as a justified difference")),
            (Some(_), Some(reason)) => justified.push(format!("{id}: {reason}")),
            (Some(why), None) => failed.push(format!("{id}: {why}")),
        }
    }
    println!("{passed} passed; otherwise on purpose:\n{}", justified.join("\n"));
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// All paths of the view, sorted, directories with a slash.
fn paths(tree: &Tree, path: &Path, into: &mut Vec<String>) {
    for (name, entry) in tree.read_dir(path).unwrap() {
        let path = path.join(name);
        let is_dir = entry.metadata.kind == Kind::Directory;
        into.push(format!("{}{}", path.display(), if is_dir { "/" } else { "" }));
        if is_dir {
            paths(tree, &path, into);
        }
    }
}

#[test]
fn whiteouts_one_layer_after_the_other() {
    let Some(root) = corpus() else { return };
    for case in table(&root, "archive__moby_whiteouts.json") {
        let ground = Ground::new(&Value::Null);
        let mut layers = Vec::new();
        for step in case["apply_in_sequence_to_one_root"].as_array().unwrap() {
            let mut tar = Archive::default();
            for path in step["layer_paths"].as_array().unwrap() {
                let path = text(path);
                tar = if path.ends_with('/') {
                    tar.dir(&path)
                } else {
                    tar.file(&path, b"")
                };
            }
            layers.push(apply(&ground.store, &tar.end()).unwrap());
            let mut found = Vec::new();
            paths(&Tree::new(&layers), Path::new(""), &mut found);
            let expected: Vec<_> = step["expected_paths"]
                .as_array()
                .unwrap()
                .iter()
                .map(text)
                .collect();
            assert_eq!(found, expected, "{} after {} layers", case["id"], layers.len());
        }
    }
}

#[test]
fn odd_archives() {
    let Some(root) = corpus() else { return };
    let ground = Ground::new(&Value::Null);
    let file = |name: &str| read(&root.join("images").join(name));
    let options = ApplyOptions::default();
    let plain = ground
        .store
        .apply_archive(&file("content.tar")[..], &options)
        .unwrap();
    let packed = ground
        .store
        .apply_archive(&file("content.tar.zst")[..], &options)
        .unwrap();
    assert_eq!(plain.diff_id().unwrap(), packed.diff_id().unwrap());
    let conflict = ground
        .store
        .apply_archive(&file("ustar_gnu_conflict.tar")[..], &options)
        .unwrap();
    let name = "root/.cpanm/work/1395823785.24209/Plack-1.0030/blib/man3/Plack::Middleware::LighttpdScriptNameFix.3pm";
    assert!(Tree::new(&[conflict]).lookup(Path::new(name)).unwrap().is_some());
}

/// Archives of `docker save`, with the root file systems that they must give.
#[test]
fn dockers_archives() {
    let Some(root) = corpus() else { return };
    let expected: Value = serde_json::from_slice(&read(&root.join("images/expect.json"))).unwrap();
    let mut trees = 0;
    for case in expected.as_array().unwrap() {
        let ground = Ground::new(&Value::Null);
        let file = text(&case["file"]);
        let bytes = read(&root.join("images").join(&file));
        let loaded = load_oci(&ground.store, &bytes[..], &LoadOptions::default());
        if case["expect"]["error_or_not_an_image"] == true {
            assert!(loaded.is_err(), "{file}");
            continue;
        }
        let loaded = loaded.unwrap_or_else(|error| panic!("{file}: {error}"));
        let Some(rootfs) = case["expect"]["rootfs"].as_object() else {
            assert_eq!(loaded.len(), 2, "{file}");
            continue;
        };
        let image = &loaded[0].image;
        assert_eq!(
            image.config.rootfs.diff_ids.len() as u64,
            case["expect"]["layers"].as_u64().unwrap()
        );
        let tree = Tree::new(&ground.store.image_layers(image).unwrap());
        let mut found = Vec::new();
        paths(&tree, Path::new(""), &mut found);
        assert_eq!(found.len() + 1, rootfs.len(), "{file}: {found:?}");
        for (path, entry) in rootfs.iter().filter(|(path, _)| *path != "/") {
            let there = tree
                .lookup(Path::new(path))
                .unwrap()
                .unwrap_or_else(|| panic!("{file}: no {path}"));
            let (meta, what) = (&there.metadata, format!("{file}: {path}"));
            assert_eq!(format!("{:04o}", meta.mode), text(&entry["mode"]), "{what}");
            assert_eq!(
                (u64::from(meta.uid), u64::from(meta.gid)),
                (entry["uid"].as_u64().unwrap(), entry["gid"].as_u64().unwrap()),
                "{what}"
            );
            if let Some(sha256) = entry["sha256"].as_str() {
                let mut content = Vec::new();
                tree.open_file(Path::new(path))
                    .unwrap()
                    .read_to_end(&mut content)
                    .unwrap();
                assert_eq!(Digest::of(&content).hex(), sha256, "{what}");
            }
            if let Some(target) = entry["target"].as_str() {
                assert_eq!(tree.read_link(Path::new(path)).unwrap(), target, "{what}");
            }
        }
        trees += 1;
    }
    assert!(trees >= 4, "{trees}");
}

#[test]
fn odd_layouts() {
    let Some(root) = corpus() else { return };
    let layouts: Value = serde_json::from_slice(&read(&root.join("images/oci_layouts.json"))).unwrap();
    for layout in layouts["layouts"].as_array().unwrap() {
        let ground = Ground::new(&Value::Null);
        let dir = ground.base.join("out");
        for entry in layout["tree"].as_array().unwrap() {
            let path = dir.join(text(&entry["path"]));
            match (text(&entry["type"]).as_str(), entry["content_b64"].as_str()) {
                ("dir", _) => fs::create_dir_all(path).unwrap(),
                (_, Some(base64)) => fs::write(path, decode(base64)).unwrap(),
                _ => fs::write(path, text(&entry["content"])).unwrap(),
            }
        }
        let loaded = load_oci_layout(&ground.store, &dir, &LoadOptions::default());
        let ids = loaded
            .as_ref()
            .map(|all| all.iter().map(|l| l.image.id.to_string()).collect::<Vec<_>>());
        println!("{}: {}: {ids:?}", layout["id"], layout["what"]);
        assert!(loaded.is_ok_and(|all| !all.is_empty()), "{}", layout["id"]);
    }
}

fn decode(base64: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in base64.bytes().filter(|b| *b != b'=') {
        let digit = DIGITS.iter().position(|d| *d == byte).unwrap();
        bits = bits << 6 | u32::try_from(digit).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}
