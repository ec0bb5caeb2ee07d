//! Snapshots: what a step or a container writes into, and how it becomes a layer.

mod canvas;
mod clock;
mod content;
mod diff;
mod fixup;
mod options;
mod over;
mod plan;
mod reserved;
mod unstack;
mod writer;

use std::sync::Arc;

pub use options::{MountStub, Mtimes, OverlayDirs, PrepareOptions};
pub use reserved::Reserved;
pub use writer::{Attrs, LayerWriter};

use crate::beneath;
use crate::disk::Disk;
use crate::error::{IoContext, Result};
use crate::layer::{Draft, Layer, Layers, fetch_all, visible};
use crate::root::Root;
pub(crate) use crate::snapshot::clock::logical_time;
pub(crate) use crate::snapshot::unstack::unstacked;
use crate::trash::TempDir;

use crate::snapshot::clock::Clock;
use crate::tree::Tree;

pub(crate) use fixup::{Fixups, set_dir_attrs};

/// A place to write into, on top of layers. Dropping it discards what was written.
#[derive(Debug)]
pub struct ActiveSnapshot {
    layers: Arc<Layers>,
    disk: Disk,
    temp: TempDir,
    dirs: OverlayDirs,
    lowers: Vec<Layer>,
    clock: Clock,
}

impl ActiveSnapshot {
    /// What to mount.
    pub fn dirs(&self) -> &OverlayDirs {
        &self.dirs
    }

    /// The layers it lies on, bottom first, as they are mounted.
    pub fn layers(&self) -> &[Layer] {
        &self.lowers
    }

    /// The layer's logical time L: what RUN sees as SOURCE_DATE_EPOCH, in seconds since 1970.
    pub fn logical_time(&self) -> i64 {
        self.clock.logical_time()
    }

    /// Makes it ready to be mounted once more, with what was written so far. What had it mounted must be gone. (A work directory that was
    /// used by a volatile overlay takes no second mount, so it gets another one.)
    pub fn mount_again(&mut self) -> Result<()> {
        let mut name = self.dirs.work.file_name().unwrap_or_default().to_owned();
        name.push("+");
        let work = self.temp.path().join(name);
        self.disk.make_dir(&work)?;
        self.dirs.work = work;
        Ok(())
    }

    /// Says that what writes here sees these [layers](Self::layers) in mounts: of what is copied from them with its times, those that say when a layer
    /// was made here must not get into the new one.
    pub fn sees(&mut self, mounted: &[Layer]) {
        self.clock.sees(mounted);
    }

    /// Makes a layer of what was written: the upper directory is cleaned up and renamed, never copied. Nothing may have the
    /// overlay mounted any more. The layer is usable at once; its digest may still be on its way.
    pub fn commit(self) -> Result<Layer> {
        let upper = beneath::open_root(&self.dirs.upper).at("open", &self.dirs.upper)?;
        let facts = diff::normalise(
            &upper,
            &Tree::new(&self.lowers),
            self.clock,
            self.dirs.overlay_xattrs,
        )?;
        drop(upper);
        self.temp.part_with(self.dirs.work);
        self.layers.adopt(Draft {
            temp: self.temp,
            tree: self.dirs.upper,
            facts,
            diff_id: None,
        })
    }
}

/// Prepares a snapshot on these layers, bottom first.
pub(crate) fn prepare(
    root: &Arc<Root>,
    layers: &Arc<Layers>,
    fixups: &Fixups,
    lowers: &[Layer],
    options: &PrepareOptions,
) -> Result<ActiveSnapshot> {
    fetch_all(lowers)?;
    let lowers = &unstacked(root, layers, lowers)?[..];
    let tree = Tree::new(lowers);
    let mut lower = Vec::with_capacity(lowers.len() + 1);
    lower.extend(fixups.lower(root, &tree, &options.mount_stubs)?);
    lower.extend(visible(lowers).iter().rev().map(Layer::path));
    let temp = root.step_dir()?;
    let (upper, work) = (temp.path().join("upper"), temp.path().join("work"));
    root.disk.make_dir(&upper)?;
    root.disk.make_dir(&work)?;
    fixup::set_dir_attrs(&upper, &tree.root_attrs())?;
    let dirs = OverlayDirs {
        lower,
        upper,
        work,
        overlay_xattrs: root.overlay_xattrs,
    };
    let clock = Clock::start(lowers, options, root.clock_offset);
    Ok(ActiveSnapshot {
        layers: Arc::clone(layers),
        disk: root.disk.clone(),
        temp,
        dirs,
        lowers: lowers.to_vec(),
        clock,
    })
}
