//! `box rm` and `box container prune`: containers go, with all that they wrote.

use box_store::VolumeError;

use super::each_at_once;
use crate::app::App;
use crate::cli::{ContainerPruneArgs, RmArgs};
use crate::commands::ps::Filters;
use crate::containers::{self, Container, Status};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::monitor::{self, Request};
use crate::mounts::MountPlan;
use crate::ui;

/// Removes each; prints the names of those that are gone.
pub(super) fn run(app: &App, args: &RmArgs) -> Result<u8, Failure> {
    each_at_once(&args.containers, |name| {
        match containers::find_id(app, name)? {
            Some(id) => {
                // One that can't be read tells none.
                let volumes = match containers::get(app, &id) {
                    Ok(Some(container)) if args.volumes => container.config.mounts,
                    _ => Vec::new(),
                };
                remove(app, &id, args.force)?;
                remove_volumes(app, &volumes)?;
            }
            None if args.force => return Ok(()),
            None => return containers::find(app, name).map(drop),
        }
        ui::result(&format!("{name}\n"))
    })
}

/// Those that nobody named; one that somebody else uses stays.
fn remove_volumes(app: &App, plans: &[MountPlan]) -> Result<(), Failure> {
    for name in plans.iter().filter_map(MountPlan::anonymous_volume) {
        match super::volume::remove_one(app, name) {
            Ok(())
            | Err(VolumeError::Missing { .. } | VolumeError::InUse { .. } | VolumeError::Referenced { .. }) =>
                {}
            Err(error) => return Err(Failure::of(EXIT_BOX, &error)),
        }
    }
    Ok(())
}

/// Removes one; with `force` also one that runs, or can't be read.
pub(super) fn remove(app: &App, id: &str, force: bool) -> Result<(), Failure> {
    let container = match containers::get(app, id) {
        Ok(found) => found,
        Err(_) if force => None,
        Err(failure) => return Err(failure),
    };
    let container = match container {
        Some(container) if container.state.is_taken() => until_it_runs(app, container, force)?,
        other => other,
    };
    if let Some(container) = &container
        && container.state.is_active()
    {
        if !force {
            return Err(
                Failure::new(EXIT_INPUT, format!("container {} runs", container.config.name))
                    .hint("stop it first (box stop), or kill and remove it at once (box rm -f)"),
            );
        }
        let kill = Request::Stop {
            signal: Some(nix::libc::SIGKILL),
            timeout: None,
        };
        if let Some(connection) = monitor::connect(app, container)? {
            // No answer is the end of whoever ran it.
            connection.ask(&kill, &[])?;
        }
    }
    let _lock = containers::lock(app, id)?;
    // Somebody may have started it in between.
    let is_busy = |container: Container| container.state.is_active() || container.state.is_taken();
    if containers::get(app, id).is_ok_and(|found| found.is_some_and(is_busy)) {
        return match force {
            true => {
                drop(_lock);
                remove(app, id, force)
            }
            false => Err(Failure::new(EXIT_INPUT, "the container was started meanwhile")),
        };
    }
    containers::remove(
        &app.store,
        id,
        container.as_ref().map(|container| &container.config),
    )?;
    Ok(())
}

/// One that somebody is about to run: it is waited for, or left alone.
fn until_it_runs(app: &App, container: Container, force: bool) -> Result<Option<Container>, Failure> {
    if !force {
        return Err(Failure::new(
            EXIT_INPUT,
            format!("container {} is about to run", container.config.name),
        )
        .hint("stop it when it runs (box stop), or remove it at once (box rm -f)"));
    }
    let mut container = Some(container);
    while let Some(taken) = container.as_ref().filter(|container| container.state.is_taken()) {
        std::thread::sleep(std::time::Duration::from_millis(2));
        container = containers::get(app, &taken.id)?;
    }
    Ok(container)
}

/// Removes all that do not run.
pub(super) fn prune(app: &App, args: &ContainerPruneArgs) -> Result<u8, Failure> {
    let filters = Filters::parse(&args.filter, &["label", "until"])?;
    let mut removed = Vec::new();
    for container in containers::list(app)? {
        let is_idle =
            matches!(container.state.status, Status::Created | Status::Exited) && !container.state.is_taken();
        if is_idle && filters.take(&container) {
            match remove(app, &container.id, false) {
                Ok(()) => removed.push(container.id),
                // Somebody has started it.
                Err(failure) if failure.code == EXIT_INPUT => {}
                Err(failure) => return Err(failure),
            }
        }
    }
    ui::result(&removed.iter().map(|id| format!("{id}\n")).collect::<String>())?;
    Ok(0)
}
