//! A container's private network.

use box_runner::{PrivateNetwork, Runtime, UserNamespace};

use super::config::{Config, Network};
use crate::app::App;
use crate::error::{EXIT_BOX, Failure};
use crate::named;
use crate::networks::{self, Wanted};

/// The private network that it is to have, made for it.
pub(crate) fn network(
    app: &App,
    runtime: &Runtime,
    namespace: &UserNamespace,
    config: &Config,
) -> Result<Option<PrivateNetwork>, Failure> {
    let Network::Private { ports, .. } = &config.network else {
        return Ok(None);
    };
    let named = match config.network.named() {
        Some(name) => Some((named::find(app, name, EXIT_BOX)?.bridge, config.names())),
        None => None,
    };
    let wanted = Wanted {
        ports: ports.clone(),
        named,
        wishes: config.dns.clone(),
    };
    let made = networks::make(runtime, namespace, wanted);
    made.map(Some).map_err(|e| Failure::of(EXIT_BOX, &e))
}
