//! Named networks: their definitions, a small file each in the store's `networks/`.
//!
//! A definition is only a name: addresses are chosen when the first container joins, so that they collide with nothing then.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use box_store::Digest;

use crate::app::App;
use crate::cli::is_network_name;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};

/// A named network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
    /// Its bridge, while containers are in it.
    pub(crate) bridge: String,
    /// When it was made.
    pub(crate) created: SystemTime,
}

fn directory(app: &App) -> PathBuf {
    app.store.layout().root().join("networks")
}

/// Another store may have one of the same name, so the bridge's depends on both.
fn bridge(app: &App, name: &str) -> Result<String, Failure> {
    let digest = Digest::of(format!("{}:{name}", app.store_mark()?).as_bytes());
    Ok(format!("box{}", digest.hex().chars().take(8).collect::<String>()))
}

fn failed(doing: &str, name: &str) -> impl Fn(io::Error) -> Failure {
    move |e| Failure::new(EXIT_BOX, format!("cannot {doing} the network {name}: {e}"))
}

/// Makes one.
pub(crate) fn create(app: &App, name: &str) -> Result<(), Failure> {
    if app.rootless.is_some() {
        return Err(Failure::own("named networks are root's alone")
            .hint("an ordinary user's containers reach each other by published ports (-p)"));
    }
    if !is_network_name(name) || matches!(name, "private" | "bridge" | "default" | "none" | "host") {
        return Err(Failure::input(format!("{name:?} can't name a network"))
            .hint("letters, digits, '_', '.' and '-', the first a letter or digit; private, bridge, default, none and host are taken"));
    }
    std::fs::create_dir_all(directory(app)).map_err(failed("make", name))?;
    match std::fs::File::create_new(directory(app).join(name)) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::input(format!("the network {name} is there already")))
        }
        other => other.map(drop).map_err(failed("make", name)),
    }
}

/// All, by name.
pub(crate) fn list(app: &App) -> Result<Vec<Named>, Failure> {
    let entries = match std::fs::read_dir(directory(app)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("list", ""))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", ""))?;
        if let Some(name) = entry.file_name().to_str().filter(|name| is_network_name(name)) {
            let created = entry.metadata().and_then(|meta| meta.modified());
            all.push(Named {
                name: name.to_owned(),
                bridge: bridge(app, name)?,
                created: created.map_err(failed("look at", name))?,
            });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The one of this name.
pub(crate) fn find(app: &App, name: &str, code: u8) -> Result<Named, Failure> {
    let found = list(app)?.into_iter().find(|network| network.name == name);
    found.ok_or_else(|| {
        Failure::new(code, format!("there is no network {name:?}"))
            .hint("`box network ls` lists them; `box network create` makes one")
    })
}

/// Removes its definition.
pub(crate) fn remove(app: &App, network: &Named) -> Result<(), Failure> {
    std::fs::remove_file(directory(app).join(&network.name)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(EXIT_INPUT, format!("there is no network {:?}", network.name))
        }
        _ => failed("remove", &network.name)(e),
    })
}
