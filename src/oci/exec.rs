//! Another process in a container.

use std::fs;
use std::path::{Path, PathBuf};

use box_runner::bundle::{self, Further};
use oci_spec::runtime::Process;
use serde_json::Value;

use super::create::{check_console, drop_unknown_capabilities, send_terminal};
use super::of_runner;
use super::record::{Root, Status, whole_file};
use crate::cli::OciExec;
use crate::error::Failure;

/// `exec`.
pub(super) fn run(root: &Root, args: &OciExec) -> Result<u8, Failure> {
    let (record, held) = root.find(&args.id)?;
    match record.status(root) {
        Status::Created | Status::Running => {}
        Status::Paused => return Err(Failure::own(format!("container {} is paused", args.id))),
        Status::Stopped => return Err(Failure::own(format!("container {} is not running", args.id))),
    }
    let spec = root.config(&args.id)?;
    let process = match (&args.process, spec.process()) {
        (Some(path), _) => {
            let mut process = read(path)?;
            if args.tty {
                process.set_terminal(Some(true));
            }
            process
        }
        (None, Some(own)) if !args.command.is_empty() => {
            let mut process = own.clone();
            process
                .set_args(Some(args.command.clone()))
                .set_terminal(Some(args.tty));
            process
        }
        _ => {
            return Err(Failure::own(
                "nothing to start: give --process FILE, or a command",
            ));
        }
    };
    check_console(process.terminal(), args.console_socket.as_deref(), true)?;
    if !args.detach {
        bundle::become_reaper().map_err(|e| of_runner(&e))?;
    }
    let program = PathBuf::from("/proc/self/exe");
    let started = bundle::exec(&Further {
        first: record.first,
        groups: &record.groups,
        process: &process,
        seccomp: spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()),
        program: &program,
        kept_fds: args.preserve_fds,
    });
    let (started, terminal) = started.map_err(|e| of_runner(&e))?;
    // A process may take long; other commands need not wait for it.
    drop(held);
    if let Some(terminal) = &terminal {
        let size = process.console_size().map(|size| (size.height(), size.width()));
        send_terminal(terminal, args.console_socket.as_deref(), size)?;
    }
    if let Some(path) = &args.pid_file {
        whole_file(path, started.pid.to_string().as_bytes())?;
    }
    if args.detach {
        return Ok(0);
    }
    let code = started.wait().map_err(|e| of_runner(&e))?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn read(path: &Path) -> Result<Process, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::own(format!("{}: {e}", path.display()));
    let text = fs::read(path).map_err(|e| fail(&e))?;
    let mut value: Value = serde_json::from_slice(&text).map_err(|e| fail(&e))?;
    drop_unknown_capabilities(&mut value);
    serde_json::from_value(value).map_err(|e| fail(&e))
}
