//! `box stop`, `kill`, `pause`, `unpause`, `wait`, `rename` and `update`: what is done to containers that are there.

use std::time::Duration;

use super::{each, each_at_once};
use crate::app::App;
use crate::cli::{ContainersArgs, KillArgs, RenameArgs, StopArgs, UpdateArgs};
use crate::containers::{self, Container, Status};
use crate::error::{EXIT_INPUT, Failure};
use crate::monitor::{self, Reply, Request};
use crate::ui;

/// How often is looked whether a container that was never started is.
const TICK: Duration = Duration::from_millis(100);

/// Asks each to end; prints the names of those that have.
pub(super) fn run(app: &App, args: &StopArgs) -> Result<u8, Failure> {
    each_at_once(&args.containers, |name| {
        let container = containers::find(app, name)?;
        stop(app, &container, args.signal.map(|signal| signal.0), args.time)?;
        ui::result(&format!("{name}\n"))
    })
}

/// One that does not run is fine. When this returns nothing of it runs.
pub(super) fn stop(
    app: &App,
    container: &Container,
    signal: Option<i32>,
    timeout: Option<u64>,
) -> Result<(), Failure> {
    if let Some(connection) = monitor::connect(app, container)? {
        // No answer is the end of whoever ran it.
        connection.ask(&Request::Stop { signal, timeout }, &[])?;
    }
    until_over(app, &container.id)
}

/// Whoever ran it has said its last words, and goes at once.
fn until_over(app: &App, id: &str) -> Result<(), Failure> {
    while containers::get(app, id)?.is_some_and(|container| container.state.is_active()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Sends each a signal.
pub(super) fn kill(app: &App, args: &KillArgs) -> Result<u8, Failure> {
    each(&args.containers, |name| {
        let container = containers::find(app, name)?;
        // A killed one is over when this returns, for whoever goes on in a script.
        let request = match args.signal.0 {
            nix::libc::SIGKILL => Request::Stop {
                signal: Some(args.signal.0),
                timeout: None,
            },
            number => Request::Signal(number),
        };
        running(app, &container, &request)?;
        ui::result(&format!("{name}\n"))
    })
}

/// Asks whoever runs it; one that does not run is an error.
pub(super) fn running(app: &App, container: &Container, request: &Request) -> Result<Reply, Failure> {
    let not_running = || {
        Failure::new(
            EXIT_INPUT,
            format!("container {} does not run", container.config.name),
        )
        .hint("`box start` starts it, `box ps -a` lists all")
    };
    let connection = monitor::connect(app, container)?.ok_or_else(not_running)?;
    let (reply, _) = connection.ask(request, &[])?.ok_or_else(not_running)?;
    Ok(reply)
}

/// Stops the processes of each, or lets them go on.
pub(super) fn pause(app: &App, args: &ContainersArgs, request: &Request) -> Result<u8, Failure> {
    each(&args.containers, |name| {
        running(app, &containers::find(app, name)?, request)?;
        ui::result(&format!("{name}\n"))
    })
}

/// Prints the exit code of each when it has ended.
pub(super) fn wait(app: &App, args: &ContainersArgs) -> Result<u8, Failure> {
    each(&args.containers, |name| {
        let code = exit_code_of(app, containers::find(app, name)?)?;
        ui::result(&format!("{code}\n"))
    })
}

fn exit_code_of(app: &App, mut container: Container) -> Result<i32, Failure> {
    loop {
        if let Some(connection) = monitor::connect(app, &container)?
            && let Some((Reply::Exited { code, .. }, _)) = connection.ask(&Request::Wait, &[])?
        {
            return Ok(code);
        }
        // One that was removed meanwhile has ended, however.
        let gone = || Failure::new(EXIT_INPUT, format!("container {} is gone", container.config.name));
        container = containers::get(app, &container.id)?.ok_or_else(gone)?;
        match container.state.status {
            Status::Exited => return Ok(container.state.exit_code),
            // One that nobody is about to run has not ended, but nothing of it runs, as with Docker.
            Status::Created if !container.state.is_taken() => return Ok(0),
            _ => std::thread::sleep(TICK),
        }
    }
}

/// Gives it another name.
pub(super) fn rename(app: &App, args: &RenameArgs) -> Result<u8, Failure> {
    containers::check_name(&args.name)?;
    let _names = containers::lock_names(app)?;
    let container = containers::find(app, &args.container)?;
    if let Some(id) = containers::find_named(app, &args.name)? {
        return Err(Failure::own(format!(
            "the name {:?} is in use by container {}",
            args.name,
            containers::short(&id)
        )));
    }
    let mut config = container.config;
    let old = std::mem::replace(&mut config.name, args.name.clone());
    containers::write_config(app, &container.id, &config)?;
    containers::note(&app.store, "rename", &container.id, &config, &[("oldName", &old)]);
    Ok(0)
}

/// Changes limits, now and for the next start.
pub(super) fn update(app: &App, args: &UpdateArgs) -> Result<u8, Failure> {
    each(&args.containers, |name| {
        let container = containers::find(app, name)?;
        let mut config = container.config.clone();
        let limits = &mut config.limits;
        limits.memory = args.memory.map(|memory| memory.0).or(limits.memory);
        limits.millicpus = args.cpus.map(|cpus| cpus.0).or(limits.millicpus);
        limits.pids = args.pids_limit.or(limits.pids);
        config.restart = args.restart.unwrap_or(config.restart);
        if container.state.is_active() && config.limits != container.config.limits {
            running(app, &container, &Request::Update(config.limits.clone()))?;
        }
        let _names = containers::lock_names(app)?;
        // Its name may be another one by now.
        if let Some(now) = containers::get(app, &container.id)? {
            config.name = now.config.name;
        }
        containers::write_config(app, &container.id, &config)?;
        containers::note(&app.store, "update", &container.id, &config, &[]);
        ui::result(&format!("{name}\n"))
    })
}
