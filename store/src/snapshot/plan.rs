//! What a fix-up lower must hold, worked out from the layers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::beneath;
use crate::error::{IoContext, Result, StoreError};
use crate::layer::{DirAttrs, EPOCH, Layer};
use crate::snapshot::options::MountStub;
use crate::stamp::Stamp;
use crate::tree::{Tree, TreeEntry};

/// What a fix-up lower holds, by path; parents come before what is in them.
pub(super) type Plan = BTreeMap<PathBuf, Planned>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) is_dir: bool,
    pub(super) attrs: DirAttrs,
    pub(super) mtime: Stamp,
}

/// The names in the root directory that a plan depends on.
pub(super) type Watched = BTreeSet<OsString>;

/// Whether a layer on top of those that were planned for changes nothing that the plan depends on.
pub(super) fn leaves_alone(layer: &Layer, watched: &Watched) -> Result<bool> {
    if !layer.facts().implied_parents.is_empty() {
        return Ok(false);
    }
    for name in watched {
        if beneath::stat(layer.dir()?, name).at("read", name)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Works out what these layers and stubs need, and what that depends on.
pub(super) fn plan(tree: &Tree, stubs: &[MountStub]) -> Result<(Plan, Watched)> {
    let (mut plan, mut watched) = (Plan::new(), Watched::new());
    for layer in tree.layers() {
        for path in &layer.facts().implied_parents {
            plan_implied(tree, path, &mut plan)?;
        }
    }
    for stub in stubs {
        plan_stub(tree, stub, &mut plan, &mut watched)?;
    }
    for path in plan.keys().cloned().collect::<Vec<_>>() {
        plan_ancestors(tree, &path, &mut plan)?;
    }
    plan.keys().for_each(|path| watch(path, &mut watched));
    Ok((plan, watched))
}

fn watch(path: &Path, watched: &mut Watched) {
    watched.extend(path.iter().find(|name| *name != "/").map(OsString::from));
}

/// A directory that the topmost layer with it only implies, if a layer below lists it.
fn plan_implied(tree: &Tree, path: &Path, plan: &mut Plan) -> Result<()> {
    let (Some((attrs, listed)), Some(top)) = (tree.dir_attrs(path)?, tree.topmost(path)?) else {
        return Ok(());
    };
    let serial = |entry: &TreeEntry| entry.layer.as_ref().map(Layer::serial);
    if serial(&listed) != serial(&top) {
        let mtime = listed.metadata.mtime;
        plan.insert(
            path.to_owned(),
            Planned {
                is_dir: true,
                attrs,
                mtime,
            },
        );
    }
    Ok(())
}

fn plan_stub(tree: &Tree, stub: &MountStub, plan: &mut Plan, watched: &mut Watched) -> Result<()> {
    let (path, is_dir) = match stub {
        MountStub::Directory(path) => (path, true),
        MountStub::File(path) => (path, false),
    };
    let resolved = match tree.resolve_watched(path, true, &mut |visited| watch(visited, watched)) {
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
