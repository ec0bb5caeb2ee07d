//! Ports of the host that lead to a container.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};

use crate::error::{Result, RunnerError};
use crate::netlink::Netlink;

/// How often a port that is free for IPv4 is looked for until it is free for IPv6, too.
const TRIES: usize = 32;

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Its number in the packet's head.
    pub(super) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => libc::IPPROTO_TCP as u8,
            Protocol::Udp => libc::IPPROTO_UDP as u8,
        }
    }

    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Which port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HostPort {
    /// A free one.
    Free,
    /// This one.
    Exactly(u16),
    /// A free one from the first to the last.
    OneOf(u16, u16),
}

/// A port of the container that the host is to have, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortRequest {
    /// At this address of the host; at every one of IPv4 and IPv6 when not said.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: HostPort,
    /// The container's port.
    pub container: u16,
    /// What is carried.
    pub protocol: Protocol,
}

/// A port of the host that leads to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MappedPort {
    /// The host's address; `0.0.0.0` and `::` are every one.
    pub address: IpAddr,
    /// The host's port.
    pub host: u16,
    /// The container's port.
    pub container: u16,
    /// What is carried.
    pub protocol: Protocol,
}

impl fmt::Display for MappedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = SocketAddr::new(self.address, self.host);
        write!(f, "{at}->{}/{}", self.container, self.protocol.as_str())
    }
}

/// Ports of the host that nobody else can have while this lives.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    pub(super) ports: Vec<MappedPort>,
    pub(super) sockets: Vec<OwnedFd>,
}

/// Reserves what is asked for, all or nothing.
pub(super) fn reserve(requests: &[PortRequest], has_ipv6: bool) -> Result<Reserved> {
    let mut reserved = Reserved::default();
    for request in requests {
        let addresses = addresses(request, has_ipv6)?;
        let (port, sockets) = one(request, &addresses)?;
        reserved.sockets.extend(sockets);
        reserved.ports.extend(addresses.iter().map(|address| MappedPort {
            address: *address,
            host: port,
            container: request.container,
            protocol: request.protocol,
        }));
    }
    Ok(reserved)
}

/// Makes the kernel forget where datagrams to these ports of the host went, or came from.
pub(super) fn forget_flows(
    route: &Netlink,
    netfilter: &Netlink,
    ports: &[MappedPort],
    container: &[IpAddr],
) -> io::Result<()> {
    let is_ours = |port: u16| {
        ports
            .iter()
            .any(|own| own.protocol == Protocol::Udp && own.host == port)
    };
    if !ports.iter().any(|own| own.protocol == Protocol::Udp) {
        return Ok(());
    }
    let hosts: Vec<IpAddr> = route.addresses(None)?.iter().map(|own| own.address).collect();
    for is_ipv6 in [false, true] {
        for flow in netfilter.datagram_flows(is_ipv6)? {
            let is_to_host = hosts.contains(&flow.to) || flow.to.is_loopback();
            if is_ours(flow.port) && (is_to_host || container.contains(&flow.answers)) {
                netfilter.forget_flow(&flow)?;
            }
        }
    }
    Ok(())
}

fn addresses(request: &PortRequest, has_ipv6: bool) -> Result<Vec<IpAddr>> {
    let refused = |why| {
        Err(RunnerError::InvalidSpec {
            what: why,
            value: format!("{:?}", request.address),
        })
    };
    match request.address {
        None if has_ipv6 => Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
        None => Ok(vec![Ipv4Addr::UNSPECIFIED.into()]),
        Some(IpAddr::V6(_)) if !has_ipv6 => {
            refused("address of a published port (this host's private network has no IPv6)")
        }
        Some(address) => Ok(vec![address]),
    }
}

