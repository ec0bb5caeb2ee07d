//! The user ids of a container, and its root file system where those need one of its own.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use box_runner::{IdExtent, IdMap, RunnerError, Runtime, UserNamespace};
use box_store::{Layer, OverlayDirs, PrepareOptions};

use super::Container;
use crate::app::App;
use crate::error::{EXIT_BOX, Failure, runner_failure};
use crate::executor::Ids;
use crate::values::{Userns, map_of};

/// The root file system with other owners, in the container's directory.
const OWNED: &str = "rootfs";

/// The user namespace that its options ask for, for files with ids in these pages.
pub(crate) fn ids(
    app: &App,
    runtime: &Runtime,
    userns: &Userns,
    pages: &BTreeSet<u32>,
) -> Result<Ids, Failure> {
    let of = |e: RunnerError| runner_failure(&e);
    if let (Userns::Host, None) = (userns, &app.rootless) {
        return Ok(Ids::of(UserNamespace::of_runner().map_err(of)?, Vec::new()));
    }
    match map(app, userns)? {
        Some(map) => {
            let namespace = runtime.user_namespace(&map).map_err(|e| {
                of(e).hint(format!(
                    "--userns {userns}: the ids outside must be there, each once"
                ))
            })?;
            Ok(Ids::of(namespace, Vec::new()))
        }
        None => Ids::take(app, runtime, pages).map_err(of),
    }
}

/// The map that is asked for by its numbers; none where it is as usual.
fn map(app: &App, userns: &Userns) -> Result<Option<IdMap>, Failure> {
    let map = match userns {
        Userns::Default | Userns::Auto | Userns::Host => return Ok(None),
        Userns::Ranges(runs) => map_of(runs),
        Userns::KeepId { uid, gid } => {
            let last = |extents: &[IdExtent]| extents.iter().map(|e| e.container + e.len).max();
            let count = app
                .rootless
                .as_ref()
                .and_then(|rootless| last(&rootless.ids.extents));
            let kept = |id: &Option<u32>| kept(count.unwrap_or(1), id.unwrap_or(0));
            IdMap {
                groups: Some(kept(gid)?),
                ..IdMap::of(kept(uid)?)
            }
        }
    };
    Ok(Some(IdMap {
        // Only root may map mounts.
        keeps_owners: app.rootless.is_some(),
        ..map
    }))
}

/// The user, who is 0 of the `count` ids there are, is `id` inside; the others make room.
fn kept(count: u32, id: u32) -> Result<Vec<IdExtent>, Failure> {
    if id >= count {
        return Err(Failure::own(format!(
            "--userns keep-id: id {id} needs {id} subordinate ids below it, and there are {}",
            count - 1
        ))
        .hint("give a smaller one (keep-id:uid=1000,gid=1000), or let root grant more (usermod --add-subuids, --add-subgids)"));
    }
    let runs = [(0, 1, id), (id, 0, 1), (id + 1, id + 1, count - id - 1)];
    let extents = runs.into_iter().filter(|(.., len)| *len > 0);
    Ok(extents
        .map(|(container, host, len)| IdExtent { container, host, len })
        .collect())
}

/// What to mount. An ordinary user can't map mounts: where ids inside are others than those of the files, the container gets a copy of the
/// image with those owners, made when it is first needed.
pub(crate) fn dirs(app: &App, container: &Container, layers: &[Layer]) -> Result<OverlayDirs, Failure> {
    let stubs = PrepareOptions::standard_stubs();
    let mut dirs = app.store.container_dirs(&container.id, layers, &stubs)?;
    let map = map(app, &container.config.namespaces.user)?;
    if let Some(map) = map.filter(|map| map.keeps_owners) {
        let dir = app.store.container_dir(&container.id)?;
        let owned = dir.join(OWNED);
        if !owned.exists() {
            copy(app, layers, &map, &owned)?;
        }
        dirs.lower = vec![owned];
    }
    Ok(dirs)
}

fn copy(app: &App, layers: &[Layer], map: &IdMap, owned: &Path) -> Result<(), Failure> {
    let failed = |e: &dyn std::error::Error| Failure::of(EXIT_BOX, e);
    let new = owned.with_extension("new");
    match std::fs::remove_dir_all(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&e)),
        _ => {}
    }
    // An id that is not there inside stays what it is outside: nobody's.
    let owner = |(uid, gid): (u32, u32)| {
        (
            map.to_host(uid).unwrap_or(uid),
            map.group_to_host(gid).unwrap_or(gid),
        )
    };
    box_store::export::extract_rootfs_as(layers, &new, &owner).map_err(|e| failed(&e))?;
    // The root of all is the upper directory's, whose owner is that of the uppermost layer's.
    let upper = owned.with_file_name("upper");
    let metadata = upper.metadata().map_err(|e| failed(&e))?;
    let (uid, gid) = owner((metadata.uid(), metadata.gid()));
    std::os::unix::fs::chown(&upper, Some(uid), Some(gid)).map_err(|e| failed(&e))?;
    // Under its name it is whole, also after a power cut.
    app.store.sync().map_err(|e| failed(&e))?;
    std::fs::rename(&new, owned).map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(count: u32, id: u32, expect: Option<&[(u32, u32, u32)]>) {
        let runs = kept(count, id).ok().map(|extents| {
            extents
                .iter()
                .map(|e| (e.container, e.host, e.len))
                .collect::<Vec<_>>()
        });
        assert_eq!(runs.as_deref(), expect, "{id} of {count}");
    }

    #[test]
    fn the_users_own_id_is_kept() {
        check(
            65_537,
            1000,
            Some(&[(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64_536)]),
        );
        check(65_537, 0, Some(&[(0, 0, 1), (1, 1, 65_536)]));
        check(1001, 1000, Some(&[(0, 1, 1000), (1000, 0, 1)]));
        check(1000, 1000, None);
    }
}
