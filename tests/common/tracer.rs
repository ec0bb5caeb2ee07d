//! box under ptrace: its system calls on files are counted over all its threads, and one of them can be the last, or fail.
//! What box starts is not traced.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Bench, text};

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL before the call does anything.
    Kill,
    /// The call does nothing and says this.
    Error(Errno),
    /// So do all later ones that need room on the disk.
    Lasting(Errno),
}

/// What a system call does to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Read,
    /// Needs room on the disk.
    Grow,
    /// Any other change: removes, renames, syncs, locks, sets attributes.
    Change,
}

/// A call that counts.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: &'static str,
    pub kind: Kind,
    pub path: PathBuf,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.name, self.path.display())
    }
}

/// What came of a run.
pub struct Traced {
    /// None if it was killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The calls that counted, in their order.
    pub calls: Vec<Call>,
    /// The most memory it had, in bytes.
    pub peak: u64,
}

/// Where a call has its path.
#[derive(Clone, Copy)]
enum Place {
    Path(usize),
    At(usize, usize),
    Fd(usize),
}

use Kind::{Change, Grow, Read};
use Place::{At, Fd, Path as Named};

const CALLS: &[(libc::c_long, &str, Kind, Place)] = &[
    (libc::SYS_open, "open", Read, Named(0)),
    (libc::SYS_openat, "openat", Read, At(0, 1)),
    (libc::SYS_openat2, "openat2", Read, At(0, 1)),
    (libc::SYS_read, "read", Read, Fd(0)),
    (libc::SYS_pread64, "pread64", Read, Fd(0)),
    (libc::SYS_getdents64, "getdents64", Read, Fd(0)),
    (libc::SYS_mkdir, "mkdir", Grow, Named(0)),
    (libc::SYS_mkdirat, "mkdirat", Grow, At(0, 1)),
    (libc::SYS_mknodat, "mknodat", Grow, At(0, 1)),
    (libc::SYS_rename, "rename", Grow, Named(1)),
    (libc::SYS_renameat, "renameat", Grow, At(2, 3)),
    (libc::SYS_renameat2, "renameat2", Grow, At(2, 3)),
    (libc::SYS_link, "link", Grow, Named(1)),
    (libc::SYS_linkat, "linkat", Grow, At(2, 3)),
    (libc::SYS_symlink, "symlink", Grow, Named(1)),
    (libc::SYS_symlinkat, "symlinkat", Grow, At(1, 2)),
    (libc::SYS_write, "write", Grow, Fd(0)),
    (libc::SYS_writev, "writev", Grow, Fd(0)),
    (libc::SYS_pwrite64, "pwrite64", Grow, Fd(0)),
    (libc::SYS_copy_file_range, "copy_file_range", Grow, Fd(2)),
    (libc::SYS_sendfile, "sendfile", Grow, Fd(0)),
    (libc::SYS_fallocate, "fallocate", Grow, Fd(0)),
    (libc::SYS_fsync, "fsync", Grow, Fd(0)),
    (libc::SYS_fdatasync, "fdatasync", Grow, Fd(0)),
    (libc::SYS_syncfs, "syncfs", Grow, Fd(0)),
    (libc::SYS_setxattr, "setxattr", Grow, Named(0)),
    (libc::SYS_lsetxattr, "lsetxattr", Grow, Named(0)),
    (libc::SYS_fsetxattr, "fsetxattr", Grow, Fd(0)),
    (libc::SYS_ftruncate, "ftruncate", Change, Fd(0)),
    (libc::SYS_unlink, "unlink", Change, Named(0)),
    (libc::SYS_unlinkat, "unlinkat", Change, At(0, 1)),
    (libc::SYS_rmdir, "rmdir", Change, Named(0)),
    (libc::SYS_chmod, "chmod", Change, Named(0)),
    (libc::SYS_fchmod, "fchmod", Change, Fd(0)),
    (libc::SYS_fchmodat, "fchmodat", Change, At(0, 1)),
    (libc::SYS_fchown, "fchown", Change, Fd(0)),
    (libc::SYS_lchown, "lchown", Change, Named(0)),
    (libc::SYS_fchownat, "fchownat", Change, At(0, 1)),
    (libc::SYS_utimensat, "utimensat", Change, At(0, 1)),
    (libc::SYS_flock, "flock", Change, Fd(0)),
    (libc::SYS_fcntl, "fcntl (lock)", Change, Fd(0)),
];

