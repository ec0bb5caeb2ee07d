//! The mounts and nodes that only bundles have.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, makedev, mknodat, open,
    symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use super::mounts::{check_device, clone_of, is_proc, move_to};
use super::{Context, Done, failed, refused, targets};
use crate::channel::{Failure, FailureKind, Raw};
use crate::setup::bundle::{MountChange, Node};
use crate::setup::{Links, Missing, Slot};
use crate::sys::{self, attr};

/// The root is opened once, and is no link: who could change it meanwhile would choose another one.
pub(super) fn open_root(ctx: &mut Context, path: &Raw) -> Done {
    let fail = || failed(format!("open the root file system {path}"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = open(path.as_path(), flags, Mode::empty()).map_err(|e| match e {
        Errno::LOOP | Errno::NOTDIR => refused(format!("root.path {path} is a symlink or no directory")),
        e => fail()(e.into()),
    })?;
    let clone = clone_of(dir, Path::new(""), true).map_err(|e| fail()(e.into()))?;
    sys::change_mount(clone.as_fd(), true, (0, 0), libc::MS_PRIVATE).map_err(fail())?;
    ctx.slots.insert(Slot::Root, clone);
    Ok(())
}

pub(super) fn bind(ctx: &mut Context, slot: Slot, source: &Raw, recursive: bool, with: &MountChange) -> Done {
    let fail = |e: io::Error| Failure {
        kind: FailureKind::BindSource,
        what: source.to_string(),
        errno: e.raw_os_error(),
    };
    let clone = clone_of(CWD, source.as_path(), recursive).map_err(|e| fail(e.into()))?;
    if with.propagation != libc::MS_SHARED {
        // A clone is the peer of what it was cloned from: what is mounted in the container would show outside.
        let kind = match with.propagation {
            libc::MS_SLAVE => libc::MS_SLAVE,
            _ => libc::MS_PRIVATE,
        };
        sys::change_mount(clone.as_fd(), true, (0, 0), kind).map_err(fail)?;
    }
    apply(&clone, with).map_err(fail)?;
    ctx.slots.insert(slot, clone);
    Ok(())
}

fn apply(mount: impl AsFd, with: &MountChange) -> io::Result<()> {
    let mount = mount.as_fd();
    if with.set | with.clear != 0 {
        sys::change_mount(mount, false, (with.set, with.clear), 0)?;
    }
    if with.set_all | with.clear_all != 0 {
        sys::change_mount(mount, true, (with.set_all, with.clear_all), 0)?;
    }
    match with.propagation {
        0 => Ok(()),
        kind => sys::change_mount(mount, with.propagation_all, (0, 0), kind),
    }
}

pub(super) fn change(ctx: &Context, slot: Slot, with: &MountChange) -> Done {
    ctx.slot(slot)
        .and_then(|mount| apply(mount, with))
        .map_err(failed(format!("set the options of {slot:?}")))
}

pub(super) fn slave() -> Done {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|e| failed("keep mounts from showing outside")(e.into()))
}

/// Hooks find the root where the bundle says it is. The path is looked up anew in this mount namespace, so it is compared.
pub(super) fn attach_root(ctx: &Context, path: &Raw) -> Done {
    let attach = || -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = open(path.as_path(), flags, Mode::empty())?;
        let root = ctx.slot(Slot::Root)?;
        let (there, ours) = (fstat(&place)?, fstat(root)?);
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) {
            return Ok(false);
        }
        move_to(root, place)?;
        Ok(true)
    };
    match attach().map_err(failed(format!("attach the root {path}")))? {
        true => Ok(()),
        false => Err(refused(format!("root.path {path} was exchanged"))),
    }
}

pub(super) fn check_proc(ctx: &Context, slot: Slot) -> Done {
    match ctx.slot(slot).and_then(is_proc).map_err(failed("check /proc"))? {
        true => Ok(()),
        false => Err(refused("what is to be mounted on /proc is no proc")),
    }
}

