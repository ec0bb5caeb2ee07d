//! The private network of root's containers. Each test has a host of its own: a network namespace of its thread's.
#![allow(clippy::unwrap_used)] // a test that panics has failed

#[path = "../../tests/common/machines.rs"]
mod machines;
mod support;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use box_runner::*;
use machines::{
    FOR_WORLD, PATIENCE, WORLD, World, is_closed, name_server, own_network, server, sh, tcp, udp,
};
use support::Fixture;

/// A machine whose network is this thread's alone, with containers on it.
struct Host {
    f: Fixture,
    leases: PathBuf,
}

impl Host {
    fn new() -> Host {
        own_network();
        let f = Fixture::new();
        let leases = f.dir.join("leases");
        Host { f, leases }
    }

    fn request(&self, ports: &[PortRequest]) -> NetworkRequest {
        NetworkRequest {
            directory: self.leases.clone(),
            ports: ports.to_vec(),
            bridge: None,
            names: Vec::new(),
            name_servers: None,
        }
    }

    fn network(&self, ports: &[PortRequest]) -> PrivateNetwork {
        self.try_network(ports).unwrap_or_else(|e| panic!("{e}"))
    }

    fn try_network(&self, ports: &[PortRequest]) -> Result<PrivateNetwork> {
        self.f.runtime.private_network(&self.f.user, &self.request(ports))
    }

    fn start(&self, network: &PrivateNetwork, line: &str) -> Running {
        let mut spec = self.f.spec(&["sh", "-c", line]);
        spec.network = Network::Private;
        self.f
            .runtime
            .spawn_in(&spec, &self.f.user, Some(network.namespace()), Stdio::captured())
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// What the line says, which must succeed.
    #[track_caller]
    fn out(&self, network: &PrivateNetwork, line: &str) -> String {
        let (code, text) = self.run(network, line);
        assert_eq!(code, 0, "{line}: {text}");
        text
    }

    fn run(&self, network: &PrivateNetwork, line: &str) -> (i32, String) {
        let mut running = self.start(network, &format!("exec 2>&1; {line}"));
        let mut text = String::new();
        running.take_stdout().unwrap().read_to_string(&mut text).unwrap();
        (running.wait().unwrap().status.code(), text)
    }

    /// A container that says hello to whoever connects to port 80, by TCP, or sends to port 53, by UDP.
    fn server(&self, network: &PrivateNetwork) -> Running {
        self.start(network, "exec probe hello")
    }
}

fn v4(network: &PrivateNetwork) -> IpAddr {
    network.addresses()[0].address
}

fn gateway(network: &PrivateNetwork) -> IpAddr {
    network.addresses()[0].gateway.unwrap()
}

fn port(address: Option<&str>, host: HostPort, container: u16, protocol: Protocol) -> PortRequest {
    PortRequest {
        address: address.map(|text| text.parse().unwrap()),
        host,
        container,
        protocol,
    }
}

/// Links, rules and leases of this host.
fn traces(host: &Host) -> BTreeSet<String> {
    let mut all: BTreeSet<String> =
        sh("ip -o link show; nft -s list ruleset; iptables-save 2>/dev/null | grep -v '^[#:]' || true")
            .lines()
            .map(|line| line.split(" mtu ").next().unwrap().to_owned())
            .collect();
    for entry in walk(&host.leases) {
        all.insert(entry.display().to_string());
    }
    all
}

fn walk(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
            found.push(path);
        } else if path.file_name().unwrap() != "lock" {
            found.push(path);
        }
    }
    found
}

