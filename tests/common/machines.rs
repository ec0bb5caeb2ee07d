//! Machines of the tests' own: a network namespace for a thread, another one for the world beyond, and what both can say.
#![allow(clippy::unwrap_used)] // a test that panics has failed
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

/// Where the outside world is, and where the host is for it.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const FOR_WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Another address of the world's.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up");
}

#[track_caller]
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Another machine, beyond the host.
pub struct World {
    work: Sender<Box<dyn FnOnce() + Send>>,
}

impl World {
    pub fn new() -> World {
        let (work, todo) = channel::<Box<dyn FnOnce() + Send>>();
        let (said, told) = channel();
        std::thread::spawn(move || {
            own_network();
            said.send(nix::unistd::gettid()).unwrap();
            todo.into_iter().for_each(|work| work());
        });
        let thread = told.recv().unwrap();
        sh(&format!(
            "ip link add w0 type veth peer name w1 netns {thread}
             ip addr add {FOR_WORLD}/24 dev w0; ip link set w0 up"
        ));
        let world = World { work };
        world.run(|| {
            sh(&format!(
                "ip addr add {WORLD}/24 dev w1; ip addr add {ROUTER}/24 dev w1; ip link set w1 up; ip route add default via {FOR_WORLD}"
            ))
        });
        world
    }

    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (said, told) = channel();
        let work = Box::new(move || said.send(work()).unwrap());
        self.work.send(work).unwrap();
        told.recv().unwrap()
    }
}

/// Tells every caller their own address.
pub fn server(at: &str) -> (SocketAddr, std::thread::JoinHandle<SocketAddr>) {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let own = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(format!("{}\n", peer.ip()).as_bytes()).unwrap();
        peer
    });
    (own, served)
}

/// What is said to whoever connects; tried until the server is there.
pub fn tcp(to: impl Into<SocketAddr>) -> std::io::Result<String> {
    let (to, until) = (to.into(), Instant::now() + PATIENCE);
    loop {
        let said = TcpStream::connect_timeout(&to, Duration::from_millis(500)).and_then(|mut stream| {
            let mut text = String::new();
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.read_to_string(&mut text).map(|_| text)
        });
        match said {
            Ok(text) if !text.is_empty() => return Ok(text),
            other if Instant::now() > until => return other,
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

pub fn udp(to: impl Into<SocketAddr>) -> std::io::Result<String> {
    let (to, until) = (to.into(), Instant::now() + PATIENCE);
    loop {
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut buffer = [0; 64];
        match socket.send(b"?\n").and_then(|_| socket.recv(&mut buffer)) {
            Ok(count) => return Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Err(e) if Instant::now() > until => return Err(e),
            Err(_) => {}
        }
    }
}

/// Nothing must answer: one try is enough.
pub fn is_closed(to: impl Into<SocketAddr>) -> bool {
    TcpStream::connect_timeout(&to.into(), Duration::from_millis(700)).is_err()
}

/// Answers each question by UDP with one address, at the host's loopback.
pub fn name_server(address: [u8; 4]) {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let end = 12 + buffer[12..count].iter().position(|b| *b == 0).unwrap() + 5;
            let is_a = buffer[end - 3] == 1;
            let mut answer = buffer[..end].to_vec();
            answer[2] |= 0x80;
            answer[6..12].copy_from_slice(&[0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(address);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}
