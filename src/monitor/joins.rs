//! Containers whose namespaces another one joins: their monitors are asked for their first processes, and for the user namespace that both
//! must have.
//!
//! All descriptors come from the other's monitor, never by a path that the other container could have changed. What keeps the ids of the user
//! namespace from others comes along: it holds for as long as either of the two runs.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use box_runner::{
    ContainerSpec, EtcFiles, IdExtent, IdMap, Joined, Network, Sharing, UserNamespace, send_message,
};
use nix::sys::stat::fstat;

use super::client::connect;
use super::life::{Life, Live};
use super::message::{Extent, Reply, Request, Shared};
use super::serve;
use crate::app::App;
use crate::containers::{self, Config, Status};
use crate::error::{EXIT_INPUT, Failure, runner_failure};
use crate::executor::Ids;
use crate::values::{Ipc, Share};

/// How long one is waited for that is started again by itself at the moment.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// Most descriptors that are passed on: ids in more runs than this are rare.
const MOST_LOCKS: usize = 24;

/// One that is joined.
struct Donor {
    name: String,
    shared: Shared,
    first: OwnedFd,
    user: OwnedFd,
    locks: Vec<OwnedFd>,
}

/// Those that a container joins.
pub(super) struct Donors {
    network: Option<Donor>,
    pid: Option<Donor>,
    ipc: Option<Donor>,
    uts: Option<Donor>,
}

/// Answers one that joins.
pub(super) fn answer(life: &Life, stream: &UnixStream) {
    let shared = serve::live(life).and_then(|live| {
        let shared = share(life, &live)?;
        let fds = descriptors(&live)?;
        // Whoever asked may have gone.
        let _ = send_message(stream, &Reply::Shared(Box::new(shared)), &fds);
        Ok(())
    });
    if let Err(failure) = shared {
        let _ = send_message(stream, &serve::failed(&failure), &[]);
    }
}

/// What a monitor tells of its container to one that joins it; the first process, the user namespace and its locks come along.
fn share(life: &Life, live: &Live) -> Result<Shared, Failure> {
    let namespace = &live.ids.namespace;
    let extents = |extents: &[IdExtent]| extents.iter().map(|e| (e.container, e.host, e.len)).collect();
    let ids = namespace.ids();
    if live.ids.locks().len() > MOST_LOCKS {
        return Err(Failure::own(format!(
            "the files of container {} use ids in more than {MOST_LOCKS} ranges: its namespaces can't be joined",
            life.config.name
        )));
    }
    let spec = &live.spec;
    let ipc = match (spec.namespaces.ipc, &life.config.namespaces.ipc) {
        (Sharing::Host, _) => Some(Sharing::Host),
        (Sharing::Joined, _) | (_, Ipc::Shareable) => Some(Sharing::Joined),
        _ => None,
    };
    let is_host = |sharing| sharing == Sharing::Host;
    Ok(Shared {
        home: own_users()?,
        users: extents(&ids.extents),
        groups: ids.groups.as_deref().map(extents),
        keeps_owners: ids.keeps_owners,
        is_runners: namespace.is_runners(),
        is_network_hosts: spec.network == Network::Host,
        is_pid_hosts: is_host(spec.namespaces.pid),
        is_uts_hosts: is_host(spec.namespaces.uts),
        is_ipc_hosts: ipc.map(is_host),
        hostname: spec.hostname.clone(),
        files: [
            spec.etc.resolv_conf.clone(),
            spec.etc.hosts.clone(),
            spec.etc.hostname.clone(),
        ],
    })
}

/// Which user namespace this process is in.
fn own_users() -> Result<(u64, u64), Failure> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self/ns/user");
    own.map(|own| (own.dev(), own.ino()))
        .map_err(|e| Failure::own(format!("look at this process' user namespace: {e}")))
}

/// The descriptors for that.
fn descriptors(live: &Live) -> Result<Vec<BorrowedFd<'_>>, Failure> {
    let first = live.handle.first_process().map_err(|e| runner_failure(&e))?;
    let mut all = vec![first, live.ids.namespace.fd()];
    all.extend(live.ids.locks().iter().map(AsFd::as_fd));
    Ok(all)
}

