//! Containers that are kept: finding them by name or id, what they are, how they are doing.

mod config;
mod isolation;
mod join;
mod labels;
mod names;
mod resolve;
mod spec;
mod state;
mod throttle;
mod users;

use box_store::{DiffId, Digest, Layer, LockGuard, Store, StoreError};

pub(crate) use config::{Config, Health, Limits, Network, Traffic};
pub(crate) use join::network;
pub(crate) use names::check_name;
pub(crate) use resolve::{env_file, merge, resolve};
pub(crate) use spec::{alone, copy_instead, etc_files, id_pages, limits, open, spec};
pub(crate) use state::{HealthCheck, HealthState, HealthStatus, NetworkState, State, Status};
pub(crate) use users::{dirs, ids};

pub(crate) use crate::clock::now;

use crate::app::App;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::events::{self, Kind};

/// A container as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) config: Config,
    pub(crate) state: State,
    /// It goes when it has ended.
    pub(crate) is_transient: bool,
    layers: Vec<Digest>,
}

impl Container {
    /// The id as listings show it.
    pub(crate) fn short_id(&self) -> &str {
        short(&self.id)
    }

    /// What it lies on, bottom first.
    pub(crate) fn layers(&self, app: &App) -> Result<Vec<Layer>, Failure> {
        let layer = |digest: &Digest| {
            let layer = app.store.layer(&DiffId(*digest))?;
            layer.ok_or_else(|| {
                Failure::own(format!("layer {digest} of the container is not in the store"))
                    .hint("pull or build its image again")
            })
        };
        self.layers.iter().map(layer).collect()
    }
}

/// The beginning of an id, as it is shown.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The container of this id. None if it is gone.
pub(crate) fn get(app: &App, id: &str) -> Result<Option<Container>, Failure> {
    let (Some(config), Some(state)) = (app.store.container_config(id)?, app.store.container_state(id)?)
    else {
        return Ok(None);
    };
    let damaged = |e: &dyn std::fmt::Display| {
        Failure::own(format!("container {}: {e}", short(id)))
            .hint("this version of box can't read it; box rm -f removes it")
    };
    let parsed: Config = serde_json::from_slice(&config.bytes).map_err(|e| damaged(&e))?;
    if parsed.version != config::VERSION {
        return Err(damaged(&format!("version {} of its description", parsed.version)));
    }
    let state: State = serde_json::from_slice(&state.bytes).map_err(|e| damaged(&e))?;
    let is_transient = app.store.container_is_transient(id)?;
    Ok(Some(Container {
        id: id.to_owned(),
        config: parsed,
        state: state.seen(|owner| app.store.owner_is_alive(owner), is_transient),
        is_transient,
        layers: config.keeps,
    }))
}

/// All containers, the newest first; those that should be gone are removed.
pub(crate) fn list(app: &App) -> Result<Vec<Container>, Failure> {
    let mut found = Vec::new();
    for id in app.store.container_ids()? {
        let Some(container) = get(app, &id)? else { continue };
        if container.is_transient && container.state.status == Status::Exited {
            reap_one(app, &id)?;
            continue;
        }
        found.push(container);
    }
    found.sort_by_key(|container| std::cmp::Reverse(container.config.created));
    Ok(found)
}

/// The container of a name, an id or the beginning of one.
pub(crate) fn find(app: &App, text: &str) -> Result<Container, Failure> {
    let found = find_id(app, text)?;
    let container = match found {
        Some(id) => get(app, &id)?,
        None => None,
    };
    container.ok_or_else(|| {
        Failure::new(EXIT_INPUT, format!("no container named {text:?}"))
            .hint("`box ps -a` lists what is there")
    })
}

