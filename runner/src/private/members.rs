//! Who is in a network.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::{lease, subnet};
use crate::error::{Result, RunnerError};
use crate::netlink::Netlink;

/// A living member of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMember {
    /// What others know it by.
    pub names: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The living members of the network with this bridge; `directory` is that of [`NetworkRequest`](crate::NetworkRequest).
pub fn network_members(directory: &Path, bridge: &str) -> Result<Vec<NetworkMember>> {
    find(directory, bridge).map_err(|e| RunnerError::os(format!("look who is on the bridge {bridge}"), e))
}

fn find(directory: &Path, bridge: &str) -> io::Result<Vec<NetworkMember>> {
    let members = match lease::members(&lease::own_directory(directory, bridge)?) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let route = Netlink::route()?;
    let Some(link) = route.link(bridge)? else {
        return Ok(Vec::new());
    };
    let mut networks = route.addresses(link.index)?;
    networks.sort_by_key(|network| network.address.is_ipv6());
    let member = |(number, names): (u32, Vec<String>)| NetworkMember {
        names,
        addresses: networks
            .iter()
            .map(|network| subnet::address(*network, number))
            .collect(),
    };
    Ok(members.into_iter().map(member).collect())
}
