//! The system calls no safe crate offers: the only unsafe code of the runner.
//!
//! Every function takes and gives safe types; each unsafe block says why it is sound.

#![allow(unsafe_code)]

mod bpf;
mod bundle;
mod cred;
mod lookup;
mod memory;
mod process;
mod spawn;

pub(crate) use bpf::*;
pub(crate) use bundle::*;
pub(crate) use cred::*;
pub(crate) use lookup::open_beneath;
pub(crate) use memory::drop_text;
pub(crate) use process::*;
pub(crate) use spawn::*;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Makes an `io::Result` of a C-style return value.
fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Mount attributes, `MOUNT_ATTR_*` of mount_setattr(2).
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    pub(crate) const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    pub(crate) const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    pub(crate) const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
}

/// mount_setattr(2) on a mount held by fd: sets `set`, maps its ids by `idmap` when given, and makes
/// it private, since a clone is the peer of the mount it was cloned from.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    idmap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set
            | if idmap.is_some() {
                libc::MOUNT_ATTR_IDMAP
            } else {
                0
            },
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: idmap.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    set_mount_attributes(mount, recursive, &attr)
}

fn set_mount_attributes(mount: BorrowedFd<'_>, recursive: bool, attr: &libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, `attr` lives through the call and its size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Marks every fd from `first` on close-on-exec.
pub(crate) fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: only changes descriptor flags; closes nothing.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes all descriptors from this number on. For a process that touches no descriptor that it owns from then on, and ends by
/// [`exit_now`].
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: by the contract above nobody uses or drops what owns these descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Takes over a descriptor this process was started with at a known number.
///
/// Fails when it is not open. The caller calls it once for each number.
pub(crate) fn inherited_fd(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD reads and writes no memory.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, and by the contract above nobody else owns that number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Brings up the loopback interface of this network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: an all-zero ifreq is a valid value of that plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// Sets a limit of setrlimit(2) for this process. Limits are given as the kernel's numbers.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `new` lives through the call, and no old value is asked for.
    check(unsafe { libc::prlimit64(0, resource, &raw const new, std::ptr::null_mut()) }.into()).map(drop)
}

/// The limit in force: soft and hard.
pub(crate) fn rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `old` is writable and lives through the call, and no new value is given.
    check(unsafe { libc::prlimit64(0, resource, std::ptr::null(), &raw mut old) }.into())?;
    Ok((old.rlim_cur, old.rlim_max))
}
