//! Layers whose times on disk are in their own order.
//!
//! An equal layer that is in the store already stays when a step makes it again, with the times of its first making. Below it may
//! meanwhile be a layer that was made anew and differs: then the upper one's files are older on disk than the lower
//! one's, and `make` in a step on both would take what the upper one changes for old. Such a layer is written once more, beside the
//! store's own and for this process alone, with times after those of all below it.

use std::io;
use std::os::fd::AsFd;

use crate::digest::{Digest, Hasher};
use crate::layer::apply::{ApplyError, Extract, Extracted, Limits, Retime, Source, Time, extract};
use crate::layer::{Layer, fetch_all};
use crate::stamp::Stamp;
use crate::store::Store;

use super::{Hashed, Place, imported};

/// How long after everything below: longer than a file system's finest step, shorter than any step of a build.
const AFTER: u32 = 1_000;

impl Store {
    /// The same layers, bottom first, each newer on disk than what those below it wrote. Their digests stay. What comes back
    /// is to be used in place of the given ones from then on, or it would be made again.
    ///
    /// # Errors
    /// When a tree can't be read or written.
    pub fn in_order(&self, layers: &[Layer]) -> Result<Vec<Layer>, ApplyError> {
        fetch_all(layers)?;
        let mut newest: Option<Stamp> = None;
        let mut ordered = Vec::with_capacity(layers.len());
        for layer in &self.unstacked(layers)? {
            let below = newest.filter(|&newest| is_older(layer, newest));
            let layer = match below {
                Some(below) => self.written_after(layer, below)?,
                None => layer.clone(),
            };
            newest = newest.max(layer.newest_written());
            ordered.push(layer);
        }
        Ok(ordered)
    }

    /// The layer with a tree whose own times come right after `below`.
    fn written_after(&self, layer: &Layer, below: Stamp) -> Result<Layer, ApplyError> {
        let after = below.after(AFTER);
        let retime = Retime {
            from: time(Stamp::new(layer.logical_time(), 0)),
            to: time(after),
        };
        // It is our own tree: whatever its size, it was taken once.
        let limits = Limits {
            max_entries: u64::MAX,
            max_expanded: u64::MAX,
            max_depth: usize::MAX,
            ..Limits::default()
        };
        let how = Extract {
            is_into_users: false,
            source: Source::Layer {
                opaque_xattr: self.overlay_xattrs().opaque(),
            },
            limits: &limits,
            retime: Some(retime),
        };
        let place = Place::new(self)?;
        let (extracted, digest) = copy(layer, &place, &how)?;
        let times = imported(&retime, &extracted);
        let copy = place.adopt(self, times, extracted, Some(layer.diff_id()?))?;
        let mut hasher = Hasher::new();
        copy.write_tar(&mut hasher)?;
        // A tree that does not come back as it was is not used, whatever its times.
        match hasher.finish() == digest {
            true => Ok(copy.with_kept_limit_of(layer)),
            false => Ok(layer.clone()),
        }
    }
}

/// Whether a layer's step began before this, so that what it wrote may be older. Not if that is still to come: a clock that
/// was set back can't be mended.
fn is_older(layer: &Layer, newest: Stamp) -> bool {
    let facts = layer.facts();
    facts.window.is_some() && facts.times.start <= newest && newest < Stamp::now()
}

/// Extracts the layer's canonical tar while it is written; gives its digest, too.
fn copy(layer: &Layer, place: &Place, how: &Extract<'_>) -> Result<(Extracted, Digest), ApplyError> {
    let unreadable = |source: io::Error| ApplyError::Read { offset: 0, source };
    let (reader, mut writer) = io::pipe().map_err(unreadable)?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let written = layer.write_tar(&mut writer);
            drop(writer);
            written
        });
        let mut tar = Hashed::new(io::BufReader::with_capacity(256 << 10, reader));
        let extracted = extract(place.dir.as_fd(), &mut tar, how).map(|(extracted, _)| extracted);
        // What follows the end mark is part of the digest.
        let drained = match &extracted {
            Ok(_) => io::copy(&mut tar, &mut io::sink()).map_err(unreadable).map(drop),
            Err(_) => Ok(()),
        };
        let digest = tar.hasher.finish();
        drop(tar.inner);
        // Reading ends early only with an error, which is the one to tell.
        let written = written
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let extracted = extracted?;
        drained?;
        written?;
        Ok((extracted, digest))
    })
}

fn time(stamp: Stamp) -> Time {
    Time {
        seconds: stamp.sec,
        nanoseconds: stamp.nsec,
    }
}
