//! From a source as COPY names it to the entries that are copied.
//!
//! As BuildKit does it: `..` stops at the root; links in the path, and the last one too, are followed inside the tree;
//! wildcards match whole components and never look through links; links found in a directory stay links.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::glob;
use super::walk::Walk;
use crate::files::{EntryKind, FileTree, FilesError, Meta, Selection};
use crate::ignore::{IgnoreRules, Level};

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// What of the sources is copied.
#[derive(Debug, Default)]
pub struct Picking {
    /// What is left out, relative to each source (`--exclude`).
    pub excludes: IgnoreRules,
    /// Whether the directories that lead to what is copied are kept (`--parents`).
    pub parents: bool,
}

/// Finds everything that one source names. A wildcard may match nothing.
///
/// # Errors
/// [`FilesError::NotFound`] for a path without wildcards that is not there; what the tree says.
pub fn select(tree: &dyn FileTree, pattern: &str, picking: &Picking) -> Result<Vec<Selection>, FilesError> {
    if picking.parents {
        return with_parents(tree, pattern, picking);
    }
    let (paths, is_wild) = find(tree, pattern)?;
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let mut sets = RuleSet::of(tree, picking);
        // What a wildcard finds is looked at by its name, too.
        let name = path.file_name().filter(|_| is_wild).map(Path::new);
        sets.iter_mut().for_each(|set| set.name = name);
        found.extend(select_path(tree, &path, &sets)?);
    }
    match found.is_empty() && !is_wild {
        true => Err(not_found(tree, pattern)),
        false => Ok(found),
    }
}

/// As BuildKit does it: what stands before `/./` is a directory, in which all is looked at that the rest matches; that may
/// hold `**`.
fn with_parents(tree: &dyn FileTree, pattern: &str, picking: &Picking) -> Result<Vec<Selection>, FilesError> {
    let (base, wanted) = pattern.split_once("/./").unwrap_or(("", pattern));
    let wanted = clean(wanted).join("/");
    let exception = format!("!{wanted}");
    let include = match wanted.is_empty() {
        true => IgnoreRules::default(),
        false => IgnoreRules::from_patterns(["**", &exception]).map_err(|_| malformed(pattern))?,
    };
    let (paths, _) = find(tree, base)?;
    let mut sets = RuleSet::of(tree, picking);
    sets.extend(RuleSet::relative(&include));
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let selection = select_path(tree, &path, &sets)?;
        found.extend(selection.filter(Selection::is_directory));
    }
    let is_nothing = found.iter().all(|selection| selection.entries.len() < 2);
    match is_nothing && !wanted.is_empty() && !glob::has_wildcard(pattern) {
        true => Err(not_found(tree, pattern)),
        false => Ok(found),
    }
}

/// The paths that a pattern names, and whether it has wildcards. A path without them may not be there.
fn find(tree: &dyn FileTree, pattern: &str) -> Result<(Vec<PathBuf>, bool), FilesError> {
    let components = clean(pattern);
    let plain = components
        .iter()
        .take_while(|component| !glob::has_wildcard(component))
        .count();
    let (fixed, wild) = components.split_at(plain);
    let fixed: PathBuf = fixed.iter().map(|component| glob::unescape(component)).collect();
    if wild.is_empty() {
        return Ok((vec![fixed], false));
    }
    let mut found = Vec::new();
    let start = resolve(tree, &fixed)?.filter(|(_, meta)| meta.kind == EntryKind::Directory);
    if let Some((start, _)) = start {
        expand(tree, &start, wild, pattern, &mut found)?;
    }
    Ok((found, true))
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

/// A path as a pattern that matches it alone.
pub fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len() + 1);
    pattern.push('/');
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn not_found(tree: &dyn FileTree, pattern: &str) -> FilesError {
    let path: PathBuf = clean(pattern)
        .iter()
        .map(|component| glob::unescape(component))
        .collect();
    let is_there = resolve(tree, &path).is_ok_and(|found| found.is_some());
    FilesError::NotFound {
        path: pattern.to_owned(),
        tree: tree.describe(),
        ignored: is_there,
    }
}

fn malformed(pattern: &str) -> FilesError {
    FilesError::Pattern {
        pattern: pattern.to_owned(),
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
        if !is_match.ok_or_else(|| malformed(pattern))? {
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

/// Rules that a walk heeds.
#[derive(Clone, Copy)]
pub(super) struct RuleSet<'a> {
    pub(super) rules: &'a IgnoreRules,
    /// Whether they are about paths in the selection, not in the tree.
    pub(super) is_relative: bool,
    /// What they are told the selection's root is called, if it is a file.
    name: Option<&'a Path>,
}

impl<'a> RuleSet<'a> {
    /// The tree's own, and what is left out.
    fn of(tree: &'a dyn FileTree, picking: &'a Picking) -> Vec<RuleSet<'a>> {
        let own = tree.rules().filter(|rules| !rules.is_empty());
        let own = own.map(|rules| RuleSet {
            rules,
            is_relative: false,
            name: None,
        });
        own.into_iter()
            .chain(RuleSet::relative(&picking.excludes))
            .collect()
    }

    fn relative(rules: &'a IgnoreRules) -> Option<RuleSet<'a>> {
        (!rules.is_empty()).then_some(RuleSet {
            rules,
            is_relative: true,
            name: None,
        })
    }

    /// What they say of what is above the selection.
    fn above(&self, root: &Path) -> Level {
        let mut above = self.rules.root();
        if self.is_relative {
            return above;
        }
        let mut path = PathBuf::new();
        for name in root.parent().into_iter().flatten() {
            path.push(name);
            above = self.rules.enter(&above, &path);
        }
        above
    }

    /// The path by which they know a file; none if they don't.
    pub(super) fn path<'p>(&self, path: &'p Path, relative: &'p Path) -> Option<&'p Path>
    where
        'a: 'p,
    {
        match self.is_relative {
            false => Some(path),
            true if relative.as_os_str().is_empty() => self.name,
            true => Some(relative),
        }
    }
}

/// The entry at `path` with all in it; none if it is not there, is ignored, or a link that leads nowhere.
fn select_path(
    tree: &dyn FileTree,
    path: &Path,
    sets: &[RuleSet<'_>],
) -> Result<Option<Selection>, FilesError> {
    let Some((root, meta)) = resolve(tree, path)? else {
        return Ok(None);
    };
    if meta.kind == EntryKind::Socket {
        return Ok(None);
    }
    let above: Vec<Level> = sets.iter().map(|set| set.above(&root)).collect();
    let mut walk = Walk::new(tree, &root, sets);
    walk.visit(PathBuf::new(), meta, &above)?;
    let entries = walk.finish()?;
    let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
    Ok((!entries.is_empty()).then_some(Selection { name, root, entries }))
}

/// `Path::join` without the slash at the end that an empty second part leaves.
pub(super) fn join(base: &Path, relative: &Path) -> PathBuf {
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
