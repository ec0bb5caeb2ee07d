//! Starting processes from a program that may have threads.
//!
//! Nothing forks: the child shares the parent's memory and only makes system calls until it
//! execs (`spawn`, where the parent's thread is stopped meanwhile) or exits (`NamespaceHolder`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;
use super::process::ExecStrings;

const STACK: usize = 64 * 1024;

/// A program as [`spawn`] starts it.
pub(crate) struct Program<'a> {
    /// The open executable.
    pub(crate) file: BorrowedFd<'a>,
    /// Its arguments.
    pub(crate) args: &'a ExecStrings<'a>,
    /// Its environment.
    pub(crate) env: &'a ExecStrings<'a>,
    /// Its descriptors: the first becomes 0, the second 1 and so on. At most [`MAX_FDS`].
    pub(crate) fds: &'a [RawFd],
    /// New namespaces it is put in (`CLONE_NEW*`), or none.
    pub(crate) namespaces: libc::c_int,
}

/// Most descriptors a started program can be given.
pub(crate) const MAX_FDS: usize = 32;

struct SpawnArgs {
    file: RawFd,
    args: *const *const libc::c_char,
    env: *const *const libc::c_char,
    fds: [RawFd; MAX_FDS],
    count: usize,
    error: i32,
}

/// Starts a program with exactly the given descriptors, all signals blocked, in a session of its own.
pub(crate) fn spawn(program: &Program<'_>) -> io::Result<(i32, OwnedFd)> {
    let mut fds = [-1; MAX_FDS];
    let count = program.fds.len();
    fds.get_mut(..count)
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(program.fds);
    let mut args = SpawnArgs {
        file: program.file.as_raw_fd(),
        args: program.args.as_ptr(),
        env: program.env.as_ptr(),
        fds,
        count,
        error: 0,
    };
    let mut stack = vec![0u128; STACK / 16];
    let mask = SignalsBlocked::new();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | program.namespaces;
    // SAFETY: CLONE_VFORK stops this thread until the child execs or exits, so `args` and `stack`
    // outlive the child's use of them; the child only makes system calls.
    let started = unsafe { clone_on(&mut stack, flags, exec_child, (&raw mut args).cast()) };
    drop(mask);
    let (pid, pidfd) = started?;
    if args.error != 0 {
        super::process::wait_for(pid, false)?;
        return Err(io::Error::from_raw_os_error(args.error));
    }
    Ok((pid, pidfd))
}

