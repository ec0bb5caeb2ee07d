//! `box volume`: directories that outlive containers.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};

use box_store::image::format_rfc3339;
use box_store::{NewVolume, VolumeError, VolumeInfo, VolumeName};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{
    Format, VolumeAction, VolumeCreateArgs, VolumeFilter, VolumeListArgs, VolumePruneArgs, VolumeRemoveArgs,
};
use crate::containers::{self, Container};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::events::{self, Kind};
use crate::mounts::MountPlan;
use crate::ui::{self, human, table};

/// Makes, lists, shows or removes.
pub(super) fn run(app: &App, action: &VolumeAction) -> Result<u8, Failure> {
    match action {
        VolumeAction::Create(args) => create(app, args),
        VolumeAction::Ls(args) => list(app, args),
        VolumeAction::Inspect(args) => inspect(app, &args.names),
        VolumeAction::Rm(args) => remove(app, args),
        VolumeAction::Prune(args) => prune(app, args),
    }
}

fn failure(error: &VolumeError) -> Failure {
    match error {
        VolumeError::Store(_) => Failure::of(EXIT_BOX, error),
        VolumeError::Missing { .. } => {
            Failure::of(EXIT_INPUT, error).hint("`box volume ls` lists them; `box volume create` makes one")
        }
        _ => Failure::of(EXIT_INPUT, error),
    }
}

fn parse(name: &str) -> Result<VolumeName, Failure> {
    name.parse().map_err(|e| failure(&e))
}

/// The containers that need a volume though they don't run.
fn users(app: &App) -> impl Fn(&VolumeName) -> Vec<String> + '_ {
    // Asked while nobody can begin to use the volume: a container that is made before that is among them.
    move |volume| match &containers::list(app) {
        Ok(all) => {
            let needs = |container: &&Container| {
                let mut volumes = container.config.mounts.iter().filter_map(MountPlan::volume);
                volumes.any(|name| name == volume)
            };
            let names = all
                .iter()
                .filter(needs)
                .map(|container| container.config.name.clone());
            names.collect()
        }
        // One that can't be read may need any of them.
        Err(failure) => vec![format!("(unknown: {})", failure.message())],
    }
}

fn create(app: &App, args: &VolumeCreateArgs) -> Result<u8, Failure> {
    let name = match &args.name {
        Some(name) => parse(name)?,
        None => VolumeName::random()?,
    };
    let new = NewVolume {
        labels: args.labels.iter().map(|label| label.pair()).collect(),
        is_anonymous: args.name.is_none(),
        ..NewVolume::default()
    };
    let is_new = app.store.create_volume(&name, &new).map_err(|e| failure(&e))?;
    if is_new {
        events::note(
            &app.store,
            Kind::Volume,
            "create",
            name.as_str(),
            &[("driver", "local")],
        );
    }
    if !is_new && !new.labels.is_empty() {
        let info = find(app, name.as_str())?;
        if info.labels != new.labels {
            return Err(
                Failure::input(format!("the volume {name} is there already, with other labels"))
                    .hint("labels are given when a volume is made; remove it first (box volume rm), or leave --label away"),
            );
        }
    }
    ui::result(&format!("{name}\n"))?;
    Ok(0)
}

fn find(app: &App, name: &str) -> Result<VolumeInfo, Failure> {
    let found = app.store.volume(&parse(name)?).map_err(|e| failure(&e))?;
    let missing = || VolumeError::Missing {
        name: name.to_owned(),
    };
    found.ok_or_else(|| failure(&missing()))
}

fn list(app: &App, args: &VolumeListArgs) -> Result<u8, Failure> {
    let mut found = Vec::new();
    for info in app.store.volumes().map_err(|e| failure(&e))? {
        if is_wanted(app, &info, &args.filters)? {
            found.push(info);
        }
    }
    if args.quiet {
        let names: Vec<String> = found.iter().map(|info| format!("{}\n", info.name)).collect();
        ui::result(&names.concat())?;
    } else if args.format == Format::Json {
        ui::json(&found.iter().map(as_json).collect())?;
    } else {
        let rows: Vec<_> = found
            .iter()
            .map(|info| vec!["local".to_owned(), info.name.to_string()])
            .collect();
        ui::result(&table::render(&["DRIVER", "VOLUME NAME"], &rows))?;
    }
    Ok(0)
}

