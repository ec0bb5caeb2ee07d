//! The program that is started again as the containers' init, so that nothing in a container can
//! write to it through /proc/self/exe (CVE-2019-5736).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create, stat};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Result, RunnerError};
use crate::sys::{self, attr};

/// A detached read-only clone of the program's mount, which costs nothing; where that can't be had,
/// a sealed copy in memory.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    let found = clone(path)
        .or_else(|_| clone_by_name(path))
        .or_else(|_| sealed_copy(path));
    found.map_err(|e| RunnerError::os(format!("open the program {}", path.display()), e))
}

fn clone(path: &Path) -> io::Result<OwnedFd> {
    let mount = open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    sys::mount_setattr(
        mount.as_fd(),
        false,
        attr::RDONLY | attr::NOSUID | attr::NODEV,
        None,
    )?;
    Ok(mount)
}

/// /proc/self/exe of a process that changed its mount namespace lies on a mount of the old one,
/// which can't be cloned; the file's name leads to the same file in the new one.
fn clone_by_name(path: &Path) -> io::Result<OwnedFd> {
    let mount = clone(&std::fs::read_link(path)?)?;
    let (wanted, found) = (stat(path)?, rustix::fs::fstat(&mount)?);
    if (wanted.st_dev, wanted.st_ino) == (found.st_dev, found.st_ino) {
        return Ok(mount);
    }
    Err(io::ErrorKind::NotFound.into())
}

fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let copy = memfd_create("box-init", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = File::from(copy);
    io::copy(&mut File::open(path)?, &mut copy)?;
    fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn no_way_to_write() {
        for opened in [clone, sealed_copy] {
            let fd = opened(Path::new("/proc/self/exe")).unwrap();
            use std::os::fd::AsRawFd;
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let written = std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|mut f| f.write(b"x"));
            assert!(written.is_err());
        }
    }

    #[test]
    fn a_missing_program_is_an_error() {
        assert!(open(Path::new("/no/such/program")).is_err());
    }
}
