//! A name server for a container: names of others in its network, and the host's own name servers for all else, also where
//! these listen on the host's loopback.
//!
//! Its sockets are in the container's namespace, at [`ADDRESS`], where nobody else reaches them; what it asks others goes by the
//! host's. Who has which name is read from the leases each time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::ports::Protocol;
use super::{firewall, lease, subnet};
use crate::netlink::Netlink;
use crate::netlink::route::Prefix;

/// Where the container finds it, as in Docker.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// How long another server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most questions that wait for other servers at once.
const MAX_WAITING: usize = 64;
/// Longest message by UDP.
const MAX_DATAGRAM: usize = 4096;
/// For how many seconds an answer of ours may be kept.
const KEPT: u32 = 2;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// Its sockets, opened in the container's namespace.
#[derive(Debug)]
pub(super) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// In the network namespace of this thread, whose loopback is up. They have ports of their own, to which questions are
    /// sent on: a container may have a name server of its own at every address.
    pub(super) fn open() -> io::Result<Sockets> {
        let sockets = Sockets {
            udp: UdpSocket::bind((ADDRESS, 0))?,
            tcp: TcpListener::bind((ADDRESS, 0))?,
        };
        let ports = [
            (Protocol::Udp, sockets.udp.local_addr()?.port()),
            (Protocol::Tcp, sockets.tcp.local_addr()?.port()),
        ];
        firewall::send_on(&Netlink::netfilter()?, SocketAddrV4::new(ADDRESS, PORT), &ports)?;
        Ok(sockets)
    }
}

/// Who is in a network.
#[derive(Debug)]
pub(super) struct Book {
    /// The leases of its bridge.
    pub(super) directory: PathBuf,
    /// Its networks.
    pub(super) networks: Vec<Prefix>,
}

impl Book {
    /// The addresses behind a name; none when nobody has it.
    fn find(&self, name: &str) -> Option<Vec<IpAddr>> {
        let members = lease::members(&self.directory).ok()?;
        let has_name = |names: &Vec<String>| names.iter().any(|own| own.eq_ignore_ascii_case(name));
        let found: Vec<IpAddr> = members
            .iter()
            .filter(|(_, names)| has_name(names))
            .flat_map(|(number, _)| {
                self.networks
                    .iter()
                    .map(|network| subnet::address(*network, *number))
            })
            .collect();
        (!found.is_empty()).then_some(found)
    }
}

