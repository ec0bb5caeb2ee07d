//! The root file system: an overlay of idmapped clones of the layers.
//!
//! Files on disk keep their real ids. The overlay is made with the file system ids of the mapped
//! root, or the kernel silently makes it read-only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::{Context, Done, failed};
use crate::channel::Failure;
use crate::setup::{Overlay, Slot};
use crate::sys;

const OPTIONS: [(&str, &str); 5] = [
    ("source", "overlay"),
    ("redirect_dir", "nofollow"),
    ("metacopy", "off"),
    ("index", "off"),
    ("xino", "off"),
];

struct Layers {
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// The clone that both lie on; closed too early, it would fall apart under them.
    _dir: OwnedFd,
}

pub(super) fn make(ctx: &mut Context, overlay: &Overlay) -> Done {
    let layers = open_layers(ctx, overlay)?;
    let make = || mount(overlay, &layers);
    let mounted = match overlay.idmapped_root {
        Some(root) => sys::with_fs_ids(root, root, make),
        None => make(),
    };
    ctx.slots.insert(
        Slot::Root,
        mounted.map_err(failed(format!("overlay on {}", overlay.dir)))?,
    );
    Ok(())
}

fn open_layers(ctx: &Context, overlay: &Overlay) -> Result<Layers, Failure> {
    let idmap = overlay.idmapped_root.map(|_| ctx.userns.as_fd());
    let open =
        |path: &Path| open_layer(path, idmap).map_err(failed(format!("open the layer {}", path.display())));
    let lower = overlay
        .lower
        .iter()
        .map(|l| open(l.as_path()))
        .collect::<Result<_, _>>()?;
    let dir = open(overlay.dir.as_path())?;
    let below = |name: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, name, flags, Mode::empty())
            .map_err(|e| failed(format!("open {}", overlay.dir.as_path().join(name).display()))(e.into()))
    };
    let (upper, work) = (below(overlay.upper.as_path())?, below(overlay.work.as_path())?);
    Ok(Layers {
        lower,
        upper,
        work,
        _dir: dir,
    })
}

/// A layer's directory as the container's ids see it: a detached clone when mapped.
fn open_layer(path: &Path, idmap: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    if idmap.is_none() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(path, flags, Mode::empty())?);
    }
    let clone = open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    sys::mount_setattr(clone.as_fd(), false, 0, idmap)?;
    Ok(clone)
}

fn mount(overlay: &Overlay, layers: &Layers) -> io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in OPTIONS {
        fsconfig_set_string(&fs, key, value)?;
    }
    for flag in &overlay.flags {
        fsconfig_set_flag(&fs, flag.as_str())?;
    }
    for lower in &layers.lower {
        set_layer(&fs, "lowerdir+", lower)?;
    }
    set_layer(&fs, "upperdir", &layers.upper)?;
    set_layer(&fs, "workdir", &layers.work)?;
    fsconfig_create(&fs)?;
    Ok(fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV,
    )?)
}

/// By descriptor; kernels before 6.13 take only paths, so there by the descriptor's path.
fn set_layer(fs: &OwnedFd, key: &str, layer: &OwnedFd) -> io::Result<()> {
    match fsconfig_set_fd(fs, key, layer) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::BADF) => {
            Ok(fsconfig_set_string(fs, key, fd_path(layer.as_fd()))?)
        }
        other => Ok(other?),
    }
}

fn fd_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
