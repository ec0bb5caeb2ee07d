//! `box network`: networks whose containers know each other by name.

use box_runner::NetworkMember;
use box_store::image::format_rfc3339;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{Format, NetworkAction, NetworkListArgs};
use crate::containers;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::events::{self, Kind};
use crate::named::{self, Named};
use crate::networks;
use crate::ui::{self, table};

/// Makes, lists, shows or removes.
pub(super) fn run(app: &App, action: &NetworkAction) -> Result<u8, Failure> {
    match action {
        NetworkAction::Create(args) => {
            named::create(app, &args.name)?;
            note(app, "create", &args.name);
            ui::result(&format!("{}\n", args.name))?;
        }
        NetworkAction::Ls(args) => list(app, args)?,
        NetworkAction::Inspect(args) => inspect(app, &args.names)?,
        NetworkAction::Rm(args) => {
            for name in &args.names {
                remove(app, name)?;
                note(app, "destroy", name);
                ui::result(&format!("{name}\n"))?;
            }
        }
    }
    Ok(0)
}

fn note(app: &App, action: &str, name: &str) {
    events::note(
        &app.store,
        Kind::Network,
        action,
        name,
        &[("name", name), ("type", "bridge")],
    );
}

fn members(network: &Named) -> Result<Vec<NetworkMember>, Failure> {
    networks::members(&network.bridge).map_err(|e| Failure::of(EXIT_BOX, &e))
}

fn list(app: &App, args: &NetworkListArgs) -> Result<(), Failure> {
    let all = named::list(app)?;
    if args.quiet {
        let names: String = all.iter().map(|network| format!("{}\n", network.name)).collect();
        return ui::result(&names);
    }
    match args.format {
        Format::Json => ui::json(&shown(&all)?),
        Format::Table => {
            let row = |network: &Named| Ok(vec![network.name.clone(), members(network)?.len().to_string()]);
            let rows: Vec<_> = all.iter().map(row).collect::<Result<_, Failure>>()?;
            ui::result(&table::render(&["NAME", "CONTAINERS"], &rows))
        }
    }
}

fn inspect(app: &App, names: &[String]) -> Result<(), Failure> {
    let all: Vec<Named> = names
        .iter()
        .map(|name| named::find(app, name, EXIT_INPUT))
        .collect::<Result<_, _>>()?;
    ui::json(&shown(&all)?)
}

fn shown(all: &[Named]) -> Result<Value, Failure> {
    let one = |network: &Named| {
        let created = network.created.duration_since(std::time::UNIX_EPOCH);
        let created = created.map_or(0, |time| time.as_secs());
        let container =
            |member: NetworkMember| json!({ "Names": member.names, "Addresses": member.addresses });
        Ok(json!({
            "Name": network.name,
            "Created": format_rfc3339(i64::try_from(created).unwrap_or(0)),
            "Driver": "bridge",
            "Bridge": network.bridge,
            "Containers": members(network)?.into_iter().map(container).collect::<Vec<_>>(),
        }))
    };
    all.iter().map(one).collect()
}

/// Neither a running container may be in it nor one that is there and would be in it again.
fn remove(app: &App, name: &str) -> Result<(), Failure> {
    let network = named::find(app, name, EXIT_INPUT)?;
    let users: Vec<String> = containers::list(app)?
        .into_iter()
        .filter(|container| container.config.network.named() == Some(name))
        .map(|container| container.config.name)
        .collect();
    if !users.is_empty() || !members(&network)?.is_empty() {
        let who = match users.is_empty() {
            true => "running containers".to_owned(),
            false => users.join(", "),
        };
        return Err(Failure::input(format!("the network {name} is in use by {who}")));
    }
    named::remove(app, &network)
}
