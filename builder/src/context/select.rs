//! From a source as COPY names it to the entries that are copied.
//!
//! As BuildKit does it: `..` stops at the root; links in the path, and the last one too, are followed inside the tree;
//! wildcards match whole components and never look through links; links found in a directory stay links.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::glob;
use crate::files::{Content, Entry, EntryKind, FileTree, FilesError, Meta, Selection};
use crate::ignore::{IgnoreRules, Level};

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Finds everything that one source names. A wildcard may match nothing.
///
/// # Errors
/// [`FilesError::NotFound`] for a path without wildcards that is not there; what the tree says.
pub fn select(tree: &dyn FileTree, pattern: &str) -> Result<Vec<Selection>, FilesError> {
    let components = clean(pattern);
    let plain = components
        .iter()
        .take_while(|component| !glob::has_wildcard(component))
        .count();
    let (fixed, wild) = components.split_at(plain);
    let fixed: PathBuf = fixed.iter().map(|component| glob::unescape(component)).collect();
    if wild.is_empty() {
        let selection = select_path(tree, &fixed)?;
        return selection
            .map(|found| vec![found])
            .ok_or_else(|| not_found(tree, pattern, &fixed));
    }
    let mut found = Vec::new();
    let start = resolve(tree, &fixed)?.filter(|(_, meta)| meta.kind == EntryKind::Directory);
    if let Some((start, _)) = start {
        expand(tree, &start, wild, pattern, &mut found)?;
    }
    let selections = found.iter().map(|path| select_path(tree, path));
    selections.filter_map(Result::transpose).collect()
}

/// The components of a source: from the root, `.` left out, `..` taking one away but never leaving the root.
fn clean(pattern: &str) -> Vec<&str> {
    let mut components = Vec::new();
    for component in pattern.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            other => components.push(other),
        }
    }
    components
}

fn not_found(tree: &dyn FileTree, pattern: &str, path: &Path) -> FilesError {
    let is_there = resolve(tree, path).is_ok_and(|found| found.is_some());
    FilesError::NotFound {
        path: pattern.to_owned(),
        tree: tree.describe(),
        ignored: is_there,
    }
}

/// All paths below `directory` that match, sorted.
fn expand(
    tree: &dyn FileTree,
    directory: &Path,
    wild: &[&str],
    pattern: &str,
    found: &mut Vec<PathBuf>,
) -> Result<(), FilesError> {
    let Some((first, rest)) = wild.split_first() else {
        return Ok(());
    };
    for (name, meta) in tree.list(directory)? {
        let is_match = glob::matches(first, name.as_bytes());
        if !is_match.ok_or_else(|| FilesError::Pattern {
            pattern: pattern.to_owned(),
        })? {
            continue;
        }
        let path = directory.join(&name);
        if rest.is_empty() {
            found.push(path);
        } else if meta.kind == EntryKind::Directory {
            expand(tree, &path, rest, pattern, found)?;
        }
    }
    Ok(())
}

/// The entry at `path` with all in it; none if it is not there, is ignored, or a link that leads nowhere.
fn select_path(tree: &dyn FileTree, path: &Path) -> Result<Option<Selection>, FilesError> {
    let Some((root, meta)) = resolve(tree, path)? else {
        return Ok(None);
    };
    if meta.kind == EntryKind::Socket {
        return Ok(None);
    }
    let mut walk = Walk {
        tree,
        root: &root,
        entries: Vec::new(),
        pending: Vec::new(),
    };
    walk.start(meta)?;
    let entries = walk.entries;
    let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
    Ok((!entries.is_empty()).then_some(Selection { name, root, entries }))
}

struct Walk<'a> {
    tree: &'a dyn FileTree,
    root: &'a Path,
    entries: Vec<Entry>,
    /// Directories that are ignored themselves, from the outermost: there only if something in them is.
    pending: Vec<Entry>,
}

