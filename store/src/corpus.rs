//! Cases of other tools' suites (`BOX_CORPUS`): documents, names and paths. Those of archives are in `unpack`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::image::MediaType;
use serde_json::Value;

use crate::snapshot::{Attrs, PrepareOptions};
use crate::transfer::document::{self, Document};
use crate::tree::Tree;
use crate::{ChainId, DiffId, Digest, ImageConfig, Reference, Store, StoreError, StoreOptions};

/// Where box does otherwise, and why.
const JUSTIFIED: &[(&str, &str)] = &[
    ("manifest-007", FOREIGN),
    ("manifest-011", NO_IMAGE),
    ("manifest-012", NO_IMAGE),
    ("descriptor-018", UNUSED),
    ("descriptor-020", UNUSED),
    ("descriptor-030", UNUSED),
    ("descriptor-022", FOREIGN),
    ("descriptor-024", FOREIGN),
    ("descriptor-029", FOREIGN),
    ("config-010", "Docker takes a variable without a value"),
    ("chainid-004", "the digests of the case are none"),
    ("any-011", "an id is no name: the store looks it up as one"),
    ("any-012", "an id is no name: the store looks it up as one"),
    (
        "rootpath-SymlinkScopeLink",
        "a tree's root is a directory, never a link",
    ),
];
const FOREIGN: &str = "a digest of another algorithm than sha256 is refused, since it can't be verified";
const UNUSED: &str = "what is not used of another image of an index is not looked at";
const NO_IMAGE: &str = "an artifact that is no image is refused";

/// The open part of the corpus; none if there is none here, which on CI is an error.
pub(crate) fn corpus() -> Option<PathBuf> {
    let Some(root) = std::env::var_os("BOX_CORPUS") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "BOX_CORPUS must name the corpus on CI"
        );
        println!("NOT TRIED: BOX_CORPUS names no directory with cases of other tools");
        return None;
    };
    Some(Path::new(&root).join("corpus/open"))
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("the corpus lacks {}: {e}", path.display()))
}

pub(crate) fn table(root: &Path, name: &str) -> Vec<Value> {
    let table: Value = serde_json::from_slice(&read(&root.join("tables").join(name))).unwrap();
    table["cases"].as_array().unwrap().clone()
}

/// Compares, and counts; fails in the end if a case that is not justified differs.
#[derive(Default)]
struct Tally {
    passed: usize,
    justified: Vec<String>,
    failed: Vec<String>,
}

impl Tally {
    fn case(&mut self, case: &Value, is_right: bool, about: &str) {
        let id = case["id"].as_str().unwrap();
        match JUSTIFIED.iter().find(|(known, _)| *known == id) {
            _ if is_right => self.passed += 1,
            Some((_, why)) => self.justified.push(format!("{id}: {why}")),
            None => self.failed.push(format!("{id}: {about}")),
        }
    }

    fn end(&self) {
        println!(
            "{} passed, {} otherwise: {:#?}",
            self.passed,
            self.justified.len(),
            self.justified
        );
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
        assert!(self.passed > 0);
    }
}

/// A document as it would be taken from a registry.
fn is_taken(kind: &str, bytes: &[u8]) -> bool {
    let own = document::own_type(bytes);
    let as_manifest = MediaType::from("application/vnd.oci.image.manifest.v1+json");
    let as_index = MediaType::from("application/vnd.oci.image.index.v1+json");
    match kind {
        "manifest" => {
            document::manifest(bytes, own.as_ref().unwrap_or(&as_manifest), "it").is_ok_and(|manifest| {
                let mut parts = manifest.layers().iter().chain([manifest.config()]);
                parts.all(|part| document::digest(part, "it").is_ok())
            })
        }
        "imageIndex" => document::index(bytes, own.as_ref().unwrap_or(&as_index), "it").is_ok(),
        "descriptor" => {
            let index = format!(
                r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
                String::from_utf8_lossy(bytes)
            );
            document::index(index.as_bytes(), &as_index, "it")
                .is_ok_and(|index| document::digest(&index.manifests()[0], "it").is_ok())
        }
        "config" => serde_json::from_slice::<ImageConfig>(bytes).is_ok(),
        "imageLayout" => serde_json::from_slice::<oci_spec::image::OciLayout>(bytes).is_ok(),
        other => panic!("{other}"),
    }
}

#[test]
fn documents() {
    let Some(root) = corpus() else { return };
    let mut tally = Tally::default();
    for (name, kind) in [
        ("manifest", "manifest"),
        ("imageindex", "imageIndex"),
        ("descriptor", "descriptor"),
        ("config", "config"),
        ("imagelayout", "imageLayout"),
    ] {
        for case in table(&root, &format!("oci__{name}.json")) {
            let text = case["document"].as_str().unwrap();
            tally.case(
                &case,
                is_taken(kind, text.as_bytes()) == (case["valid"] == true),
                text,
            );
        }
    }
    for case in table(&root, "oci__docker_compat.json") {
        let text = case["document"].as_str().unwrap();
        let kind = case["kind"].as_str().unwrap();
        let digest = case["sha256"].as_str().or(case["digest"].as_str());
        let same = digest.is_none_or(|digest| {
            Digest::of(text.as_bytes())
                .to_string()
                .ends_with(digest.trim_start_matches("sha256:"))
        });
        let known =
            document::own_type(text.as_bytes()).is_some_and(|own| document::kind(&own) != Document::Other);
        tally.case(&case, same && known && is_taken(kind, text.as_bytes()), text);
    }
    tally.end();
}

