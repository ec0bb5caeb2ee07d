//! From a step's upper directory to a layer: one walk that cleans it up and learns what must be known of it.
//!
//! The tree is hostile data. What a tar can't hold, or what would mean nothing, is removed from the disk too: overlayfs' own
//! attributes (whoever set them), sockets, removals of what is not there, opacity over nothing. After that the tree,
//! with its [`LayerFacts`], says exactly what its canonical tar says.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Timestamps};

use crate::beneath::{self, Kind, Metadata, Visit, Walk};
use crate::error::{IoContext, Result, StoreError};
use crate::layer::survey::Survey;
use crate::layer::tar::kept_xattrs;
use crate::layer::{DirAttrs, LayerFacts, whiteout};
use crate::root::OverlayXattrs;
use crate::snapshot::canvas::timestamps;
use crate::snapshot::clock::Clock;
use crate::stamp::Stamp;
use crate::tree::{Tree, TreeEntry};

/// Cleans up the upper directory of a step on top of `below`.
pub(crate) fn normalise(
    upper: impl AsFd,
    below: &Tree,
    clock: Clock,
    overlay_xattrs: OverlayXattrs,
) -> Result<LayerFacts> {
    let root = changed_root(&upper, below)?;
    let survey = Survey::counting_opaque();
    let mut diff = Diff {
        below,
        clock,
        overlay_xattrs,
        survey,
        hidden: HashSet::new(),
    };
    let mut walk = Walk::new(&upper).at("read", "")?;
    loop {
        match walk.next() {
            Ok(Some(visit)) => diff.entry(&visit)?,
            Ok(None) => break,
            Err(error) => return Err(error).at("read", walk.path()),
        }
    }
    Ok(diff.survey.facts(diff.clock.finish(), root, Vec::new()))
}

/// The root's attributes, if the step changed them.
fn changed_root(upper: impl AsFd, below: &Tree) -> Result<Option<DirAttrs>> {
    let path = Path::new("/");
    let name = OsStr::new(".");
    for (attribute, _) in beneath::xattrs(&upper, name).at("read attributes of", path)? {
        if whiteout::is_overlay_xattr(&attribute) {
            beneath::remove_xattr(&upper, name, &attribute).at("remove an attribute of", path)?;
        }
    }
    let Some(metadata) = beneath::lookup(&upper, Path::new("")).at("read", path)? else {
        return Ok(None);
    };
    let Metadata { mode, uid, gid, .. } = metadata;
    let attrs = DirAttrs {
        mode,
        uid,
        gid,
        xattrs: kept_xattrs(&upper, name, path)?,
    };
    Ok(Some(attrs).filter(|attrs| *attrs != below.root_attrs()))
}

struct Diff<'a> {
    below: &'a Tree,
    clock: Clock,
    overlay_xattrs: OverlayXattrs,
    survey: Survey,
    /// Directories that show nothing of what is below them.
    hidden: HashSet<PathBuf>,
}

impl Diff<'_> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<()> {
        let below = self.visible_below(visit.path)?;
        let metadata = &visit.metadata;
        if metadata.is_whiteout() {
            if below.is_none() {
                return remove(visit);
            }
            self.survey.add_removal();
            return Ok(());
        }
        if metadata.kind == Kind::Socket {
            self.survey.sockets += 1;
            return remove(visit);
        }
        if whiteout::is_tar_name(&visit.name) {
            let path = visit.path.to_owned();
            return Err(StoreError::WhiteoutName { path });
        }
        let below_is_dir = below
            .as_ref()
            .is_some_and(|below| below.metadata.kind == Kind::Directory);
        let is_opaque = self.strip_xattrs(visit, below_is_dir)?;
        if is_opaque {
            self.survey.add_removal();
            self.survey.opaque = self.survey.opaque.map(|count| count + 1);
        }
        if metadata.kind == Kind::Directory && (is_opaque || !below_is_dir) {
            self.hidden.insert(visit.path.to_owned());
        }
        let below = below.map(|below| (below.metadata.mtime, below.canonical_mtime()));
        let canonical = self.clock.canonical(metadata.mtime, below)?;
        let metadata = match self.clock.stamp_instead(metadata.mtime, canonical) {
            None => *metadata,
            Some(stamp) => {
                set_mtime(visit, stamp)?;
                Metadata {
                    mtime: stamp,
                    ..*metadata
                }
            }
        };
        self.survey
            .add(&metadata, canonical, self.clock.is_logical(metadata.mtime));
        Ok(())
    }

    fn visible_below(&self, path: &Path) -> Result<Option<TreeEntry>> {
        let is_hidden = path.parent().is_some_and(|parent| self.hidden.contains(parent));
        if is_hidden {
            Ok(None)
        } else {
            self.below.lookup(path)
        }
    }

    /// Removes overlayfs' attributes but opacity over a directory; says whether that is there.
    fn strip_xattrs(&self, visit: &Visit<'_>, below_is_dir: bool) -> Result<bool> {
        let mut is_opaque = false;
        let attributes = beneath::xattrs(visit.dir, &visit.name).at("read attributes of", visit.path)?;
        for (name, value) in attributes {
            if !whiteout::is_overlay_xattr(&name) {
                continue;
            }
            let can_be_opaque = below_is_dir && visit.metadata.kind == Kind::Directory;
            if can_be_opaque && name == self.overlay_xattrs.opaque() && value == b"y" {
                is_opaque = true;
            } else {
                beneath::remove_xattr(visit.dir, &visit.name, &name)
                    .at("remove an attribute of", visit.path)?;
            }
        }
        Ok(is_opaque)
    }
}

fn set_mtime(visit: &Visit<'_>, stamp: Stamp) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(visit.dir, &visit.name, &timestamps(stamp), flags).at("set the time of", visit.path)
}

/// Removes an entry; the time of its directory stays, since it says what the step did.
fn remove(visit: &Visit<'_>) -> Result<()> {
    let stat = rustix::fs::fstat(visit.dir).at("read", visit.path)?;
    rustix::fs::unlinkat(visit.dir, &visit.name, AtFlags::empty()).at("remove", visit.path)?;
    let mtime = Metadata::from_stat(&stat).mtime.timespec();
    rustix::fs::futimens(
        visit.dir,
        &Timestamps {
            last_access: mtime,
            last_modification: mtime,
        },
    )
    .at("set the times of the directory of", visit.path)
}
