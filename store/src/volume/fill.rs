//! An empty volume gets what the image holds where it is mounted: content, owners, modes, times, attributes and hard links.
//!
//! The image's directory is first written whole into a temporary one, synced, and renamed to `volumes/<name>/fill`; from there each entry is
//! renamed into `data/`, which has the same inode all the time, since a container may have it mounted already. Whoever takes the volume next
//! goes on where a killed process stopped. All of it happens under the volume's lock, so that two first users fill it once.

use std::fs;
use std::path::Path;

use super::DATA;
use crate::beneath;
use crate::error::{IoContext, Result};
use crate::export::{Subtree, extract_subtree};
use crate::layer::apply::ApplyError;
use crate::layer::{DirAttrs, Layer};
use crate::root::Root;
use crate::snapshot::set_dir_attrs;
use crate::tree::Tree;

const FILL: &str = "fill";

/// Where the first content of a volume comes from.
#[derive(Debug, Clone, Copy)]
pub struct VolumeSource<'a> {
    /// The image's layers, bottom first.
    pub layers: &'a [Layer],
    /// An absolute path in the image; links are followed inside the image only. What is not there, or is no directory, gives nothing.
    pub path: &'a Path,
}

/// Fills the empty volume at `dir`.
pub(super) fn fill(
    root: &Root,
    dir: &Path,
    source: &VolumeSource<'_>,
    is_durable: bool,
) -> Result<(), ApplyError> {
    let tree = Tree::new(source.layers);
    let Ok(found) = tree.resolve(source.path, true) else {
        // Through a file or a circle of links: what the mount itself says of that is clearer.
        return Ok(());
    };
    let Some((attrs, _)) = tree.dir_attrs(&found.path)? else {
        return Ok(());
    };
    if tree.read_dir(&found.path)?.is_empty() {
        return Ok(set_attrs(&dir.join(DATA), &attrs)?);
    }
    let temp = root.temp_dir()?;
    let staged = temp.path().join(FILL);
    let subtree = Subtree {
        path: found.path,
        has_real_times: true,
        ..Subtree::default()
    };
    root.disk.make_dir(&staged)?;
    extract_subtree(source.layers, &subtree, &staged)?;
    set_dir_attrs(&staged, &attrs)?;
    if is_durable {
        root.wrote();
        root.sync()?;
    }
    root.disk.rename_into(&staged, &dir.join(FILL))?;
    Ok(finish(root, dir)?)
}

/// Moves what is on its way into the volume's data. What a container made there meanwhile stays.
pub(super) fn finish(root: &Root, dir: &Path) -> Result<()> {
    let (from, data) = (dir.join(FILL), dir.join(DATA));
    if fs::symlink_metadata(&from).is_err() {
        return Ok(());
    }
    let open = beneath::open_root(&from).at("open", &from)?;
    for name in beneath::names(&open).at("read", &from)? {
        let entry = from.join(&name);
        if !root.disk.rename_new(&entry, &data.join(&name))? {
            root.disk.remove_tree(&entry)?;
        }
    }
    if let Some(metadata) = beneath::lookup(&open, Path::new("")).at("read", &from)? {
        let attrs = DirAttrs {
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            xattrs: crate::layer::tar::kept_xattrs(&open, ".".as_ref(), &from)?,
        };
        set_attrs(&data, &attrs)?;
    }
    root.disk.remove_tree(&from)
}

/// Of a directory that may belong to anybody by now.
fn set_attrs(data: &Path, attrs: &DirAttrs) -> Result<()> {
    let open = beneath::open_root(data).at("open", data)?;
    beneath::give(open, attrs.uid, attrs.gid).at("set the owner of", data)?;
    set_dir_attrs(data, attrs)
}