#[track_caller]
fn nothing_is_left(host: &Host, before: &BTreeSet<String>) {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = traces(host);
        if now == *before {
            return;
        }
        assert!(
            Instant::now() < until,
            "left: {:#?}",
            now.difference(before).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_way_out() {
    let host = Host::new();
    let before = traces(&host);
    sh("echo 0 >/proc/sys/net/ipv4/ip_forward");
    let world = World::new();
    let network = host.network(&[]);
    let links = host.out(&network, "busybox ip -o addr; busybox ip route; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    assert!(links.contains(&format!("{}/16", v4(&network))), "{links}");
    assert!(
        links.contains(&format!("default via {}", gateway(&network))),
        "{links}"
    );
    assert!(
        links.contains("lo") && links.contains("eth0") && links.ends_with("0\n"),
        "{links}"
    );
    // The host, at the bridge.
    let (at, served) = server("0.0.0.0");
    let said = host.out(
        &network,
        &format!("busybox nc {} {}", gateway(&network), at.port()),
    );
    assert_eq!(said.trim(), v4(&network).to_string());
    served.join().unwrap();
    // The world sees the host.
    let (at, served) = world.run(|| server("0.0.0.0"));
    let said = host.out(&network, &format!("busybox nc {WORLD} {}", at.port()));
    assert_eq!(said.trim(), FOR_WORLD.to_string());
    served.join().unwrap();
    // Services of the host's loopback are not the containers'.
    let (at, _never) = server("127.0.0.1");
    let (code, said) = host.run(
        &network,
        &format!("busybox nc -w 1 {} {}", gateway(&network), at.port()),
    );
    assert_ne!(code, 0, "{said}");
    sh("ip link del w0");
    drop(network);
    nothing_is_left(&host, &before);
}

#[test]
fn containers_reach_each_other_and_the_world_reaches_none() {
    let host = Host::new();
    let world = World::new();
    let (one, two) = (host.network(&[]), host.network(&[]));
    assert_ne!(v4(&one), v4(&two));
    let running = host.server(&one);
    assert_eq!(tcp((v4(&one), 80)).unwrap(), "hello\n");
    assert_eq!(host.out(&two, &format!("busybox nc {} 80", v4(&one))), "hello\n");
    // A neighbour that uses the host as its router gets nowhere.
    let to = v4(&one);
    assert!(world.run(move || is_closed((to, 80))));
    running.handle().kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn published_ports() {
    let host = Host::new();
    let world = World::new();
    let before = traces(&host);
    let network = host.network(&[
        port(None, HostPort::Exactly(8080), 80, Protocol::Tcp),
        port(None, HostPort::Exactly(8053), 53, Protocol::Udp),
        port(Some("127.0.0.1"), HostPort::Free, 80, Protocol::Tcp),
        port(Some("198.51.100.1"), HostPort::Exactly(81), 80, Protocol::Tcp),
    ]);
    let running = host.server(&network);
    let inner = network.ports()[2].host;
    let local = Ipv4Addr::LOCALHOST;
    for at in [
        (IpAddr::from(local), 8080),
        (FOR_WORLD.into(), 8080),
        (gateway(&network), 8080),
        (local.into(), inner),
        (FOR_WORLD.into(), 81),
    ] {
        assert_eq!(tcp(at).unwrap(), "hello\n", "{at:?}");
    }
    assert_eq!(udp((local, 8053)).unwrap(), "hello\n");
    assert_eq!(world.run(|| tcp((FOR_WORLD, 8080)).unwrap()), "hello\n");
    assert_eq!(world.run(|| tcp((FOR_WORLD, 81)).unwrap()), "hello\n");
    assert_eq!(world.run(|| udp((FOR_WORLD, 8053)).unwrap()), "hello\n");
    assert!(is_closed((local, 81)));
    assert!(world.run(move || is_closed((FOR_WORLD, inner))));
    // Nor by an address that is everybody's own.
    world.run(|| {
        sh(&format!(
            "ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null || true
        ip route del local 127.0.0.1 dev lo table local 2>/dev/null || true
        ip route add 127.0.0.1 via {FOR_WORLD} src {WORLD}"
        ))
    });
    assert!(world.run(move || is_closed((local, inner))));
    assert!(world.run(move || is_closed((local, 8080))));
    // Another container, and the container itself, by the host's address.
    let other = host.network(&[]);
    for (who, network) in [("another", &other), ("itself", &network)] {
        let (code, said) = host.run(network, &format!("busybox nc -w 3 {FOR_WORLD} 8080"));
        assert_eq!((code, said.as_str()), (0, "hello\n"), "{who}");
    }
    // The host's loopback is not the containers', published or not.
    let (code, _) = host.run(&other, &format!("busybox nc -w 1 127.0.0.1 {inner}"));
    assert_ne!(code, 0);
    running.handle().kill().unwrap();
    running.wait().unwrap();
    drop((network, other));
    assert!(is_closed((local, 8080)));
    nothing_is_left(&host, &before);
}

#[test]
fn a_port_has_one_owner() {
    let host = Host::new();
    let before = traces(&host);
    let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
    let wanted = [port(None, HostPort::Exactly(7000), 80, Protocol::Tcp)];
    let error = host.try_network(&wanted).unwrap_err();
    assert!(
        error.to_string().contains("port 0.0.0.0:7000/tcp of the host"),
        "{error}"
    );
    // The bridge was made for nothing.
    nothing_is_left(&host, &before);
    drop(listener);
    let network = host.network(&wanted);
    assert!(matches!(
        host.try_network(&wanted),
        Err(RunnerError::PortRefused { .. })
    ));
    assert!(TcpListener::bind("127.0.0.1:7000").is_err());
    drop(network);
    drop(host.network(&wanted));
    nothing_is_left(&host, &before);
}

#[test]
fn a_host_that_forwards_nothing_for_others() {
    let host = Host::new();
    let world = World::new();
    sh(
        "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER",
    );
    let before = traces(&host);
    let network = host.network(&[port(None, HostPort::Exactly(8080), 80, Protocol::Tcp)]);
    let rules = sh("iptables -S DOCKER-USER");
    assert!(rules.contains("-i box0") && rules.contains("-o box0"), "{rules}");
    let (at, served) = world.run(|| server("0.0.0.0"));
    let said = host.out(&network, &format!("busybox nc {WORLD} {}", at.port()));
    assert_eq!(said.trim(), FOR_WORLD.to_string());
    served.join().unwrap();
    let running = host.server(&network);
    assert_eq!(world.run(|| tcp((FOR_WORLD, 8080)).unwrap()), "hello\n");
    let to = v4(&network);
    assert!(world.run(move || is_closed((to, 80))));
    drop(running);
    drop(network);
    nothing_is_left(&host, &before);
}

#[test]
fn ipv6_where_the_host_has_it() {
    let host = Host::new();
    let world = World::new();
    sh("ip -6 addr add fd00:77::1/64 dev w0 nodad; ip -6 route add default via fd00:77::2");
    world.run(|| sh("ip -6 addr add fd00:77::2/64 dev w1 nodad"));
    let before = traces(&host);
    let network = host.network(&[
        port(None, HostPort::Exactly(8080), 80, Protocol::Tcp),
        port(Some("fd00:77::1"), HostPort::Exactly(8053), 53, Protocol::Udp),
    ]);
    assert_eq!(network.addresses().len(), 2);
    let (at, served) = world.run(|| server("::"));
    let said = host.out(&network, &format!("busybox nc fd00:77::2 {}", at.port()));
    assert_eq!(said.trim(), "fd00:77::1");
    served.join().unwrap();
    let running = host.server(&network);
    let v6 = network.addresses()[1].address;
    assert_eq!(tcp((v6, 80)).unwrap(), "hello\n");
    let from_world = |at: &'static str| world.run(move || tcp(at.parse::<SocketAddr>().unwrap()).unwrap());
    assert_eq!(from_world("[fd00:77::1]:8080"), "hello\n");
    assert_eq!(from_world("198.51.100.1:8080"), "hello\n");
    assert_eq!(
        world.run(|| udp("[fd00:77::1]:8053".parse::<SocketAddr>().unwrap()).unwrap()),
        "hello\n"
    );
    // ::1 leads nowhere, at once: whoever asks for localhost goes on to 127.0.0.1.
    let error = TcpStream::connect("[::1]:8080").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(running);
    drop(network);
    nothing_is_left(&host, &before);
}

#[test]
fn twenty_at_once_leave_nothing() {
    let host = Host::new();
    let before = traces(&host);
    // Threads share the network namespace of the one that starts them.
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let wanted = [port(None, HostPort::Free, 80, Protocol::Tcp)];
                let network = host.network(&wanted);
                let told = host.out(&network, "busybox ip -o addr show eth0");
                assert!(told.contains(&v4(&network).to_string()), "{told}");
            });
        }
    });
    nothing_is_left(&host, &before);
}

