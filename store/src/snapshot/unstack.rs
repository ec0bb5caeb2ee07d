//! Layers whose tree was not made yet get it before they are mounted.

use std::path::PathBuf;
use std::sync::Arc;

use crate::beneath::{self, Kind, Visit};
use crate::error::{IoContext, Result, StoreError};
use crate::layer::{Layer, LayerTimes, Layers};
use crate::root::Root;
use crate::snapshot::options::PrepareOptions;
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
    while let Some(visit) = walk.next().at("read", PathBuf::new())? {
        write(&mut writer, &visit)?;
    }
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

fn write(writer: &mut LayerWriter, visit: &Visit<'_>) -> Result<()> {
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
            writer.file(path, &attrs, &mut file).map(drop)
        }
        Kind::Symlink => {
            let target = beneath::read_link(visit.dir, visit.name.as_ref()).at("read link", path)?;
            writer.symlink(path, target.as_os_str(), &attrs)
        }
        kind => writer.node(path, kind, metadata.device, &attrs),
    }
}