impl Donors {
    /// Asks those that this container joins; none if it joins nobody.
    pub(super) fn find(app: &App, config: &Config) -> Result<Option<Self>, Failure> {
        if config.joins().next().is_none() {
            return Ok(None);
        }
        let ask = |id: Option<&String>| id.map(|id| ask(app, id)).transpose();
        let of_share = |share: &'_ Share| match share {
            Share::Container(id) => Some(id.clone()),
            Share::Own | Share::Host => None,
        };
        let network = match &config.network {
            containers::Network::Container(id) => Some(id),
            _ => None,
        };
        let ipc = match &config.namespaces.ipc {
            Ipc::Container(id) => Some(id),
            _ => None,
        };
        let donors = Self {
            network: ask(network)?,
            pid: ask(of_share(&config.namespaces.pid).as_ref())?,
            ipc: ask(ipc)?,
            uts: ask(of_share(&config.namespaces.uts).as_ref())?,
        };
        donors.check(config)?;
        Ok(Some(donors))
    }

    fn all(&self) -> impl Iterator<Item = &Donor> {
        [&self.network, &self.pid, &self.ipc, &self.uts]
            .into_iter()
            .flatten()
    }

    fn check(&self, config: &Config) -> Result<(), Failure> {
        self.check_sight(config)?;
        if let Some(donor) = &self.ipc
            && donor.shared.is_ipc_hosts.is_none()
        {
            return Err(
                Failure::own(format!("the IPC of container {} is for itself alone", donor.name))
                    .hint("make that one with --ipc shareable"),
            );
        }
        let home = own_users()?;
        if let Some(donor) = self.all().find(|donor| donor.shared.home != home) {
            return Err(Failure::own(format!(
                "container {} was started apart from the other containers of this user: nobody can join it now",
                donor.name
            ))
            .hint(format!("box restart {}", donor.name)));
        }
        let id = |donor: &Donor| {
            let stat =
                fstat(&donor.user).map_err(|e| Failure::own(format!("look at a user namespace: {e}")))?;
            Ok::<_, Failure>((stat.st_dev, stat.st_ino))
        };
        let mut donors = self.all();
        let Some(one) = donors.next() else { return Ok(()) };
        for other in donors {
            if id(one)? != id(other)? {
                return Err(Failure::own(format!(
                    "containers {} and {} have different user ids, so that nobody can join both",
                    one.name, other.name
                ))
                .hint("make one of the two with --network, --pid, --ipc or --uts container: and the other's name"));
            }
        }
        Ok(())
    }

    /// Who sees the host's processes and has rights in a user namespace could look into those that box has in it, which reach the host's files.
    fn check_sight(&self, config: &Config) -> Result<(), Failure> {
        let mut apart = self.all().filter(|donor| !donor.shared.is_runners);
        let sees_host = config.namespaces.pid == Share::Host;
        match apart.find(|donor| sees_host || donor.shared.is_pid_hosts) {
            Some(donor) if donor.shared.is_pid_hosts => Err(Failure::own(format!(
                "container {} sees the host's processes (--pid host): its namespaces are for itself alone",
                donor.name
            ))
            .hint("make that one with --userns host as well, or without --pid host")),
            Some(donor) => Err(Failure::own(format!(
                "--pid host: a container that joins {} has its user ids, and may not see the host's processes",
                donor.name
            ))
            .hint(format!("write --pid container:{}, or make that one with --userns host", donor.name))),
            None => Ok(()),
        }
    }

    /// The user namespace that all of them have, for files with ids in these pages.
    pub(super) fn ids(&self, pages: &BTreeSet<u32>) -> Result<Ids, Failure> {
        let donor = self
            .all()
            .next()
            .ok_or_else(|| Failure::own("no container to join"))?;
        let failed = |e: std::io::Error| Failure::own(format!("share a user namespace: {e}"));
        let shared = &donor.shared;
        let user = donor.user.try_clone().map_err(failed)?;
        let locks: Result<Vec<OwnedFd>, _> = donor.locks.iter().map(OwnedFd::try_clone).collect();
        let locks = locks.map_err(failed)?;
        if shared.is_runners {
            let namespace = UserNamespace::of_runner().map_err(|e| runner_failure(&e))?;
            return Ok(Ids::of(namespace, locks));
        }
        let ids = IdMap {
            groups: shared.groups.as_deref().map(extents),
            keeps_owners: shared.keeps_owners,
            ..IdMap::of(extents(&shared.users))
        };
        if let Some(page) = pages.iter().find(|page| ids.to_host(**page << 16).is_none()) {
            return Err(Failure::own(format!(
                "files of the image have ids from {} on, which container {}, whose namespaces it joins, does not have",
                page << 16,
                donor.name
            ))
            .hint("let the container of the image with the larger ids be the one that is joined"));
        }
        Ok(Ids::of(UserNamespace::joined(user, ids), locks))
    }

    /// What the container has of them.
    pub(super) fn apply(&self, spec: &mut ContainerSpec) {
        let or_host = |is_hosts: bool| if is_hosts { Sharing::Host } else { Sharing::Joined };
        if let Some(Donor { shared, .. }) = &self.pid {
            spec.namespaces.pid = or_host(shared.is_pid_hosts);
        }
        if let Some(Donor { shared, .. }) = &self.ipc {
            spec.namespaces.ipc = or_host(shared.is_ipc_hosts == Some(true));
        }
        if let Some(Donor { shared, .. }) = &self.uts {
            spec.namespaces.uts = or_host(shared.is_uts_hosts);
            spec.hostname.clone_from(&shared.hostname);
            let [_, _, hostname] = &shared.files;
            spec.etc.hostname.clone_from(hostname);
        }
        if let Some(Donor { shared, .. }) = &self.network {
            spec.network = match shared.is_network_hosts {
                true => Network::Host,
                false => Network::Joined,
            };
            if spec.namespaces.uts == Sharing::Own {
                spec.hostname.clone_from(&shared.hostname);
            }
            let [resolv_conf, hosts, hostname] = shared.files.clone();
            spec.etc = EtcFiles {
                resolv_conf,
                hosts,
                hostname,
            };
        }
    }

    /// Their first processes.
    pub(super) fn joined(&self) -> Joined<'_> {
        Joined {
            network: self.network.as_ref().map(|donor| donor.first.as_fd()),
            pid: self.pid.as_ref().map(|donor| donor.first.as_fd()),
            ipc: self.ipc.as_ref().map(|donor| donor.first.as_fd()),
            uts: self.uts.as_ref().map(|donor| donor.first.as_fd()),
        }
    }
}

