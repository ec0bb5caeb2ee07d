//! `box start`, `box attach`, `box restart`: containers that are there run again, or are connected to.

use super::stop::stop;
use super::{each, each_at_once};
use crate::app::App;
use crate::attached::{self, Joining};
use crate::cli::{AttachArgs, StartArgs, StopArgs};
use crate::containers::{self, Container};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::monitor::{self, EXIT_RUNS, Request};
use crate::values::Restart;
use crate::{signals, ui};

/// Starts each; prints the names of those that run then.
pub(super) fn run(app: &App, args: &StartArgs) -> Result<u8, Failure> {
    if args.restart_policy {
        return by_policy(app);
    }
    if !args.attach && !args.interactive {
        return each(&args.containers, |name| {
            let container = containers::find(app, name)?;
            start(app, &container)?;
            ui::result(&format!("{name}\n"))
        });
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::own("one container can be attached to, not several"));
    };
    let container = containers::find(app, name)?;
    attached::check_terminal(container.config.tty, args.interactive)?;
    signals::hold().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let line = match container.state.is_active() {
        true => return attach_to(app, &container, args.interactive, &args.detach_keys.0),
        false => monitor::launch(app, &container.id, true)?,
    };
    join(app, line, &container, args.interactive, &args.detach_keys.0)
}

/// One that runs already is fine.
fn start(app: &App, container: &Container) -> Result<(), Failure> {
    match container.state.is_active() {
        true => Ok(()),
        false => match monitor::launch(app, &container.id, false) {
            // Somebody else was first.
            Err(failure) if failure.code == EXIT_RUNS => Ok(()),
            started => started.map(drop),
        },
    }
}

/// When the machine has started: those that should always run, unless somebody stopped them.
fn by_policy(app: &App) -> Result<u8, Failure> {
    let wanted = |container: &Container| match container.config.restart {
        Restart::Always => !container.state.is_active(),
        Restart::UnlessStopped => !container.state.is_active() && !container.state.is_stopped,
        Restart::OnFailure(_) | Restart::No => false,
    };
    let all = containers::list(app)?;
    // The eldest first: one whose namespaces another one joins is older than that one.
    let names: Vec<String> = all
        .into_iter()
        .rev()
        .filter(|container| wanted(container) && container.state.started > 0)
        .map(|container| container.config.name)
        .collect();
    each(&names, |name| {
        start(app, &containers::find(app, name)?)?;
        ui::result(&format!("{name}\n"))
    })
}

/// Connects to one that runs.
pub(super) fn attach(app: &App, args: &AttachArgs) -> Result<u8, Failure> {
    let container = containers::find(app, &args.container)?;
    signals::hold().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let input = !args.no_stdin && container.config.interactive;
    attached::check_terminal(container.config.tty, input)?;
    attach_to(app, &container, input, &args.detach_keys.0)
}

fn attach_to(app: &App, container: &Container, input: bool, keys: &[u8]) -> Result<u8, Failure> {
    let not_running = || {
        Failure::new(
            EXIT_INPUT,
            format!("container {} does not run", container.config.name),
        )
    };
    let connection = monitor::connect(app, container)?.ok_or_else(not_running)?;
    connection.ask(&Request::Attach, &[])?.ok_or_else(not_running)?;
    join(app, connection.stream, container, input, keys)
}

fn join(
    app: &App,
    line: std::os::unix::net::UnixStream,
    container: &Container,
    input: bool,
    keys: &[u8],
) -> Result<u8, Failure> {
    let joining = Joining {
        container,
        input,
        tty: container.config.tty,
        keys,
    };
    attached::join(app, line, &joining)?.exit_code(app, &container.id)
}

/// Stops each that runs, and starts it.
pub(super) fn restart(app: &App, args: &StopArgs) -> Result<u8, Failure> {
    each_at_once(&args.containers, |name| {
        let container = containers::find(app, name)?;
        stop(app, &container, args.signal.map(|signal| signal.0), args.time)?;
        start(app, &containers::find(app, name)?)?;
        containers::note(&app.store, "restart", &container.id, &container.config, &[]);
        ui::result(&format!("{name}\n"))
    })
}