#[test]
fn chain_ids() {
    let Some(root) = corpus() else { return };
    let mut tally = Tally::default();
    for case in table(&root, "oci__chainid.json") {
        let texts = case["Digests"].as_array().cloned().unwrap_or_default();
        let digests: Option<Vec<DiffId>> = texts
            .iter()
            .map(|text| text.as_str().unwrap().parse().ok().map(DiffId))
            .collect();
        let expected = case["Expected"]
            .as_array()
            .and_then(|all| all.last()?.as_str().map(str::to_owned));
        let found = digests.map(|digests| ChainId::of(&digests).map(|id| id.to_string()));
        tally.case(&case, found == Some(expected), &format!("{found:?}"));
    }
    tally.end();
}

#[test]
fn names() {
    let Some(root) = corpus() else { return };
    let mut tally = Tally::default();
    for (name, input, expected) in [
        ("any", "Reference", "Equivalent"),
        ("dockerref", "input", "expected"),
    ] {
        for case in table(&root, &format!("references__{name}.json")) {
            let expected = case[expected].as_str().unwrap();
            let found = Reference::parse(case[input].as_str().unwrap()).map(|reference| {
                let repository = format!("{}/{}", reference.domain(), reference.path());
                match (reference.digest(), reference.tag()) {
                    (Some(digest), _) => format!("{repository}@{digest}"),
                    // Where nothing is said, the first table says nothing, and box `latest`.
                    (None, Some(tag)) if tag != "latest" || expected.ends_with(":latest") => {
                        format!("{repository}:{tag}")
                    }
                    (None, _) => repository,
                }
            });
            tally.case(
                &case,
                found.as_deref() == Ok(expected),
                &format!("{found:?}, not {expected}"),
            );
        }
    }
    tally.end();
}

/// A layer with these directories, files and links.
fn tree(store: &Store, entries: &[Value]) -> Tree {
    let mut writer = store.layer_writer(&[], &PrepareOptions::default()).unwrap();
    let attrs = Attrs {
        mode: 0o755,
        ..Attrs::default()
    };
    for entry in entries {
        let path = PathBuf::from(entry["path"].as_str().unwrap());
        if path.as_os_str().is_empty() {
            continue;
        }
        let above: Vec<_> = path
            .ancestors()
            .skip(1)
            .filter(|p| !p.as_os_str().is_empty())
            .collect();
        for parent in above.into_iter().rev() {
            writer.directory(parent, &attrs).unwrap();
        }
        match entry["type"].as_str().or(entry["op"].as_str()).unwrap() {
            "dir" | "mkdir" => writer.directory(&path, &attrs).unwrap(),
            "symlink" => writer
                .symlink(
                    &path,
                    std::ffi::OsStr::new(entry["target"].as_str().unwrap()),
                    &attrs,
                )
                .unwrap(),
            other => panic!("{other}"),
        }
    }
    Tree::new(&[writer.commit().unwrap()])
}

#[test]
fn paths() {
    let Some(root) = corpus() else { return };
    let mut tally = Tally::default();
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&temp.path().join("store"), StoreOptions::default()).unwrap();
    let check = |tally: &mut Tally, case: &Value, tree: &Tree, path: &str, about: &Value| {
        let found = tree.resolve(Path::new(path), true);
        let is_right = match (&found, about["expect"].as_str()) {
            (Ok(found), Some(expect)) => found.path == Path::new(expect.trim_start_matches('/')),
            (Err(error), None) => matches!(error, StoreError::TooManyLinks { .. }),
            _ => false,
        };
        tally.case(case, is_right, &format!("{path}: {found:?}"));
    };
    for case in table(&root, "paths__securejoin.json") {
        let tree = tree(&store, case["tree"].as_array().unwrap());
        check(&mut tally, &case, &tree, case["unsafe"].as_str().unwrap(), &case);
    }
    for case in table(&root, "paths__rootpath.json") {
        for one in case["checks"].as_array().unwrap() {
            // The scope becomes the root.
            let scope = one["scope"].as_str().unwrap_or_default();
            let entries: Vec<Value> = case["tree"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|entry| {
                    let path = Path::new(entry["path"].as_str().unwrap())
                        .strip_prefix(scope)
                        .ok()?;
                    let mut entry = entry.clone();
                    entry["path"] = Value::from(path.to_str().unwrap());
                    Some(entry)
                })
                .collect();
            let tree = tree(&store, &entries);
            check(&mut tally, &case, &tree, one["path"].as_str().unwrap(), one);
        }
    }
    tally.end();
}