fn extents(runs: &[Extent]) -> Vec<IdExtent> {
    let extent = |&(container, host, len): &Extent| IdExtent { container, host, len };
    runs.iter().map(extent).collect()
}

fn ask(app: &App, id: &str) -> Result<Donor, Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        let container = containers::get(app, id)?.ok_or_else(|| {
            Failure::new(
                EXIT_INPUT,
                format!(
                    "container {}, whose namespaces it joins, is gone",
                    containers::short(id)
                ),
            )
            .hint("make it anew with the other container's name")
        })?;
        let name = container.config.name.clone();
        let not_running = || {
            Failure::new(
                EXIT_INPUT,
                format!("container {name}, whose namespaces it joins, does not run"),
            )
            .hint(format!("box start {name}"))
        };
        if !container.state.is_active() {
            return Err(not_running());
        }
        if let Some(connection) = connect(app, &container)? {
            match connection.ask(&Request::Share, &[]) {
                Ok(Some((Reply::Shared(shared), fds))) => return donor(name, *shared, fds),
                // It is between two starts, or has just ended.
                Ok(_) => {}
                Err(_) if container.state.status == Status::Restarting => {}
                Err(failure) => return Err(failure),
            }
        }
        if Instant::now() >= end {
            return Err(not_running());
        }
        std::thread::sleep(PAUSE);
    }
}

fn donor(name: String, shared: Shared, fds: Vec<OwnedFd>) -> Result<Donor, Failure> {
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(first), Some(user)) => Ok(Donor {
            name,
            shared,
            first,
            user,
            locks: fds.collect(),
        }),
        _ => Err(Failure::own(format!(
            "the monitor of container {name} gave no namespaces"
        ))),
    }
}
