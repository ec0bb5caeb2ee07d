//! What is hidden and what is read-only of the kernel's file systems.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat2};
use rustix::io::Errno;

use super::mounts::{BENEATH, check_device, clone_of, move_to};
use super::{Context, Done, failed, targets};
use crate::setup::Slot;
use crate::sys::{self, attr};

fn open_existing(ctx: &Context, slot: Slot, path: &str) -> io::Result<Option<OwnedFd>> {
    match openat2(
        ctx.slot(slot)?,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        BENEATH,
    ) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => Ok(Some(other?)),
    }
}

pub(super) fn read_only_path(ctx: &Context, slot: Slot, path: &str) -> Done {
    let protect = || -> io::Result<()> {
        let Some(place) = open_existing(ctx, slot, path)? else {
            return Ok(());
        };
        let clone = clone_of(&place, Path::new(""), true)?;
        let attrs = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        sys::mount_setattr(clone.as_fd(), true, attrs, None)?;
        move_to(clone, place)
    };
    protect().map_err(failed(format!("make {path} read-only")))
}

pub(super) fn mask_path(ctx: &mut Context, slot: Slot, path: &str) -> Done {
    let mut mask = || -> io::Result<()> {
        let Some(place) = open_existing(ctx, slot, path)? else {
            return Ok(());
        };
        if targets::is_directory(&place)? {
            return hide_directory(ctx, &place);
        }
        let null = clone_of(ctx.slot(Slot::Null)?, Path::new(""), false)?;
        check_device(&null, (1, 3))?;
        move_to(null, place)
    };
    mask().map_err(failed(format!("mask {path}")))
}

/// The first directory gets the empty tmpfs itself, the others clones of it: a mount can be cloned
/// only once it is attached.
fn hide_directory(ctx: &mut Context, place: &OwnedFd) -> io::Result<()> {
    let empty = ctx.slot(Slot::Empty)?;
    match clone_of(empty, Path::new(""), false) {
        Ok(clone) => move_to(clone, place),
        Err(Errno::INVAL) => move_to(empty, place),
        Err(e) => Err(e.into()),
    }
}

pub(super) fn mask_each(ctx: &mut Context, slot: Slot, dir: &str, prefix: &str, child: &str) -> Done {
    for name in names_below(ctx, slot, dir).map_err(failed(format!("list {dir}")))? {
        if name.starts_with(prefix) {
            mask_path(ctx, slot, &format!("{dir}/{name}/{child}"))?;
        }
    }
    Ok(())
}

fn names_below(ctx: &Context, slot: Slot, dir: &str) -> io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match openat2(ctx.slot(slot)?, dir, flags, Mode::empty(), BENEATH) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
