//! Processes: clone into namespaces, exec, wait, signals.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Of clone3(2) only; libc has it as an int, where it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of [`fork_into`] this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's id in its own pid namespace.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Forks this single-threaded process into new namespaces (`CLONE_NEW*`), and into the cgroup v2
/// directory when one is given.
pub(crate) fn fork_into(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is fork: the child has its own copy of everything, and since no
    // other thread exists no lock can be held in that copy. `args` lives through the call.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel just gave us this descriptor.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent {
        pid: pid as i32,
        pidfd,
    })
}

/// Forks this single-threaded process; `Ok(None)` in the child, the child's id in the parent.
///
/// By clone, not clone3, which the system call filter refuses.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: no other thread exists, so no lock can be held in the child's copy.
    let pid = check(unsafe { libc::fork() }.into())? as i32;
    Ok((pid != 0).then_some(pid))
}

/// New namespaces (`CLONE_NEW*`) for this single-threaded process.
pub(crate) fn unshare(namespaces: u64) -> io::Result<()> {
    // SAFETY: numbers only; no flag here makes threads share less than Rust expects.
    check(unsafe { libc::unshare(namespaces as libc::c_int) }.into()).map(drop)
}

/// Joins the namespace behind `fd`.
pub(crate) fn setns(fd: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) }.into()).map(drop)
}

fn pointers(list: &[&CStr]) -> Vec<*const libc::c_char> {
    list.iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Strings laid out as execve(2) takes them.
pub(crate) struct ExecStrings<'a> {
    pointers: Vec<*const libc::c_char>,
    _strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> ExecStrings<'a> {
    pub(crate) fn new(list: &[&'a CStr]) -> ExecStrings<'a> {
        ExecStrings {
            pointers: pointers(list),
            _strings: std::marker::PhantomData,
        }
    }

    pub(super) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// execve(2); returns only when it failed.
pub(crate) fn exec(path: &CStr, args: &ExecStrings<'_>, env: &ExecStrings<'_>) -> io::Error {
    // SAFETY: all are valid C strings and the lists end in a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// How a process ended and what it and its reaped descendants used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// The process.
    pub(crate) pid: i32,
    /// The raw status of wait(2).
    pub(crate) status: i32,
    /// Microseconds of user time.
    pub(crate) user_us: u64,
    /// Microseconds of system time.
    pub(crate) system_us: u64,
    /// Blocks of 512 bytes read.
    pub(crate) blocks_in: u64,
    /// Blocks of 512 bytes written.
    pub(crate) blocks_out: u64,
    /// Peak resident KiB of the largest process.
    pub(crate) max_rss_kib: u64,
}

/// wait4(2) for `pid` (-1: any child). `Ok(None)` only when `now` is set and none has ended yet.
pub(crate) fn wait_for(pid: i32, now: bool) -> io::Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let options = if now { libc::WNOHANG } else { 0 };
    loop {
        // SAFETY: both pointers are to live local values.
        match check(unsafe { libc::wait4(pid, &raw mut status, options, &raw mut usage) }.into()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some(ended(pid as i32, status, &usage))),
        }
    }
}

fn ended(pid: i32, status: i32, usage: &libc::rusage) -> Ended {
    let us = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    Ended {
        pid,
        status,
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        blocks_in: usage.ru_inblock as u64,
        blocks_out: usage.ru_oublock as u64,
        max_rss_kib: usage.ru_maxrss as u64,
    }
}

/// Sets every signal to its default action and unblocks all.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL runs no code of ours; numbers the kernel refuses are left alone.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_signal_mask(false);
}

/// The kernel's own action for the end of a child, so that it can be waited for.
pub(crate) fn default_child_signal() {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Blocks every signal in this thread.
pub(crate) fn block_signals() {
    set_signal_mask(true);
}

fn set_signal_mask(block: bool) {
    // SAFETY: sigset_t is plain data, filled before it is used; only this thread's mask changes.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        if block {
            libc::sigfillset(&raw mut set);
        } else {
            libc::sigemptyset(&raw mut set);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits for any signal that is blocked in this thread and returns its number.
pub(crate) fn wait_signal() -> io::Result<i32> {
    let mut signal = 0;
    // SAFETY: sigset_t is plain data, filled before it is used; `signal` lives through the call.
    let error = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigwait(&raw const set, &raw mut signal)
    };
    if error == 0 {
        Ok(signal)
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// Sends a signal; one to a process that is gone is no error.
pub(crate) fn signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    match check(unsafe { libc::kill(pid, signal) }.into()) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Sends any signal by number to the process behind a pidfd; one that is gone is no error.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is given, the rest are numbers.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    };
    match check(ret) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Ends this process at once, running nothing of it.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and runs no handlers.
    unsafe { libc::_exit(code) }
}
