//! `box run` and `box create`: a command in a new container.

use std::io::Write;

use crate::app::App;
use crate::attached::{self, End, Joining};
use crate::cli::{ContainerArgs, CreateArgs, RunArgs};
use crate::containers::{self, Container, State};
use crate::error::{EXIT_BOX, Failure};
use crate::monitor::{self, Io, Supervisor, exit_code};
use crate::{registries, signals, ui, user_files};

/// Runs the command; its exit code is box's, unless it runs in the background.
pub(super) fn run(app: &App, args: &RunArgs) -> Result<u8, Failure> {
    let of = &args.container;
    if !args.detach {
        attached::check_terminal(of.tty, of.interactive)?;
    }
    // Until it runs nobody else may start it or remove it; should this command be killed before, one that would go at its end goes.
    let owner = app.store.owner()?.as_str().to_owned();
    let container = make(app, of, Some(owner))?;
    match (args.detach, of.rm) {
        (true, _) => in_background(app, of, &container),
        (false, true) => in_foreground(app, of, &container),
        (false, false) => attached(app, args, &container),
    }
}

/// Makes the container and prints its id.
pub(super) fn create(app: &App, args: &CreateArgs) -> Result<u8, Failure> {
    let container = make(app, &args.container, None)?;
    let written = write_id(&args.container, &container.id);
    if written.is_err() {
        containers::remove(&app.store, &container.id, Some(&container.config))?;
    }
    written?;
    ui::result(&format!("{}\n", container.id)).map(|()| 0)
}

/// A new container, kept.
fn make(app: &App, args: &ContainerArgs, owner: Option<String>) -> Result<Container, Failure> {
    check_id_file(args)?;
    if let Some(name) = &args.name {
        containers::check_name(name)?;
    }
    // Ctrl-C ends a pull at once; from here on signals are the container's.
    let image = registries::image_to_run(app, &args.image, &args.registry, args.pull)?;
    signals::hold().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let layers = app.layers(&image)?;
    let id = containers::new_id()?;
    let config = containers::resolve(app, args, &image, &id)?;
    if let (Some(name), true) = (&args.name, args.replace)
        && let Some(old) = containers::find_named(app, name)?
    {
        super::rm::remove(app, &old, true)?;
    }
    // Before it is started nobody runs it: what it is has to be there whole for the one who does.
    let state = State {
        owner,
        ..State::default()
    };
    containers::create(app, config, &id, &layers, args.rm, &state)
}

fn in_background(app: &App, args: &ContainerArgs, container: &Container) -> Result<u8, Failure> {
    if let Err(failure) = write_id(args, &container.id) {
        containers::remove(&app.store, &container.id, Some(&container.config))?;
        return Err(failure);
    }
    match monitor::launch(app, &container.id, false) {
        Ok(_) => ui::result(&format!("{}\n", container.id)).map(|()| 0),
        Err(failure) => {
            discard(app, container)?;
            Err(failure)
        }
    }
}

/// With a monitor, to which this command is only attached: what the container prints is kept.
fn attached(app: &App, args: &RunArgs, container: &Container) -> Result<u8, Failure> {
    let of = &args.container;
    if let Err(failure) = write_id(of, &container.id) {
        containers::remove(&app.store, &container.id, Some(&container.config))?;
        return Err(failure);
    }
    let line = monitor::launch(app, &container.id, true)?;
    let joining = Joining {
        container,
        input: of.interactive,
        tty: of.tty,
        keys: &args.detach_keys.0,
    };
    let end = attached::join(app, line, &joining)?;
    if let End::Exited(_) = end {
        say_why(app, &container.id)?;
    }
    end.exit_code(app, &container.id)
}

/// This command runs it itself: nothing of it stays.
fn in_foreground(app: &App, args: &ContainerArgs, container: &Container) -> Result<u8, Failure> {
    let supervisor = Supervisor::new(app, container, Io::Own).inspect_err(|_| {
        // What it failed for is told.
        let _ = discard(app, container);
    })?;
    let ended = supervisor.run(|| write_id(args, &container.id))?;
    if ended.oom_killed {
        say_out_of_memory(container, ended.peak_memory);
    }
    Ok(exit_code(ended.code))
}

/// One that could not be started goes, if it would go at its end.
fn discard(app: &App, container: &Container) -> Result<(), Failure> {
    if container.is_transient {
        containers::remove(&app.store, &container.id, Some(&container.config))?;
    }
    Ok(())
}

fn say_why(app: &App, id: &str) -> Result<(), Failure> {
    let Some(container) = containers::get(app, id)? else {
        return Ok(());
    };
    if container.state.oom_killed {
        say_out_of_memory(&container, None);
    } else if !container.state.error.is_empty() {
        ui::note(&format!("note: {}", container.state.error));
    }
    Ok(())
}

fn say_out_of_memory(container: &Container, peak: Option<u64>) {
    let limit = container.config.limits.memory;
    let limit = limit.map_or_else(String::new, |m| format!(" of {}", ui::human::bytes(m)));
    let peak = peak.map_or_else(String::new, |p| format!(" (peak {})", ui::human::bytes(p)));
    ui::note(&format!(
        "note: the container ran out of its memory limit{limit}{peak}"
    ));
}

/// Whether the container's id can be written, before it has one.
fn check_id_file(args: &ContainerArgs) -> Result<(), Failure> {
    match &args.process.cidfile {
        Some(path) if path.symlink_metadata().is_ok() => {
            Err(Failure::own(format!("{} is there already", path.display()))
                .hint("--cidfile takes a file that is not there"))
        }
        _ => Ok(()),
    }
}

/// Writes the id of the container into a new file.
fn write_id(args: &ContainerArgs, id: &str) -> Result<(), Failure> {
    let Some(path) = &args.process.cidfile else {
        return Ok(());
    };
    let written = user_files::create_new(path).and_then(|mut file| file.write_all(id.as_bytes()));
    written.map_err(|e| {
        Failure::own(format!(
            "cannot write the container's id to {}: {e}",
            path.display()
        ))
    })
}
