//! Private networks of containers and builds.

use std::path::{Path, PathBuf};

use box_runner::{
    NetworkMember, NetworkRequest, PortRequest, PrivateNetwork, RunnerError, Runtime, UserNamespace,
};
use box_store::ContainerConfig;

use crate::cli::{self, Network, NetworkArgs};
use crate::error::Failure;
use crate::resolv::{self, Wishes};

/// Addresses are the machine's, as ids are; see `ranges`.
const LEASES: &str = "/run/box/net";

/// What a private network is to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// The ports that the host is to have, too.
    pub(crate) ports: Vec<PortRequest>,
    /// The bridge of the named network that it is part of, and the container's names there.
    pub(crate) named: Option<(String, Vec<String>)>,
    /// What is asked for of its name servers.
    pub(crate) wishes: Wishes,
}

/// A private network for containers in this user namespace.
pub(crate) fn make(
    runtime: &Runtime,
    namespace: &UserNamespace,
    wanted: Wanted,
) -> Result<PrivateNetwork, RunnerError> {
    let (bridge, names) = wanted.named.unzip();
    let name_servers = match &bridge {
        Some(_) => Some(resolv::servers(&wanted.wishes)),
        None => resolv::on_loopback_alone(&wanted.wishes),
    };
    let request = NetworkRequest {
        directory: PathBuf::from(LEASES),
        ports: wanted.ports,
        bridge,
        names: names.unwrap_or_default(),
        name_servers,
    };
    runtime.private_network(namespace, &request)
}

/// Who is in the network with this bridge.
pub(crate) fn members(bridge: &str) -> Result<Vec<NetworkMember>, RunnerError> {
    box_runner::network_members(Path::new(LEASES), bridge)
}

/// Removes what killed processes left of the machine's networks.
pub(crate) fn reap() -> Result<(), RunnerError> {
    box_runner::reap_networks(Path::new(LEASES))
}

/// The network that is asked for.
pub(crate) fn mode(network: Option<&Network>) -> box_runner::Network {
    match network {
        Some(Network::Private | Network::Named(_)) | None => box_runner::Network::Private,
        Some(Network::None) => box_runner::Network::None,
        Some(Network::Host) => box_runner::Network::Host,
        Some(Network::Container(_)) => box_runner::Network::Joined,
    }
}

/// The ports that `-p` and `-P` ask for. Where nothing is behind them there is nothing to publish.
pub(crate) fn ports(args: &NetworkArgs, image: &ContainerConfig) -> Result<Vec<PortRequest>, Failure> {
    let is_private = mode(args.network.as_ref()) == box_runner::Network::Private;
    if !is_private && (args.publish_all || !args.publish.is_empty()) {
        return Err(Failure::own("only a private network has ports to publish")
            .hint("leave --network away, or -p; with --network host a program's ports are the host's, with container:NAME they are published where that one is made"));
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