/// The id of the container of exactly this name, or with exactly this id: the beginning of an id is no name.
pub(crate) fn find_named(app: &App, name: &str) -> Result<Option<String>, Failure> {
    for id in app.store.container_ids()? {
        if id == name
            || get(app, &id).is_ok_and(|found| found.is_some_and(|container| container.config.name == name))
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The id of a container by its name, or by the beginning of its id. Containers that can't be read are found by their id.
pub(crate) fn find_id(app: &App, text: &str) -> Result<Option<String>, Failure> {
    let ids = app.store.container_ids()?;
    if ids.iter().any(|id| id == text) {
        return Ok(Some(text.to_owned()));
    }
    for id in &ids {
        if get(app, id).is_ok_and(|found| found.is_some_and(|container| container.config.name == text)) {
            return Ok(Some(id.clone()));
        }
    }
    let mut matching = ids
        .into_iter()
        .filter(|id| !text.is_empty() && id.starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(_), Some(_)) => Err(Failure::new(
            EXIT_INPUT,
            format!("several containers begin with {text:?}"),
        )
        .hint("write more digits of the id, or the name")),
        (one, _) => Ok(one),
    }
}

/// Removes what goes by itself and was left by a killed box.
pub(crate) fn reap(app: &App) -> Result<(), Failure> {
    for id in app.store.container_ids()? {
        if !app.store.container_is_transient(&id)? {
            continue;
        }
        // One that can't be read is told by whoever asks for it.
        if let Ok(Some(container)) = get(app, &id)
            && container.state.status == Status::Exited
        {
            reap_one(app, &id)?;
        }
    }
    Ok(())
}

/// One that somebody has taken meanwhile is left to them.
fn reap_one(app: &App, id: &str) -> Result<(), Failure> {
    let Some(_lock) = app.store.try_lock("container", &Digest::of(id.as_bytes()))? else {
        return Ok(());
    };
    if let Some(container) = get(app, id)?
        && container.state.status == Status::Exited
    {
        remove(&app.store, id, Some(&container.config))?;
    }
    Ok(())
}

/// Nobody else changes, starts or removes this container meanwhile.
pub(crate) fn lock(app: &App, id: &str) -> Result<LockGuard, Failure> {
    Ok(app.store.lock("container", &Digest::of(id.as_bytes()))?)
}

/// Nobody else gives a container a name meanwhile.
pub(crate) fn lock_names(app: &App) -> Result<LockGuard, Failure> {
    Ok(app.store.lock("container-names", &Digest::of(b"names"))?)
}

/// Writes what a container is.
pub(crate) fn write_config(app: &App, id: &str, config: &Config) -> Result<(), Failure> {
    Ok(app.store.set_container_config(id, &bytes(config)?)?)
}

/// Keeps a new container under a name nobody has (a made-up one if none is asked for); its id.
pub(crate) fn create(
    app: &App,
    mut config: Config,
    id: &str,
    layers: &[Layer],
    is_transient: bool,
    state: &State,
) -> Result<Container, Failure> {
    let _names = lock_names(app)?;
    names::claim(app, &mut config.name, is_transient)?;
    let new = box_store::NewContainer {
        id,
        config: &bytes(&config)?,
        state: &bytes(state)?,
        layers,
        is_transient,
    };
    app.store.create_container(&new)?;
    note(&app.store, "create", id, &config, &[]);
    let layers: Result<Vec<Digest>, _> = layers
        .iter()
        .map(|layer| layer.diff_id().map(|id| id.0))
        .collect();
    Ok(Container {
        id: id.to_owned(),
        config,
        state: state.clone(),
        is_transient,
        layers: layers?,
    })
}

/// As it is kept.
pub(crate) fn bytes(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| Failure::of(EXIT_BOX, &e))
}

/// A new id: 64 hexadecimal digits.
pub(crate) fn new_id() -> Result<String, Failure> {
    use std::io::Read;
    let mut random = [0; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.map_err(|e| Failure::own(format!("cannot read /dev/urandom: {e}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes it with all that it wrote; none runs it. Says whether it was there.
pub(crate) fn remove(store: &Store, id: &str, config: Option<&Config>) -> Result<bool, StoreError> {
    let is_removed = store.remove_container(id)?;
    if let (true, Some(config)) = (is_removed, config) {
        note(store, "destroy", id, config, &[]);
    }
    Ok(is_removed)
}

/// Notes that something happened to it.
pub(crate) fn note(store: &Store, action: &str, id: &str, config: &Config, further: &[(&str, &str)]) {
    let mut attributes = vec![("image", config.image.as_str()), ("name", config.name.as_str())];
    let labels = config.labels.iter();
    attributes.extend(labels.map(|(name, value)| (name.as_str(), value.as_str())));
    attributes.extend(further);
    events::note(store, Kind::Container, action, id, &attributes);
}