fn one(request: &PortRequest, addresses: &[IpAddr]) -> Result<(u16, Vec<OwnedFd>)> {
    let ports: Box<dyn Iterator<Item = u16>> = match request.host {
        HostPort::Exactly(port) => Box::new(std::iter::once(port)),
        HostPort::OneOf(first, last) => Box::new(first..=last),
        HostPort::Free => Box::new(std::iter::repeat_n(0, TRIES)),
    };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in ports {
        match at_each(addresses, port, request.protocol) {
            Ok(found) => return Ok(found),
            Err(e) => last = e,
        }
    }
    let address = addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let port = match request.host {
        HostPort::Exactly(port) => SocketAddr::new(address, port).to_string(),
        HostPort::OneOf(first, last) => format!("{}-{last}", SocketAddr::new(address, first)),
        HostPort::Free => SocketAddr::new(address, 0).to_string(),
    };
    Err(RunnerError::PortRefused {
        port: format!("{port}/{}", request.protocol.as_str()),
        source: last,
    })
}

/// The same port at each address.
fn at_each(addresses: &[IpAddr], mut port: u16, protocol: Protocol) -> io::Result<(u16, Vec<OwnedFd>)> {
    let mut sockets = Vec::with_capacity(addresses.len());
    for address in addresses {
        if port == 0 {
            port = free_port(*address, protocol)?;
        }
        sockets.push(hold(SocketAddr::new(*address, port), protocol)?);
    }
    Ok((port, sockets))
}

/// A port that is free now. It is taken by its number then: the kernel takes one back that it chose itself when its socket
/// listens no more.
fn free_port(address: IpAddr, protocol: Protocol) -> io::Result<u16> {
    let socket = open(address, protocol)?;
    rustix::net::bind(&socket, &SocketAddr::new(address, 0))?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?).map_err(io::Error::from)?;
    Ok(bound.port())
}

fn open(address: IpAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// Binds a socket that accepts nothing: connections that reach it in spite of the rules are refused instead of waiting.
///
/// A port that somebody left a moment ago may be taken, one that somebody has may not: therefore it listens for a moment with
/// SO_REUSEADDR, which the kernel refuses when another socket of any kind has the port; without that flag nobody gets
/// it afterwards.
fn hold(at: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let socket = open(at.ip(), protocol)?;
    if protocol == Protocol::Udp {
        rustix::net::bind(&socket, &at)?;
        return Ok(socket);
    }
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &at)?;
    rustix::net::listen(&socket, 0)?;
    rustix::net::shutdown(&socket, Shutdown::Read)?;
    set_socket_reuseaddr(&socket, false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn request(host: HostPort, protocol: Protocol) -> PortRequest {
        PortRequest {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            host,
            container: 80,
            protocol,
        }
    }

    #[test]
    fn a_reserved_port_is_nobody_elses() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let held = reserve(&[request(HostPort::Free, protocol)], false).unwrap();
            let port = held.ports[0].host;
            let again = reserve(&[request(HostPort::Exactly(port), protocol)], false);
            assert!(matches!(again, Err(RunnerError::PortRefused { .. })), "{again:?}");
            let at = (Ipv4Addr::LOCALHOST, port);
            match protocol {
                // The standard library sets SO_REUSEADDR.
                Protocol::Tcp => {
                    assert!(TcpListener::bind(at).is_err());
                    let error = TcpStream::connect(at).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                }
                Protocol::Udp => assert!(UdpSocket::bind(at).is_err()),
            }
            drop(held);
            reserve(&[request(HostPort::Exactly(port), protocol)], false).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_refused_and_one_just_left_is_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let exactly = request(HostPort::Exactly(at.port()), Protocol::Tcp);
        assert!(reserve(&[exactly], false).is_err());
        let client = TcpStream::connect(at).unwrap();
        let (server, _) = listener.accept().unwrap();
        drop(server);
        drop(client);
        drop(listener);
        // What is left of the connection is in TIME_WAIT.
        reserve(&[exactly], false).unwrap();
    }

    #[test]
    fn one_of_a_range() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        let range = HostPort::OneOf(taken, taken.saturating_add(20));
        let held = reserve(&[request(range, Protocol::Tcp)], false).unwrap();
        assert!(held.ports[0].host > taken);
        let both = PortRequest {
            address: None,
            ..request(HostPort::Free, Protocol::Tcp)
        };
        let held = reserve(&[both], true).unwrap();
        assert_eq!(held.ports.len(), 2);
        assert_eq!(held.ports[0].host, held.ports[1].host);
    }
}
