//! The operations on mounts. Sources and targets are descriptors, never paths looked up twice.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, fstat, openat2,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount, open_tree, unmount,
};

use super::{Context, Done, failed, refused, targets};
use crate::channel::{Failure, FailureKind, Raw};
use crate::setup::{Links, Missing, Slot};
use crate::sys::{self, attr};

const PROC_MAGIC: u32 = 0x9fa0;
const EMPTY_PATHS: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

pub(super) fn clone_of(dir: impl AsFd, path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(dir, path, flags)
}

pub(super) fn move_to(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    Ok(move_mount(mount, "", target, "", EMPTY_PATHS)?)
}

/// A bind, opened already.
pub(super) fn bind_source(
    ctx: &mut Context,
    slot: Slot,
    (source, clone): (&Raw, OwnedFd),
    idmapped: bool,
    attrs: u64,
) -> Done {
    let fail = |kind, e: io::Error| Failure {
        kind,
        what: source.to_string(),
        errno: e.raw_os_error(),
    };
    let idmap = idmapped.then(|| ctx.entrance.as_fd());
    sys::mount_setattr(clone.as_fd(), true, attrs, idmap).map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL | libc::EPERM) if idmapped => fail(FailureKind::BindNotMappable, e),
        _ => fail(FailureKind::BindSource, e),
    })?;
    ctx.slots.insert(slot, clone);
    Ok(())
}

/// Through a read-only mount a device can be used, but its node, which is the host's, can't be changed.
pub(super) fn node_attrs(read_only: bool) -> u64 {
    attr::NOSUID | attr::NOEXEC | if read_only { attr::RDONLY } else { 0 }
}

/// The node is checked on the clone itself, so nothing can be exchanged afterwards.
pub(super) fn host_node(
    ctx: &mut Context,
    slot: Slot,
    path: &str,
    device: (u32, u32),
    read_only: bool,
) -> Done {
    let node = || -> io::Result<OwnedFd> {
        let clone = clone_of(CWD, Path::new(path), false)?;
        check_device(&clone, device)?;
        sys::mount_setattr(clone.as_fd(), false, node_attrs(read_only), None)?;
        Ok(clone)
    };
    let node = node().map_err(failed(format!("device {path}")))?;
    ctx.slots.insert(slot, node);
    Ok(())
}

pub(super) fn check_device(fd: &OwnedFd, (major, minor): (u32, u32)) -> io::Result<()> {
    let stat = fstat(fd)?;
    let is_char = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_char && stat.st_rdev == rustix::fs::makedev(major, minor) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::ENODEV))
}

pub(super) fn host_sys(ctx: &mut Context) -> Done {
    let sys = || -> io::Result<OwnedFd> {
        let clone = clone_of(CWD, Path::new("/sys"), true)?;
        let attrs = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        sys::mount_setattr(clone.as_fd(), true, attrs, None)?;
        Ok(clone)
    };
    ctx.slots.insert(Slot::Sys, sys().map_err(failed("clone /sys"))?);
    Ok(())
}

pub(super) fn private() -> Done {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|e| failed("make mounts private")(e.into()))
}

pub(super) fn attach_root(ctx: &Context) -> Done {
    let attach = || -> io::Result<()> {
        let root = ctx.slot(Slot::Root)?;
        Ok(move_mount(
            root,
            "",
            CWD,
            "/",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?)
    };
    attach().map_err(failed("attach the root"))
}

pub(super) fn new_mount(
    ctx: &mut Context,
    slot: Slot,
    fs: &str,
    options: &[(String, Option<String>)],
    attrs: u64,
) -> Done {
    let mount = new_file_system(fs, options, attrs).map_err(|e| {
        let option = |(key, value): &(String, Option<String>)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        };
        let options: Vec<String> = options.iter().map(option).collect();
        failed(format!("mount {fs} ({}) for {slot:?}", options.join(",")))(e)
    })?;
    ctx.slots.insert(slot, mount);
    Ok(())
}

/// A new file system, detached.
pub(super) fn new_file_system(
    fs: &str,
    options: &[(String, Option<String>)],
    attrs: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", fs)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attrs = MountAttrFlags::from_bits_retain(attrs as u32);
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)?)
}

pub(super) fn check_proc(ctx: &Context) -> Done {
    match ctx
        .slot(Slot::Proc)
        .and_then(is_proc)
        .map_err(failed("check /proc"))?
    {
        true => Ok(()),
        false => Err(refused("what was mounted as proc is no proc")),
    }
}

pub(super) fn is_proc(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as u32 == PROC_MAGIC)
}

pub(super) fn make_dir(ctx: &Context, slot: Slot, path: &str, mode: u32) -> Done {
    let make = || -> io::Result<()> {
        Ok(rustix::fs::mkdirat(
            ctx.slot(slot)?,
            path,
            Mode::from_bits_truncate(mode),
        )?)
    };
    make().map_err(failed(format!("make {path}")))
}

pub(super) fn make_file(ctx: &Context, slot: Slot, path: &str, content: &[u8]) -> Done {
    let make = || -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(ctx.slot(slot)?, path, flags, Mode::from_bits_truncate(0o644))?;
        std::fs::File::from(fd).write_all(content)
    };
    make().map_err(failed(format!("make {path}")))
}

