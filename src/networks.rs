//! Private networks of containers and builds.

use std::path::{Path, PathBuf};

use box_runner::{NetworkRequest, PortRequest, PrivateNetwork, RunnerError, Runtime, UserNamespace};
use box_store::ContainerConfig;

use crate::cli::{self, Network, NetworkArgs};
use crate::error::Failure;

/// Addresses are the machine's, as ids are; see `ranges`.
const LEASES: &str = "/run/box/net";

/// A private network for containers in this user namespace.
pub(crate) fn make(
    runtime: &Runtime,
    namespace: &UserNamespace,
    ports: Vec<PortRequest>,
) -> Result<PrivateNetwork, RunnerError> {
    let request = NetworkRequest {
        directory: PathBuf::from(LEASES),
        ports,
        bridge: None,
        names: Vec::new(),
        name_servers: None,
    };
    runtime.private_network(namespace, &request)
}

/// Removes what killed processes left of the machine's networks.
pub(crate) fn reap() -> Result<(), RunnerError> {
    box_runner::reap_networks(Path::new(LEASES))
}

/// The network that is asked for.
pub(crate) fn mode(network: Option<Network>) -> box_runner::Network {
    match network {
        Some(Network::Private) | None => box_runner::Network::Private,
        Some(Network::None) => box_runner::Network::None,
        Some(Network::Host) => box_runner::Network::Host,
    }
}

/// The ports that `-p` and `-P` ask for. Where nothing is behind them there is nothing to publish.
pub(crate) fn ports(args: &NetworkArgs, image: &ContainerConfig) -> Result<Vec<PortRequest>, Failure> {
    let is_private = mode(args.network) == box_runner::Network::Private;
    if !is_private && (args.publish_all || !args.publish.is_empty()) {
        return Err(Failure::own("only a private network has ports to publish")
            .hint("leave --network away, or -p; with --network host a program's ports are the host's"));
    }
    let mut ports: Vec<PortRequest> = args
        .publish
        .iter()
        .flat_map(|publish| publish.0.clone())
        .collect();
    if args.publish_all {
        let given = ports.clone();
        let exposed = cli::exposed(image.exposed_ports.keys().map(String::as_str));
        let is_new = |port: &PortRequest| {
            given
                .iter()
                .all(|other| (other.container, other.protocol) != (port.container, port.protocol))
        };
        ports.extend(exposed.into_iter().filter(is_new));
    }
    Ok(ports)
}
