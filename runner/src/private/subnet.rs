//! Which addresses: pure, no system calls.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::route::Prefix;

/// Bits of the IPv4 network: 65,533 containers.
pub(super) const LEN: u8 = 16;
/// Bits of the IPv6 network.
pub(super) const LEN6: u8 = 64;

/// A private network that none of these overlaps: the bridge's own address in it.
pub(super) fn choose(taken: &[Prefix]) -> Option<Prefix> {
    let tens = (200..=254).chain((64..200).rev()).map(|second| (10, second));
    let others = (16..32).rev().map(|second| (172, second));
    let networks = tens.chain(others).map(|(first, second)| Prefix {
        address: Ipv4Addr::new(first, second, 0, 1).into(),
        len: LEN,
    });
    let is_free = |network: &Prefix| !taken.iter().any(|other| overlap(*network, *other));
    networks.into_iter().find(is_free)
}

/// Whether they have an address in common. A default route overlaps nothing: it is for what no other has.
fn overlap(one: Prefix, two: Prefix) -> bool {
    let (IpAddr::V4(a), IpAddr::V4(b)) = (one.address, two.address) else {
        return false;
    };
    let len = one.len.min(two.len);
    len > 0 && (a.to_bits() ^ b.to_bits()) >> (32 - u32::from(len).min(32)) == 0
}

/// A unique local network of IPv6 with these random bytes (RFC 4193): the bridge's own address in it.
pub(super) fn unique_local(random: [u8; 7]) -> Prefix {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&random);
    octets[15] = 1;
    Prefix {
        address: Ipv6Addr::from(octets).into(),
        len: LEN6,
    }
}

/// The address of this number in the bridge's network.
pub(super) fn address(bridge: Prefix, number: u32) -> IpAddr {
    match bridge.address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xffff | number).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !0xffff | u128::from(number)).into(),
    }
}

/// The network's own address, in the bytes that its prefix covers.
pub(super) fn network_bytes(bridge: Prefix) -> Vec<u8> {
    let mut bytes = match bridge.address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.truncate(usize::from(bridge.len / 8));
    bytes
}

/// A hardware address that goes with the network address, so that nobody's neighbour table goes stale.
pub(super) fn hardware(address: IpAddr) -> [u8; 6] {
    let IpAddr::V4(v4) = address else {
        return [0x02, 0xb0, 0, 0, 0, 1];
    };
    let [a, b, c, d] = v4.octets();
    // The second bit of the first byte: given here, not by a maker.
    [0x02, 0xb0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix {
            address: address.parse().unwrap(),
            len: len.parse().unwrap(),
        }
    }

    #[test]
    fn networks_do_not_collide() {
        let check = |taken: &[&str], expect: Option<&str>| {
            let taken: Vec<_> = taken.iter().map(|text| prefix(text)).collect();
            assert_eq!(choose(&taken), expect.map(prefix), "{taken:?}");
        };
        check(&[], Some("10.200.0.1/16"));
        check(&["0.0.0.0/0", "172.17.0.0/16", "fd00::/8"], Some("10.200.0.1/16"));
        check(&["10.200.3.4/32"], Some("10.201.0.1/16"));
        check(&["10.128.0.0/9"], Some("10.127.0.1/16"));
        check(&["10.0.0.0/8"], Some("172.31.0.1/16"));
        check(&["10.0.0.0/8", "172.24.0.0/13"], Some("172.23.0.1/16"));
        check(&["10.0.0.0/8", "172.16.0.0/12"], None);
        check(&["128.0.0.0/1"], Some("10.200.0.1/16"));
        check(&["0.0.0.0/1"], Some("172.31.0.1/16"));
    }

    #[test]
    fn addresses() {
        let v4 = prefix("10.200.0.1/16");
        assert_eq!(address(v4, 0x0203).to_string(), "10.200.2.3");
        assert_eq!(network_bytes(v4), [10, 200]);
        let v6 = unique_local([1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(v6.address.to_string(), "fd01:203:405:607::1");
        assert_eq!(address(v6, 0x0203).to_string(), "fd01:203:405:607::203");
        assert_eq!(network_bytes(v6).len(), 8);
        assert_eq!(hardware(address(v4, 2)), [2, 0xb0, 10, 200, 0, 2]);
    }
}