/// Runs box on the bench's store. From the first call on the store on, the calls below one of `places` (Kill: but for mere reads)
/// count; the fault comes at the one with this number, counted from 0.
#[allow(clippy::zombie_processes)] // the tracer waits for it
pub fn run(bench: &Bench, args: &[String], places: &[&Path], fault: Option<(usize, Fault)>) -> Traced {
    let (out, err) = (bench.path("traced.out"), bench.path("traced.err"));
    let mut command = Command::new("sh");
    let child = command
        .args(["-c", "kill -STOP $$; exec \"$0\" \"$@\"", super::BOX])
        .args(args)
        .env("BOX_ROOT", bench.store())
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let main = Pid::from_raw(child.id() as i32);
    let mut tracer = Tracer {
        main,
        store: bench.store(),
        places: places.iter().map(|place| (*place).to_owned()).collect(),
        fault,
        has_begun: false,
        inside: BTreeSet::new(),
        pending: BTreeMap::new(),
        calls: Vec::new(),
        peak: 0,
    };
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).unwrap();
    kill(main, Signal::SIGCONT).unwrap();
    let code = tracer.follow();
    Traced {
        code,
        stdout: text(&fs::read(out).unwrap()),
        stderr: text(&fs::read(err).unwrap()),
        calls: tracer.calls,
        peak: tracer.peak,
    }
}

struct Tracer {
    main: Pid,
    store: PathBuf,
    places: Vec<PathBuf>,
    fault: Option<(usize, Fault)>,
    has_begun: bool,
    /// Threads in a system call.
    inside: BTreeSet<Pid>,
    /// Threads whose call was left out, and what it is to say.
    pending: BTreeMap<Pid, Errno>,
    calls: Vec<Call>,
    peak: u64,
}

impl Tracer {
    /// Until it ends; gives its code, none if it was killed.
    fn follow(&mut self) -> Option<i32> {
        // Not what other threads of the tests have started.
        let any = Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD);
        loop {
            // Who was killed meanwhile can't be asked or resumed, and says so itself.
            match waitpid(None, any).unwrap() {
                WaitStatus::Exited(pid, code) if pid == self.main => return Some(code),
                WaitStatus::Signaled(pid, ..) if pid == self.main => return None,
                WaitStatus::PtraceSyscall(pid) => {
                    let _ = self.stop(pid);
                    let _ = ptrace::syscall(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if event == libc::PTRACE_EVENT_EXIT {
                        self.peak = self.peak.max(peak(pid));
                    }
                    self.resume(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
                _ => {}
            }
        }
    }

    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        // With nothing to count it runs at full speed.
        let _ = if self.places.is_empty() {
            ptrace::cont(pid, signal)
        } else {
            ptrace::syscall(pid, signal)
        };
    }

    /// A thread is at the beginning or the end of a system call.
    fn stop(&mut self, pid: Pid) -> nix::Result<()> {
        let mut regs = ptrace::getregs(pid)?;
        let entered = self.inside.insert(pid);
        if !entered || regs.rax != -libc::ENOSYS as u64 {
            self.inside.remove(&pid);
            if let Some(errno) = self.pending.remove(&pid) {
                regs.rax = -(errno as i64) as u64;
                ptrace::setregs(pid, regs)?;
            }
            return Ok(());
        }
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10];
        let Some(call) = self.counted(pid, regs.orig_rax as libc::c_long, args) else {
            return Ok(());
        };
        let number = self.calls.len();
        let is_growing = call.kind == Grow;
        self.calls.push(call);
        match self.fault {
            Some((at, Fault::Kill)) if at == number => kill(self.main, Signal::SIGKILL)?,
            Some((at, Fault::Error(errno) | Fault::Lasting(errno))) if at == number => {
                self.leave_out(pid, errno)?;
            }
            Some((at, Fault::Lasting(errno))) if at < number && is_growing => self.leave_out(pid, errno)?,
            _ => {}
        }
        Ok(())
    }

