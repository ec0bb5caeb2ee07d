//! The private network: a namespace of its own with a way out, for one container or for all steps of a build.
//!
//! For root the namespace is joined by a pair of interfaces to a bridge of the host (`host`, `inside`), whose packet rules
//! (`firewall`) hide containers behind the host and send published ports to them; for others `pasta` carries its
//! traffic. A [`PrivateNetwork`] is the right to all of that: dropping it gives ports and addresses back. What a killed box
//! left is known by its lease (`lease`), and removed by the next command.

mod firewall;
mod host;
mod inside;
mod lease;
mod members;
mod names;
mod pasta;
mod ports;
mod subnet;
mod sweep;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

pub use members::{NetworkMember, network_members};
pub(crate) use pasta::{HIDDEN_ARGUMENT as PASTA_ARGUMENT, main as pasta_main};
pub use ports::{HostPort, MappedPort, PortRequest, Protocol};
pub use sweep::reap as reap_networks;
pub(crate) use sweep::{HIDDEN_ARGUMENT as SWEEP_ARGUMENT, main as sweep_main};

use crate::error::{Result, RunnerError};
use crate::net;
use crate::userns::UserNamespace;
use host::{Host, failed};
use lease::{Lease, Leases};
use ports::Reserved;

/// The bridge of the host.
const BRIDGE: &str = "box0";

/// What is asked of a private network.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    /// Where the machine's leases are, on a file system that a reboot empties; the same for every box. Root's alone.
    pub directory: PathBuf,
    /// The ports that the host is to have, too.
    pub ports: Vec<PortRequest>,
    /// The bridge of a named network: `box` and at most 8 letters and digits more; none for `box0`, which all others share.
    pub bridge: Option<String>,
    /// What others in a named network know the container by.
    pub names: Vec<String>,
    /// The host's name servers, where the container is to have one of its own: in a named network, or when these are on the
    /// host's loopback. It knows the names in a named network.
    pub name_servers: Option<Vec<IpAddr>>,
}

impl NetworkRequest {
    fn bridge(&self) -> &str {
        self.bridge.as_deref().unwrap_or(BRIDGE)
    }

    fn check(&self) -> Result<()> {
        let is_good = |text: &str| text.len() <= 8 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        match self.bridge().strip_prefix("box") {
            Some(rest) if is_good(rest) => Ok(()),
            _ => Err(RunnerError::InvalidSpec {
                what: "bridge",
                value: self.bridge().to_owned(),
            }),
        }
    }
}

/// An address of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetAddress {
    /// The address.
    pub address: IpAddr,
    /// The length of its network's prefix.
    pub prefix_len: u8,
    /// The host in that network, where it has one.
    pub gateway: Option<IpAddr>,
}

/// A network namespace with a way out. It is kept for as long as containers are started in it: each by
/// [`Runtime::spawn_in`](crate::Runtime::spawn_in), one after the other or several at once.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: OwnedFd,
    addresses: Vec<NetAddress>,
    ports: Vec<MappedPort>,
    way: Way,
}

