//! Credentials: ids, capabilities, the keyring, the system call filter.

use std::io;

use super::check;

/// Runs `work` with the file system ids `uid` and `gid`, and the capabilities kept across the change.
///
/// Only for a single-threaded process; both are per thread and are set back before it returns.
pub(crate) fn with_fs_ids<T>(uid: u32, gid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: PR_GET_SECUREBITS takes no pointers.
    let before = check(unsafe { libc::prctl(libc::PR_GET_SECUREBITS) }.into())? as libc::c_ulong;
    // SAFETY: PR_SET_SECUREBITS takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, before | SECBIT_NO_SETUID_FIXUP) }.into())?;
    // SAFETY: setfsuid and setfsgid take numbers only.
    let (old_gid, old_uid) = unsafe { (libc::setfsgid(gid), libc::setfsuid(uid)) };
    let result = work();
    // SAFETY: as above.
    unsafe {
        libc::setfsuid(old_uid as libc::uid_t);
        libc::setfsgid(old_gid as libc::gid_t);
    }
    // SAFETY: as above.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, before) }.into())?;
    result
}

/// Whether nobody can set supplementary groups here: so in namespaces of a single id, whose map an ordinary user wrote.
pub(crate) fn are_groups_fixed() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// Sets all three user ids, all three group ids and the supplementary groups of this process; but no groups where they are fixed.
pub(crate) fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `groups`.
    match check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into()) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && are_groups_fixed() => {}
        other => drop(other?),
    }
    // SAFETY: numbers only.
    check(unsafe { libc::setresgid(gid, gid, gid) }.into())?;
    // SAFETY: numbers only.
    check(unsafe { libc::setresuid(uid, uid, uid) }.into())?;
    Ok(())
}

/// As `set_ids`, but keeps the supplementary groups, and the process readable by its own user: what
/// an ordinary user's process does in its own user namespace.
pub(crate) fn become_namespace_root() -> io::Result<()> {
    // SAFETY: numbers only, here and below.
    check(unsafe { libc::setresgid(0, 0, 0) }.into())?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(0, 0, 0) }.into())?;
    // SAFETY: as above.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }.into()).map(drop)
}

/// Keeps the permitted capabilities when the user id changes (reset by the kernel at exec).
pub(crate) fn keep_caps() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Takes every capability that is not in `keep` out of the bounding set.
pub(crate) fn limit_bounding_set(keep: u64) -> io::Result<()> {
    for cap in (0..64u32).filter(|cap| keep & (1 << cap) == 0) {
        // SAFETY: numbers only.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) }.into()) {
            // Beyond the last capability this kernel knows.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        };
    }
    Ok(())
}

/// Empties the ambient set.
pub(crate) fn clear_ambient() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())
        .map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// The permitted capabilities of this thread.
pub(crate) fn permitted_caps() -> io::Result<u64> {
    let mut header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads one header and writes two data structs, which is what is given.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Sets permitted and effective to `caps`, and inheritable to nothing.
pub(crate) fn set_caps(caps: u64) -> io::Result<()> {
    let mut header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let half = |bits: u32| CapData {
        effective: bits,
        permitted: bits,
        inheritable: 0,
    };
    let data = [half(caps as u32), half((caps >> 32) as u32)];
    // SAFETY: version 3 reads one header and two data structs, which is what is given.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Forbids gaining privileges by exec, for good.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// No process without rights over this one's user namespace may look into it, until it execs.
pub(crate) fn set_undumpable() -> io::Result<()> {
    // SAFETY: a flag of this process.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// Asks for SIGKILL when the thread that started this process ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
}

/// Joins a new, anonymous session keyring. A kernel without keyrings has none to leak.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    match check(ret) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// One instruction of a classic BPF program, as the kernel has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BpfInsn {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Loads a system call filter into this (single-threaded) process.
pub(crate) fn load_seccomp(program: &[BpfInsn]) -> io::Result<()> {
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
            0,
            &raw const fprog,
        )
    })
    .map(drop)
}
