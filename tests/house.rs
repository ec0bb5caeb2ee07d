//! The rules of the house, held against the sources: which crate may know which, how long files and functions are, where
//! `unsafe` lives, that no two rooms need each other, and that docs/architecture.md names every room.
#![allow(clippy::unwrap_used)] // a test that panics has failed

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::Span;
use syn::visit::Visit;

const CRATES: [(&str, &str); 4] = [
    ("boxfile", "src"),
    ("box-store", "store/src"),
    ("box-builder", "builder/src"),
    ("box-runner", "runner/src"),
];
const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 80;
const MAX_MEDIAN_LINES: usize = 10;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: its path, its room (the first module below the crate's root) and what it parses to.
struct Source {
    path: PathBuf,
    room: String,
    text: String,
    syntax: syn::File,
}

/// The sources of a crate but those of its tests.
fn sources(directory: &str) -> Vec<Source> {
    let base = root().join(directory);
    let files = walkdir::WalkDir::new(&base)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap);
    let files = files.filter(|e| e.path().extension().is_some_and(|x| x == "rs"));
    let all: Vec<Source> = files.map(|entry| read(&base, entry.into_path())).collect();
    let tests: Vec<PathBuf> = all.iter().flat_map(test_modules).collect();
    let is_test = |path: &Path| tests.iter().any(|test| path.with_extension("").starts_with(test));
    all.into_iter().filter(|source| !is_test(&source.path)).collect()
}

fn read(base: &Path, path: PathBuf) -> Source {
    let text = std::fs::read_to_string(&path).unwrap();
    let syntax = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let first = path.strip_prefix(base).unwrap().components().next().unwrap();
    let room = Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    Source {
        path,
        room,
        text,
        syntax,
    }
}

/// The paths (without `.rs`) of the modules that a file declares as tests.
fn test_modules(source: &Source) -> Vec<PathBuf> {
    let is_root = source
        .path
        .file_stem()
        .is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main");
    let parent = if is_root {
        source.path.parent().unwrap().to_owned()
    } else {
        source.path.with_extension("")
    };
    let modules = source.syntax.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => {
            Some(module.ident.to_string())
        }
        _ => None,
    });
    modules.map(|name| parent.join(name)).collect()
}

fn all_sources() -> Vec<Source> {
    CRATES
        .iter()
        .flat_map(|(_, directory)| sources(directory))
        .collect()
}

#[test]
fn only_the_allowed_crates_know_each_other() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut arrows = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let (from, to) = (
                package["name"].as_str().unwrap(),
                dependency["name"].as_str().unwrap(),
            );
            if CRATES.iter().any(|(name, _)| *name == to) && from != to {
                arrows.insert((from.to_owned(), to.to_owned()));
            }
        }
    }
    let allowed = [
        ("box-builder", "box-store"),
        ("boxfile", "box-builder"),
        ("boxfile", "box-runner"),
        ("boxfile", "box-store"),
    ];
    let allowed: BTreeSet<_> = allowed.map(|(from, to)| (from.to_owned(), to.to_owned())).into();
    assert_eq!(arrows, allowed);
}

#[test]
fn files_are_short() {
    let lines = |source: &Source| {
        source
            .text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .count()
    };
    let long: Vec<String> = all_sources()
        .iter()
        .filter(|source| lines(source) > MAX_FILE_LINES)
        .map(|source| format!("{}: {} lines", source.path.display(), lines(source)))
        .collect();
    assert!(
        long.is_empty(),
        "over {MAX_FILE_LINES} lines before their tests:\n{}",
        long.join("\n")
    );
}

/// Collects the length of every function's body, tests left out.
#[derive(Default)]
struct Functions {
    lengths: Vec<(usize, String)>,
}

impl Functions {
    fn add(&mut self, name: &syn::Ident, block: &syn::Block) {
        let lines = |span: Span| span.end().line - span.start().line;
        self.lengths.push((
            lines(syn::spanned::Spanned::span(block)).saturating_sub(1).max(1),
            name.to_string(),
        ));
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .any(|a| quote::ToTokens::to_token_stream(a).to_string().contains("test"))
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }
    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn functions_are_short() {
    for (name, directory) in CRATES {
        let mut all = Vec::new();
        for source in sources(directory) {
            let mut functions = Functions::default();
            functions.visit_file(&source.syntax);
            all.extend(
                functions
                    .lengths
                    .into_iter()
                    .map(|(n, f)| (n, format!("{}: {f}", source.path.display()))),
            );
        }
        all.sort();
        let (longest, which) = all.last().unwrap();
        assert!(*longest <= MAX_FUNCTION_LINES, "{which}: {longest} lines");
        let median = all[all.len() / 2].0;
        assert!(
            median <= MAX_MEDIAN_LINES,
            "{name}: the median of {} functions is {median} lines",
            all.len()
        );
    }
}

#[derive(Default)]
struct Unsafe(Vec<usize>);

impl<'ast> Visit<'ast> for Unsafe {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.0.push(block.unsafe_token.span.start().line);
        syn::visit::visit_expr_unsafe(self, block);
    }
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let line = syn::spanned::Spanned::span(&signature.ident).start().line;
        let text = quote::ToTokens::to_token_stream(signature).to_string();
        if text.starts_with("unsafe ") || text.contains(" unsafe fn ") || text.contains("unsafe extern") {
            self.0.push(line);
        }
        syn::visit::visit_signature(self, signature);
    }
}

