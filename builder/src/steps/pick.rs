//! What a source of COPY or ADD names: files of a tree, and files that are fetched.

use box_store::digest::{DiffId, Digest};
use box_store::layer::Layer;
use box_store::layer::apply::is_archive;

use crate::context::{Picking, literal, select};
use crate::error::StepError;
use crate::files::{Content, Entry, FileTree, Selection};
use crate::git_ref::GitTime;
use crate::plan::CopySourcePlan;
use crate::progress::StepId;
use crate::url::without_credentials;

use super::rootfs::Rootfs;
use super::{Tools, remote};

/// Something that is copied.
pub(super) struct Picked {
    pub(super) selection: Selection,
    /// The tree of what was fetched; else it is the reading's own.
    pub(super) own: Option<Fetched>,
    /// The digest of an archive that is to be unpacked.
    pub(super) archive: Option<Digest>,
}

/// What was fetched, as a layer.
pub(super) struct Fetched {
    pub(super) rootfs: Rootfs,
    pub(super) diff_id: DiffId,
    /// Whether its times are of its own.
    pub(super) keeps_times: bool,
}

impl Fetched {
    fn new(layer: Layer, name: String, keeps_times: bool) -> Result<Fetched, StepError> {
        Ok(Fetched {
            diff_id: layer.diff_id()?,
            rootfs: Rootfs::new(&[layer], name),
            keeps_times,
        })
    }
}

/// How files are picked.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) picking: &'a Picking,
    /// Whether archives of the tree are to be unpacked.
    pub(super) unpack: bool,
}

/// Finds what a source names; nothing for what stands in the Boxfile.
///
/// # Errors
/// It is not there, can't be read or can't be fetched.
pub(super) fn pick(
    tools: &Tools<'_>,
    id: StepId,
    source: &CopySourcePlan,
    tree: &dyn FileTree,
    how: How<'_>,
) -> Result<Vec<Picked>, StepError> {
    match source {
        CopySourcePlan::Inline { .. } => Ok(Vec::new()),
        CopySourcePlan::Path(pattern) => {
            let found = select(tree, pattern, how.picking)?.into_iter();
            let picked = found.map(|selection| {
                Ok(Picked {
                    archive: archive_in(tree, &selection, how.unpack)?,
                    selection,
                    own: None,
                })
            });
            picked.collect()
        }
        CopySourcePlan::Url {
            url,
            name,
            checksum,
            unpack,
        } => {
            let layer = remote::file(tools, id, (url, checksum.as_ref()), name)?;
            let own = Fetched::new(layer, without_credentials(url), true)?;
            of_fetched(own, &literal(name), &Picking::default(), *unpack)
        }
        CopySourcePlan::Git {
            address,
            keep_git_dir,
        } => {
            let layer = remote::repository(tools, id, address, *keep_git_dir)?;
            let keeps_times = address.mtime == Some(GitTime::Commit);
            let own = Fetched::new(layer, without_credentials(&address.remote), keeps_times)?;
            of_fetched(own, "/", how.picking, false)
        }
    }
}

fn of_fetched(
    own: Fetched,
    pattern: &str,
    picking: &Picking,
    unpack: bool,
) -> Result<Vec<Picked>, StepError> {
    let selection = select(&own.rootfs, pattern, picking)?.into_iter().next();
    let Some(selection) = selection else {
        return Ok(Vec::new());
    };
    Ok(vec![Picked {
        archive: archive_in(&own.rootfs, &selection, unpack)?,
        selection,
        own: Some(own),
    }])
}

/// The digest of a file that is to be unpacked: it is known by what it begins with.
fn archive_in(tree: &dyn FileTree, selection: &Selection, unpack: bool) -> Result<Option<Digest>, StepError> {
    match selection.entries.first() {
        Some(Entry {
            content: Content::File(digest),
            meta,
            ..
        }) if unpack && !selection.is_directory() => {
            let file = tree.open(&selection.root, meta)?;
            Ok(is_archive(file).then_some(*digest))
        }
        _ => Ok(None),
    }
}