#[test]
fn one_network_for_several_containers_one_after_the_other() {
    let host = Host::new();
    let network = host.network(&[port(None, HostPort::Exactly(8080), 80, Protocol::Tcp)]);
    for _ in 0..2 {
        let running = host.server(&network);
        assert_eq!(tcp((Ipv4Addr::LOCALHOST, 8080)).unwrap(), "hello\n");
        drop(running);
    }
}

#[test]
fn what_somebody_else_calls_box0_is_left_alone() {
    let host = Host::new();
    sh("ip link add box0 type bridge");
    let error = host.try_network(&[]).unwrap_err();
    assert!(error.to_string().contains("not box's"), "{error}");
    assert!(sh("ip -o link").contains("box0"));
}

#[test]
fn a_bridge_that_somebody_removed_is_made_anew() {
    let host = Host::new();
    let before = traces(&host);
    let world = World::new();
    let first = host.network(&[]);
    // Its network is somebody else's meanwhile.
    sh("ip link del box0; ip route add 10.200.0.0/16 dev w0");
    let second = host.network(&[]);
    assert!(v4(&second).to_string().starts_with("10.201."), "{}", v4(&second));
    let (at, served) = world.run(|| server("0.0.0.0"));
    let said = host.out(&second, &format!("busybox nc {WORLD} {}", at.port()));
    assert_eq!(said.trim(), FOR_WORLD.to_string());
    served.join().unwrap();
    sh("ip link del w0");
    drop((first, second));
    nothing_is_left(&host, &before);
}

