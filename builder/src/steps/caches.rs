//! The directories of cache mounts: taken here, and brought in from caches elsewhere.

use std::time::Duration;

use box_store::{CacheMount, CacheMountSpec, CacheSharing};

use crate::error::StepError;
use crate::progress::Event;

use super::Tools;

/// How long to wait before asking again for a cache that others use.
const PATIENCE: Duration = Duration::from_millis(20);

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

/// Takes a cache; waits for one that others have for themselves.
pub(super) fn take(
    tools: &Tools<'_>,
    spec: &CacheMountSpec,
    sharing: CacheSharing,
) -> Result<CacheMount, StepError> {
    let mut is_told = false;
    loop {
        if tools.request.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        if let Some(cache) = tools.store.cache_mount(spec, sharing)? {
            return Ok(cache);
        }
        if !is_told {
            let note = format!("waiting for the cache {}, which another build uses", spec.id);
            tools.events.event(Event::Note(&note));
            is_told = true;
        }
        std::thread::sleep(PATIENCE);
    }
}