impl Walk<'_> {
    /// Visits the root, knowing what the rules say of what is above it.
    fn start(&mut self, meta: Meta) -> Result<(), FilesError> {
        let rules = self.tree.rules().filter(|rules| !rules.is_empty());
        let Some(rules) = rules else {
            return self.visit(PathBuf::new(), meta, None);
        };
        let mut above = rules.root();
        let mut path = PathBuf::new();
        for name in self.root.parent().into_iter().flatten() {
            path.push(name);
            above = rules.enter(&above, &path);
        }
        self.visit(PathBuf::new(), meta, Some((rules, &above)))
    }

    fn visit(
        &mut self,
        relative: PathBuf,
        meta: Meta,
        above: Option<(&IgnoreRules, &Level)>,
    ) -> Result<(), FilesError> {
        let path = join(self.root, &relative);
        if meta.kind == EntryKind::Directory {
            return self.directory(&path, relative, meta, above);
        }
        let is_ignored = above.is_some_and(|(rules, level)| rules.ignores_in(level, &path));
        if !is_ignored && meta.kind != EntryKind::Socket {
            let entry = self.read(&path, relative, meta)?;
            self.push(entry);
        }
        Ok(())
    }

    fn directory(
        &mut self,
        path: &Path,
        relative: PathBuf,
        meta: Meta,
        above: Option<(&IgnoreRules, &Level)>,
    ) -> Result<(), FilesError> {
        // No pattern says anything of the root of a context.
        let level = above.map(|(rules, level)| match path.as_os_str().is_empty() {
            true => rules.root(),
            false => rules.enter(level, path),
        });
        if level.as_ref().is_some_and(Level::may_skip) {
            return Ok(());
        }
        let below = above.map(|(rules, _)| rules).zip(level.as_ref());
        let entry = self.read(path, relative.clone(), meta)?;
        let depth = self.pending.len();
        match level.as_ref().is_some_and(Level::ignored) {
            true => self.pending.push(entry),
            false => self.push(entry),
        }
        for (name, meta) in self.tree.list(path)? {
            self.visit(join(&relative, Path::new(&name)), meta, below)?;
        }
        self.pending.truncate(depth);
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        self.entries.append(&mut self.pending);
        self.entries.push(entry);
    }

    fn read(&self, path: &Path, relative: PathBuf, meta: Meta) -> Result<Entry, FilesError> {
        let (content, xattrs) = match meta.kind {
            EntryKind::File => {
                let facts = self.tree.facts(path, &meta)?;
                (Content::File(facts.digest), facts.xattrs)
            }
            EntryKind::Symlink => (
                Content::Symlink(self.tree.read_link(path)?),
                self.tree.xattrs(path, &meta)?,
            ),
            _ => (Content::Nothing, self.tree.xattrs(path, &meta)?),
        };
        Ok(Entry {
            relative,
            meta,
            content,
            xattrs,
        })
    }
}

/// `Path::join` without the slash at the end that an empty second part leaves.
fn join(base: &Path, relative: &Path) -> PathBuf {
    match (base.as_os_str().is_empty(), relative.as_os_str().is_empty()) {
        (true, _) => relative.to_owned(),
        (_, true) => base.to_owned(),
        _ => base.join(relative),
    }
}

/// Follows every link in `path`, the last one too, inside the tree; none if it leads nowhere.
///
/// # Errors
/// [`FilesError::TooManyLinks`]; what the tree says.
pub fn resolve(tree: &dyn FileTree, path: &Path) -> Result<Option<(PathBuf, Meta)>, FilesError> {
    let mut ahead: VecDeque<OsString> = components(path).collect();
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let Some(meta) = tree.lookup(&next)? else {
            return Ok(None);
        };
        if meta.kind != EntryKind::Symlink {
            at = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(FilesError::TooManyLinks {
                path: path.to_owned(),
                tree: tree.describe(),
            });
        }
        let target = tree.read_link(&next)?;
        if target.is_absolute() {
            at = PathBuf::new();
        }
        components(&target)
            .rev()
            .for_each(|component| ahead.push_front(component));
    }
    Ok(tree.lookup(&at)?.map(|meta| (at, meta)))
}

fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}
