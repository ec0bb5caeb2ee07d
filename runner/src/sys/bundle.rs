//! What containers made from a bundle of others need besides.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use super::{BpfInsn, check, set_mount_attributes};

/// Mount attributes that only bundles ask for.
pub(crate) mod more_attr {
    pub(crate) const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    pub(crate) const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    pub(crate) const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
    pub(crate) const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
    pub(crate) const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
}

/// mount_setattr(2) on a mount held by fd; a propagation of 0 leaves that as it is.
pub(crate) fn change_mount(
    mount: BorrowedFd<'_>,
    recursive: bool,
    (set, clear): (u64, u64),
    propagation: u64,
) -> io::Result<()> {
    set_mount_attributes(
        mount,
        recursive,
        &libc::mount_attr {
            attr_set: set,
            attr_clr: clear,
            propagation,
            userns_fd: 0,
        },
    )
}

/// The three sets that capset(2) sets, bit n for capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CapSets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets the capability sets of this thread.
pub(crate) fn set_cap_sets(sets: &CapSets) -> io::Result<()> {
    let mut header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data structs, which is what is given.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Puts one capability, which is permitted and inheritable, into the ambient set.
pub(crate) fn raise_ambient(capability: u32) -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) }.into())
        .map(drop)
}

/// Loads a system call filter with these flags of seccomp(2) into this (single-threaded) process.
pub(crate) fn load_filter(program: &[BpfInsn], flags: u64) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: BpfInsn has the layout of sock_filter, `len` of them lie behind the pointer, and the
    // kernel only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const fprog,
        )
    })
    .map(drop)
}

/// A descriptor that becomes readable when a signal that is blocked in this thread is waiting.
pub(crate) fn signal_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data, filled before it is used.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC)
    };
    let fd = check(fd.into())? as i32;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Orphans among this process' descendants become its children.
pub(crate) fn become_reaper() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}
