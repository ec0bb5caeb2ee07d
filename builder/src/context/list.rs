//! What a context holds, and what of it is ignored for which line.

use std::path::{Path, PathBuf};

use super::Context;
use crate::files::{EntryKind, FileTree, FilesError, Meta};
use crate::ignore::{IgnoreRule, IgnoreRules, Level};

/// Everything in a context, in the order of a walk.
#[derive(Clone, Debug, Default)]
pub struct ContextList {
    /// The ignore file that counts.
    pub ignore_file: Option<String>,
    /// Files, links and ignored directories. Directories that are not ignored are not listed themselves unless they are empty.
    pub entries: Vec<ContextEntry>,
    /// What is odd about the ignore files.
    pub note: Option<String>,
}

/// One thing in a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextEntry {
    /// Relative to the context.
    pub path: PathBuf,
    /// Its type.
    pub kind: EntryKind,
    /// Bytes; of a directory those of all files in it.
    pub size: u64,
    /// How many files it stands for: 1, or those in a directory.
    pub files: u64,
    /// Why it is ignored.
    pub rule: Option<IgnoreRule>,
}

/// Lists a context. No file is read but the ignore file.
///
/// # Errors
/// When it can't be read.
pub fn list(context: &Context<'_>) -> Result<ContextList, FilesError> {
    let note = context.load_rules()?;
    let none = IgnoreRules::default();
    let rules = context.rules().unwrap_or(&none);
    let mut walk = Walk {
        context,
        rules,
        entries: Vec::new(),
    };
    walk.directory(Path::new(""), &rules.root())?;
    Ok(ContextList {
        ignore_file: context.ignore_file().map(str::to_owned),
        entries: walk.entries,
        note,
    })
}

struct Walk<'a> {
    context: &'a Context<'a>,
    rules: &'a IgnoreRules,
    entries: Vec<ContextEntry>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, level: &Level) -> Result<(), FilesError> {
        for (name, meta) in self.context.list(path)? {
            let path = path.join(name);
            let rule = self.rules.rule_in(level, &path).cloned();
            match meta.kind {
                EntryKind::Directory => self.subdirectory(path, rule, level)?,
                _ => self.push(path, &meta, rule),
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        path: PathBuf,
        rule: Option<IgnoreRule>,
        above: &Level,
    ) -> Result<(), FilesError> {
        let level = self.rules.enter(above, &path);
        if level.may_skip() {
            let (files, size) = self.totals(&path)?;
            self.entries.push(ContextEntry {
                path,
                kind: EntryKind::Directory,
                size,
                files,
                rule,
            });
            return Ok(());
        }
        let before = self.entries.len();
        self.directory(&path, &level)?;
        if self.entries.len() == before {
            self.entries.push(ContextEntry {
                path,
                kind: EntryKind::Directory,
                size: 0,
                files: 0,
                rule,
            });
        }
        Ok(())
    }

    fn push(&mut self, path: PathBuf, meta: &Meta, rule: Option<IgnoreRule>) {
        self.entries.push(ContextEntry {
            path,
            kind: meta.kind,
            size: bytes(meta),
            files: 1,
            rule,
        });
    }

    /// Files in a directory, and their bytes.
    fn totals(&self, path: &Path) -> Result<(u64, u64), FilesError> {
        let (mut files, mut size) = (0, 0);
        for (name, meta) in self.context.list(path)? {
            let (more, bytes) = match meta.kind {
                EntryKind::Directory => self.totals(&path.join(name))?,
                _ => (1, bytes(&meta)),
            };
            files += more;
            size += bytes;
        }
        Ok((files, size))
    }
}

fn bytes(meta: &Meta) -> u64 {
    match meta.kind {
        EntryKind::File => meta.size,
        _ => 0,
    }
}