#[test]
fn unsafe_lives_in_sys_alone_and_says_why() {
    for source in all_sources() {
        let mut found = Unsafe::default();
        found.visit_file(&source.syntax);
        for line in found.0 {
            let place = format!("{}:{line}", source.path.display());
            assert!(source.room == "sys", "{place}: unsafe outside a sys module");
            let above: Vec<&str> = source.text.lines().take(line).collect();
            let near = &above[above.len().saturating_sub(10)..];
            assert!(
                near.iter()
                    .any(|l| l.contains("SAFETY") || l.contains("# Safety")),
                "{place}: no SAFETY argument"
            );
        }
    }
}

/// The first segment of every `crate::…` path.
#[derive(Default)]
struct Paths(Vec<String>);

impl Paths {
    fn tree(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.0.push(path.ident.to_string()),
            syn::UseTree::Name(name) => self.0.push(name.ident.to_string()),
            syn::UseTree::Rename(name) => self.0.push(name.ident.to_string()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item)),
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if let syn::UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.tree(&path.tree);
        }
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.segments[0].ident == "crate" {
            self.0.push(path.segments[1].ident.to_string());
        }
        syn::visit::visit_path(self, path);
    }
}

/// The names that a use tree brings in.
fn names(tree: &syn::UseTree, into: &mut Vec<String>) {
    match tree {
        syn::UseTree::Path(path) => names(&path.tree, into),
        syn::UseTree::Name(name) => into.push(name.ident.to_string()),
        syn::UseTree::Rename(name) => into.push(name.rename.to_string()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| names(item, into)),
        _ => {}
    }
}

/// Which room each name that the crate's root exports comes from.
fn exports(sources: &[Source]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for item in sources
        .iter()
        .filter(|s| s.room == "lib")
        .flat_map(|s| &s.syntax.items)
    {
        if let syn::Item::Use(item) = item
            && let syn::UseTree::Path(path) = &item.tree
        {
            let mut found = Vec::new();
            names(&path.tree, &mut found);
            map.extend(found.into_iter().map(|name| (name, path.ident.to_string())));
        }
    }
    map
}

#[test]
fn no_two_rooms_need_each_other() {
    for (name, directory) in CRATES {
        let sources = sources(directory);
        let rooms: BTreeSet<&str> = sources.iter().map(|s| s.room.as_str()).collect();
        let exports = exports(&sources);
        let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for source in sources.iter().filter(|s| s.room != "lib" && s.room != "main") {
            let mut paths = Paths::default();
            paths.visit_file(&source.syntax);
            for path in paths.0 {
                let target = exports.get(&path).unwrap_or(&path);
                if let Some(room) = rooms.get(target.as_str())
                    && *room != source.room
                {
                    needs.entry(&source.room).or_default().insert(room);
                }
            }
        }
        if let Some(circle) = circle(&needs) {
            panic!("{name}: these rooms need each other: {}", circle.join(" → "));
        }
    }
}

type Needs<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn circle(needs: &Needs<'_>) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    needs.keys().find_map(|start| {
        let mut path = Vec::new();
        visit(start, needs, &mut path, &mut done).then_some(path)
    })
}

/// Depth first; `path` is the circle when it returns true.
fn visit(at: &str, needs: &Needs<'_>, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
    if let Some(start) = path.iter().position(|p| p == at) {
        path.drain(..start);
        path.push(at.to_owned());
        return true;
    }
    if !done.insert(at.to_owned()) {
        return false;
    }
    path.push(at.to_owned());
    if needs
        .get(at)
        .into_iter()
        .flatten()
        .any(|next| visit(next, needs, path, done))
    {
        return true;
    }
    path.pop();
    false
}

#[test]
fn the_documents_name_every_room() {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for (name, directory) in CRATES {
        for source in sources(directory)
            .iter()
            .filter(|s| !["lib", "main"].contains(&s.room.as_str()))
        {
            let room = format!("`{}`", source.room);
            assert!(
                text.contains(&room),
                "docs/architecture.md does not name {name}'s {room}"
            );
        }
    }
}
