//! Making, starting and removing containers.

use std::fs;
use std::path::{Path, PathBuf};

use box_runner::bundle::{self, Created, ProcessId, Request, RuntimeHooks};
use box_runner::{RunnerError, Terminal};
use oci_spec::runtime::Spec;
use serde_json::Value;

use super::record::{Record, Root, Status, whole_file};
use super::{SPECIFICATION, of_runner};
use crate::cli::{OciCreate, OciRun};
use crate::error::{EXIT_BOX, Failure};
use crate::ui;

/// The most that a config.json may have: nothing honest comes near.
const MAX_CONFIG: u64 = 16 << 20;

/// `create`.
pub(super) fn create(root: &Root, args: &OciCreate) -> Result<Record, Failure> {
    let bundle = fs::canonicalize(&args.bundle)
        .map_err(|e| Failure::own(format!("bundle {}: {e}", args.bundle.display())))?;
    let mut spec = read_spec(&bundle.join("config.json"))?;
    check_console(
        spec.process().as_ref().and_then(|p| p.terminal()),
        args.console_socket.as_deref(),
        false,
    )?;
    let hooks = RuntimeHooks::of(&spec).map_err(|e| of_runner(&e))?;
    super::rootless::enter(&mut spec)?;
    let _held = root.claim(&args.id)?;
    let made = create_claimed(root, args, &bundle, &spec, &hooks);
    if made.is_err() {
        // The failure is told; what is left of the directory names a container that is not there.
        let _ = root.remove(&args.id);
    }
    made
}

fn create_claimed(
    root: &Root,
    args: &OciCreate,
    bundle: &Path,
    spec: &Spec,
    hooks: &RuntimeHooks,
) -> Result<Record, Failure> {
    root.write_config(&args.id, spec)?;
    let dir = root.dir(&args.id);
    let program = PathBuf::from("/proc/self/exe");
    let annotations = spec.annotations().clone().unwrap_or_default();
    let state = |status: &str, pid: Value| {
        serde_json::json!({
            "ociVersion": SPECIFICATION, "id": args.id, "status": status, "pid": pid,
            "bundle": bundle, "annotations": annotations,
        })
        .to_string()
    };
    let request = Request {
        id: &args.id,
        spec,
        bundle,
        dir: &dir,
        program: &program,
        kept_fds: args.preserve_fds.saturating_add(passed_sockets()),
        own_keyring: !args.no_new_keyring,
    };
    let mut are_hooks_run = false;
    let mut prepared = |first: &ProcessId| {
        are_hooks_run = true;
        let state = state("creating", first.pid.into());
        let mut run = hooks.create.iter().map(|hook| hook.run(&state));
        run.try_for_each(|done| done.map_err(|reason| RunnerError::Hook { reason }))
    };
    let created = bundle::create(&request, &state("@status@", "@pid@".into()), &mut prepared);
    let result = match created {
        Err(error) => Err(of_runner(&error)),
        Ok(created) => hand_out(root, args, bundle, spec, created),
    };
    if result.is_err() && are_hooks_run {
        after(&hooks.poststop, &state("stopped", 0.into()));
    }
    result
}

/// What callers wait for: terminal, number, state. When one can't be given there is no container.
fn hand_out(
    root: &Root,
    args: &OciCreate,
    bundle: &Path,
    spec: &Spec,
    created: Created,
) -> Result<Record, Failure> {
    let root_path = spec
        .root()
        .as_ref()
        .map(|root| root.path().clone())
        .unwrap_or_default();
    let record = Record {
        id: args.id.clone(),
        bundle: bundle.to_owned(),
        rootfs: bundle.join(root_path),
        created: jiff::Timestamp::now().to_string(),
        annotations: spec.annotations().clone().unwrap_or_default(),
        first: created.first,
        groups: created.groups,
    };
    let process = spec.process().as_ref();
    let size = process
        .and_then(|p| p.console_size())
        .map(|size| (size.height(), size.width()));
    let give = || {
        if let Some(terminal) = &created.terminal {
            send_terminal(terminal, args.console_socket.as_deref(), size)?;
        }
        root.write_record(&record)?;
        match &args.pid_file {
            Some(path) => whole_file(path, record.first.pid.to_string().as_bytes()),
            None => Ok(()),
        }
    };
    match give() {
        Ok(()) => Ok(record),
        Err(failure) => {
            // The first failure is the one to be told.
            let _ = record.end();
            record.groups.remove();
            Err(failure)
        }
    }
}

