//! `box run`: a command in a new container. Resolve, prepare, run, discard.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use box_runner::{
    ContainerSpec, Network, Outcome, PrivateNetwork, Process, RunnerError, Running, Stdio, Stream,
};
use box_store::{ContainerConfig, Layer, PrepareOptions};
use nix::sys::signal::Signal;

use super::run_options as options;
use crate::app::App;
use crate::cli::{LimitsMode, RunArgs};
use crate::error::{EXIT_BOX, Failure};
use crate::executor::{self, Ids};
use crate::resolv::Wishes;
use crate::terminal::Session;
use crate::values::HostArg;
use crate::{etc, networks, registries, signals, step_mounts, ui};

const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// How often the user must ask before the container is killed, as in Docker.
const PATIENCE: u32 = 3;
const NO_SERVERS: &str = "note: the host's name servers are on its loopback, where the container can't reach them; \
                          give one with --dns, or use --network host";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the command to its end; its exit code is box's.
pub(super) fn run(app: &App, args: &RunArgs) -> Result<u8, Failure> {
    check_terminal(args)?;
    // Ctrl-C ends a pull at once; from here on signals are the container's.
    let image = registries::image_to_run(app, &args.image, &args.registry, args.pull)?;
    signals::hold().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let runtime = app.runtime()?;
    // The container's init loads while the rest is made ready.
    runtime.start_ahead(stdio(args));
    let layers = app.layers(&image)?;
    let ids = Ids::take(app, &runtime, &id_pages(&layers)).map_err(|e| failure(&e))?;
    let prepare = PrepareOptions {
        mount_stubs: PrepareOptions::standard_stubs(),
        ..PrepareOptions::default()
    };
    let snapshot = app
        .store
        .prepare(&layers, &prepare)
        .map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let id = container_id();
    let _name = args
        .name
        .as_deref()
        .map(|name| options::claim_name(app, name))
        .transpose()?;
    options::check_id_file(&args.process)?;
    let root_fs = step_mounts::root_fs(snapshot.dirs(), true, args.read_only);
    let ports = networks::ports(&args.net, &image.config.config)?;
    let network = match networks::mode(args.net.network) {
        Network::Private => Some(networks::make(&runtime, &ids.namespace, ports).map_err(|e| failure(&e))?),
        _ => None,
    };
    let spec = spec(args, &image.config.config, (&id, root_fs), network.as_ref())?;
    say_defaults(args);
    let joined = network.as_ref().map(PrivateNetwork::namespace);
    let mut running = runtime
        .spawn_in(&spec, &ids.namespace, joined, stdio(args))
        .map_err(|e| failure(&e))?;
    options::write_id(&args.process, &id)?;
    // A sweep may go on meanwhile; without room for the locks it has to wait.
    let _rest = app.store.rest(snapshot.dirs()).ok();
    let session = running
        .take_terminal()
        .map(|terminal| Session::attach(terminal, args.interactive));
    let session = session.transpose().map_err(|e| failure(&e))?;
    forward_signals(&running, session.as_ref())?;
    let outcome = running.wait();
    if let Some(session) = session {
        session.finish();
    }
    let outcome = outcome.map_err(|e| failure(&e))?;
    drop(snapshot);
    Ok(exit_code(&outcome, args))
}

/// Its standard streams; with a terminal they are that.
fn stdio(args: &RunArgs) -> Stdio {
    if args.tty {
        return Stdio::null();
    }
    let stdin = match args.interactive {
        true => Stream::Inherit,
        false => Stream::Null,
    };
    Stdio {
        stdin,
        ..Stdio::inherit()
    }
}

/// Signals go to the container's first process; a change of the window's size goes to its terminal. A process 1 may ignore
/// what it has no handler for, so the third request to end, or a terminal that hangs up, kills the container.
fn forward_signals(running: &Running, session: Option<&Session>) -> Result<(), Failure> {
    let killer = running.killer();
    let terminal = session.map(Session::terminal);
    let mut asked = 0;
    let forward = move |signal: Signal| {
        asked += u32::from(matches!(
            signal,
            Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT
        ));
        // A container that is gone needs no signal; a size that can't be set is the old one.
        let _ = match (signal, &terminal) {
            (Signal::SIGWINCH, Some(terminal)) => terminal.copy_size(std::io::stdout()),
            (Signal::SIGWINCH, None) => Ok(()),
            (Signal::SIGHUP, _) => killer.kill(),
            _ if asked >= PATIENCE => killer.kill(),
            _ => killer.signal(signal as i32),
        };
        if asked == PATIENCE - 1 {
            ui::note(
                "note: the command goes on after two signals; one more kills it (--init makes it heed the first)",
            );
        }
    };
    signals::take(forward).map_err(|e| Failure::of(EXIT_BOX, &e))
}

/// Without a terminal to connect to there is nothing to pass through.
fn check_terminal(args: &RunArgs) -> Result<(), Failure> {
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        return Err(Failure::own("the input device is not a terminal")
            .hint("leave -t away, or run box in a terminal"));
    }
    Ok(())
}

