//! Which directory a cache mount is, taking it, and bringing it in from a cache elsewhere.

use box_store::error::StoreError;
use box_store::{CacheMount, CacheMountSpec, CacheSharing};

use crate::ast::Sharing;
use crate::error::StepError;
use crate::plan::{MountPlan, MountSource};
use crate::progress::{Awaited, Event, StepId};

use super::Tools;
use super::bind::Source;

/// Which directory a cache mount means, and how it is shared. One on layers has one user at a time: an overlay's upper
/// directory takes no two mounts. `scope` sets it apart from the usual caches.
pub(super) fn cache_of(
    mount: &MountPlan,
    source: Option<&Source<'_>>,
    scope: Option<&str>,
) -> Result<Option<(CacheMountSpec, CacheSharing)>, StoreError> {
    let MountSource::Cache {
        id, sharing, owner, ..
    } = &mount.kind
    else {
        return Ok(None);
    };
    let base = match source {
        None => String::new(),
        Some(source) => source.identity()?,
    };
    let sharing = match sharing {
        Sharing::Shared if base.is_empty() => CacheSharing::Shared,
        Sharing::Private => CacheSharing::Private,
        Sharing::Shared | Sharing::Locked => CacheSharing::Locked,
    };
    let spec = CacheMountSpec {
        id: match scope {
            Some(scope) => format!("{scope}/{id}"),
            None => id.clone(),
        },
        base,
        mode: owner.mode,
        uid: owner.uid,
        gid: owner.gid,
    };
    Ok(Some((spec, sharing)))
}

/// Brings in a cache that is not here from a cache elsewhere. One that lies on something is no directory by itself and stays where it is.
pub(super) fn restore(tools: &Tools<'_>, spec: &CacheMountSpec) {
    if !spec.base.is_empty() {
        return;
    }
    tools.uses.mount(spec);
    if let Some(imports) = &tools.request.imports
        && imports.restore_mount(spec)
    {
        let note = format!("the cache {} came from elsewhere", spec.id);
        tools.events.event(Event::Note(&note));
    }
}

/// Takes a cache, waiting for others who have it for themselves.
///
/// # Errors
/// [`StepError::Cancelled`]; what the store says.
pub(super) fn take_cache(
    tools: &Tools<'_>,
    id: StepId,
    spec: &CacheMountSpec,
    sharing: CacheSharing,
) -> Result<CacheMount, StepError> {
    if let Some(cache) = tools.store.cache_mount(spec, sharing)? {
        return Ok(cache);
    }
    let poll = || tools.cancel.poll(|| tools.store.cache_mount(spec, sharing));
    tools
        .waiting(id, Awaited::Cache(&spec.id), poll)?
        .ok_or(StepError::Cancelled)
}
