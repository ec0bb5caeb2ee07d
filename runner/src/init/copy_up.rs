//! A tmpfs that begins with what lies at its place in the root file system.
//!
//! That is a stranger's: everything is opened beneath the directory that was opened before, and no link is followed.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat,
    readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

use super::{Context, Done, failed, targets};
use crate::channel::Raw;
use crate::setup::{Links, Slot};

/// Deeper trees are refused: each level holds two descriptors.
const MAX_DEPTH: u32 = 64;

/// Fills the mount in `slot`, which is not attached yet, from the directory `from`, if there is one.
pub(super) fn fill(ctx: &Context, slot: Slot, from: &Raw) -> Done {
    let fill = || -> io::Result<()> {
        let root = ctx.slot(Slot::Root)?;
        let place = match targets::open(root, from.as_path(), Links::Inside) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if !targets::is_directory(&place)? {
            return Ok(());
        }
        let source = openat(&place, ".", DIRECTORY, Mode::empty())?;
        let target = openat(ctx.slot(slot)?, ".", DIRECTORY, Mode::empty())?;
        copy_all(source, target.as_fd(), 0)?;
        Ok(())
    };
    fill().map_err(failed(format!("copy what lies at {from} into its tmpfs")))
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn copy_all(source: OwnedFd, target: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::LOOP.into());
    }
    let entries = Dir::read_from(&source)?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy_one(source.as_fd(), target, name, &stat, depth)?;
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn copy_one(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    depth: u32,
) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(target, name, Mode::from_bits_truncate(0o700))?;
            let to = openat(target, name, DIRECTORY, Mode::empty())?;
            copy_all(
                openat(source, name, DIRECTORY, Mode::empty())?,
                to.as_fd(),
                depth + 1,
            )?;
            give(&to, stat, mode)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let from = openat(source, name, flags, Mode::empty())?;
            // Another one in its place meanwhile could never end.
            if FileType::from_raw_mode(fstat(&from)?.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("it changes"));
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut to = File::from(openat(target, name, flags, Mode::from_bits_truncate(0o600))?);
            io::copy(&mut File::from(from), &mut to)?;
            give(&to, stat, mode)
        }
        FileType::Symlink => {
            symlinkat(readlinkat(source, name, Vec::new())?, target, name)?;
            let (uid, gid) = owner(stat);
            Ok(chownat(target, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        // Sockets, pipes and devices are of no use in another place.
        _ => Ok(()),
    }
}

fn give(file: impl AsFd, stat: &Stat, mode: Mode) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(&file, uid, gid)?;
    // After the owner, whose change takes the set-user-ID bits away.
    Ok(fchmod(&file, mode)?)
}
