//! Files that are put into a directory of the user.

use std::fs::File;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::beneath::look_at;
use super::error::Problem;
use super::trouble::{Trouble, failed};

/// Makes a file beside what it replaces, which stays if something goes wrong.
pub(super) fn put_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    write: impl FnOnce(File) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    if look_at(dir, name).map_err(failed("look at what it replaces"))? == Some(FileType::Directory) {
        return Err(Problem::OverDirectory.into());
    }
    let unfinished = format!(".box-unfinished-{}", std::process::id());
    // One of this name is what an earlier process of this number left.
    let _ = rustix::fs::unlinkat(dir, &unfinished, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, &unfinished, flags, Mode::RUSR | Mode::WUSR);
    let file = file.map_err(failed("make the file"))?;
    let written = write(File::from(file)).and_then(|()| {
        rustix::fs::renameat(dir, &unfinished, dir, name).map_err(failed("replace what was there"))
    });
    if written.is_err() {
        let _ = rustix::fs::unlinkat(dir, &unfinished, AtFlags::empty());
    }
    written
}
