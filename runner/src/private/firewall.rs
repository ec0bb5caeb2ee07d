//! The rules of the host: one table of box's own, and two rules in the chain of others where that stops everything.
//!
//! The table `inet box` hides containers behind the host's addresses, sends published ports to them, and lets nothing else in.
//! Ports are entries of maps, so the rules themselves never change. Whether a host port is at every address or at one
//! decides which map its entry is in.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};

use super::BRIDGE;
use super::ports::{MappedPort, Protocol};
use super::subnet::network_bytes;
use crate::netlink::Netlink;
use crate::netlink::nft::{Base, Batch, Entry, Family, FoundChain, Hook, Map, Rule, Verdict};
use crate::netlink::route::Prefix;

/// The table of a bridge; its name is also what the rules among others' are known by.
pub(super) fn table(bridge: &str) -> &str {
    match bridge {
        BRIDGE => "box",
        other => other,
    }
}

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// Offsets of source and destination in the packet's head.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const SOURCE6: u32 = 8;
const DESTINATION6: u32 = 24;
const LOOPBACK: [u8; 1] = [127];

/// `nft`'s numbers of the types ipv4_addr, ipv6_addr, inet_proto and inet_service.
const ADDR: u32 = 7;
const ADDR6: u32 = 8;
const PROTO: u32 = 12;
const PORT: u32 = 13;

const fn two(a: u32, b: u32) -> u32 {
    a << 6 | b
}

const fn map(name: &'static str, key: (u32, u32), value: (u32, u32)) -> Map {
    Map { name, key, value }
}

/// At one address or at every one, of IPv4 and of IPv6.
const ONE4: Map = map("one4", (two(two(ADDR, PROTO), PORT), 12), (two(ADDR, PORT), 8));
const ANY4: Map = map("any4", (two(PROTO, PORT), 8), (two(ADDR, PORT), 8));
const ONE6: Map = map("one6", (two(two(ADDR6, PROTO), PORT), 24), (two(ADDR6, PORT), 20));
const ANY6: Map = map("any6", (two(PROTO, PORT), 8), (two(ADDR6, PORT), 20));
const MAPS: [Map; 4] = [ONE4, ANY4, ONE6, ANY6];

const fn hook(kind: &'static str, number: u32, priority: i32) -> Option<Hook> {
    Some(Hook {
        kind,
        number,
        priority,
    })
}

/// Makes the table for these networks of the bridge.
pub(super) fn make(nft: &Netlink, bridge: &str, networks: &[Prefix]) -> io::Result<()> {
    let mut batch = Batch::default();
    let table = table(bridge);
    batch.table(table);
    for map in MAPS {
        batch.map(table, map);
    }
    let chains = [
        ("guard", hook("filter", PREROUTING, -300), guard(bridge, networks)),
        ("publish", None, publish()),
        ("prerouting", hook("nat", PREROUTING, -100), to_published(true)),
        ("output", hook("nat", OUTPUT, -100), to_published(false)),
        (
            "postrouting",
            hook("nat", POSTROUTING, 100),
            postrouting(bridge, networks),
        ),
        ("forward", hook("filter", FORWARD, 0), forward(bridge)),
    ];
    for (name, hook, _) in &chains {
        batch.chain(table, name, *hook);
    }
    for (name, _, rules) in &chains {
        rules.iter().for_each(|rule| batch.rule(table, name, rule));
    }
    nft.apply(batch)
}

/// What may come from a container: the bridge forwards to this machine's loopback on request (see `postrouting`), which is for
/// this machine alone; and nobody speaks for addresses outside the network.
fn guard(bridge: &str, networks: &[Prefix]) -> Vec<Rule> {
    let from_bridge = |family| Rule::new().comes_by(bridge, true).protocol(family);
    let mut rules = vec![
        from_bridge(Family::Ip)
            .bytes(Base::Network, DESTINATION, &LOOPBACK, true)
            .verdict(Verdict::Drop),
    ];
    for network in networks {
        let bytes = network_bytes(*network);
        let rule = match network.address {
            IpAddr::V4(_) => from_bridge(Family::Ip).bytes(Base::Network, SOURCE, &bytes, false),
            IpAddr::V6(_) => from_bridge(Family::Ip6)
                .bytes(Base::Network, SOURCE6, &bytes, false)
                // Link-local addresses never leave the bridge.
                .bytes(Base::Network, SOURCE6, &[0xfe, 0x80], false)
                .bytes(Base::Network, SOURCE6, &[0; 16], false),
        };
        rules.push(rule.verdict(Verdict::Drop));
    }
    rules
}

