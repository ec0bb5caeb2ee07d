//! The fix-up lower: a small directory on top of a snapshot's lowers that never enters a layer.
//!
//! It holds what must exist to be mounted over (`/proc`, `/etc/resolv.conf`), and directories whose attributes an archive
//! left out (implied parents), which would otherwise hide those of the layer below. It is a function of its plan, and kept as
//! `fixups/<digest of the plan>/`; before it is used it is compared with the plan, since no sync covers it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, Timestamps, Uid};

use crate::beneath::{self, Kind, Metadata};
use crate::digest::Digest;
use crate::error::{IoContext, Result, StoreError};
use crate::layer::tar::kept_xattrs;
use crate::layer::{DirAttrs, EPOCH, Layer};
use crate::root::Root;
use crate::snapshot::options::MountStub;
use crate::stamp::Stamp;
use crate::tree::Tree;

/// The fix-up lowers used by this process.
#[derive(Debug, Default)]
pub(crate) struct Fixups {
    known: Mutex<HashMap<(Vec<u64>, Vec<MountStub>), Option<PathBuf>>>,
}

/// What a fix-up lower holds, by path; parents come before what is in them.
type Plan = BTreeMap<PathBuf, Planned>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    is_dir: bool,
    attrs: DirAttrs,
    mtime: Stamp,
}

impl Fixups {
    /// The fix-up lower that these layers and stubs need; none if they need none.
    pub(crate) fn lower(&self, root: &Root, tree: &Tree, stubs: &[MountStub]) -> Result<Option<PathBuf>> {
        let key = (tree.layers().iter().map(Layer::serial).collect(), stubs.to_vec());
        if let Some(known) = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(known.clone());
        }
        let plan = plan(tree, stubs)?;
        let lower = if plan.is_empty() {
            None
        } else {
            Some(provide(root, &plan)?)
        };
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, lower.clone());
        Ok(lower)
    }
}

fn plan(tree: &Tree, stubs: &[MountStub]) -> Result<Plan> {
    let mut plan = Plan::new();
    for layer in tree.layers() {
        for path in &layer.facts().implied_parents {
            plan_implied(tree, path, &mut plan)?;
        }
    }
    for stub in stubs {
        plan_stub(tree, stub, &mut plan)?;
    }
    for path in plan.keys().cloned().collect::<Vec<_>>() {
        plan_ancestors(tree, &path, &mut plan)?;
    }
    Ok(plan)
}

/// A directory that the topmost layer with it only implies, if a layer below lists it with other attributes.
fn plan_implied(tree: &Tree, path: &Path, plan: &mut Plan) -> Result<()> {
    let (Some((attrs, listed)), Some(top)) = (tree.dir_attrs(path)?, tree.lookup(path)?) else {
        return Ok(());
    };
    let Metadata {
        mode,
        uid,
        gid,
        mtime,
        ..
    } = top.metadata;
    let shown = DirAttrs {
        mode,
        uid,
        gid,
        xattrs: tree.xattrs(path)?,
    };
    if shown != attrs || mtime != listed.metadata.mtime {
        plan.insert(
            path.to_owned(),
            Planned {
                is_dir: true,
                attrs,
                mtime: listed.metadata.mtime,
            },
        );
    }
    Ok(())
}

fn plan_stub(tree: &Tree, stub: &MountStub, plan: &mut Plan) -> Result<()> {
    let (path, is_dir) = match stub {
        MountStub::Directory(path) => (path, true),
        MountStub::File(path) => (path, false),
    };
    let resolved = match tree.resolve(path, true) {
        // A rootfs in which the path leads nowhere: the runner says so when it mounts.
        Err(StoreError::NotADirectory { .. } | StoreError::TooManyLinks { .. }) => return Ok(()),
        result => result?,
    };
    if resolved.entry.is_none() && !resolved.path.as_os_str().is_empty() {
        let mode = if is_dir { 0o755 } else { 0o644 };
        let attrs = DirAttrs {
            mode,
            ..DirAttrs::default()
        };
        plan.entry(resolved.path).or_insert(Planned {
            is_dir,
            attrs,
            mtime: Stamp::new(EPOCH, 0),
        });
    }
    Ok(())
}

/// The directories above a planned entry, as they are, or as plain ones where there are none.
fn plan_ancestors(tree: &Tree, path: &Path, plan: &mut Plan) -> Result<()> {
    for ancestor in path.ancestors().skip(1) {
        if ancestor.as_os_str().is_empty() || plan.contains_key(ancestor) {
            continue;
        }
        let planned = match tree.dir_attrs(ancestor)? {
            Some((attrs, entry)) => Planned {
                is_dir: true,
                attrs,
                mtime: entry.metadata.mtime,
            },
            None => Planned {
                is_dir: true,
                attrs: DirAttrs::default(),
                mtime: Stamp::new(EPOCH, 0),
            },
        };
        plan.insert(ancestor.to_owned(), planned);
    }
    Ok(())
}

/// A text that two plans share only if they are equal.
fn digest(plan: &Plan) -> Digest {
    let mut text = String::new();
    for (path, planned) in plan {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{:?} {planned:?}", path.as_os_str().as_bytes());
    }
    Digest::of(text.as_bytes())
}

fn provide(root: &Root, plan: &Plan) -> Result<PathBuf> {
    let dest = root.layout.fixup(&digest(plan));
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
    let (uid, gid) = (Uid::from_raw(attrs.uid), Gid::from_raw(attrs.gid));
    rustix::fs::chownat(&dir, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .at("set the owner of", path)?;
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
pub(super) fn set_dir_attrs(path: &Path, attrs: &DirAttrs) -> Result<()> {
    let dir = beneath::open_root(path).at("open", path)?;
    if (attrs.uid, attrs.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(attrs.uid), Gid::from_raw(attrs.gid));
        rustix::fs::fchown(&dir, Some(uid), Some(gid)).at("set the owner of", path)?;
    }
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(attrs.mode)).at("set the mode of", path)?;
    for (name, value) in &attrs.xattrs {
        beneath::set_xattr(&dir, ".".as_ref(), name, value).at("set an attribute of", path)?;
    }
    Ok(())
}