/// The server at work; dropping it ends it.
#[derive(Debug)]
pub(super) struct Server {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

struct Work {
    udp: UdpSocket,
    tcp: TcpListener,
    book: Option<Book>,
    others: Vec<IpAddr>,
    waiting: AtomicUsize,
}

impl Server {
    /// Starts it: without a book it only passes questions on to the others.
    pub(super) fn start(sockets: Sockets, book: Option<Book>, others: Vec<IpAddr>) -> io::Result<Server> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let work = Arc::new(Work {
            udp: sockets.udp,
            tcp: sockets.tcp,
            book,
            others,
            waiting: AtomicUsize::new(0),
        });
        let thread = std::thread::Builder::new().name("names".into()).spawn(move || {
            // It fails only when its sockets do, and then there is nothing left to serve.
            let _ = serve(&work, &stopped);
        })?;
        Ok(Server {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(work: &Arc<Work>, stopped: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let mut all = [
            PollFd::new(&work.udp, PollFlags::IN),
            PollFd::from_borrowed_fd(work.tcp.as_fd(), PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut all, None))?;
        let [has_datagram, has_caller, is_stopped] = all.map(|fd| !fd.revents().is_empty());
        if is_stopped {
            return Ok(());
        }
        if has_datagram && let Ok((count, from)) = work.udp.recv_from(&mut buffer) {
            let asked = buffer[..count].to_vec();
            match work.own_answer(&asked) {
                Some(answer) => drop(work.udp.send_to(&answer, from)),
                None => in_background(work, move |work| {
                    let answer = work.ask_by_udp(&asked).or_else(|| failure(&asked));
                    answer.map(|answer| work.udp.send_to(&answer, from));
                }),
            }
        }
        if has_caller && let Ok((stream, _)) = work.tcp.accept() {
            in_background(work, move |work| drop(work.talk(stream)));
        }
    }
}

/// What waits for others must not stop the rest. A question too many is not answered; whoever has it asks again.
fn in_background(work: &Arc<Work>, what: impl FnOnce(&Work) + Send + 'static) {
    if work.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
        work.waiting.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let mine = work.clone();
    let started = std::thread::Builder::new().spawn(move || {
        what(&mine);
        mine.waiting.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        work.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Work {
    /// The answer to a question for somebody in the network.
    fn own_answer(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let question = Question::parse(asked)?;
        let addresses = self.book.as_ref()?.find(&question.name)?;
        Some(question.answer(asked, &addresses))
    }

    fn ask_by_udp(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let ask = |server: &IpAddr| -> io::Result<Vec<u8>> {
            let any: IpAddr = match server {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect((*server, PORT))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(asked)?;
            let mut buffer = vec![0; MAX_DATAGRAM];
            loop {
                let count = socket.recv(&mut buffer)?;
                // Anything else is no answer to this question.
                if count >= HEADER && buffer.get(..2) == asked.get(..2) {
                    buffer.truncate(count);
                    return Ok(buffer);
                }
            }
        };
        self.others.iter().find_map(|server| ask(server).ok())
    }

    /// Questions by TCP, one after the other.
    fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        loop {
            let asked = read_message(&mut stream)?;
            let answer = self.own_answer(&asked).or_else(|| self.ask_by_tcp(&asked));
            let answer = answer
                .or_else(|| failure(&asked))
                .ok_or(io::ErrorKind::InvalidData)?;
            write_message(&mut stream, &answer)?;
        }
    }

    fn ask_by_tcp(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let ask = |server: &IpAddr| -> io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(*server, PORT), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write_message(&mut stream, asked)?;
            read_message(&mut stream)
        };
        self.others.iter().find_map(|server| ask(server).ok())
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat())
}

/// A question for the addresses of a name.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    name: String,
    kind: u16,
    /// Where it ends in the message.
    end: usize,
}

impl Question {
    /// The only question of a plain message; none where it is anything else.
    fn parse(message: &[u8]) -> Option<Question> {
        let header = message.first_chunk::<HEADER>()?;
        let is_query = header[2] & 0xf8 == 0;
        if !is_query || header[4..6] != [0, 1] {
            return None;
        }
        let (mut name, mut at) = (String::new(), HEADER);
        loop {
            let len = usize::from(*message.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            let label = message
                .get(at..at + len)
                .filter(|_| len < 64 && name.len() < 254)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(std::str::from_utf8(label).ok()?);
            at += len;
        }
        let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
        let is_internet = message.get(at + 2..at + 4)? == [0, 1];
        is_internet.then_some(Question {
            name,
            kind,
            end: at + 4,
        })
    }

    /// Those of the addresses that are of the kind asked for; a name without such is there all the same.
    fn answer(&self, asked: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
        let data: Vec<Vec<u8>> = addresses
            .iter()
            .filter_map(|address| match (self.kind, address) {
                (TYPE_A, IpAddr::V4(v4)) => Some(v4.octets().to_vec()),
                (TYPE_AAAA, IpAddr::V6(v6)) => Some(v6.octets().to_vec()),
                _ => None,
            })
            .collect();
        let mut message = head(asked, self.end, 0);
        message[6..8].copy_from_slice(&(data.len() as u16).to_be_bytes());
        for bytes in data {
            const NAME_OF_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
            message.extend(NAME_OF_QUESTION);
            message.extend(self.kind.to_be_bytes());
            message.extend([0, 1]);
            message.extend(KEPT.to_be_bytes());
            message.extend((bytes.len() as u16).to_be_bytes());
            message.extend(bytes);
        }
        message
    }
}

/// The beginning of an answer: the header, and the question repeated.
fn head(asked: &[u8], end: usize, code: u8) -> Vec<u8> {
    const ANSWER: u8 = 0x80;
    const RECURSION: u8 = 0x80;
    let mut message = asked.get(..end).unwrap_or_default().to_vec();
    message[2] |= ANSWER;
    message[3] = RECURSION | code;
    message[6..HEADER].fill(0);
    message
}

/// The word that nobody could be asked.
fn failure(asked: &[u8]) -> Option<Vec<u8>> {
    const SERVER_FAILURE: u8 = 2;
    Question::parse(asked).map(|question| head(asked, question.end, SERVER_FAILURE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        // What an extended question has more is left away in the answer.
        message.extend([0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
        message
    }

    #[test]
    fn questions_are_answered() {
        let message = asked("web.example", TYPE_A);
        let question = Question::parse(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.example", TYPE_A));
        let addresses = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        let answer = question.answer(&message, &addresses);
        assert_eq!(answer[..12], [7, 9, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[answer.len() - 6..], [0, 4, 10, 0, 0, 7]);
        let other = asked("web", 15);
        let none = Question::parse(&other).unwrap().answer(&other, &addresses);
        assert_eq!(none[6..8], [0, 0], "there, but without such");
        assert_eq!(failure(&message).unwrap()[3], 0x82);
    }

    #[test]
    fn nonsense_is_no_question() {
        let message = asked("a", TYPE_A);
        for cut in 0..19 {
            assert_eq!(Question::parse(&message[..cut]), None, "{cut}");
        }
        let mut answer = message.clone();
        answer[2] |= 0x80;
        assert_eq!(Question::parse(&answer), None);
        let mut pointer = message.clone();
        pointer[12] = 0xc0;
        assert_eq!(Question::parse(&pointer), None);
    }
}