/// The directory of a path below the root, made when missing, and the name in it.
fn parent(ctx: &Context, path: &Raw) -> Result<(OwnedFd, std::ffi::OsString), Failure> {
    let fail = || failed(format!("make {path}"));
    let (Some(dir), Some(name)) = (path.as_path().parent(), path.as_path().file_name()) else {
        return Err(refused(format!("{path} has no name")));
    };
    let root = ctx.slot(Slot::Root).map_err(fail())?;
    targets::make_dirs(root, dir).map_err(|e| fail()(e.into()))?;
    let fd = targets::open(root, dir, Links::Inside).map_err(|e| fail()(e.into()))?;
    if is_proc(&fd).map_err(fail())? {
        return Err(refused(format!("{path} leads into /proc")));
    }
    Ok((fd, name.to_owned()))
}

/// One that is there already must be the same device: a root file system may not choose another one.
pub(super) fn node(ctx: &Context, node: &Node) -> Done {
    let fail = || failed(format!("make the device {}", node.path));
    let (dir, name) = parent(ctx, &node.path)?;
    let kind = FileType::from_raw_mode(node.kind);
    let number = match kind {
        FileType::Fifo => 0,
        _ => makedev(node.device.0, node.device.1),
    };
    let mode = Mode::from_bits_truncate(node.mode);
    match mknodat(&dir, &name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat =
                rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| fail()(e.into()))?;
            let is_same = FileType::from_raw_mode(stat.st_mode) == kind
                && (kind == FileType::Fifo || stat.st_rdev == number);
            return match is_same {
                true => Ok(()),
                false => Err(refused(format!(
                    "{} is there already, and is another device",
                    node.path
                ))),
            };
        }
        Err(e) => return Err(fail()(e.into())),
    }
    let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
    chownat(&dir, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| fail()(e.into()))?;
    chmodat(&dir, &name, mode, AtFlags::empty()).map_err(|e| fail()(e.into()))
}

pub(super) fn link(ctx: &Context, path: &Raw, target: &str) -> Done {
    let (dir, name) = parent(ctx, path)?;
    match symlinkat(target, &dir, &name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(failed(format!("make {path}"))(e.into())),
    }
}

/// What is there below the root, links followed inside it only.
fn existing(ctx: &Context, path: &Raw) -> io::Result<Option<OwnedFd>> {
    match targets::open(ctx.slot(Slot::Root)?, path.as_path(), Links::Inside) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => Ok(Some(other?)),
    }
}

pub(super) fn read_only_path(ctx: &Context, path: &Raw) -> Done {
    let protect = || -> io::Result<()> {
        let Some(place) = existing(ctx, path)? else {
            return Ok(());
        };
        let clone = clone_of(&place, Path::new(""), true)?;
        sys::change_mount(clone.as_fd(), true, (attr::RDONLY, 0), libc::MS_PRIVATE)?;
        move_to(clone, place)
    };
    protect().map_err(failed(format!("make {path} read-only")))
}

/// A file gets the null device, checked to be it; a directory an empty read-only tmpfs.
pub(super) fn mask_path(ctx: &Context, path: &Raw) -> Done {
    let mask = || -> io::Result<()> {
        let Some(place) = existing(ctx, path)? else {
            return Ok(());
        };
        let slot = match targets::is_directory(&place)? {
            true => Slot::Empty,
            false => Slot::Null,
        };
        let cover = ctx.slot(slot)?;
        // What is not attached yet can't be cloned by older kernels; the first place gets the mount itself.
        let clone = match clone_of(cover, Path::new(""), false) {
            Err(Errno::INVAL) => None,
            other => Some(other?),
        };
        let cover = clone.as_ref().map_or(cover, AsFd::as_fd);
        if slot == Slot::Null {
            check_device(&cover.try_clone_to_owned()?, (1, 3))?;
        }
        move_to(cover, place)
    };
    mask().map_err(failed(format!("mask {path}")))
}

/// The terminal's slave as /dev/console; a link there is not followed.
pub(super) fn bind_console(ctx: &Context, slave: &OwnedFd) -> Done {
    let fail = || failed("bind /dev/console");
    let root = ctx.slot(Slot::Root).map_err(fail())?;
    let place = targets::find(
        root,
        Path::new("/dev/console"),
        false,
        Missing::Make,
        Links::Refuse,
    )?;
    let place = place.ok_or_else(|| refused("no /dev/console"))?;
    let clone = clone_of(slave, Path::new(""), false).map_err(|e| fail()(e.into()))?;
    move_to(clone, place).map_err(fail())
}