fn spec(
    args: &RunArgs,
    config: &ContainerConfig,
    (id, root_fs): (&str, box_runner::RootFs),
    network: Option<&PrivateNetwork>,
) -> Result<ContainerSpec, Failure> {
    let hostname = args.hostname.clone().unwrap_or_else(|| id.to_owned());
    let process = Process {
        args: command(args, config)?,
        env: environment(args, config, &hostname)?,
        cwd: workdir(args, config),
        user: args.user.clone().unwrap_or_else(|| config.user.clone()),
    };
    let mut spec = ContainerSpec::new(id, root_fs, process);
    spec.terminal = args.tty;
    spec.init = args.init;
    spec.network = networks::mode(args.net.network);
    let hosts: Vec<_> = args.hosts.iter().map(HostArg::pair).collect();
    let seen = etc::Seen {
        network: spec.network,
        private: network,
        wishes: &Wishes::of(&args.net),
    };
    let (files, is_without_servers) = etc::files(&hostname, seen, &hosts);
    spec.etc = files;
    if is_without_servers {
        ui::note(NO_SERVERS);
    }
    spec.hostname = hostname;
    spec.caps = options::capabilities(&args.cap_add, &args.cap_drop)?;
    options::security(&args.security_opt, &mut spec)?;
    spec.mounts = options::mounts(&args.volumes, &args.tmpfs)?;
    let limits = super::build::limits(&args.limit);
    spec.limits = box_runner::Limits {
        memory: limits.memory,
        millicpus: limits.millicpus,
        pids: limits.pids,
        time: None,
    };
    options::process(&args.process, &mut spec);
    if args.limit.limits == LimitsMode::BestEffort {
        spec.limits_policy = box_runner::LimitsPolicy::BestEffort;
    }
    Ok(spec)
}

/// ENTRYPOINT and CMD as Docker combines them: `--entrypoint` clears the image's CMD too.
fn command(args: &RunArgs, config: &ContainerConfig) -> Result<Vec<OsString>, Failure> {
    let image = |texts: &Option<Vec<String>>| executor::os_strings(texts.as_deref().unwrap_or_default());
    let mut all = match args.entrypoint.as_deref() {
        Some("") => Vec::new(),
        Some(entrypoint) => vec![OsString::from(entrypoint)],
        None => image(&config.entrypoint),
    };
    if !args.command.is_empty() {
        all.extend(args.command.iter().cloned());
    } else if args.entrypoint.is_none() {
        all.extend(image(&config.cmd));
    }
    if all.is_empty() {
        return Err(Failure::own("the image says no command to run").hint("give one after the image's name"));
    }
    Ok(all)
}

/// The image's variables, then the files', then `-e`; a later one replaces an earlier.
fn environment(
    args: &RunArgs,
    config: &ContainerConfig,
    hostname: &str,
) -> Result<Vec<(OsString, OsString)>, Failure> {
    let mut env: Vec<(String, String)> = vec![
        ("PATH".into(), DEFAULT_PATH.into()),
        ("HOSTNAME".into(), hostname.into()),
    ];
    if args.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    let image = config.env.iter().filter_map(|pair| pair.split_once('='));
    let mut given: Vec<(String, String)> = image
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for file in &args.env_files {
        given.extend(options::env_file(file)?);
    }
    given.extend(args.env.iter().filter_map(crate::values::BuildArg::resolved));
    for (name, value) in given {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }
    Ok(env
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect())
}

fn workdir(args: &RunArgs, config: &ContainerConfig) -> PathBuf {
    let own = Some(config.working_dir.as_str())
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    args.workdir.clone().or(own).unwrap_or_else(|| PathBuf::from("/"))
}

/// The pages of ids that the layers' files use.
fn id_pages(layers: &[Layer]) -> BTreeSet<u32> {
    layers
        .iter()
        .flat_map(|layer| layer.id_pages().iter().copied())
        .collect()
}

/// Twelve hexadecimal digits, as Docker shows a container's id.
fn container_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
    format!("{:012x}", random & 0xffff_ffff_ffff)
}

/// Defaults that differ from Docker's are said, in one line each.
fn say_defaults(args: &RunArgs) {
    if !args.rm {
        ui::note("note: the container is removed when it ends (--rm); keeping it comes with a later version");
    }
}

fn exit_code(outcome: &Outcome, args: &RunArgs) -> u8 {
    if outcome.oom_killed {
        let limit = args
            .limit
            .memory
            .map_or_else(String::new, |m| format!(" of {}", ui::human::bytes(m.0)));
        let peak = outcome
            .usage
            .peak_memory
            .map_or_else(String::new, |p| format!(" (peak {})", ui::human::bytes(p)));
        ui::note(&format!(
            "note: the container ran out of its memory limit{limit}{peak}"
        ));
    }
    outcome.status.code() as u8
}

fn failure(error: &RunnerError) -> Failure {
    let code = match error {
        RunnerError::CommandNotFound { .. } => EXIT_NOT_FOUND,
        RunnerError::CommandNotExecutable { .. } => EXIT_NOT_EXECUTABLE,
        _ => EXIT_BOX,
    };
    Failure::of(code, error)
}
