//! Writing the id maps of another process' user namespace.

use std::fs;

use crate::error::{Result, RunnerError};
use crate::rootless::{PACKAGE, find_tool};

/// Which ids a map is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdKind {
    User,
    Group,
}

/// Maps ids of another process' user namespace, by lines of `uid_map` or `gid_map`: itself where that may be, else by `newuidmap` or
/// `newgidmap`, which know what the user was granted.
pub(crate) fn write_map(pid: i32, kind: IdKind, text: &str) -> Result<()> {
    let (file, tool, own) = match kind {
        IdKind::User => ("uid_map", "newuidmap", rustix::process::geteuid().as_raw()),
        IdKind::Group => ("gid_map", "newgidmap", rustix::process::getegid().as_raw()),
    };
    let mapping = |e| RunnerError::os(format!("map the ids {text:?}"), e);
    let path = format!("/proc/{pid}/{file}");
    let is_root = rustix::process::geteuid().is_root();
    let numbers: Vec<&str> = text.split_whitespace().collect();
    if !is_root && matches!(numbers[..], [_, host, "1"] if host == own.to_string()) {
        if kind == IdKind::Group {
            fs::write(format!("/proc/{pid}/setgroups"), "deny").map_err(mapping)?;
        }
        return fs::write(&path, text).map_err(mapping);
    }
    if is_root {
        return fs::write(&path, text).map_err(mapping);
    }
    let program = find_tool(tool, PACKAGE)?;
    let failed = |e| RunnerError::os(format!("start {tool}"), e);
    let mut command = std::process::Command::new(program);
    command.env_clear().arg(pid.to_string()).args(&numbers);
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(RunnerError::MapRefused {
            tool,
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