pub(super) fn set_owner(ctx: &Context, slot: Slot, path: &str, mode: u32, (uid, gid): (u32, u32)) -> Done {
    let set = || -> io::Result<()> {
        let dir = ctx.slot(slot)?;
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        chownat(dir, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(chmodat(
            dir,
            path,
            Mode::from_bits_truncate(mode),
            AtFlags::empty(),
        )?)
    };
    set().map_err(failed(format!("give {path} to {uid}:{gid}")))
}

pub(super) fn make_link(ctx: &Context, slot: Slot, path: &str, target: &str) -> Done {
    let make = || -> io::Result<()> { Ok(rustix::fs::symlinkat(target, ctx.slot(slot)?, path)?) };
    make().map_err(failed(format!("make {path}")))
}

pub(super) fn attach(ctx: &Context, slot: Slot, target: &Raw, missing: Missing, links: Links) -> Done {
    let fail = || failed(format!("mount on {target}"));
    let mount = ctx
        .slots
        .get(&slot)
        .ok_or_else(|| fail()(io::ErrorKind::NotFound.into()))?;
    let directory = targets::is_directory(mount).map_err(fail())?;
    let root = ctx.slot(Slot::Root).map_err(fail())?;
    let Some(place) = targets::find(root, target.as_path(), directory, missing, links)? else {
        return Ok(());
    };
    // The caller's paths don't lie there, but a link of the image may lead there (CVE-2019-16884).
    if links == Links::Inside && is_proc(&place).map_err(fail())? {
        return Err(refused(format!("mount target {target} leads into /proc")));
    }
    move_to(mount, &place).map_err(fail())
}

pub(super) fn attach_in(ctx: &Context, slot: Slot, on: Slot, path: &str) -> Done {
    let attach = || -> io::Result<()> {
        let place = openat2(
            ctx.slot(on)?,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            BENEATH,
        )?;
        move_to(ctx.slot(slot)?, place)
    };
    attach().map_err(failed(format!("mount {slot:?} on {path}")))
}

/// Kernels before 6.15 clone only what is attached, so there the mount is put on /dev for a while.
pub(super) fn bind_entry(ctx: &mut Context, from: Slot, path: &str, target: &Raw, missing: Missing) -> Done {
    let fail = || failed(format!("bind {path} on {target}"));
    let source = ctx.slot(from).map_err(fail())?;
    let root = ctx.slot(Slot::Root).map_err(fail())?;
    let entry = match clone_of(source, Path::new(path), false) {
        Err(Errno::INVAL) => {
            let place = targets::find(root, Path::new("/dev"), true, Missing::Make, Links::Refuse)?;
            let place = place.ok_or_else(|| refused("no /dev"))?;
            move_to(source, place).map_err(fail())?;
            clone_of(source, Path::new(path), false)
        }
        other => other,
    };
    let entry = entry.map_err(|e| fail()(e.into()))?;
    match targets::find(root, target.as_path(), false, missing, Links::Inside)? {
        Some(place) if is_proc(&place).map_err(fail())? => {
            Err(refused(format!("mount target {target} leads into /proc")))
        }
        Some(place) => move_to(entry, place).map_err(fail()),
        None => Ok(()),
    }
}

/// A mount that was never attached goes with its descriptor.
pub(super) fn detach(ctx: &mut Context, slot: Slot) -> Done {
    let detach = || -> io::Result<()> {
        rustix::process::fchdir(ctx.slot(slot)?)?;
        match unmount(".", UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL) => Ok(rustix::process::chdir("/")?),
            Err(e) => Err(e.into()),
        }
    };
    detach().map_err(failed(format!("detach {slot:?}")))?;
    ctx.slots.remove(&slot);
    Ok(())
}

pub(super) fn set_attrs(ctx: &Context, slot: Slot, attrs: u64) -> Done {
    ctx.slot(slot)
        .and_then(|mount| sys::mount_setattr(mount, false, attrs, None))
        .map_err(failed(format!("set the attributes of {slot:?}")))
}

pub(super) fn make_cwd(ctx: &Context, path: &Raw) -> Done {
    let fail = || failed(format!("make the working directory {path}"));
    let root = ctx.slot(Slot::Root).map_err(fail())?;
    targets::make_dirs(root, path.as_path()).map_err(|e| fail()(e.into()))
}

pub(super) fn sysctl(ctx: &Context, name: &str, value: &str, is_required: bool) -> Done {
    let write = || -> io::Result<()> {
        // Nothing mounted over a part of /proc is written to (CVE-2025-52881).
        let resolve = BENEATH.union(ResolveFlags::NO_XDEV);
        let path = format!("sys/{name}");
        let file = openat2(
            ctx.slot(Slot::Proc)?,
            path,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        );
        match file {
            Err(Errno::NOENT) if !is_required => Ok(()),
            file => std::fs::File::from(file?).write_all(value.as_bytes()),
        }
    };
    write().map_err(failed(format!("set {name}")))
}

pub(super) fn pivot(ctx: &Context) -> Done {
    let pivot = || -> io::Result<()> {
        rustix::process::fchdir(ctx.slot(Slot::Root)?)?;
        rustix::process::pivot_root(".", ".")?;
        // The old root now lies on top of the new one; taking it away leaves nothing of the host.
        unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    };
    pivot().map_err(failed("enter the root"))
}

/// The terminal's slave as /dev/console.
pub(super) fn bind_console(ctx: &Context, slave: &OwnedFd) -> io::Result<()> {
    let dev = ctx.slot(Slot::Dev)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(rustix::fs::openat(
        dev,
        "console",
        flags,
        Mode::from_bits_truncate(0o600),
    )?);
    let place = openat2(
        dev,
        "console",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        BENEATH,
    )?;
    let clone = clone_of(slave, Path::new(""), false)?;
    move_to(clone, place)
}
