//! Cache mounts as tars, and back.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::error::RemoteError;
use crate::beneath;
use crate::cache_mount::{CacheMountSpec, CacheSharing};
use crate::error::{IoContext, Result};
use crate::layer::apply::{Extract, Limits, Source, extract};
use crate::layer::survey::survey;
use crate::layer::{LayerTimes, tar};
use crate::store::Store;

/// Writes what a cache mount holds; says whether it could be had, which it can't while a build has it for itself.
pub(super) fn write(store: &Store, spec: &CacheMountSpec, out: &mut dyn Write) -> Result<bool> {
    let Some(mount) = store.cache_mount(spec, CacheSharing::Locked)? else {
        return Ok(false);
    };
    let dir = beneath::open_root(&mount.data()).at("open", mount.data())?;
    let facts = survey(&dir, LayerTimes::kept(), None, Vec::new())?;
    tar::write_tree(&dir, &facts, store.overlay_xattrs(), out)?;
    Ok(true)
}

/// Makes the cache mount of what `tar` holds, unless there is one; says whether it did.
pub(super) fn restore(store: &Store, spec: &CacheMountSpec, tar: &mut dyn Read) -> Result<bool, RemoteError> {
    let (root, _) = store.parts();
    crate::cache_mount::restore(root, spec, |data| {
        let dir = beneath::open_root(data).at("open", data)?;
        let limits = Limits::default();
        let how = Extract {
            source: Source::Rootfs,
            limits: &limits,
            is_into_users: false,
            retime: None,
        };
        let extracted = extract(dir.as_fd(), tar, &how);
        extracted.map_err(|e| RemoteError::damaged(format!("cache mount {}", spec.id), e.to_string()))?;
        Ok(())
    })
}
