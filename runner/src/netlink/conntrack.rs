//! The kernel's memory of connections, as far as it must be changed: datagrams follow where their first one went, also when
//! that is not where they should go any more.

use std::io;
use std::net::IpAddr;

use super::route::address;
use super::{Message, Netlink, find};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;

/// A flow of datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where its first datagram was sent.
    pub(crate) to: IpAddr,
    /// The port it was sent to.
    pub(crate) port: u16,
    /// Who answers.
    pub(crate) answers: IpAddr,
    is_ipv6: bool,
    original: Vec<u8>,
}

fn message(kind: u16, is_ipv6: bool) -> Message {
    let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    Message::new(SUBSYSTEM << 8 | kind).raw(&[family as u8, 0, 0, 0])
}

impl Netlink {
    /// The flows of datagrams that the kernel knows; for a netfilter socket.
    pub(crate) fn datagram_flows(&self, is_ipv6: bool) -> io::Result<Vec<Flow>> {
        let all = self.dump(message(GET, is_ipv6))?;
        Ok(all.iter().filter_map(|body| flow(body, is_ipv6)).collect())
    }

    /// Lets the kernel forget a flow; one that is over is no error.
    pub(crate) fn forget_flow(&self, flow: &Flow) -> io::Result<()> {
        let message = message(DELETE, flow.is_ipv6).nest(TUPLE_ORIG, |m| m.raw(&flow.original));
        match self.ask(message) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn flow(body: &[u8], is_ipv6: bool) -> Option<Flow> {
    let attributes = body.get(4..)?;
    let original = find(attributes, TUPLE_ORIG)?;
    let protocol = find(original, TUPLE_PROTO)?;
    if find(protocol, PROTO_NUM)? != [libc::IPPROTO_UDP as u8] {
        return None;
    }
    // The kinds of source and destination.
    let (source, destination) = if is_ipv6 { (3, 4) } else { (1, 2) };
    let reply = find(find(attributes, TUPLE_REPLY)?, TUPLE_IP)?;
    Some(Flow {
        to: address(find(find(original, TUPLE_IP)?, destination)?)?,
        port: u16::from_be_bytes(*find(protocol, PROTO_DST_PORT)?.first_chunk()?),
        answers: address(find(reply, source)?)?,
        is_ipv6,
        original: original.to_vec(),
    })
}