    fn leave_out(&mut self, pid: Pid, errno: Errno) -> nix::Result<()> {
        let mut regs = ptrace::getregs(pid)?;
        regs.orig_rax = u64::MAX;
        ptrace::setregs(pid, regs)?;
        self.pending.insert(pid, errno);
        Ok(())
    }

    /// The call, if it counts.
    fn counted(&mut self, pid: Pid, number: libc::c_long, args: [u64; 4]) -> Option<Call> {
        let &(_, name, mut kind, place) = CALLS.iter().find(|call| call.0 == number)?;
        let locks = [
            libc::F_SETLK,
            libc::F_SETLKW,
            libc::F_OFD_SETLK,
            libc::F_OFD_SETLKW,
        ];
        if number == libc::SYS_fcntl && !locks.contains(&(args[1] as i32)) {
            return None;
        }
        let flags = match number {
            libc::SYS_open => args[1],
            libc::SYS_openat => args[2],
            libc::SYS_openat2 => u64::from_ne_bytes(memory(pid, args[2], 8).try_into().ok()?),
            _ => 0,
        };
        if flags & libc::O_CREAT as u64 != 0 {
            kind = Grow;
        }
        let path = match place {
            Named(path) => resolve(pid, libc::AT_FDCWD as u32, args[path])?,
            At(dir, path) => resolve(pid, args[dir] as u32, args[path])?,
            Fd(fd) => fs::read_link(format!("/proc/{pid}/fd/{}", args[fd] as u32)).ok()?,
        };
        self.has_begun |= path.starts_with(&self.store);
        let is_wanted = !(kind == Read && matches!(self.fault, Some((_, Fault::Kill))));
        let is_there = self.places.iter().any(|place| path.starts_with(place));
        (self.has_begun && is_wanted && is_there).then_some(Call { name, kind, path })
    }
}

/// A path that a thread gave, in full.
fn resolve(pid: Pid, dir: u32, address: u64) -> Option<PathBuf> {
    let given = match address {
        0 => Vec::new(),
        _ => memory(pid, address, libc::PATH_MAX as usize),
    };
    let given = given.split(|byte| *byte == 0).next()?;
    let dir = match dir as i32 {
        libc::AT_FDCWD => format!("/proc/{pid}/cwd"),
        fd => format!("/proc/{pid}/fd/{fd}"),
    };
    let given = Path::new(OsStr::from_bytes(given));
    Some(match given.is_absolute() {
        true => given.to_owned(),
        false if given.as_os_str().is_empty() => fs::read_link(dir).ok()?,
        false => fs::read_link(dir).ok()?.join(given),
    })
}

/// Up to so many bytes of a thread's memory, a page at a time.
fn memory(pid: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(file) = File::open(format!("/proc/{pid}/mem")) else {
        return bytes;
    };
    while bytes.len() < length {
        let at = address + bytes.len() as u64;
        let mut part = vec![0; (length - bytes.len()).min(4096 - (at % 4096) as usize)];
        match file.read_at(&mut part, at) {
            Ok(count) if count > 0 => bytes.extend(&part[..count]),
            _ => break,
        }
        if bytes.contains(&0) && length > 8 {
            break;
        }
    }
    bytes
}

/// The most memory that a process ever had.
fn peak(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