/// # Safety
/// `child` must touch nothing but `arg` and its stack, and both must stay valid until it has
/// exec'ed or exited.
unsafe fn clone_on(
    stack: &mut [u128],
    flags: i32,
    child: extern "C" fn(*mut libc::c_void) -> i32,
    arg: *mut libc::c_void,
) -> io::Result<(i32, OwnedFd)> {
    let top = stack.as_mut_ptr_range().end.cast();
    let mut pidfd: libc::c_int = -1;
    let flags = flags | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `top` is the 16-byte aligned end of a live stack; the rest is the caller's promise.
    let pid = check(unsafe { libc::clone(child, top, flags, arg, &raw mut pidfd) }.into())?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Blocks all signals while it lives, so that no handler of the parent runs in the child.
struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    fn new() -> SignalsBlocked {
        // SAFETY: sigset_t is plain data, filled before it is used; only this thread's mask changes.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
            SignalsBlocked(old)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the mask was filled by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

extern "C" fn exec_child(arg: *mut libc::c_void) -> i32 {
    // SAFETY: `spawn` passes a SpawnArgs that nobody else touches until this process is gone or
    // has exec'ed; only system calls are made.
    unsafe {
        let args = &mut *arg.cast::<SpawnArgs>();
        args.error = prepare_and_exec(args);
    }
    127
}

/// Returns the error number of what failed.
///
/// # Safety
/// Only for the child of `spawn`: it makes system calls and touches nothing but `args`.
unsafe fn prepare_and_exec(args: &mut SpawnArgs) -> i32 {
    const HIGH: libc::c_int = 64;
    // SAFETY: system calls on numbers and on the lists `spawn` prepared.
    unsafe {
        let errno = || *libc::__errno_location();
        for fd in &mut args.fds[..args.count] {
            *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, HIGH);
            if *fd < 0 {
                return errno();
            }
        }
        args.file = libc::fcntl(args.file, libc::F_DUPFD_CLOEXEC, HIGH);
        for (number, fd) in args.fds[..args.count].iter().enumerate() {
            if libc::dup2(*fd, number as libc::c_int) < 0 {
                return errno();
            }
        }
        libc::setsid();
        libc::syscall(
            libc::SYS_close_range,
            args.count,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        libc::execveat(
            args.file,
            c"".as_ptr(),
            args.args.cast(),
            args.env.cast(),
            libc::AT_EMPTY_PATH,
        );
        errno()
    }
}

/// A process that only holds namespaces until it is dropped, so that they can be opened and mapped.
pub(crate) struct NamespaceHolder {
    pid: i32,
    /// Closing it ends the holder.
    release: Option<OwnedFd>,
    /// Memory the holder still uses.
    _stack: Vec<u128>,
    _args: Box<HolderArgs>,
}

struct HolderArgs {
    wait_on: RawFd,
    ready: RawFd,
    join_user: RawFd,
    unshare: usize,
}

impl NamespaceHolder {
    /// A process in a new user namespace below the caller's.
    pub(crate) fn new_user() -> io::Result<NamespaceHolder> {
        NamespaceHolder::start(libc::CLONE_NEWUSER, None, 0)
    }

    /// A process in new namespaces (`CLONE_NEW*`) that belong to the given user namespace, or to the caller's.
    pub(crate) fn new_in(user: Option<BorrowedFd<'_>>, namespaces: u64) -> io::Result<NamespaceHolder> {
        NamespaceHolder::start(0, user, namespaces as usize)
    }

    fn start(flags: i32, user: Option<BorrowedFd<'_>>, unshare: usize) -> io::Result<NamespaceHolder> {
        let (wait_on, release) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (ready_in, ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut args = Box::new(HolderArgs {
            wait_on: wait_on.as_raw_fd(),
            ready: ready.as_raw_fd(),
            join_user: user.map_or(-1, |fd| fd.as_raw_fd()),
            unshare,
        });
        let mut stack = vec![0u128; STACK / 16];
        let mask = SignalsBlocked::new();
        // SAFETY: `args` and `stack` are kept by the holder until the child has exited; the child
        // makes raw system calls only, touching neither errno nor any lock.
        let started = unsafe { clone_on(&mut stack, libc::CLONE_VM | flags, hold, (&raw mut *args).cast()) };
        drop(mask);
        let (pid, _pidfd) = started?;
        let holder = NamespaceHolder {
            pid,
            release: Some(release),
            _stack: stack,
            _args: args,
        };
        drop(ready);
        let mut error = [0u8; 4];
        match rustix::io::retry_on_intr(|| rustix::io::read(&ready_in, &mut error))? {
            4 if error == [0; 4] => Ok(holder),
            4 => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error))),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for NamespaceHolder {
    fn drop(&mut self) {
        self.release = None;
        // It reads end-of-file and exits; there is nothing to do when it is gone already.
        let _ = super::process::wait_for(self.pid, false);
    }
}

extern "C" fn hold(arg: *mut libc::c_void) -> i32 {
    use syscalls::{Sysno, raw_syscall};
    // SAFETY: `start` keeps the args alive until this process has exited and nobody writes to them.
    let args = unsafe { &*arg.cast::<HolderArgs>() };
    let mut byte = 0u8;
    // SAFETY: raw system calls on numbers and on local memory. Other threads of the parent run
    // meanwhile in the same memory, so nothing here may touch errno, the heap or a lock.
    unsafe {
        let mut error = 0i32;
        if args.join_user >= 0 {
            error = -(raw_syscall!(Sysno::setns, args.join_user, libc::CLONE_NEWUSER) as i32);
        }
        if error == 0 && args.unshare != 0 {
            error = -(raw_syscall!(Sysno::unshare, args.unshare) as i32);
        }
        raw_syscall!(Sysno::write, args.ready, &raw const error, 4);
        // Everything but the pipe it waits on, above all its copy of that pipe's other end.
        let low = args.wait_on as usize;
        if low > 0 {
            raw_syscall!(Sysno::close_range, 0, low - 1, 0);
        }
        raw_syscall!(Sysno::close_range, low + 1, u32::MAX, 0);
        while raw_syscall!(Sysno::read, args.wait_on, &raw mut byte, 1) as isize == -(libc::EINTR as isize) {}
        raw_syscall!(Sysno::exit_group, 0);
    }
    0
}