/// Who carries its traffic, until it is dropped.
#[derive(Debug)]
enum Way {
    Bridge(#[allow(dead_code, reason = "held for its Drop")] Box<Bridged>),
    Pasta(#[allow(dead_code, reason = "held for its Drop")] pasta::Pasta),
}

impl PrivateNetwork {
    /// Joins a new network namespace, which belongs to the user namespace, with the host's network. `program` is started again
    /// to remove the bridge when nobody needs it any more, or to keep an ordinary user's `pasta`.
    pub(crate) fn join(
        program: BorrowedFd<'_>,
        is_rootless: bool,
        user: &UserNamespace,
        request: &NetworkRequest,
    ) -> Result<PrivateNetwork> {
        request.check()?;
        let namespace = net::isolated(user.to_enter())?;
        if is_rootless {
            let (pasta, ports) = pasta::start(program, namespace.as_fd(), &request.ports)?;
            let addresses = inside::addresses(namespace.as_fd())
                .map_err(failed("read the addresses that pasta gave the container"))?;
            return Ok(PrivateNetwork {
                namespace,
                addresses,
                ports,
                way: Way::Pasta(pasta),
            });
        }
        let (bridged, addresses) = bridge(program, namespace.as_fd(), request)?;
        Ok(PrivateNetwork {
            namespace,
            addresses,
            ports: bridged.reserved.ports.clone(),
            way: Way::Bridge(Box::new(bridged)),
        })
    }

    /// The namespace.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// The container's addresses: of IPv4, and of IPv6 where the host has a way out by it.
    pub fn addresses(&self) -> &[NetAddress] {
        &self.addresses
    }

    /// The host, as the container reaches it; an ordinary user's does not.
    pub fn gateway(&self) -> Option<IpAddr> {
        match &self.way {
            Way::Bridge(_) => self.addresses.first().and_then(|own| own.gateway),
            Way::Pasta(_) => None,
        }
    }

    /// Where the container has a name server of its own, or reaches those that the host has on its loopback; nowhere as a rule.
    pub fn resolver(&self) -> Option<IpAddr> {
        match &self.way {
            Way::Bridge(bridged) => bridged.server.as_ref().map(|_| names::ADDRESS.into()),
            Way::Pasta(_) => Some(pasta::RESOLVER.into()),
        }
    }

    /// The ports of the host that lead to it.
    pub fn ports(&self) -> &[MappedPort] {
        &self.ports
    }
}

/// What a container on the bridge has of the host.
#[derive(Debug)]
struct Bridged {
    directory: PathBuf,
    bridge: String,
    program: OwnedFd,
    lease: Lease,
    host: Host,
    reserved: Reserved,
    addresses: Vec<IpAddr>,
    server: Option<names::Server>,
}

fn bridge(
    program: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    request: &NetworkRequest,
) -> Result<(Bridged, Vec<NetAddress>)> {
    let inside = inside::enter(namespace).map_err(failed("enter the container's network namespace"))?;
    let leasing = |e| RunnerError::os(format!("lease an address in {}", request.directory.display()), e);
    let leases = Leases::lock(&request.directory, request.bridge()).map_err(leasing)?;
    let made = Bridged::new(&leases, program, request);
    let Ok((mut bridged, own, is_somebodys)) = made else {
        // The bridge may have been made for nothing.
        let _ = sweep::start_if_unused(&leases, program, &request.directory);
        return made.map(|(bridged, own, _)| (bridged, own));
    };
    // From here on dropping it gives everything back, for which it takes the lock itself.
    let joined = bridged.make(namespace, is_somebodys);
    let book = request.bridge.as_ref().map(|_| names::Book {
        directory: leases.directory().to_owned(),
        networks: bridged.host.networks.clone(),
    });
    drop(leases);
    joined?;
    inside::configure(&inside, &own).map_err(failed("give the container its addresses"))?;
    if let Some(others) = &request.name_servers {
        let server = inside::with(namespace, names::Sockets::open)
            .and_then(|sockets| names::Server::start(sockets, book, others.clone()));
        bridged.server = Some(server.map_err(failed("start the container's name server"))?);
    }
    Ok((bridged, own))
}

impl Bridged {
    /// A lease and the host's side of it; whether somebody dead had that lease.
    fn new(
        leases: &Leases,
        program: BorrowedFd<'_>,
        request: &NetworkRequest,
    ) -> Result<(Bridged, Vec<NetAddress>, bool)> {
        let program = program
            .try_clone_to_owned()
            .map_err(|e| RunnerError::os("duplicate a descriptor", e))?;
        let host = Host::ensure(request.bridge())?;
        let reserved = ports::reserve(&request.ports, host.networks.len() > 1)?;
        let leasing = |e| RunnerError::os(format!("lease an address in {}", request.directory.display()), e);
        let (lease, is_somebodys) = leases.take(&request.names).map_err(leasing)?;
        let own: Vec<NetAddress> = host
            .networks
            .iter()
            .map(|bridge| NetAddress {
                address: subnet::address(*bridge, lease.number()),
                prefix_len: bridge.len,
                gateway: Some(bridge.address),
            })
            .collect();
        let bridged = Bridged {
            directory: request.directory.clone(),
            bridge: request.bridge().to_owned(),
            program,
            lease,
            host,
            reserved,
            addresses: own.iter().map(|own| own.address).collect(),
            server: None,
        };
        Ok((bridged, own, is_somebodys))
    }

    fn make(&self, namespace: BorrowedFd<'_>, is_somebodys: bool) -> Result<()> {
        let number = self.lease.number();
        if is_somebodys {
            host::clear(&self.bridge, number)
                .map_err(failed("remove what a killed box left of its network"))?;
        }
        let name = host::port_name(&self.bridge, number);
        let mac = self
            .addresses
            .first()
            .map_or([2, 0, 0, 0, 0, 1], |a| subnet::hardware(*a));
        let pair = || {
            let outer = (name.as_str(), self.host.bridge);
            self.host
                .route
                .new_veth(outer, (inside::INTERFACE, mac, namespace))
        };
        let made = match pair() {
            // That of an earlier container, whose namespace somebody keeps.
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                self.host.route.delete_link(&name).and_then(|()| pair())
            }
            other => other,
        };
        made.map_err(failed("join the container's network namespace with the host's"))?;
        if self.reserved.ports.is_empty() {
            return Ok(());
        }
        self.host
            .route
            .reflect(&name)
            .map_err(failed("let the container reach its own published ports"))?;
        firewall::open(
            &self.host.nft,
            &self.bridge,
            &self.reserved.ports,
            &self.addresses,
        )
        .map_err(failed("send the published ports to the container"))?;
        self.redirect_datagrams();
        Ok(())
    }

    /// Datagrams that a port's earlier owner got go to the new one, or nowhere, from now on.
    fn redirect_datagrams(&self) {
        // Without the kernel's memory of connections there is nothing to forget; with it this is no reason to fail.
        let _ = ports::forget_flows(
            &self.host.route,
            &self.host.nft,
            &self.reserved.ports,
            &self.addresses,
        );
    }

    /// Gives ports and address back. The pair of interfaces goes with the namespace; where that is kept by somebody, with the
    /// next use of the number.
    fn leave(&self) -> std::io::Result<()> {
        let leases = Leases::lock(&self.directory, &self.bridge)?;
        // Without the rules there is nothing to close.
        let _ = firewall::close(
            &self.host.nft,
            &self.bridge,
            &self.reserved.ports,
            &self.addresses,
        );
        self.redirect_datagrams();
        leases.free(self.lease.number())?;
        sweep::start_if_unused(&leases, self.program.as_fd(), &self.directory)
    }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        // What can't be undone now is left to the next command, as if this one had been killed.
        let _ = self.leave();
    }
}
