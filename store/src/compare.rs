//! How two root file systems differ, entry by entry.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::beneath::Kind;
use crate::error::{IoContext, Result};
use crate::layer::Layer;
use crate::tree::{Tree, TreeEntry};

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is in the new one alone.
    Added,
    /// It is in both, and not the same.
    Modified,
    /// It is in the old one alone; so is what was in it.
    Removed,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, relative to the root.
    pub path: PathBuf,
    /// What became of it.
    pub change: Change,
    /// Of what was modified: `type`, `content`, `target`, `device`, `mode`, `owner`, `xattrs`, `time`.
    pub what: Vec<&'static str>,
}

/// Compares two stacks of layers, bottom first, and tells each difference, in the order of their paths: a directory, then what is in it. Of a removed
/// directory it is told alone. Times (those of a canonical tar) are compared if `with_times`; which files are hard links of each other is not.
///
/// # Errors
/// When a layer can't be read, or with what `tell` gives.
pub fn compare<E: From<crate::error::StoreError>>(
    old: &[Layer],
    new: &[Layer],
    with_times: bool,
    tell: &mut dyn FnMut(Difference) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let comparison = Comparison {
        old: Tree::new(old),
        new: Tree::new(new),
        with_times,
    };
    let what = comparison.of_root();
    if !what.is_empty() {
        let (path, change) = (PathBuf::new(), Change::Modified);
        tell(Difference { path, change, what })?;
    }
    // What is still to be looked at, the next one last.
    let mut ahead = comparison.children(Path::new(""), true)?;
    while let Some(path) = ahead.pop() {
        let (old, new) = (comparison.old.lookup(&path)?, comparison.new.lookup(&path)?);
        let is_dir = |entry: &Option<TreeEntry>| {
            entry
                .as_ref()
                .is_some_and(|entry| entry.metadata.kind == Kind::Directory)
        };
        let (was_dir, is_dir) = (is_dir(&old), is_dir(&new));
        if let Some(difference) = comparison.difference(&path, old.as_ref(), new.as_ref())? {
            tell(difference)?;
        }
        if is_dir {
            ahead.extend(comparison.children(&path, was_dir)?);
        }
    }
    Ok(())
}

/// The offset of the first byte by which a file differs in two stacks of layers; none if it is no file in both, or the same.
///
/// # Errors
/// When it can't be read.
pub fn first_difference(old: &[Layer], new: &[Layer], path: &Path) -> Result<Option<u64>> {
    let comparison = Comparison {
        old: Tree::new(old),
        new: Tree::new(new),
        with_times: false,
    };
    let is_file = |tree: &Tree| -> Result<bool> {
        let entry = tree.lookup(path)?;
        Ok(entry.is_some_and(|entry| entry.metadata.kind == Kind::File))
    };
    match is_file(&comparison.old)? && is_file(&comparison.new)? {
        true => comparison.first_byte(path),
        false => Ok(None),
    }
}

struct Comparison {
    old: Tree,
    new: Tree,
    with_times: bool,
}

impl Comparison {
    fn of_root(&self) -> Vec<&'static str> {
        let (a, b) = (self.old.root_attrs(), self.new.root_attrs());
        let parts = [
            (a.mode != b.mode, "mode"),
            ((a.uid, a.gid) != (b.uid, b.gid), "owner"),
            (a.xattrs != b.xattrs, "xattrs"),
        ];
        parts
            .iter()
            .filter(|(differs, _)| *differs)
            .map(|(_, what)| *what)
            .collect()
    }

    /// The paths in a directory of the new side, and of the old one if it is a directory there, too; last first.
    fn children(&self, path: &Path, in_old: bool) -> Result<Vec<PathBuf>> {
        let mut names = BTreeSet::new();
        for tree in [Some(&self.new), in_old.then_some(&self.old)]
            .into_iter()
            .flatten()
        {
            names.extend(tree.read_dir(path)?.into_iter().map(|(name, _)| name));
        }
        Ok(names.into_iter().rev().map(|name| path.join(name)).collect())
    }

    fn difference(
        &self,
        path: &Path,
        old: Option<&TreeEntry>,
        new: Option<&TreeEntry>,
    ) -> Result<Option<Difference>> {
        let (change, what) = match (old, new) {
            (None, None) => return Ok(None),
            (None, Some(_)) => (Change::Added, Vec::new()),
            (Some(_), None) => (Change::Removed, Vec::new()),
            (Some(old), Some(new)) => (Change::Modified, self.what(path, old, new)?),
        };
        let is_same = change == Change::Modified && what.is_empty();
        Ok((!is_same).then(|| Difference {
            path: path.to_owned(),
            change,
            what,
        }))
    }

    fn what(&self, path: &Path, old: &TreeEntry, new: &TreeEntry) -> Result<Vec<&'static str>> {
        let (a, b) = (&old.metadata, &new.metadata);
        let is_one = a.inode == b.inode;
        let mut what = Vec::new();
        if self.with_times && old.canonical_mtime() != new.canonical_mtime() {
            what.push("time");
        }
        if is_one {
            return Ok(what);
        }
        if a.mode != b.mode && a.kind != Kind::Symlink {
            what.push("mode");
        }
        if (a.uid, a.gid) != (b.uid, b.gid) {
            what.push("owner");
        }
        if self.old.xattrs(path)? != self.new.xattrs(path)? {
            what.push("xattrs");
        }
        let content = match (a.kind, b.kind) {
            (a, b) if a != b => Some("type"),
            (Kind::File, _) if a.size != b.size || !self.is_same_file(path)? => Some("content"),
            (Kind::Symlink, _) if self.old.read_link(path)? != self.new.read_link(path)? => Some("target"),
            (Kind::CharDevice | Kind::BlockDevice, _) if a.device != b.device => Some("device"),
            _ => None,
        };
        what.extend(content);
        what.sort_unstable();
        Ok(what)
    }

    fn is_same_file(&self, path: &Path) -> Result<bool> {
        Ok(self.first_byte(path)?.is_none())
    }

    /// Where two files differ first; the end of the shorter one, if that is the beginning of the other.
    fn first_byte(&self, path: &Path) -> Result<Option<u64>> {
        let (mut old, mut new) = (self.old.open_file(path)?, self.new.open_file(path)?);
        let (mut a, mut b) = (vec![0; 128 << 10], vec![0; 128 << 10]);
        let mut offset = 0;
        loop {
            let (count, other) = (fill(&mut old, &mut a, path)?, fill(&mut new, &mut b, path)?);
            let both = count.min(other);
            if let Some(at) = (0..both).find(|at| a[*at] != b[*at]) {
                return Ok(Some(offset + at as u64));
            }
            offset += both as u64;
            match (count == other, both) {
                (false, _) => return Ok(Some(offset)),
                (true, 0) => return Ok(None),
                (true, _) => {}
            }
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8], path: &Path) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
    Ok(filled)
}
