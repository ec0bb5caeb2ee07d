//! Locks what the mounts of the container forbid.
//!
//! A detached mount that is attached in the container's namespace belongs to the container: with CAP_SYS_ADMIN it could
//! make a read-only bind writable, allow the device nodes of a layer, or unmount what hides a part of a bind. When a mount
//! namespace is copied into another user namespace, the kernel locks all of that (mount_namespaces(7)). So everything made
//! outside is attached in a namespace of the keeper first; the container gets it as a copy.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat};
use rustix::mount::{MoveMountFlags, move_mount};

use super::{Context, Done, failed, mounts, overlay, targets};
use crate::sys::{self, attr};

/// Attaches every mount made so far, each under its number in a directory that becomes the working directory.
pub(super) fn attach(ctx: &mut Context, on: &Path) -> Done {
    attach_all(ctx, on).map_err(failed("attach the mounts to be locked"))
}

fn attach_all(ctx: &mut Context, on: &Path) -> io::Result<()> {
    overlay::own_mounts()?;
    let options = [("mode".to_owned(), Some("755".to_owned()))];
    let stage = mounts::new_file_system("tmpfs", &options, attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    move_mount(&stage, "", CWD, on, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for (number, (slot, mount)) in ctx.slots.drain().enumerate() {
        mounts::move_to(&mount, place(&stage, &mount, &number.to_string())?)?;
        ctx.locked.push(slot);
    }
    // The one path into it, which the copy of the namespace keeps.
    Ok(rustix::process::fchdir(stage)?)
}

fn place(stage: &OwnedFd, mount: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let mode = Mode::from_bits_truncate(0o700);
    if targets::is_directory(mount)? {
        mkdirat(stage, name, mode)?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(stage, name, flags, mode)?;
    }
    Ok(openat(
        stage,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Takes the copies, which are locked now, and leaves the place.
pub(super) fn take(ctx: &mut Context) -> Done {
    let mut take = || -> io::Result<()> {
        for (number, slot) in ctx.locked.drain(..).enumerate() {
            let name = number.to_string();
            let copy = match ctx.inside.get(&slot) {
                None => mounts::clone_of(CWD.as_fd(), Path::new(&name), true)?,
                Some(path) => mounts::clone_of(inside(&name, path.as_path())?, Path::new(""), true)?,
            };
            ctx.slots.insert(slot, copy);
        }
        Ok(rustix::process::chdir("/")?)
    };
    take().map_err(failed("take the locked mounts"))
}

/// What is meant of an overlay: its links lead nowhere but into it.
fn inside(name: &str, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let whole = openat(CWD, name, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(sys::open_beneath(whole, path, flags, Mode::empty(), resolve)?)
}
