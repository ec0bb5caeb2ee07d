//! The container's side of its network.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::NetAddress;
use crate::netlink::Netlink;
use crate::netlink::route::Prefix;
use crate::sys;

/// The interface's name in the container.
pub(super) const INTERFACE: &str = "eth0";

/// Does something in the namespace.
pub(super) fn with<T: Send>(
    namespace: BorrowedFd<'_>,
    what: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let work = || {
        sys::setns(namespace, libc::CLONE_NEWNET)?;
        what()
    };
    // A thread has a network namespace of its own, and takes it along.
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(made) => made,
        Err(_) => Err(io::ErrorKind::Other.into()),
    })
}

/// A socket in the namespace, whose loopback is up and where no router that anybody announces is heeded.
pub(super) fn enter(namespace: BorrowedFd<'_>) -> io::Result<Netlink> {
    const LOOPBACK: u32 = 1;
    with(namespace, || {
        // Without IPv6 there is none to heed.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/accept_ra", "0");
        let netlink = Netlink::route()?;
        netlink.bring_up(LOOPBACK)?;
        Ok(netlink)
    })
}

/// Gives the interface its addresses, and the way out.
pub(super) fn configure(inside: &Netlink, addresses: &[NetAddress]) -> io::Result<()> {
    let link = inside.link(INTERFACE)?.ok_or(io::ErrorKind::NotFound)?;
    inside.bring_up(link.index)?;
    for own in addresses {
        let address = Prefix {
            address: own.address,
            len: own.prefix_len,
        };
        inside.add_address(link.index, address)?;
    }
    let gateways = addresses.iter().filter_map(|own| own.gateway);
    gateways
        .into_iter()
        .try_for_each(|gateway: IpAddr| inside.add_default_route(gateway))
}

/// The addresses that somebody else gave the interface.
pub(super) fn addresses(namespace: BorrowedFd<'_>) -> io::Result<Vec<NetAddress>> {
    let inside = enter(namespace)?;
    let link = inside.link(INTERFACE)?.ok_or(io::ErrorKind::NotFound)?;
    let mut found = inside.addresses(link.index)?;
    found.sort_by_key(|own| own.address.is_ipv6());
    let own = found.into_iter().map(|own| NetAddress {
        address: own.address,
        prefix_len: own.len,
        gateway: None,
    });
    Ok(own.collect())
}
