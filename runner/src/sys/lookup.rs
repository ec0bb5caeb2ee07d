//! Looking up paths of strangers.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How often a look-up is begun anew. Each time something must have been renamed or mounted in the middle of it.
const TRIES: u32 = 10_000;

/// openat2(2) with `..` or links in the path: the kernel says EAGAIN when anything on the machine was renamed or mounted meanwhile, since it can't
/// be sure then that `..` did not lead out.
pub(crate) fn open_beneath(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match openat2(&dir, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}