/// Reads a config.json. Capabilities that nobody knows are left out with a word, as the specification has it.
fn read_spec(path: &Path) -> Result<Spec, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::own(format!("{}: {e}", path.display()));
    let size = fs::metadata(path).map_err(|e| fail(&e))?.len();
    if size > MAX_CONFIG {
        return Err(fail(&format!("{size} bytes; {MAX_CONFIG} are taken")));
    }
    let text = fs::read(path).map_err(|e| fail(&e))?;
    let mut value: Value = serde_json::from_slice(&text).map_err(|e| fail(&e))?;
    if let Some(process) = value.get_mut("process") {
        drop_unknown_capabilities(process);
    }
    serde_json::from_value(value).map_err(|e| fail(&e))
}

/// A process of a file, or of a config.json.
pub(super) fn drop_unknown_capabilities(process: &mut Value) {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else {
        return;
    };
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let known = serde_json::from_value::<oci_spec::runtime::Capability>(name.clone()).is_ok();
            if !known {
                ui::note(&format!("process.capabilities: {name} is not known and left out"));
            }
            known
        });
    }
}

/// A terminal goes to a socket, and a socket is for a terminal.
pub(super) fn check_console(
    terminal: Option<bool>,
    socket: Option<&Path>,
    is_process: bool,
) -> Result<(), Failure> {
    let what = if is_process {
        "the process"
    } else {
        "process.terminal"
    };
    match (terminal == Some(true), socket) {
        (true, None) => Err(Failure::own(format!(
            "{what} asks for a terminal, and there is no --console-socket"
        ))),
        (false, Some(_)) => Err(Failure::own(format!(
            "--console-socket, and {what} asks for no terminal"
        ))),
        _ => Ok(()),
    }
}

/// Sends the master side, with its name, as runtimes do.
pub(super) fn send_terminal(
    terminal: &Terminal,
    socket: Option<&Path>,
    size: Option<(u64, u64)>,
) -> Result<(), Failure> {
    let Some(path) = socket else {
        return Ok(());
    };
    if let Some((height, width)) = size {
        let small = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        terminal
            .set_size(small(height), small(width))
            .map_err(|e| of_runner(&e))?;
    }
    bundle::send_terminal(terminal, path).map_err(|e| of_runner(&e))
}

/// Sockets that a service manager passed on, which are the container's as well.
fn passed_sockets() -> u32 {
    std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// `start`.
pub(super) fn start(root: &Root, id: &str) -> Result<(), Failure> {
    let (record, _held) = root.find(id)?;
    match record.status(root) {
        Status::Created => {}
        Status::Running | Status::Paused => {
            return Err(Failure::own(format!("container {id} is running already")));
        }
        Status::Stopped => return Err(Failure::own(format!("container {id} has stopped"))),
    }
    bundle::start(&root.dir(id)).map_err(|e| of_runner(&e))?;
    let hooks = RuntimeHooks::of(&root.config(id)?).map_err(|e| of_runner(&e))?;
    after(&hooks.poststart, &record.state(Status::Running).to_string());
    Ok(())
}

/// Runs hooks whose failure changes nothing any more, but is told.
fn after(hooks: &[box_runner::Hook], state: &str) {
    for hook in hooks {
        if let Err(reason) = hook.run(state) {
            ui::note(&reason);
        }
    }
}

/// Removes all that `create` has made of a container that has stopped.
pub(super) fn destroy(root: &Root, record: &Record) -> Result<(), Failure> {
    record.thaw()?;
    // Without a pid namespace of its own its other processes live on.
    record
        .groups
        .signal_all(9)
        .map_err(|e| Failure::of(EXIT_BOX, &e))?;
    if !record.groups.remove() {
        ui::note("a cgroup of the container is still in use and stays");
    }
    let hooks = root
        .config(&record.id)
        .and_then(|spec| RuntimeHooks::of(&spec).map_err(|e| of_runner(&e)));
    root.remove(&record.id)?;
    if let Ok(hooks) = hooks {
        after(&hooks.poststop, &record.state(Status::Stopped).to_string());
    }
    Ok(())
}

/// `run`: all of it, and the exit code of the command.
pub(super) fn run(root: &Root, args: &OciRun) -> Result<u8, Failure> {
    if !args.detach {
        bundle::become_reaper().map_err(|e| of_runner(&e))?;
    }
    let record = create(root, &args.create)?;
    if let Err(failure) = start(root, &args.create.id) {
        // The first failure is the one to be told.
        let _ = record.end().and_then(|()| destroy(root, &record));
        return Err(failure);
    }
    if args.detach {
        return Ok(0);
    }
    let code = record.first.wait().map_err(|e| of_runner(&e))?;
    if !args.keep {
        destroy(root, &record)?;
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