#[test]
fn names_in_a_network_and_beyond() {
    let host = Host::new();
    let before = traces(&host);
    name_server([192, 0, 2, 99]);
    let named = |bridge: Option<&str>, names: &[&str]| {
        let request = NetworkRequest {
            bridge: bridge.map(str::to_owned),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            name_servers: Some(vec![Ipv4Addr::LOCALHOST.into()]),
            ..host.request(&[])
        };
        host.f.runtime.private_network(&host.f.user, &request).unwrap()
    };
    let web = named(Some("boxabc"), &["web", "www.example"]);
    let client = named(Some("boxabc"), &["client"]);
    let elsewhere = named(Some("boxdef"), &["web2"]);
    let plain = named(None, &["web3"]);
    assert_eq!(client.resolver(), Some(IpAddr::from([127, 0, 0, 11])));
    let ask = |network: &PrivateNetwork, name: &str| {
        host.run(network, &format!("busybox nslookup {name} 127.0.0.11"))
            .1
    };
    for name in ["web", "WWW.example"] {
        let said = ask(&client, name);
        assert!(said.contains(&v4(&web).to_string()), "{said}");
    }
    // What nobody in the network has is asked beyond, also at the host's loopback.
    for (network, name) in [
        (&client, "web2"),
        (&elsewhere, "web"),
        (&plain, "web3"),
        (&client, "other.example"),
    ] {
        let said = ask(network, name);
        assert!(said.contains("192.0.2.99"), "{name}: {said}");
    }
    let running = host.server(&web);
    assert_eq!(tcp((v4(&web), 80)).unwrap(), "hello\n");
    assert_eq!(
        host.out(&client, &format!("busybox nc {} 80", v4(&web))),
        "hello\n"
    );
    // Networks are apart.
    for network in [&elsewhere, &plain] {
        let (code, said) = host.run(network, &format!("busybox nc -w 1 {} 80", v4(&web)));
        assert_ne!(code, 0, "{said}");
    }
    let members = network_members(&host.leases, "boxabc").unwrap();
    assert_eq!(members.len(), 2);
    assert!(
        members
            .iter()
            .any(|m| m.names[0] == "web" && m.addresses[0] == v4(&web)),
        "{members:?}"
    );
    drop(running);
    drop(web);
    assert!(ask(&client, "web").contains("192.0.2.99"));
    drop((client, elsewhere, plain));
    nothing_is_left(&host, &before);
}

#[test]
fn datagrams_find_the_new_owner_of_a_port() {
    let host = Host::new();
    let world = World::new();
    let wanted = [port(None, HostPort::Exactly(8053), 53, Protocol::Udp)];
    // From one port all the time, so that the kernel takes it for one flow.
    let say = || {
        world.run(|| {
            let socket = std::net::UdpSocket::bind((WORLD, 4000)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let until = Instant::now() + PATIENCE;
            loop {
                let mut buffer = [0; 64];
                // What nobody listens to is told, too.
                let told = socket
                    .send_to(b"?", (FOR_WORLD, 8053))
                    .and_then(|_| socket.recv(&mut buffer));
                match told {
                    Ok(count) => return String::from_utf8_lossy(&buffer[..count]).into_owned(),
                    Err(e) => assert!(Instant::now() < until, "{e}"),
                }
            }
        })
    };
    // Before anybody has the port.
    world.run(|| {
        let socket = std::net::UdpSocket::bind((WORLD, 4000)).unwrap();
        socket.send_to(b"?", (FOR_WORLD, 8053)).unwrap();
    });
    for _ in 0..2 {
        let network = host.network(&wanted);
        let running = host.server(&network);
        assert_eq!(say(), "hello\n");
        drop(running);
        drop(network);
    }
}
