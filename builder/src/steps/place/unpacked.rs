//! Putting what an archive unpacks to, as tar does in the rootfs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::StepError;
use crate::files::{EntryKind, FileTree, Selection};

use super::Placer;

impl Placer<'_> {
    /// Puts an archive's entries into the destination, which is made if it is not there. What is there and of another kind is
    /// replaced, but a directory that the archive does not list (`implied`, sorted) is whatever the rootfs has there: a directory
    /// stays as it is, a link is followed inside the rootfs.
    pub(crate) fn put_unpacked(
        &mut self,
        source: &dyn FileTree,
        selection: &Selection,
        implied: &[PathBuf],
    ) -> Result<(), StepError> {
        self.linked.clear();
        let root = self.root.clone();
        self.make_dirs(&root)?;
        self.is_unpacking = true;
        let result = self.unpack(source, selection, implied, &root);
        self.is_unpacking = false;
        result
    }

    fn unpack(
        &mut self,
        source: &dyn FileTree,
        selection: &Selection,
        implied: &[PathBuf],
        root: &Path,
    ) -> Result<(), StepError> {
        // Where implied directories led elsewhere.
        let mut led: HashMap<&Path, PathBuf> = HashMap::new();
        for entry in selection.entries.iter().skip(1) {
            let relative = entry.relative.as_path();
            let place = place(root, &led, relative);
            if implied
                .binary_search_by(|path| path.as_path().cmp(relative))
                .is_ok()
            {
                let found = self.implied(&place)?;
                if found != place {
                    led.insert(relative, found);
                }
                continue;
            }
            self.entry(None, source, &selection.root.join(relative), &place, entry)?;
        }
        Ok(())
    }

    /// The directory that a path which is not listed leads to; it is made if nothing is there.
    fn implied(&mut self, path: &Path) -> Result<PathBuf, StepError> {
        let mut path = path.to_owned();
        if self.existing(&path)? == Some(EntryKind::Symlink) && !self.written.contains_key(&path) {
            path = self.tree.resolve(&path, true)?.path;
        }
        self.make_dirs(&path)?;
        Ok(path)
    }
}

/// Where an entry goes: below the nearest directory above it that was led elsewhere.
fn place(root: &Path, led: &HashMap<&Path, PathBuf>, relative: &Path) -> PathBuf {
    let elsewhere = relative.ancestors().skip(1).find_map(|above| {
        let below = relative.strip_prefix(above).ok()?;
        Some(led.get(above)?.join(below))
    });
    elsewhere.unwrap_or_else(|| root.join(relative))
}