fn publish() -> Vec<Rule> {
    let rule = |family, map: Map, offset, len| {
        Rule::new()
            .protocol(family)
            .redirect_by(map.name, offset, len, family)
    };
    vec![
        rule(Family::Ip, ONE4, DESTINATION, 4),
        rule(Family::Ip, ANY4, 0, 0),
        rule(Family::Ip6, ONE6, DESTINATION6, 16),
        rule(Family::Ip6, ANY6, 0, 0),
    ]
}

/// Packets to an address of this machine. Nobody outside may speak to its loopback, and from ::1 there is no way to a container:
/// the kernel has no route_localnet for IPv6.
fn to_published(from_outside: bool) -> Vec<Rule> {
    let (family, offset, loopback) = match from_outside {
        true => (Family::Ip, DESTINATION, LOOPBACK.to_vec()),
        false => (Family::Ip6, DESTINATION6, Ipv6Addr::LOCALHOST.octets().to_vec()),
    };
    let not_loopback = Rule::new()
        .protocol(family)
        .bytes(Base::Network, offset, &loopback, true)
        .verdict(Verdict::Return);
    vec![
        not_loopback,
        Rule::new().for_this_machine().verdict(Verdict::Jump("publish")),
    ]
}

/// What leaves the bridge has the host's address; what comes from the host's loopback, or from a container to another by a
/// published port, the bridge's, so that answers come back this way.
fn postrouting(bridge: &str, networks: &[Prefix]) -> Vec<Rule> {
    let mut rules = vec![
        Rule::new()
            .protocol(Family::Ip)
            .bytes(Base::Network, SOURCE, &LOOPBACK, true)
            .leaves_by(bridge, true)
            .masquerade(),
    ];
    for network in networks {
        let (family, offset) = match network.address {
            IpAddr::V4(_) => (Family::Ip, SOURCE),
            IpAddr::V6(_) => (Family::Ip6, SOURCE6),
        };
        let bytes = network_bytes(*network);
        let from_network = || {
            Rule::new()
                .protocol(family)
                .bytes(Base::Network, offset, &bytes, true)
        };
        rules.push(from_network().leaves_by(bridge, false).masquerade());
        rules.push(from_network().leaves_by(bridge, true).redirected().masquerade());
    }
    rules
}

/// Out freely; in only answers and what was sent to a published port.
fn forward(bridge: &str) -> Vec<Rule> {
    let into = || Rule::new().leaves_by(bridge, true);
    vec![
        Rule::new().comes_by(bridge, true).verdict(Verdict::Accept),
        into().established().verdict(Verdict::Accept),
        into().redirected().verdict(Verdict::Accept),
        into().verdict(Verdict::Drop),
    ]
}

/// The entry that sends a host's port to a container's.
fn entry(port: &MappedPort, container: IpAddr) -> Entry {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let padded = |port: u16| [port.to_be_bytes(), [0; 2]].concat();
    let is_any = port.address.is_unspecified();
    let map = match (port.address, is_any) {
        (IpAddr::V4(_), false) => ONE4,
        (IpAddr::V4(_), true) => ANY4,
        (IpAddr::V6(_), false) => ONE6,
        (IpAddr::V6(_), true) => ANY6,
    };
    let mut key = if is_any { Vec::new() } else { octets(port.address) };
    key.extend([port.protocol.number(), 0, 0, 0]);
    key.extend(padded(port.host));
    let mut value = octets(container);
    value.extend(padded(port.container));
    Entry {
        map: map.name,
        key,
        value,
    }
}

/// In a container's namespace: sends what goes to this address to other ports there.
pub(super) fn send_on(nft: &Netlink, from: SocketAddrV4, to: &[(Protocol, u16)]) -> io::Result<()> {
    const TABLE: &str = "box";
    let mut batch = Batch::default();
    batch.table(TABLE);
    batch.map(TABLE, ONE4);
    batch.chain(TABLE, "output", hook("nat", OUTPUT, -100));
    let by_map = Rule::new()
        .protocol(Family::Ip)
        .redirect_by(ONE4.name, DESTINATION, 4, Family::Ip);
    batch.rule(TABLE, "output", &by_map);
    for (protocol, port) in to {
        let redirected = MappedPort {
            address: (*from.ip()).into(),
            host: from.port(),
            container: *port,
            protocol: *protocol,
        };
        batch.entry(TABLE, &entry(&redirected, (*from.ip()).into()));
    }
    nft.apply(batch)
}

