//! Netlink: the kernel's own way to make interfaces, addresses, routes and packet rules.
//!
//! One encoder serves both families used here, rtnetlink (`route`) and nf_tables (`nft`). A socket belongs to the network namespace
//! it was opened in, whichever thread uses it later. The kernel does what a message asks for before sending returns, so
//! nothing here waits for anybody.

pub(crate) mod conntrack;
mod message;
pub(crate) mod nft;
pub(crate) mod route;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) use message::{Message, attributes, find, text, u32_at};

const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const HEADER: usize = 16;
/// Larger than any piece of a dump that the kernel sends.
const BUFFER: usize = 64 << 10;
/// The kernel answers at once; a socket that says nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the kernel.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// For interfaces, addresses and routes of this thread's network namespace.
    pub(crate) fn route() -> io::Result<Netlink> {
        Netlink::open(None)
    }

    /// For nf_tables of this thread's network namespace.
    pub(crate) fn netfilter() -> io::Result<Netlink> {
        Netlink::open(Some(NETFILTER))
    }

    /// Without a protocol it is 0, rtnetlink.
    fn open(protocol: Option<Protocol>) -> io::Result<Netlink> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        // A batch that fails is answered message by message; only the first answers matter.
        let _ = set_socket_recv_buffer_size(&socket, 1 << 20);
        Ok(Netlink { socket })
    }

    /// Sends one message and waits for the kernel's word on it.
    pub(crate) fn ask(&self, message: Message) -> io::Result<()> {
        self.send(&message.finish(libc::NLM_F_ACK as u16))?;
        loop {
            for answer in split(&self.receive()?) {
                if answer.kind == ERROR {
                    return status(answer.body);
                }
            }
        }
    }

    /// Sends one message and returns the body of the object that answers it.
    pub(crate) fn get(&self, message: Message) -> io::Result<Vec<u8>> {
        self.send(&message.finish(0))?;
        let answer = self.receive()?;
        match split(&answer).into_iter().next() {
            Some(answer) if answer.kind == ERROR => status(answer.body).map(|()| Vec::new()),
            Some(answer) => Ok(answer.body.to_vec()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Asks for all objects of a kind; returns their bodies.
    pub(crate) fn dump(&self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        self.send(&message.finish(libc::NLM_F_DUMP as u16))?;
        let mut all = Vec::new();
        loop {
            for answer in split(&self.receive()?) {
                match answer.kind {
                    DONE => return Ok(all),
                    ERROR => return status(answer.body).map(|()| all),
                    _ => all.push(answer.body.to_vec()),
                }
            }
        }
    }

    /// Sends messages that the kernel takes as one; the first that is refused is the error, with its place.
    pub(crate) fn batch(&self, bytes: &[u8]) -> io::Result<()> {
        self.send(bytes)?;
        loop {
            for answer in split(&self.receive()?) {
                // Only the last message asks for an answer; any other that is answered was refused.
                if answer.kind == ERROR {
                    return status(answer.body);
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; BUFFER];
        let (count, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())
        })?;
        buffer.truncate(count);
        Ok(buffer)
    }
}

struct Answer<'a> {
    kind: u16,
    body: &'a [u8],
}

/// The messages of one datagram; what is cut short is left out.
fn split(mut bytes: &[u8]) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(body) = bytes.get(HEADER..len) else { break };
        answers.push(Answer { kind, body });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// What an error message says; number 0 is the word that all is well.
fn status(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|number| i32::from_ne_bytes(*number)) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_split() {
        let mut bytes = Message::new(7).finish(0);
        bytes.extend(Message::new(8).raw(&[1, 2, 3]).finish(0));
        bytes.extend([9; 5]);
        let found: Vec<_> = split(&bytes).iter().map(|a| (a.kind, a.body.len())).collect();
        assert_eq!(found, [(7, 0), (8, 3)]);
    }

    #[test]
    fn errors_are_the_kernels() {
        assert!(status(&0i32.to_ne_bytes()).is_ok());
        let error = status(&(-libc::EEXIST).to_ne_bytes()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        assert!(status(&[1]).is_err());
    }
}
