//! What one walk learns of a tree: times, sizes, ids.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::beneath::{Kind, Metadata, Walk};
use crate::error::{IoContext, Result};
use crate::layer::meta::{DirAttrs, LayerFacts, LayerTimes};
use crate::stamp::Stamp;

/// Adds up [`LayerFacts`], entry by entry.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    newest: Option<i64>,
    newest_on_disk: Option<Stamp>,
    window: Option<(Stamp, Stamp)>,
    size: u64,
    entries: u64,
    pub(crate) sockets: u64,
    pub(crate) opaque: Option<u64>,
    id_pages: BTreeSet<u32>,
    linked: HashSet<(u64, u64)>,
}

impl Survey {
    /// A survey whose caller counts opaque directories.
    pub(crate) fn counting_opaque() -> Survey {
        Survey {
            opaque: Some(0),
            ..Survey::default()
        }
    }

    /// A removal: it has neither time nor owner.
    pub(crate) fn add_removal(&mut self) {
        self.entries += 1;
    }

    /// An entry, its canonical time, and whether its step wrote it (by the threshold alone).
    pub(crate) fn add(&mut self, metadata: &Metadata, canonical: i64, is_logical: bool) {
        self.entries += 1;
        self.newest = self.newest.max(Some(canonical));
        self.newest_on_disk = self.newest_on_disk.max(Some(metadata.mtime));
        if is_logical {
            let (oldest, newest) = self.window.unwrap_or((metadata.mtime, metadata.mtime));
            self.window = Some((oldest.min(metadata.mtime), newest.max(metadata.mtime)));
        }
        self.add_ids(metadata.uid, metadata.gid);
        let is_first_name = metadata.nlink < 2 || self.linked.insert(metadata.inode);
        if metadata.kind == Kind::File && is_first_name {
            self.size = self.size.saturating_add(metadata.size);
        }
    }

    fn add_ids(&mut self, uid: u32, gid: u32) {
        self.id_pages.extend([uid >> 16, gid >> 16]);
    }

    /// All that was learnt.
    pub(crate) fn facts(
        mut self,
        times: LayerTimes,
        root: Option<DirAttrs>,
        mut implied_parents: Vec<PathBuf>,
    ) -> LayerFacts {
        implied_parents.sort_unstable();
        implied_parents.dedup();
        if let Some(root) = &root {
            self.add_ids(root.uid, root.gid);
        }
        LayerFacts {
            times,
            newest: self.newest,
            newest_on_disk: self.newest_on_disk,
            window: self.window,
            committed: Stamp::now(),
            size: self.size,
            entries: self.entries,
            sockets: self.sockets,
            opaque: self.opaque,
            id_pages: self.id_pages.into_iter().collect(),
            root,
            implied_parents,
            hides_below: false,
        }
    }
}

/// Looks through a tree that needs no cleaning (a written layer, an extracted archive).
pub(crate) fn survey(
    tree: impl AsFd,
    times: LayerTimes,
    root: Option<DirAttrs>,
    implied_parents: Vec<PathBuf>,
) -> Result<LayerFacts> {
    let mut survey = Survey::default();
    let mut walk = Walk::new(tree).at("read", "")?;
    loop {
        let metadata = match walk.next() {
            Ok(Some(visit)) => visit.metadata,
            Ok(None) => break,
            Err(error) => return Err(error).at("read", walk.path()),
        };
        if metadata.is_whiteout() {
            survey.add_removal();
        } else {
            survey.add(
                &metadata,
                times.canonical(metadata.mtime),
                times.is_logical(metadata.mtime),
            );
        }
    }
    Ok(survey.facts(times, root, implied_parents))
}
