//! Removing what nobody uses any more.
//!
//! Removing a bridge takes the kernel as long as starting several containers. Therefore the last one that leaves starts a small
//! process that waits a moment, for the next container often comes at once, and removes bridge and rules then.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::host;
use super::lease::Leases;
use crate::error::{Result, RunnerError};
use crate::sys::{self, ExecStrings};

/// The first argument that makes a program of this library remove an unused bridge.
pub(crate) const HIDDEN_ARGUMENT: &str = "__box_network_sweep";
/// How long an unused bridge is kept.
const LINGER: Duration = Duration::from_secs(1);
/// Where the sweeper's lock comes along.
const LOCK: i32 = 3;

/// Starts the process that removes bridge and rules, unless somebody uses them or it is there already.
pub(super) fn start_if_unused(leases: &Leases, program: BorrowedFd<'_>, directory: &Path) -> io::Result<()> {
    let (living, _) = leases.all()?;
    if !living.is_empty() {
        return Ok(());
    }
    let Some(lock) = leases.sweeper()? else {
        return Ok(());
    };
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let directory = CString::new(directory.as_os_str().as_bytes())?;
    let argument = CString::new(HIDDEN_ARGUMENT)?;
    let bridge = CString::new(leases.bridge())?;
    let args: [&CStr; 4] = [c"box", &argument, &directory, &bridge];
    let null = null.as_raw_fd();
    // Nobody waits for it: it ends after its starter, as a rule.
    sys::spawn(&sys::Program {
        file: program,
        args: &ExecStrings::new(&args),
        env: &ExecStrings::new(&[]),
        fds: &[null, null, null, lock.as_raw_fd()],
        namespaces: 0,
    })
    .map(drop)
}

/// The process itself.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let directory = arguments.next().map(PathBuf::from);
    let bridge = arguments.next().and_then(|bridge| bridge.into_string().ok());
    let (Some(directory), Some(bridge), Ok(lock)) = (directory, bridge, sys::inherited_fd(LOCK)) else {
        return 125;
    };
    std::thread::sleep(LINGER);
    let swept = Leases::lock(&directory, &bridge).and_then(|leases| {
        // Whoever leaves after this starts another one.
        drop(lock);
        sweep(leases)
    });
    i32::from(swept.is_err())
}

/// Removes what the dead left, and everything when nobody is alive.
fn sweep(leases: Leases) -> io::Result<()> {
    let (living, dead) = leases.all()?;
    if living.is_empty() {
        host::remove(leases.bridge())?;
        return leases.forget();
    }
    for number in dead {
        host::clear(leases.bridge(), number)?;
        leases.free(number)?;
    }
    Ok(())
}

/// Removes what killed processes left of their private networks. `directory` is that of
/// [`NetworkRequest`](crate::NetworkRequest). Cheap when there is nothing.
pub fn reap(directory: &Path) -> Result<()> {
    let failed = |e| RunnerError::os(format!("remove unused networks ({})", directory.display()), e);
    for bridge in Leases::bridges(directory).map_err(failed)? {
        reap_one(directory, &bridge).map_err(failed)?;
    }
    Ok(())
}

fn reap_one(directory: &Path, bridge: &str) -> io::Result<()> {
    let Some(leases) = Leases::look_after(directory, bridge)? else {
        return Ok(());
    };
    let (living, dead) = leases.all()?;
    let is_watched = !living.is_empty() || leases.sweeper()?.is_none();
    if dead.is_empty() && is_watched {
        return Ok(());
    }
    sweep(leases)
}
