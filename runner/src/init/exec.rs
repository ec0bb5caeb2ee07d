//! The last step: the terminal and the command.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, makedev, openat, openat2};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::{Command, Context, Done, failed, mounts, reaper};
use crate::channel::{self, Failure, FailureKind, FromInit, Raw};
use crate::setup::Slot;
use crate::sys::{self, ExecStrings};

/// The file system of terminals, as statfs(2) tells it.
const DEVPTS_MAGIC: rustix::fs::FsWord = 0x1cd1;
/// The path searched when the environment has none, Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A terminal of the container's own devpts. Its slave is taken by descriptor, never by a path the
/// container could have changed, and bound to /dev/console the same way.
pub(super) fn terminal(ctx: &mut Context) -> Done {
    let slave = open_terminal(ctx).map_err(failed("make the terminal"))?;
    ctx.terminal = Some(slave);
    Ok(())
}

fn open_terminal(ctx: &Context) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(ctx.slot(Slot::DevPts)?, "ptmx", flags, Mode::empty())?;
    let slave = slave_of(&master)?;
    mounts::bind_console(ctx, &slave)?;
    join_terminal(ctx, &master, slave)
}

/// A terminal of the devpts of a container that runs. The file is checked to be what it should be before it is opened: opening
/// another device, or a pipe, could do something.
pub(super) fn further_terminal(ctx: &mut Context) -> Done {
    let open = || {
        let found = openat2(
            CWD,
            "/dev/pts/ptmx",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )?;
        let (stat, fs) = (fstat(&found)?, fstatfs(&found)?);
        let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == makedev(5, 2)
            && fs.f_type == DEVPTS_MAGIC;
        if !is_ptmx {
            return Err(io::Error::other("its /dev/pts is not as it was made"));
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?;
        // Not another one in its place meanwhile.
        let opened = fstat(&master)?;
        if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(io::Error::other("its /dev/pts changes"));
        }
        let slave = slave_of(&master)?;
        join_terminal(ctx, &master, slave)
    };
    let slave = open().map_err(failed("make a terminal in the container"))?;
    ctx.terminal = Some(slave);
    Ok(())
}

fn slave_of(master: &OwnedFd) -> io::Result<OwnedFd> {
    unlockpt(master)?;
    Ok(ioctl_tiocgptpeer(
        master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?)
}

/// Gives the master side away and makes the slave this process' own terminal.
fn join_terminal(ctx: &Context, master: &OwnedFd, slave: OwnedFd) -> io::Result<OwnedFd> {
    if let Some(report) = &ctx.report {
        channel::send(report, &FromInit::Terminal, &[master.as_fd()])?;
    }
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)?;
    Ok(slave)
}

/// Execs the command, or starts it below our own init; returns only when that failed.
pub(super) fn run(ctx: &mut Context, mut command: Command) -> Failure {
    add_home(ctx, &mut command.env);
    ctx.slots.clear();
    if !command.init {
        if ctx.terminal.is_none() {
            // A session of its own, so that no signal of the caller's terminal finds it.
            let _ = rustix::process::setsid();
        }
        sys::reset_signals();
        return exec(&command);
    }
    reaper::run(ctx, &command)
}

fn add_home(ctx: &Context, env: &mut Vec<Raw>) {
    if let Some(user) = &ctx.user
        && !env.iter().any(|v| v.0.starts_with(b"HOME="))
    {
        env.push(Raw::from(&format!("HOME={}", user.home)));
    }
}

/// Execs the command in place of this process; returns only when that failed.
pub(super) fn exec(command: &Command) -> Failure {
    let name = command.args.first().map(Raw::to_string).unwrap_or_default();
    let error = try_exec(command)
        .err()
        .unwrap_or_else(|| io::ErrorKind::InvalidInput.into());
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => FailureKind::CommandNotFound,
        _ => FailureKind::CommandNotExecutable,
    };
    Failure {
        kind,
        what: name,
        errno: error.raw_os_error(),
    }
}

/// Why the command could not be started as things are now; none when it seems that it can.
pub(super) fn find(command: &Command) -> Option<Failure> {
    let mut error = libc::ENOENT;
    for path in candidates(command) {
        let path = Raw(path);
        let is_file = rustix::fs::stat(path.as_path())
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        match rustix::fs::access(path.as_path(), rustix::fs::Access::EXEC_OK) {
            Ok(()) if is_file => return None,
            Ok(()) | Err(rustix::io::Errno::ACCESS) => error = libc::EACCES,
            Err(_) => {}
        }
    }
    Some(Failure {
        kind: match error {
            libc::ENOENT => FailureKind::CommandNotFound,
            _ => FailureKind::CommandNotExecutable,
        },
        what: command.args.first().map(Raw::to_string).unwrap_or_default(),
        errno: Some(error),
    })
}

fn try_exec(command: &Command) -> io::Result<()> {
    let args = command
        .args
        .iter()
        .map(Raw::to_c)
        .collect::<io::Result<Vec<CString>>>()?;
    let env = command
        .env
        .iter()
        .map(Raw::to_c)
        .collect::<io::Result<Vec<CString>>>()?;
    let arg_refs: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    let env_refs: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
    let (arg_list, env_list) = (ExecStrings::new(&arg_refs), ExecStrings::new(&env_refs));
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for path in candidates(command) {
        let failure = sys::exec(Raw(path).to_c()?.as_c_str(), &arg_list, &env_list);
        match failure.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // As shells do: look further, but remember that something was there.
            Some(libc::EACCES) => error = failure,
            _ => return Err(failure),
        }
    }
    Err(error)
}

/// Where the command may be, in order.
fn candidates(command: &Command) -> Vec<Vec<u8>> {
    let name = command.args.first().map(|a| a.0.as_slice()).unwrap_or_default();
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let path = command.env.iter().rev().find_map(|v| v.0.strip_prefix(b"PATH="));
    let path = path.unwrap_or(DEFAULT_PATH.as_bytes());
    let join = |dir: &[u8]| [if dir.is_empty() { b"." } else { dir }, b"/", name].concat();
    path.split(|b| *b == b':').map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, env: &[&str], expect: &[&str]) {
        let command = Command {
            args: vec![Raw::from(name)],
            env: env.iter().map(Raw::from).collect(),
            init: false,
        };
        let got: Vec<String> = candidates(&command)
            .into_iter()
            .map(|c| String::from_utf8(c).unwrap())
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn commands_are_searched_in_path() {
        check("/bin/x", &["PATH=/a"], &["/bin/x"]);
        check("./x", &["PATH=/a"], &["./x"]);
        check("x", &["PATH=/a:/b"], &["/a/x", "/b/x"]);
        check("x", &["PATH=/a::"], &["/a/x", "./x", "./x"]);
        check("x", &["PATH=/a", "PATH=/b"], &["/b/x"]);
        assert_eq!(DEFAULT_PATH.split(':').count(), 6);
    }
}