/// Opens these ports of the host; `addresses` are the container's.
pub(super) fn open(
    nft: &Netlink,
    bridge: &str,
    ports: &[MappedPort],
    addresses: &[IpAddr],
) -> io::Result<()> {
    let mut batch = Batch::default();
    for entry in entries(ports, addresses) {
        batch.entry(table(bridge), &entry);
    }
    nft.apply(batch)
}

/// Closes them.
pub(super) fn close(
    nft: &Netlink,
    bridge: &str,
    ports: &[MappedPort],
    addresses: &[IpAddr],
) -> io::Result<()> {
    let mut batch = Batch::default();
    for entry in entries(ports, addresses) {
        batch.delete_entry(table(bridge), &entry);
    }
    nft.apply(batch)
}

fn entries<'a>(ports: &'a [MappedPort], addresses: &'a [IpAddr]) -> impl Iterator<Item = Entry> + 'a {
    ports.iter().filter_map(|port| {
        let same = addresses.iter().find(|a| a.is_ipv4() == port.address.is_ipv4());
        same.map(|address| entry(port, *address))
    })
}

/// Closes every port that leads to one of these addresses, whoever opened it.
pub(super) fn close_all_to(nft: &Netlink, bridge: &str, addresses: &[IpAddr]) -> io::Result<()> {
    let mut batch = Batch::default();
    for map in MAPS {
        for entry in nft.entries(table(bridge), map.name)? {
            let leads_to = |address: &IpAddr| match address {
                IpAddr::V4(v4) => entry.value.len() == 8 && entry.value.starts_with(&v4.octets()),
                IpAddr::V6(v6) => entry.value.len() == 20 && entry.value.starts_with(&v6.octets()),
            };
            if addresses.iter().any(leads_to) {
                batch.delete_entry(table(bridge), &entry);
            }
        }
    }
    nft.apply(batch)
}

/// Where the host's own packet filter (as `iptables` makes it) drops what passes through, the bridge is let through at its
/// head; box's own table still decides.
pub(super) fn pass_others(nft: &Netlink, bridge: &str) -> io::Result<()> {
    let mut batch = Batch::default();
    for chain in others(nft)? {
        if nft.rules(&chain, table(bridge))?.is_empty() {
            let place = (chain.table.as_str(), chain.name.as_str());
            let out = Rule::new().comes_by(bridge, true).count();
            let into = Rule::new().leaves_by(bridge, true).count();
            batch.first_rule(chain.family, place, &out.verdict(Verdict::Accept), table(bridge));
            batch.first_rule(chain.family, place, &into.verdict(Verdict::Accept), table(bridge));
        }
    }
    nft.apply(batch)
}

/// The chains of `iptables` that stop what passes through, or Docker's in front of them.
fn others(nft: &Netlink) -> io::Result<Vec<FoundChain>> {
    let mut found = Vec::new();
    for family in [Family::Ip, Family::Ip6] {
        let chains = nft.chains(family)?;
        let named = |name: &str| chains.iter().find(|c| c.table == "filter" && c.name == name);
        if let Some(forward) = named("FORWARD").filter(|chain| chain.stops_forwarding) {
            found.push(named("DOCKER-USER").unwrap_or(forward).clone());
        }
    }
    Ok(found)
}

/// Takes all of it away.
pub(super) fn remove(nft: &Netlink, bridge: &str) -> io::Result<()> {
    let mut batch = Batch::default();
    for family in [Family::Ip, Family::Ip6] {
        for chain in nft.chains(family)?.iter().filter(|c| c.table == "filter") {
            if matches!(chain.name.as_str(), "FORWARD" | "DOCKER-USER") {
                nft.rules(chain, table(bridge))?
                    .iter()
                    .for_each(|rule| batch.delete_rule(rule));
            }
        }
    }
    if nft.has_table(table(bridge))? {
        batch.delete_table(table(bridge));
    }
    nft.apply(batch)
}
