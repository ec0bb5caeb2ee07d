//! What a source names is walked, and read where it is not known.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use box_store::side_by_side;

use super::select::{RuleSet, join};
use crate::files::{Content, Entry, EntryKind, Facts, FileTree, FilesError, Meta};
use crate::ignore::Level;

/// From so many directories in one on, they are walked on all processors.
const APART: usize = 2;

/// A walk of what one source names.
pub(super) struct Walk<'a> {
    tree: &'a dyn FileTree,
    root: &'a Path,
    sets: &'a [RuleSet<'a>],
    entries: Vec<Entry>,
    /// Directories that are ignored themselves, from the outermost: there only if something in them is.
    pending: Vec<Entry>,
    /// Files that are still to be read, by their places in `entries`.
    unread: Vec<usize>,
    /// Whether this is the walk of a part, beside others.
    is_apart: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a dyn FileTree, root: &'a Path, sets: &'a [RuleSet<'a>]) -> Walk<'a> {
        Walk {
            tree,
            root,
            sets,
            entries: Vec::new(),
            pending: Vec::new(),
            unread: Vec::new(),
            is_apart: false,
        }
    }

    /// `above`: what each set says of the directory that it is in.
    pub(super) fn visit(&mut self, relative: PathBuf, meta: Meta, above: &[Level]) -> Result<(), FilesError> {
        let path = join(self.root, &relative);
        if meta.kind == EntryKind::Directory {
            return self.directory(&path, relative, meta, above);
        }
        let is_ignored = self.sets.iter().zip(above).any(|(set, level)| {
            let known = set.path(&path, &relative);
            known.is_some_and(|known| set.rules.ignores_in(level, known))
        });
        if !is_ignored && meta.kind != EntryKind::Socket {
            let entry = self.read(&path, relative, meta)?;
            self.push(entry);
        }
        Ok(())
    }

    /// Reads what is not known yet, on all processors.
    pub(super) fn finish(self) -> Result<Vec<Entry>, FilesError> {
        let Walk {
            tree,
            root,
            mut entries,
            unread,
            ..
        } = self;
        let read = side_by_side::each(unread.len(), side_by_side::FILES, |at| {
            let entry = &entries[unread[at]];
            tree.facts(&join(root, &entry.relative), &entry.meta)
        })?;
        for (at, Facts { digest, xattrs }) in unread.into_iter().zip(read) {
            entries[at].content = Content::File(digest);
            entries[at].xattrs = xattrs;
        }
        Ok(entries)
    }

    fn directory(
        &mut self,
        path: &Path,
        relative: PathBuf,
        meta: Meta,
        above: &[Level],
    ) -> Result<(), FilesError> {
        let level = |(set, above): (&RuleSet<'_>, &Level)| {
            let known = if set.is_relative { &relative } else { path };
            // No pattern says anything of a root.
            match known.as_os_str().is_empty() {
                true => set.rules.root(),
                false => set.rules.enter(above, known),
            }
        };
        let levels: Vec<Level> = self.sets.iter().zip(above).map(level).collect();
        if levels.iter().any(Level::may_skip) {
            return Ok(());
        }
        let entry = self.read(path, relative.clone(), meta)?;
        let depth = self.pending.len();
        match levels.iter().any(Level::ignored) {
            true => self.pending.push(entry),
            false => self.push(entry),
        }
        let all = self.tree.list(path)?;
        let directories = all.iter().filter(|(_, meta)| meta.kind == EntryKind::Directory);
        if !self.is_apart && directories.count() >= APART {
            self.visit_apart(&relative, all, &levels)?;
        } else {
            for (name, meta) in all {
                self.visit(join(&relative, Path::new(&name)), meta, &levels)?;
            }
        }
        self.pending.truncate(depth);
        Ok(())
    }

    /// Visits what is in a directory on all processors, each entry apart.
    fn visit_apart(
        &mut self,
        relative: &Path,
        all: Vec<(OsString, Meta)>,
        levels: &[Level],
    ) -> Result<(), FilesError> {
        let (tree, root, sets) = (self.tree, self.root, self.sets);
        let parts = side_by_side::each(all.len(), 1, |at| {
            let (name, meta) = &all[at];
            let mut walk = Walk {
                is_apart: true,
                ..Walk::new(tree, root, sets)
            };
            walk.visit(join(relative, Path::new(name)), meta.clone(), levels)?;
            Ok::<_, FilesError>((walk.entries, walk.unread))
        })?;
        for (entries, unread) in parts {
            if entries.is_empty() {
                continue;
            }
            self.entries.append(&mut self.pending);
            let before = self.entries.len();
            self.unread.extend(unread.into_iter().map(|at| before + at));
            self.entries.extend(entries);
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        self.entries.append(&mut self.pending);
        if entry.meta.kind == EntryKind::File && entry.content == Content::Nothing {
            self.unread.push(self.entries.len());
        }
        self.entries.push(entry);
    }

    fn read(&self, path: &Path, relative: PathBuf, meta: Meta) -> Result<Entry, FilesError> {
        let (content, xattrs) = match meta.kind {
            EntryKind::File => {
                let known = self.tree.known(path, &meta)?;
                // What is not known is read in the end.
                known.map_or((Content::Nothing, Vec::new()), |facts| {
                    (Content::File(facts.digest), facts.xattrs)
                })
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