/// Of several names one must fit, of labels and the rest all.
fn is_wanted(app: &App, info: &VolumeInfo, filters: &[VolumeFilter]) -> Result<bool, Failure> {
    let mut names = filters.iter().filter_map(|filter| match filter {
        VolumeFilter::Name(part) => Some(info.name.as_str().contains(part.as_str())),
        _ => None,
    });
    let has_name = !filters.iter().any(|f| matches!(f, VolumeFilter::Name(_))) || names.any(|fits| fits);
    let mut wanted = has_name && has_labels(info, filters);
    for filter in filters {
        match filter {
            VolumeFilter::Dangling(dangling) => wanted &= is_dangling(app, info)? == *dangling,
            VolumeFilter::Driver(driver) => wanted &= driver == "local",
            VolumeFilter::Name(_) | VolumeFilter::Label(..) => {}
        }
    }
    Ok(wanted)
}

fn has_labels(info: &VolumeInfo, filters: &[VolumeFilter]) -> bool {
    filters.iter().all(|filter| match filter {
        VolumeFilter::Label(label, is_there) => {
            let found = info.labels.get(&label.name);
            let fits = |value: &String| label.value.as_ref().is_none_or(|wanted| wanted == value);
            found.is_some_and(fits) == *is_there
        }
        _ => true,
    })
}

fn is_dangling(app: &App, info: &VolumeInfo) -> Result<bool, Failure> {
    let in_use = app.store.is_volume_in_use(&info.name).map_err(|e| failure(&e))?;
    Ok(!in_use && users(app)(&info.name).is_empty())
}

/// In Docker's shape.
fn as_json(info: &VolumeInfo) -> Value {
    json!({
        "Name": info.name.as_str(),
        "Driver": "local",
        "Mountpoint": info.data,
        "CreatedAt": format_rfc3339(info.created),
        "Labels": info.labels,
        "Options": {},
        "Scope": "local",
        "Anonymous": info.is_anonymous,
    })
}

fn inspect(app: &App, names: &[String]) -> Result<u8, Failure> {
    let found: Result<Vec<Value>, Failure> =
        names.iter().map(|name| Ok(as_json(&find(app, name)?))).collect();
    ui::json(&Value::Array(found?))?;
    Ok(0)
}

/// Removes a volume that no container needs.
pub(super) fn remove_one(app: &App, name: &VolumeName) -> Result<(), VolumeError> {
    app.store.remove_volume(name, &users(app))?;
    events::note(
        &app.store,
        Kind::Volume,
        "destroy",
        name.as_str(),
        &[("driver", "local")],
    );
    Ok(())
}

/// Removes each; goes on after one that can't be, and fails in the end.
fn remove(app: &App, args: &VolumeRemoveArgs) -> Result<u8, Failure> {
    let mut code = 0;
    for name in &args.names {
        let removed = parse(name).and_then(|name| {
            let removed = remove_one(app, &name);
            match removed {
                Err(VolumeError::Missing { .. }) if args.force => Ok(()),
                removed => removed.map_err(|e| failure(&e)),
            }
        });
        match removed {
            Ok(()) => ui::result(&format!("{name}\n"))?,
            Err(failure) => {
                code = failure.code;
                ui::error(&failure);
            }
        }
    }
    Ok(code)
}

fn prune(app: &App, args: &VolumePruneArgs) -> Result<u8, Failure> {
    let is_label = |filter: &VolumeFilter| matches!(filter, VolumeFilter::Label(..));
    if !args.filters.iter().all(is_label) {
        return Err(Failure::own("only labels can be told apart here")
            .hint("write --filter label=NAME or label!=NAME"));
    }
    let which = if args.all {
        "all volumes"
    } else {
        "all volumes that nobody named"
    };
    if !args.force && std::io::stdin().is_terminal() && !is_sure(which)? {
        return Ok(0);
    }
    let mut removed: BTreeMap<VolumeName, u64> = BTreeMap::new();
    for info in app.store.volumes().map_err(|e| failure(&e))? {
        if !(args.all || info.is_anonymous) || !has_labels(&info, &args.filters) {
            continue;
        }
        let size = app.store.volume_size(&info.name)?;
        match remove_one(app, &info.name) {
            Ok(()) => {
                removed.insert(info.name, size);
            }
            // In use, or gone meanwhile.
            Err(VolumeError::InUse { .. } | VolumeError::Referenced { .. } | VolumeError::Missing { .. }) => {
            }
            Err(error) => return Err(failure(&error)),
        }
    }
    let mut text = String::new();
    if !removed.is_empty() {
        text.push_str("Deleted Volumes:\n");
        removed
            .keys()
            .for_each(|name| text.push_str(&format!("{name}\n")));
        text.push('\n');
    }
    let total = human::bytes(removed.values().sum());
    ui::result(&format!("{text}Total reclaimed space: {total}\n"))?;
    Ok(0)
}

fn is_sure(which: &str) -> Result<bool, Failure> {
    ui::note(&format!(
        "This removes {which} that no container needs, with all that they hold. Go on? [y/N]"
    ));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Failure::own(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
