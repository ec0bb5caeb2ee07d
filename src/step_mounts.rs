//! The mounts of a step as the runner takes them.

use std::io;

use box_builder::exec::{ExecMount, ExecMountKind, ExecRequest};
use box_runner::{FileContent, Mount, MountKind, RootFs, Tmpfs};
use box_store::{OverlayDirs, OverlayXattrs};

use crate::agent::Agent;

/// The mounts, and what serves them while the step runs.
pub(crate) fn mounts(request: &ExecRequest<'_>) -> io::Result<(Vec<Mount>, Vec<Agent>)> {
    let mut agents = Vec::new();
    let mut mounts = Vec::with_capacity(request.mounts.len());
    for mount in &request.mounts {
        mounts.push(Mount {
            read_only: mount.read_only,
            ..Mount::new(kind(request, mount, &mut agents)?, &mount.target)
        });
    }
    Ok((mounts, agents))
}

fn kind(request: &ExecRequest<'_>, mount: &ExecMount, agents: &mut Vec<Agent>) -> io::Result<MountKind> {
    Ok(match &mount.kind {
        ExecMountKind::Layers {
            dirs,
            source,
            is_kept,
        } => MountKind::Overlay {
            layers: root_fs(dirs, !is_kept, false),
            source: source.clone(),
        },
        ExecMountKind::Directory(source) => MountKind::bind(source),
        ExecMountKind::Tmpfs { size, mode } => MountKind::Tmpfs(Tmpfs {
            size: *size,
            mode: *mode,
            exec: true,
            ..Tmpfs::default()
        }),
        ExecMountKind::File {
            content,
            mode,
            uid,
            gid,
        } => MountKind::File {
            content: FileContent(content.expose().to_vec()),
            mode: *mode,
            uid: *uid,
            gid: *gid,
        },
        ExecMountKind::Socket {
            agent,
            mode,
            uid,
            gid,
        } => {
            // Beside the upper directory: it goes with the step, also if box is killed.
            let directory = request.dirs.upper.parent().ok_or(io::ErrorKind::NotFound)?;
            let name = format!("agent{}", agents.len());
            let served = Agent::serve(directory, &name, agent, *mode, (*uid, *gid))?;
            let source = served.path().to_owned();
            agents.push(served);
            MountKind::bind(source)
        }
    })
}

/// The store's directories as the runner takes them.
pub(crate) fn root_fs(dirs: &OverlayDirs, volatile: bool, read_only: bool) -> RootFs {
    RootFs {
        lower: dirs.lower.clone(),
        upper: dirs.upper.clone(),
        work: dirs.work.clone(),
        userxattr: dirs.overlay_xattrs == OverlayXattrs::User,
        volatile,
        read_only,
    }
}
