//! box as the runtime of other tools: the life of containers of a runtime bundle, by the words of other runtimes.
//!
//! Nothing here knows the store: a bundle brings its root file system. Nobody stays behind, either: what is known of a container lies
//! in its directory, and its first process is a child of whoever reaps above the caller.

mod create;
mod exec;
mod list;
mod record;
mod rootless;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::Parser;

use crate::cli::{LogFormat, OciCli, OciCommand, OciGlobal};
use crate::error::Failure;
use crate::ui;
use record::{Root, Status};

/// The name by which the program is this front without being told.
const OWN_NAME: &str = "box-oci";
/// The version of the specification that states are written by.
const SPECIFICATION: &str = "1.2.0";
/// What runtimes end with when they fail.
const FAILED: u8 = 1;

/// The words after `box oci`, if it is that; the first stands for the program.
pub(crate) fn words() -> Option<Vec<OsString>> {
    let mut all: Vec<OsString> = std::env::args_os().collect();
    let name = all.first().and_then(|name| Path::new(name).file_name());
    if name.is_some_and(|name| name == OWN_NAME) {
        return Some(all);
    }
    (all.get(1)? == "oci").then(|| all.split_off(1))
}

/// Does what the words ask for; gives the exit code.
pub(crate) fn main(words: Vec<OsString>) -> u8 {
    let cli = match OciCli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { FAILED } else { 0 };
            // Nobody is left to tell when standard error is closed.
            let _ = error.print();
            return code;
        }
    };
    match run(&cli) {
        Ok(code) => code,
        Err(failure) => {
            log(&cli.global, &failure);
            ui::error(&failure);
            FAILED
        }
    }
}

fn run(cli: &OciCli) -> Result<u8, Failure> {
    if cli.global.systemd_cgroup {
        return Err(
            Failure::own("--systemd-cgroup is not supported: cgroups are made without systemd")
                .hint("podman: --cgroup-manager=cgroupfs; containerd: SystemdCgroup = false"),
        );
    }
    let root = Root::of(cli.global.root.as_deref())?;
    match &cli.command {
        OciCommand::Create(args) => create::create(&root, args).map(|_| 0),
        OciCommand::Run(args) => create::run(&root, args),
        OciCommand::Start { id } => create::start(&root, id).map(|()| 0),
        OciCommand::State { id } => {
            let (record, _) = root.find(id)?;
            ui::json(&record.state(record.status(&root)))?;
            Ok(0)
        }
        OciCommand::Kill { all, id, signal } => kill(&root, id, signal, *all),
        OciCommand::Pause { id } => freeze(&root, id, Status::Running),
        OciCommand::Resume { id } => freeze(&root, id, Status::Paused),
        OciCommand::Delete { force, id } => delete(&root, id, *force),
        OciCommand::Exec(args) => exec::run(&root, args),
        OciCommand::List { format, quiet } => list::list(&root, *format, *quiet),
        OciCommand::Ps { format, id } => list::processes(&root, id, *format),
        OciCommand::Features => list::features(),
    }
}

/// Callers read why something failed from this file. That it can't be written is no failure of its own.
fn log(global: &OciGlobal, failure: &Failure) {
    let Some(path) = &global.log else {
        return;
    };
    let now = jiff::Timestamp::now();
    let line = match global.log_format {
        LogFormat::Text => format!("time=\"{now}\" level=error msg={:?}\n", failure.message()),
        LogFormat::Json => {
            let line =
                serde_json::json!({"level": "error", "msg": failure.message(), "time": now.to_string()});
            format!("{line}\n")
        }
    };
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path);
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// Why the runner failed, in words that callers look for.
fn of_runner(error: &box_runner::RunnerError) -> Failure {
    use box_runner::RunnerError;
    match error {
        RunnerError::CommandNotFound { command } => Failure::own(format!(
            "exec: {command:?}: executable file not found in $PATH: no such file or directory"
        )),
        RunnerError::CommandNotExecutable { command, source } => Failure::own(format!(
            "exec: {command:?}: permission denied, or no program: {source}"
        )),
        other => Failure::of(FAILED, other),
    }
}

fn kill(root: &Root, id: &str, signal: &str, all: bool) -> Result<u8, Failure> {
    let number = signal_number(signal)?;
    let (record, _lock) = root.find(id)?;
    let is_running = record.status(root) != Status::Stopped;
    // Of a container without a pid namespace of its own some may be left when its first process has ended.
    if all && (is_running || !record.groups.processes().is_empty()) {
        record
            .groups
            .signal_all(number)
            .map_err(|e| Failure::own(e.to_string()))?;
        return Ok(0);
    }
    if !is_running {
        return Err(Failure::own(format!("container {id} is not running")));
    }
    record.first.signal(number).map_err(|e| of_runner(&e))?;
    if number == 9 {
        record.thaw()?;
    }
    Ok(0)
}

/// Stops its processes, or lets them go on, if they are `from`.
fn freeze(root: &Root, id: &str, from: Status) -> Result<u8, Failure> {
    let (record, _lock) = root.find(id)?;
    if record.status(root) != from {
        return Err(Failure::own(format!("container {id} is not {}", from.name())));
    }
    let done = record.groups.freeze(from == Status::Running);
    done.map(|()| 0)
        .map_err(|e| Failure::own(format!("container {id}: {e}")))
}

/// 0 asks whether it is there.
fn signal_number(text: &str) -> Result<i32, Failure> {
    match text {
        "0" => Ok(0),
        text => crate::values::signal_number(text).map_err(Failure::own),
    }
}

fn delete(root: &Root, id: &str, force: bool) -> Result<u8, Failure> {
    if force && !root.has(id)? {
        return Ok(0);
    }
    let (record, lock) = match root.find(id) {
        Err(_) if force => {
            // What a `create` left that was killed before it knew of a process.
            let groups = box_runner::bundle::noted_groups(&root.dir(id));
            groups.signal_all(9).map_err(|e| Failure::own(e.to_string()))?;
            groups.remove();
            root.remove(id)?;
            return Ok(0);
        }
        found => found?,
    };
    if record.status(root) != Status::Stopped {
        if !force {
            return Err(
                Failure::own(format!("container {id} is not stopped")).hint("kill it first, or use --force")
            );
        }
        record.end()?;
    }
    create::destroy(root, &record)?;
    drop(lock);
    Ok(0)
}
