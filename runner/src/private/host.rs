//! The host's side: the bridge, and the kernel parameters that make the host a router.

use std::fs;
use std::io;
use std::net::IpAddr;

use super::{BRIDGE, firewall, subnet};
use crate::error::{Result, RunnerError};
use crate::netlink::Netlink;
use crate::netlink::route::{Link, Prefix};

/// The group that tells box's own bridge from others' ("box" as a number); unlike an alias it is there from the first moment.
const GROUP: u32 = 0x0062_6f78;

/// Connections to the kernel, and the bridge.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) route: Netlink,
    pub(super) nft: Netlink,
    pub(super) bridge: u32,
    /// The bridge's own address of IPv4, then that of IPv6, in their networks.
    pub(super) networks: Vec<Prefix>,
}

/// The name of the host's end of a container's pair.
pub(super) fn port_name(bridge: &str, number: u32) -> String {
    format!("{}{number}", ports_of(bridge))
}

/// What the names of a bridge's ports begin with: `boxv`, or `v` and the bridge's own part (15 characters are the most).
fn ports_of(bridge: &str) -> String {
    match bridge {
        BRIDGE => "boxv".to_owned(),
        other => format!("v{}-", other.trim_start_matches("box")),
    }
}

/// Puts a failure of the kernel's into words.
pub(super) fn failed(doing: &'static str) -> impl Fn(io::Error) -> RunnerError {
    move |source| RunnerError::PrivateNetwork { doing, source }
}

impl Host {
    /// The bridge and the rules, made where they are not there yet. For whoever holds the leases' lock.
    pub(super) fn ensure(bridge: &str) -> Result<Host> {
        let route = Netlink::route().map_err(failed("open a netlink socket"))?;
        let nft = Netlink::netfilter().map_err(failed("open a netlink socket"))?;
        let found = route.link(bridge).map_err(failed("look for the bridge"))?;
        let adopted = match found {
            Some(link) => adopt(&route, link)?,
            None => None,
        };
        let (index, networks) = match adopted {
            Some(known) => known,
            None => {
                // Rules of an earlier bridge are for its networks.
                firewall::remove(&nft, bridge)
                    .map_err(failed("remove the packet rules of an earlier bridge"))?;
                make(&route, bridge)?
            }
        };
        let has_table = nft
            .has_table(firewall::table(bridge))
            .map_err(failed("look for box's packet rules"))?;
        if !has_table {
            firewall::make(&nft, bridge, &networks).map_err(failed("make the packet rules (nf_tables)"))?;
            firewall::pass_others(&nft, bridge).map_err(failed("pass the host's own packet filter"))?;
        }
        Ok(Host {
            route,
            nft,
            bridge: index,
            networks,
        })
    }
}

/// The bridge of an earlier container; none where its maker did not come to its end.
fn adopt(route: &Netlink, link: Link) -> Result<Option<(u32, Vec<Prefix>)>> {
    if link.group != GROUP {
        return Err(failed(
            "make the bridge (an interface of its name, not box's, is there)",
        )(io::ErrorKind::AlreadyExists.into()));
    }
    let mut networks = route
        .addresses(link.index)
        .map_err(failed("read the addresses of the bridge"))?;
    networks.sort_by_key(|network| network.address.is_ipv6());
    if networks.first().is_some_and(|network| network.address.is_ipv4()) {
        return Ok(Some((link.index, networks)));
    }
    route
        .delete_link(&link.name)
        .map_err(failed("remove a half-made bridge"))?;
    Ok(None)
}

fn make(route: &Netlink, bridge: &str) -> Result<(u32, Vec<Prefix>)> {
    let reading = failed("read the host's routes");
    let taken: Vec<Prefix> = route
        .routes(false)
        .map_err(&reading)?
        .iter()
        .map(|r| r.to)
        .collect();
    let network = subnet::choose(&taken).ok_or_else(|| {
        failed("find a private network that no route of the host uses")(
            io::ErrorKind::AddrNotAvailable.into(),
        )
    })?;
    let mut networks = vec![network];
    networks.extend(ipv6(route).map_err(&reading)?);
    let making = failed("make the bridge");
    route
        .new_bridge(bridge, subnet::hardware(network.address), GROUP)
        .map_err(&making)?;
    let link = route
        .link(bridge)
        .and_then(|link| link.ok_or(io::ErrorKind::NotFound.into()));
    let index = link.map_err(&making)?.index;
    parameters(bridge, networks.len() > 1).map_err(failed(
        "set the kernel's parameters for forwarding in /proc/sys/net",
    ))?;
    for network in networks.iter().rev() {
        route.add_address(index, *network).map_err(&making)?;
    }
    Ok((index, networks))
}

/// A network of IPv6, where the host has a way out by it.
fn ipv6(route: &Netlink) -> io::Result<Option<Prefix>> {
    // A kernel without IPv6 has no such routes.
    let routes = route.routes(true).unwrap_or_default();
    let ways_out: Vec<_> = routes
        .iter()
        .filter(|r| r.to.len == 0 && r.interface.is_some())
        .collect();
    if ways_out.is_empty() || read("net/ipv6/conf/all/disable_ipv6").as_deref() != Some("0") {
        return Ok(None);
    }
    if read("net/ipv6/conf/all/forwarding").as_deref() == Some("0") {
        // A router heeds no other router, unless told so for an interface: without that the host lost its own way out.
        let links = route.links()?;
        for way in ways_out.iter().filter(|way| way.is_announced) {
            if let Some(link) = links.iter().find(|link| Some(link.index) == way.interface) {
                write(&format!("net/ipv6/conf/{}/accept_ra", link.name), "2")?;
            }
        }
    }
    let mut random = [0; 7];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(Some(subnet::unique_local(random)))
}

/// Only what is not so already is written: /proc/sys may be read-only.
fn parameters(bridge: &str, has_ipv6: bool) -> io::Result<()> {
    ensure("net/ipv4/ip_forward", "1")?;
    // So that ports published at 127.0.0.1 can be reached from there; see `firewall`.
    ensure(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    if has_ipv6 {
        ensure(&format!("net/ipv6/conf/{bridge}/accept_ra"), "0")?;
        ensure("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn read(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().to_owned())
}

fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/{name}"), value)
}

fn ensure(name: &str, value: &str) -> io::Result<()> {
    match read(name) {
        Some(now) if now == value => Ok(()),
        _ => write(name, value),
    }
}

/// Everything a container had, by its number, whoever it was.
pub(super) fn clear(bridge: &str, number: u32) -> io::Result<()> {
    let route = Netlink::route()?;
    route.delete_link(&port_name(bridge, number))?;
    let Some(link) = route.link(bridge)? else {
        return Ok(());
    };
    let nft = Netlink::netfilter()?;
    if !nft.has_table(firewall::table(bridge))? {
        return Ok(());
    }
    let networks = route.addresses(link.index)?;
    let addresses: Vec<IpAddr> = networks
        .iter()
        .map(|network| subnet::address(*network, number))
        .collect();
    firewall::close_all_to(&nft, bridge, &addresses)
}

/// Bridge, rules and what hangs on them. For whoever knows that nobody uses them.
pub(super) fn remove(bridge: &str) -> io::Result<()> {
    firewall::remove(&Netlink::netfilter()?, bridge)?;
    let route = Netlink::route()?;
    for link in route.links()? {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if link.name.strip_prefix(&ports_of(bridge)).is_some_and(is_number) {
            route.delete_link(&link.name)?;
        }
    }
    match route.link(bridge)? {
        Some(link) if link.group == GROUP => route.delete_link(bridge),
        _ => Ok(()),
    }
}
