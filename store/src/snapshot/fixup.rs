//! The fix-up lower: a small directory on top of a snapshot's lowers that never enters a layer.
//!
//! It holds what must exist to be mounted over (`/proc`, `/etc/resolv.conf`), and directories whose attributes an archive
//! left out (implied parents), which would otherwise hide those of the layer below. It is a function of its plan, and kept as
//! `fixups/<digest of the plan>/`; before it is used it is compared with the plan, since no sync covers it.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, Timestamps};

use crate::beneath::{self, Kind};
use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::layer::tar::kept_xattrs;
use crate::layer::{DirAttrs, Layer};
use crate::root::Root;
use crate::snapshot::options::MountStub;
use crate::snapshot::plan::{self, Plan, Planned, Watched};
use crate::tree::Tree;

/// The fix-up lowers used by this process.
#[derive(Debug, Default)]
pub(crate) struct Fixups {
    known: Mutex<HashMap<Key, Known>>,
    /// Those that were compared with their plan already.
    provided: Mutex<HashSet<Digest>>,
}

/// Layers (top first, by their serial numbers) and stubs.
type Key = (Vec<u64>, Vec<MountStub>);

#[derive(Debug, Clone)]
struct Known {
    lower: Option<PathBuf>,
    watched: Arc<Watched>,
}

impl Fixups {
    /// The fix-up lower that these layers and stubs need; none if they need none.
    pub(crate) fn lower(&self, root: &Root, tree: &Tree, stubs: &[MountStub]) -> Result<Option<PathBuf>> {
        let key: Key = (tree.layers().iter().map(Layer::serial).collect(), stubs.to_vec());
        if let Some(known) = self.known(&key) {
            return Ok(known.lower);
        }
        let known = match self.known_below(&key, tree)? {
            Some(known) => known,
            None => self.make_known(root, tree, stubs)?,
        };
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, known.clone());
        Ok(known.lower)
    }

    fn known(&self, key: &Key) -> Option<Known> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// What is known without the topmost layer, if that layer makes no difference: most steps of a build don't.
    fn known_below(&self, (serials, stubs): &Key, tree: &Tree) -> Result<Option<Known>> {
        let (Some(top), Some(rest)) = (tree.layers().first(), serials.get(1..)) else {
            return Ok(None);
        };
        let Some(known) = self.known(&(rest.to_vec(), stubs.clone())) else {
            return Ok(None);
        };
        Ok(if plan::leaves_alone(top, &known.watched)? {
            Some(known)
        } else {
            None
        })
    }

    fn make_known(&self, root: &Root, tree: &Tree, stubs: &[MountStub]) -> Result<Known> {
        let (plan, watched) = plan::plan(tree, stubs)?;
        let lower = if plan.is_empty() {
            None
        } else {
            Some(self.provide(root, &plan)?)
        };
        Ok(Known {
            lower,
            watched: Arc::new(watched),
        })
    }

    fn provide(&self, root: &Root, plan: &Plan) -> Result<PathBuf> {
        let digest = digest(plan);
        if self
            .provided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&digest)
        {
            return Ok(root.layout.fixup(&digest));
        }
        let lower = provide(root, &digest, plan)?;
        self.provided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(digest);
        Ok(lower)
    }
}

/// A text that two plans share only if they are equal.
fn digest(plan: &Plan) -> Digest {
    let mut text = String::new();
    for (path, planned) in plan {
        // Writing to a string can't fail.
        let DirAttrs {
            mode,
            uid,
            gid,
            xattrs,
        } = &planned.attrs;
        let Planned { is_dir, mtime, .. } = planned;
        let path = path.as_os_str().as_bytes();
        let _ = writeln!(text, "{path:?} {is_dir} {mode:o} {uid} {gid} {mtime} {xattrs:?}");
    }
    Digest::of(text.as_bytes())
}

fn provide(root: &Root, digest: &Digest, plan: &Plan) -> Result<PathBuf> {
    let dest = root.layout.fixup(digest);
    if dest.is_dir() {
        if is_as_planned(&dest, plan)? {
            return Ok(dest);
        }
        let old = root.temp_path()?;
        root.disk.rename_into(&dest, &old)?;
        root.disk.remove_tree(&old)?;
    }
    let temp = root.temp_dir()?;
    let tree = temp.path().join("tree");
    root.disk.make_dir(&tree)?;
    make(&tree, plan)?;
    // Another process may have been first, with an equal one.
    root.disk.rename_new(&tree, &dest)?;
    Ok(dest)
}

fn is_as_planned(tree: &Path, plan: &Plan) -> Result<bool> {
    let dir = beneath::open_root(tree).at("open", tree)?;
    for (path, planned) in plan {
        let Some(found) = beneath::lookup(&dir, path).at("read", path)? else {
            return Ok(false);
        };
        let is_dir = found.kind == Kind::Directory;
        let same_owner =
            (found.uid, found.gid, found.mode) == (planned.attrs.uid, planned.attrs.gid, planned.attrs.mode);
        let parent = beneath::open_dir(&dir, path.parent().unwrap_or(Path::new(""))).at("open", path)?;
        let same_xattrs =
            kept_xattrs(&parent, path.file_name().unwrap_or_default(), path)? == planned.attrs.xattrs;
        if !(is_dir == planned.is_dir && same_owner && same_xattrs && found.mtime == planned.mtime) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make(tree: &Path, plan: &Plan) -> Result<()> {
    let dir = beneath::open_root(tree).at("open", tree)?;
    for (path, planned) in plan {
        if planned.is_dir {
            rustix::fs::mkdirat(&dir, path, Mode::from_raw_mode(0o700)).at("make directory", path)?;
        } else {
            fs::File::create_new(tree.join(path)).at("create", path)?;
        }
    }
    // Times last, from the inside out: making an entry touches its directory.
    for (path, planned) in plan.iter().rev() {
        set_attrs(&dir, path, planned)?;
    }
    Ok(())
}

fn set_attrs(dir: impl AsFd, path: &Path, planned: &Planned) -> Result<()> {
    let attrs = &planned.attrs;
    beneath::give_at(&dir, path.as_os_str(), attrs.uid, attrs.gid).at("set the owner of", path)?;
    rustix::fs::chmodat(&dir, path, Mode::from_raw_mode(attrs.mode), AtFlags::empty())
        .at("set the mode of", path)?;
    for (name, value) in &attrs.xattrs {
        beneath::set_xattr(&dir, path.as_os_str(), name, value).at("set an attribute of", path)?;
    }
    let mtime = planned.mtime.timespec();
    let times = Timestamps {
        last_access: mtime,
        last_modification: mtime,
    };
    rustix::fs::utimensat(&dir, path, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the times of", path)
}

/// Gives a directory of ours (by its trusted path) these attributes.
pub(crate) fn set_dir_attrs(path: &Path, attrs: &DirAttrs) -> Result<()> {
    let dir = beneath::open_root(path).at("open", path)?;
    if (attrs.uid, attrs.gid) != (0, 0) {
        beneath::give(&dir, attrs.uid, attrs.gid).at("set the owner of", path)?;
    }
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(attrs.mode)).at("set the mode of", path)?;
    for (name, value) in &attrs.xattrs {
        beneath::set_xattr(&dir, ".".as_ref(), name, value).at("set an attribute of", path)?;
    }
    Ok(())
}
