//! Rules: expressions, done from left to right as long as they match.

use super::{DATA_VALUE, Family};
use crate::netlink::Message;

const DATA_VERDICT: u16 = 2;
/// Where a verdict goes.
const VERDICT_REGISTER: u32 = 0;
/// The first 16 bytes; their quarters are numbered from [`QUARTERS`].
const FIRST: u32 = 1;
const QUARTERS: u32 = 8;

/// A verdict on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
}

/// Where in the packet a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

/// A rule in the making: expressions, done from left to right as long as they match.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    expressions: Vec<(&'static str, Message)>,
}

impl Rule {
    pub(crate) fn new() -> Rule {
        Rule {
            expressions: Vec::new(),
        }
    }

    fn add(mut self, name: &'static str, fill: impl FnOnce(Message) -> Message) -> Rule {
        self.expressions.push((name, fill(Message::new(0))));
        self
    }

    fn meta(self, key: u32, register: u32) -> Rule {
        self.add("meta", |m| m.big(1, register).big(2, key))
    }

    fn compare(self, is_equal: bool, value: &[u8]) -> Rule {
        self.add("cmp", |m| {
            m.big(1, FIRST)
                .big(2, u32::from(!is_equal))
                .nest(3, |m| m.attr(DATA_VALUE, value))
        })
    }

    fn load(self, base: Base, offset: u32, len: u32, register: u32) -> Rule {
        self.add("payload", |m| {
            m.big(1, register).big(2, base as u32).big(3, offset).big(4, len)
        })
    }

    fn interface(self, key: u32, name: &str, is_equal: bool) -> Rule {
        let mut padded = [0; libc::IFNAMSIZ];
        for (to, from) in padded.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = from;
        }
        self.meta(key, FIRST).compare(is_equal, &padded)
    }

    /// It came in by this interface, or by any other.
    pub(crate) fn comes_by(self, name: &str, is_equal: bool) -> Rule {
        self.interface(6, name, is_equal)
    }

    /// It goes out by this interface, or by any other.
    pub(crate) fn leaves_by(self, name: &str, is_equal: bool) -> Rule {
        self.interface(7, name, is_equal)
    }

    /// It is IPv4, or it is IPv6.
    pub(crate) fn protocol(self, family: Family) -> Rule {
        self.meta(15, FIRST).compare(true, &[family.number()])
    }

    /// These bytes of it are, or are not, these.
    pub(crate) fn bytes(self, base: Base, offset: u32, value: &[u8], is_equal: bool) -> Rule {
        self.load(base, offset, value.len() as u32, FIRST)
            .compare(is_equal, value)
    }

    /// Its destination is an address of this machine.
    pub(crate) fn for_this_machine(self) -> Rule {
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        self.add("fib", |m| {
            m.big(1, FIRST).big(2, ADDRESS_TYPE).big(3, OF_DESTINATION)
        })
        .compare(true, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    fn tracked(self, key: u32, any_of: u32) -> Rule {
        let value = |bits: u32| move |m: Message| m.attr(DATA_VALUE, &bits.to_ne_bytes());
        self.add("ct", |m| m.big(1, FIRST).big(2, key))
            .add("bitwise", |m| {
                m.big(1, FIRST)
                    .big(2, FIRST)
                    .big(3, 4)
                    .nest(4, value(any_of))
                    .nest(5, value(0))
            })
            .compare(false, &[0; 4])
    }

    /// It belongs to a connection that is there already.
    pub(crate) fn established(self) -> Rule {
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        self.tracked(0, ESTABLISHED_OR_RELATED)
    }

    /// Its connection's destination was changed.
    pub(crate) fn redirected(self) -> Rule {
        const DESTINATION_NAT: u32 = 1 << 5;
        self.tracked(2, DESTINATION_NAT)
    }

    /// Looks up destination (unless `len` is 0), protocol and destination port in a map, and sends the packet to the
    /// address and port found there.
    pub(crate) fn redirect_by(self, map: &str, offset: u32, len: u32, family: Family) -> Rule {
        let width = if family == Family::Ip { 4 } else { 16 };
        let quarter = |bytes: u32| QUARTERS + bytes / 4;
        let loaded = if len == 0 {
            self
        } else {
            self.load(Base::Network, offset, len, FIRST)
        };
        loaded
            .meta(16, quarter(len))
            .load(Base::Transport, 2, 2, quarter(len) + 1)
            .add("lookup", |m| m.text(1, map).big(2, FIRST).big(3, FIRST))
            .add("nat", |m| {
                const DESTINATION: u32 = 1;
                m.big(1, DESTINATION)
                    .big(2, family.number().into())
                    .big(3, FIRST)
                    .big(5, quarter(width))
            })
    }

    /// Its source becomes the address of the interface it leaves by.
    pub(crate) fn masquerade(self) -> Rule {
        self.add("masq", |m| m)
    }

    /// Counts it.
    pub(crate) fn count(self) -> Rule {
        self.add("counter", |m| m)
    }

    /// Says what becomes of it.
    pub(crate) fn verdict(self, verdict: Verdict<'_>) -> Rule {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Return => (-5, None),
        };
        self.add("immediate", |m| {
            m.big(1, VERDICT_REGISTER).nest(2, |m| {
                m.nest(DATA_VERDICT, |m| {
                    let m = m.big(1, code as u32);
                    match chain {
                        Some(chain) => m.text(2, chain),
                        None => m,
                    }
                })
            })
        })
    }
}

impl Rule {
    /// Its expressions as the kernel takes them.
    pub(super) fn fill(&self, mut list: Message) -> Message {
        const LIST_ELEM: u16 = 1;
        for (name, expression) in &self.expressions {
            list = list.nest(LIST_ELEM, |m| {
                m.text(1, name).nest(2, |m| m.raw(expression.body()))
            });
        }
        list
    }
}
