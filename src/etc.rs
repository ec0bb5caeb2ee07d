//! The files of `/etc` that belong to a container: who it is, who others are, and whom it asks.

use std::net::IpAddr;

use box_runner::{EtcFiles, Network, PrivateNetwork};

use crate::resolv::{self, Reach, Wishes};

/// A container's network as its files tell of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Which one.
    pub(crate) network: Network,
    /// The private one, where it has that.
    pub(crate) private: Option<&'a PrivateNetwork>,
    /// What was asked for of its `resolv.conf`.
    pub(crate) wishes: &'a Wishes,
}

/// The files, and whether the host has name servers that the container can't reach.
pub(crate) fn files(hostname: &str, seen: Seen<'_>, more: &[(String, IpAddr)]) -> (EtcFiles, bool) {
    let resolv_conf = resolv::for_container(reach(seen), seen.wishes);
    let addresses = seen.private.map_or(&[][..], PrivateNetwork::addresses);
    let files = EtcFiles {
        resolv_conf: resolv_conf.content,
        hosts: hosts(hostname, addresses.first().map(|own| own.address), more).into_bytes(),
        hostname: format!("{hostname}\n").into_bytes(),
    };
    (files, resolv_conf.is_without_servers)
}

fn reach(seen: Seen<'_>) -> Reach {
    match (seen.network, seen.private) {
        (Network::Host, _) => Reach::AsTheHost,
        (Network::Private, Some(private)) => Reach::Outside {
            has_ipv6: private.addresses().iter().any(|own| own.address.is_ipv6()),
            relay: private.resolver(),
        },
        _ => Reach::Nothing,
    }
}

fn hosts(hostname: &str, own: Option<IpAddr>, more: &[(String, IpAddr)]) -> String {
    let own = own.unwrap_or(IpAddr::from([127, 0, 1, 1]));
    let mut text =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}\t{hostname}\n");
    for (name, address) in more {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}
