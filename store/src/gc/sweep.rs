//! Removing what is dead: names for it first, then the things.

use std::path::{Path, PathBuf};

use super::alone::Alone;
use super::mark::Gone;
use crate::digest::DiffId;
use crate::error::Result;
use crate::root::Root;

/// Takes everything out of sight while nobody else is there, then lets others go on, then removes it.
pub(super) fn sweep(root: &Root, alone: Alone<'_>, gone: Gone) -> Result<()> {
    for path in &gone.files {
        root.disk.remove_file(path)?;
    }
    let mut hidden = Vec::new();
    for digest in &gone.layers {
        let diff_id = DiffId(*digest);
        // What says that it exists goes first: a tree without it is as good as none.
        root.disk.remove_file(&root.layout.meta(&diff_id))?;
        root.disk.remove_file(&root.layout.synced(&diff_id))?;
        hidden.extend(hide(root, &root.layout.layer(&diff_id))?);
    }
    for path in &gone.spare {
        hidden.extend(hide(root, path)?);
    }
    for digest in &gone.blobs {
        root.disk.remove_file(&root.layout.blob(digest))?;
    }
    alone.tidy_uses()?;
    root.wrote();
    drop(alone);
    for path in hidden {
        root.disk.remove_tree(&path)?;
    }
    Ok(())
}

/// Moves a tree to where only this process looks; one that can't be moved (there is no byte free for it) is removed at once.
fn hide(root: &Root, tree: &Path) -> Result<Option<PathBuf>> {
    if std::fs::symlink_metadata(tree).is_err() {
        return Ok(None);
    }
    if let Ok(place) = root.temp_path()
        && root.disk.rename_into(tree, &place).is_ok()
    {
        return Ok(Some(place));
    }
    root.disk.remove_tree(tree)?;
    Ok(None)
}
