//! Layers whose tree was not made yet get it before they are mounted.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::beneath::{self, Kind, Visit};
use crate::error::{IoContext, Result, StoreError};
use crate::layer::{Layer, LayerTimes, Layers};
use crate::root::Root;
use crate::side_by_side;
use crate::snapshot::options::PrepareOptions;
use crate::snapshot::reserved::Reserved;
use crate::snapshot::writer::{Attrs, LayerWriter};

/// The same layers, each with a tree of its own. Their digests stay.
///
/// # Errors
/// When a tree can't be read or written, or is not what its digest says.
pub(crate) fn unstacked(root: &Arc<Root>, layers: &Arc<Layers>, lowers: &[Layer]) -> Result<Vec<Layer>> {
    let one = |layer: &Layer| match layer.is_stacked() {
        true => Ok(make(root, layers, layer)?.with_kept_limit_of(layer)),
        false => Ok(layer.clone()),
    };
    lowers.iter().map(one).collect()
}

/// The tree that a copy of all would have made when the copy of what differs was: everything has that time.
fn make(root: &Arc<Root>, layers: &Arc<Layers>, stacked: &Layer) -> Result<Layer> {
    let wanted = stacked.diff_id()?;
    if let Some(layer) = layers.get_plain(&wanted)? {
        return Ok(layer);
    }
    let stamp = stacked.facts().committed;
    let times = LayerTimes {
        threshold: Some(stamp.sec),
        start: stamp,
        ..stacked.facts().times.clone()
    };
    let mut writer = LayerWriter::new(root, layers, &[], &PrepareOptions::default())?;
    writer.clock.take(times);
    writer.canvas.stamp = stamp;
    let mut walk = stacked.walk()?;
    let mut files = Files::default();
    while let Some(visit) = walk.next().at("read", PathBuf::new())? {
        write(&mut writer, &mut files, &visit)?;
    }
    files.write()?;
    let layer = writer.commit()?;
    let found = layer.diff_id()?;
    if found == wanted {
        // If somebody else made it meanwhile, theirs stays when this one goes.
        return Ok(layers.get_plain(&wanted)?.unwrap_or(layer));
    }
    layers.drop_stack(stacked)?;
    Err(StoreError::Mismatch {
        what: "layer",
        expected: wanted.0,
        found: found.0,
    })
}

fn write(writer: &mut LayerWriter, files: &mut Files, visit: &Visit<'_>) -> Result<()> {
    let (path, metadata) = (visit.path, &visit.metadata);
    let attrs = Attrs {
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        xattrs: beneath::xattrs(visit.dir, &visit.name).at("read attributes of", path)?,
        mtime: None,
    };
    match metadata.kind {
        Kind::Directory => writer.directory(path, &attrs),
        Kind::File => {
            let mut file = beneath::open_seen(visit.dir, &visit.name).at("open", path)?;
            match writer.reserve(path, &attrs)? {
                Some(place) => files.push(place, file),
                None => writer.file(path, &attrs, &mut file).map(drop),
            }
        }
        Kind::Symlink => {
            let target = beneath::read_link(visit.dir, visit.name.as_ref()).at("read link", path)?;
            writer.symlink(path, target.as_os_str(), &attrs)
        }
        kind => writer.node(path, kind, metadata.device, &attrs),
    }
}

/// So many files are open at once, and written on all processors.
const FILES: usize = 128;

/// Files whose places are ready.
#[derive(Default)]
struct Files(Vec<(Reserved, File)>);

impl Files {
    fn push(&mut self, place: Reserved, source: File) -> Result<()> {
        self.0.push((place, source));
        if self.0.len() < FILES {
            Ok(())
        } else {
            self.write()
        }
    }

    fn write(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.0);
        side_by_side::each(files.len(), side_by_side::FILES, |at| {
            let (place, source) = &files[at];
            place.write(&mut &*source)
        })
        .map(drop)
    }
}
