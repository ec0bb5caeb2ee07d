//! Options of `box run` for the network.

use std::net::IpAddr;
use std::str::FromStr;

use box_runner::{HostPort, PortRequest, Protocol};
use clap::Args;

/// The network of a step or a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// One of its own, with a way out.
    Private,
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
    /// One that was made by name.
    Named(String),
    /// That of another container.
    Container(String),
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "private" | "bridge" | "default" => Ok(Self::Private),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ if text
                .strip_prefix("container:")
                .is_some_and(|name| !name.is_empty()) =>
            {
                Ok(Self::Container(text["container:".len()..].to_owned()))
            }
            _ if is_network_name(text) => Ok(Self::Named(text.to_owned())),
            _ => Err(format!(
                "there is no network '{text}'; there are private (also named bridge and default), none, host, container:NAME and those of `box network`"
            )),
        }
    }
}

/// Whether it can name a network.
pub(crate) fn is_network_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    first && name.len() <= 64 && name.chars().all(good)
}

// For the container's network.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// The container's network: private, none, host, container:NAME, or one made by `box network create` [default: private].
    #[arg(long, visible_alias = "net", value_name = "MODE")]
    pub(crate) network: Option<Network>,
    /// Give the host a port that leads to the container's; of the host, 0 or none is any that is free (may be repeated).
    #[arg(short, long, value_name = "[[IP:][HOST]:]CONTAINER[/tcp|udp]")]
    pub(crate) publish: Vec<Publish>,
    /// Give the host a free port for each that the image exposes.
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// One more name that others in its (named) network know it by (may be repeated).
    #[arg(long, value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// A name server instead of the host's (may be repeated).
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
    /// A domain to look names up in instead of the host's, or . for none (may be repeated).
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// An option of resolv.conf instead of the host's (may be repeated).
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
}

/// `-p`: one port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish(pub(crate) Vec<PortRequest>);

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no port; write for example 8080:80, 127.0.0.1:8080:80/tcp or 5000-5010:5000-5010"
            )
        };
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => {
                return Err(format!("'{text}': '{other}' can't be published; tcp and udp can"));
            }
        };
        let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
        let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
        let address = match address {
            "" => None,
            address => {
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
                Some(bare.unwrap_or(address).parse::<IpAddr>().map_err(|_| wrong())?)
            }
        };
        let container = range(container)
            .filter(|(first, _)| *first > 0)
            .ok_or_else(wrong)?;
        let host = match host {
            "" => None,
            host => Some(range(host).ok_or_else(wrong)?),
        };
        let requests = (container.0..=container.1).zip(hosts(host, container).ok_or_else(|| {
            format!("'{text}': there are not as many ports of the host as of the container")
        })?);
        Ok(Self(
            requests
                .map(|(container, host)| PortRequest {
                    address,
                    host,
                    container,
                    protocol,
                })
                .collect(),
        ))
    }
}

/// The host's port for each of the container's.
fn hosts(host: Option<(u16, u16)>, container: (u16, u16)) -> Option<Vec<HostPort>> {
    let count = usize::from(container.1 - container.0) + 1;
    match host {
        None | Some((0, 0)) => Some(vec![HostPort::Free; count]),
        Some((first, last)) if usize::from(last - first) + 1 == count => {
            Some((first..=last).map(HostPort::Exactly).collect())
        }
        Some((first, last)) if count == 1 => Some(vec![HostPort::OneOf(first, last)]),
        Some(_) => None,
    }
}

/// A port, or the first and the last of several.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// The ports that an image exposes (`80`, `53/udp`), each with a free one of the host.
pub(crate) fn exposed<'a>(ports: impl Iterator<Item = &'a str>) -> Vec<PortRequest> {
    let all = ports.filter_map(|port| port.parse::<Publish>().ok());
    all.flat_map(|publish| publish.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'a> = &'a [(Option<&'a str>, HostPort, u16, Protocol)];

    fn check(text: &str, expect: Option<Expected<'_>>) {
        let found = text.parse::<Publish>().ok().map(|publish| publish.0);
        let expect = expect.map(|all| {
            all.iter()
                .map(|(address, host, container, protocol)| PortRequest {
                    address: address.map(|a| a.parse().unwrap()),
                    host: *host,
                    container: *container,
                    protocol: *protocol,
                })
                .collect::<Vec<_>>()
        });
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn ports_as_docker_writes_them() {
        use HostPort::{Exactly, Free, OneOf};
        use Protocol::{Tcp, Udp};
        let local = Some("127.0.0.1");
        check("80", Some(&[(None, Free, 80, Tcp)]));
        check("0:80", Some(&[(None, Free, 80, Tcp)]));
        check("8080:80", Some(&[(None, Exactly(8080), 80, Tcp)]));
        check("53:53/udp", Some(&[(None, Exactly(53), 53, Udp)]));
        check("127.0.0.1:8080:80", Some(&[(local, Exactly(8080), 80, Tcp)]));
        check("127.0.0.1::80/tcp", Some(&[(local, Free, 80, Tcp)]));
        check("[::1]:8080:80", Some(&[(Some("::1"), Exactly(8080), 80, Tcp)]));
        check("::1:8080:80", Some(&[(Some("::1"), Exactly(8080), 80, Tcp)]));
        check(
            "8080-8081:80-81",
            Some(&[(None, Exactly(8080), 80, Tcp), (None, Exactly(8081), 81, Tcp)]),
        );
        check("80-81", Some(&[(None, Free, 80, Tcp), (None, Free, 81, Tcp)]));
        check("8080-8090:80", Some(&[(None, OneOf(8080, 8090), 80, Tcp)]));
    }

    #[test]
    fn what_is_no_port() {
        for text in [
            "",
            "x",
            "80/sctp",
            "80/",
            "65536",
            "8080:",
            "0",
            "8080:0",
            "81-80",
            "8080-8082:80-81",
            "1.2.3:80:80",
            "-1",
            "+80",
            "localhost:8080:80",
        ] {
            check(text, None);
        }
    }
}
