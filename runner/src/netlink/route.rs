//! Interfaces, addresses and routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Message, Netlink, attributes, find, text, u32_at};

const UP: u32 = libc::IFF_UP as u32;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_PEER: u16 = 1;
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const NODAD: u32 = 0x02;
const PROTOCOL_RA: u8 = 9;
const UNIVERSE: u8 = 0;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The group of interfaces it is in; 0 unless somebody says otherwise.
    pub(crate) group: u32,
}

/// A network: its address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: IpAddr,
    pub(crate) len: u8,
}

/// A route of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Prefix,
    pub(crate) interface: Option<u32>,
    /// Whether a router of the local network announced it.
    pub(crate) is_announced: bool,
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|b| IpAddr::V4(Ipv4Addr::from(b)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| IpAddr::V6(Ipv6Addr::from(b))))
        .ok()
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }) as u8
}

fn ifinfo(index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    for number in [index, flags, flags] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

fn link(body: &[u8]) -> Option<Link> {
    let attributes = body.get(16..)?;
    Some(Link {
        index: u32_at(body, 4)?,
        name: find(attributes, IFLA_IFNAME).map(text)?.to_owned(),
        group: find(attributes, IFLA_GROUP)
            .and_then(|group| u32_at(group, 0))
            .unwrap_or(0),
    })
}

impl Netlink {
    /// The interface of this name.
    pub(crate) fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let message = Message::new(libc::RTM_GETLINK)
            .raw(&ifinfo(0, 0))
            .text(IFLA_IFNAME, name);
        match self.get(message) {
            Ok(body) => Ok(link(&body)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All interfaces.
    pub(crate) fn links(&self) -> io::Result<Vec<Link>> {
        let all = self.dump(Message::new(libc::RTM_GETLINK).raw(&ifinfo(0, 0)))?;
        Ok(all.iter().filter_map(|body| link(body)).collect())
    }

    /// A bridge that is up, with the given hardware address, in a group.
    pub(crate) fn new_bridge(&self, name: &str, mac: [u8; 6], group: u32) -> io::Result<()> {
        let message = Message::new(libc::RTM_NEWLINK)
            .flags(libc::NLM_F_CREATE | libc::NLM_F_EXCL)
            .raw(&ifinfo(0, UP))
            .text(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac)
            .number(IFLA_GROUP, group)
            .nest(IFLA_LINKINFO, |m| m.text(INFO_KIND, "bridge"));
        self.ask(message)
    }

    /// A pair of interfaces: `name`, up, on the bridge `master`, and `peer` in another namespace.
    pub(crate) fn new_veth(
        &self,
        (name, master): (&str, u32),
        (peer, mac, namespace): (&str, [u8; 6], BorrowedFd<'_>),
    ) -> io::Result<()> {
        let peer = |m: Message| {
            // It can't be up before it has the other.
            m.raw(&ifinfo(0, 0))
                .text(IFLA_IFNAME, peer)
                .attr(IFLA_ADDRESS, &mac)
                .number(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32)
        };
        let message = Message::new(libc::RTM_NEWLINK)
            .flags(libc::NLM_F_CREATE | libc::NLM_F_EXCL)
            .raw(&ifinfo(0, UP))
            .text(IFLA_IFNAME, name)
            .number(IFLA_MASTER, master)
            .nest(IFLA_LINKINFO, |m| {
                m.text(INFO_KIND, "veth")
                    .nest(INFO_DATA, |m| m.nest(VETH_PEER, peer))
            });
        self.ask(message)
    }

    /// Lets a bridge send packets back to the port they came from: to a container that asks for its own published port. The
    /// kernel passes them on within the bridge where it shows bridged packets to the packet rules.
    pub(crate) fn reflect(&self, port: &str) -> io::Result<()> {
        let message = Message::new(libc::RTM_NEWLINK)
            .raw(&ifinfo(0, 0))
            .text(IFLA_IFNAME, port)
            .nest(IFLA_LINKINFO, |m| {
                m.text(INFO_SLAVE_KIND, "bridge")
                    .nest(INFO_SLAVE_DATA, |m| m.attr(BRIDGE_PORT_HAIRPIN, &[1]))
            });
        self.ask(message)
    }

    /// Brings an interface up.
    pub(crate) fn bring_up(&self, interface: u32) -> io::Result<()> {
        self.ask(Message::new(libc::RTM_NEWLINK).raw(&ifinfo(interface, UP)))
    }

    /// Removes an interface; one that is gone is no error.
    pub(crate) fn delete_link(&self, name: &str) -> io::Result<()> {
        let message = Message::new(libc::RTM_DELLINK)
            .raw(&ifinfo(0, 0))
            .text(IFLA_IFNAME, name);
        match self.ask(message) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Gives an interface an address, at once usable.
    pub(crate) fn add_address(&self, interface: u32, with: Prefix) -> io::Result<()> {
        let mut header = vec![family(with.address), with.len, NODAD as u8, UNIVERSE];
        header.extend(interface.to_ne_bytes());
        let bytes = octets(with.address);
        let mut message = Message::new(libc::RTM_NEWADDR)
            .flags(libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
            .raw(&header)
            .attr(libc::IFA_LOCAL, &bytes)
            .attr(libc::IFA_ADDRESS, &bytes);
        if let IpAddr::V4(v4) = with.address {
            let broadcast = v4.to_bits() | u32::MAX.checked_shr(with.len.into()).unwrap_or(0);
            message = message.attr(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        self.ask(message)
    }

    /// The addresses of an interface, or of all; link-local ones left out.
    pub(crate) fn addresses(&self, interface: impl Into<Option<u32>>) -> io::Result<Vec<Prefix>> {
        let interface = interface.into();
        let all = self.dump(Message::new(libc::RTM_GETADDR).raw(&[0; 8]))?;
        let of = |body: &Vec<u8>| {
            let (len, scope) = (*body.get(1)?, *body.get(3)?);
            let attributes = body.get(8..)?;
            let found = find(attributes, libc::IFA_LOCAL).or_else(|| find(attributes, libc::IFA_ADDRESS))?;
            let is_here = interface.is_none_or(|wanted| u32_at(body, 4) == Some(wanted));
            let is_wanted = is_here && scope == UNIVERSE;
            let address = address(found)?;
            is_wanted.then_some(Prefix { address, len })
        };
        Ok(all.iter().filter_map(of).collect())
    }

    /// The way to everywhere else.
    pub(crate) fn add_default_route(&self, gateway: IpAddr) -> io::Result<()> {
        let header = [
            family(gateway),
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let message = Message::new(libc::RTM_NEWROUTE)
            .flags(libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
            .raw(&header)
            .attr(libc::RTA_GATEWAY, &octets(gateway));
        self.ask(message)
    }

    /// The routes of all tables, of IPv4 or IPv6.
    pub(crate) fn routes(&self, is_ipv6: bool) -> io::Result<Vec<Route>> {
        let mut header = [0; 12];
        header[0] = (if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET }) as u8;
        let all = self.dump(Message::new(libc::RTM_GETROUTE).raw(&header))?;
        Ok(all.iter().filter_map(|body| route(body, is_ipv6)).collect())
    }
}

fn route(body: &[u8], is_ipv6: bool) -> Option<Route> {
    let (len, protocol, kind) = (*body.get(1)?, *body.get(5)?, *body.get(7)?);
    // Unreachable and the like lead nowhere; local ones are addresses of this machine.
    if !matches!(kind, libc::RTN_UNICAST | libc::RTN_LOCAL) {
        return None;
    }
    let any = match is_ipv6 {
        true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let (mut to, mut interface) = (any, None);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            libc::RTA_DST => to = address(value)?,
            libc::RTA_OIF => interface = u32_at(value, 0),
            _ => {}
        }
    }
    Some(Route {
        to: Prefix { address: to, len },
        interface,
        is_announced: protocol == PROTOCOL_RA,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found() {
        let netlink = Netlink::route().unwrap();
        let lo = netlink.link("lo").unwrap().unwrap();
        assert_eq!(lo.name, "lo");
        assert!(netlink.links().unwrap().contains(&lo));
        assert_eq!(netlink.link("no-such-link").unwrap(), None);
        // Both families can be listed.
        netlink.routes(false).unwrap();
        netlink.routes(true).unwrap();
    }
}
