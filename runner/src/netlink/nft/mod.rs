//! nf_tables: tables, chains, rules and maps, as `nft` makes them.
//!
//! Changes are a [`Batch`], taken by the kernel whole or not at all.

mod rule;

use std::io;

use super::{Message, Netlink, find, text};
pub(crate) use rule::{Base, Rule, Verdict};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DEL_ELEMENT: u16 = 14;

const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }
}

fn message(kind: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind).raw(&[family, 0, 0, 0])
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// A map from one run of bytes to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map {
    pub(crate) name: &'static str,
    /// How `nft` shows them: the types' numbers, six bits each.
    pub(crate) key: (u32, u32),
    pub(crate) value: (u32, u32),
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) map: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Changes that are made together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    messages: Vec<Message>,
    sets: u32,
}

impl Batch {
    fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// A table.
    pub(crate) fn table(&mut self, name: &str) {
        self.push(
            message(NEW_TABLE, Family::Inet.number())
                .flags(libc::NLM_F_CREATE)
                .text(1, name),
        );
    }

    /// Removes a table with all that is in it.
    pub(crate) fn delete_table(&mut self, name: &str) {
        self.push(message(DEL_TABLE, Family::Inet.number()).text(1, name));
    }

    /// A chain of a table, hooked in or only jumped to.
    pub(crate) fn chain(&mut self, table: &str, name: &str, hook: Option<Hook>) {
        let mut chain = message(NEW_CHAIN, Family::Inet.number())
            .flags(libc::NLM_F_CREATE)
            .text(1, table)
            .text(3, name);
        if let Some(hook) = hook {
            const POLICY_ACCEPT: u32 = 1;
            chain = chain
                .nest(4, |m| m.big(1, hook.number).big(2, hook.priority as u32))
                .big(5, POLICY_ACCEPT)
                .text(7, hook.kind);
        }
        self.push(chain);
    }

    /// A rule at the end of a chain.
    pub(crate) fn rule(&mut self, table: &str, chain: &str, rule: &Rule) {
        self.push(new_rule(Family::Inet, table, chain, rule).flags(libc::NLM_F_APPEND));
    }

    /// A rule at the head of a chain, with a remark by which it is found again.
    pub(crate) fn first_rule(
        &mut self,
        family: Family,
        (table, chain): (&str, &str),
        rule: &Rule,
        remark: &str,
    ) {
        self.push(new_rule(family, table, chain, rule).attr(7, &remark_bytes(remark)));
    }

    /// Removes a rule.
    pub(crate) fn delete_rule(&mut self, found: &FoundRule) {
        let rule = message(DEL_RULE, found.family.number())
            .text(1, &found.table)
            .text(2, &found.chain)
            .attr(3, &found.handle);
        self.push(rule);
    }

    /// A map.
    pub(crate) fn map(&mut self, table: &str, map: Map) {
        const IS_MAP: u32 = 8;
        self.sets += 1;
        let set = message(NEW_SET, Family::Inet.number())
            .flags(libc::NLM_F_CREATE)
            .text(1, table)
            .text(2, map.name)
            .big(3, IS_MAP)
            .big(4, map.key.0)
            .big(5, map.key.1)
            .big(6, map.value.0)
            .big(7, map.value.1)
            .big(10, self.sets);
        self.push(set);
    }

    /// Adds an entry to a map.
    pub(crate) fn entry(&mut self, table: &str, entry: &Entry) {
        let change = element(NEW_ELEMENT, table, entry);
        self.push(change.flags(libc::NLM_F_CREATE | libc::NLM_F_EXCL));
    }

    /// Takes an entry out of a map.
    pub(crate) fn delete_entry(&mut self, table: &str, entry: &Entry) {
        self.push(element(DEL_ELEMENT, table, entry));
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn bytes(self) -> Vec<u8> {
        let frame = |kind| Message::new(kind).raw(&[0, 0]).raw(&SUBSYSTEM.to_be_bytes());
        let mut bytes = frame(BATCH_BEGIN).finish(0);
        let last = self.messages.len().saturating_sub(1);
        for (number, message) in self.messages.into_iter().enumerate() {
            let ack = if number == last { libc::NLM_F_ACK as u16 } else { 0 };
            bytes.extend(message.finish(ack));
        }
        bytes.extend(frame(BATCH_END).finish(0));
        bytes
    }
}

fn new_rule(family: Family, table: &str, chain: &str, rule: &Rule) -> Message {
    message(NEW_RULE, family.number())
        .flags(libc::NLM_F_CREATE)
        .text(1, table)
        .text(2, chain)
        .nest(4, |m| rule.fill(m))
}

/// A rule's remark as `nft` keeps it.
fn remark_bytes(remark: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let mut bytes = vec![COMMENT, remark.len() as u8 + 1];
    bytes.extend(remark.bytes());
    bytes.push(0);
    bytes
}

fn element(kind: u16, table: &str, entry: &Entry) -> Message {
    message(kind, Family::Inet.number())
        .text(1, table)
        .text(2, entry.map)
        .nest(3, |m| {
            m.nest(LIST_ELEM, |m| {
                m.nest(1, |m| m.attr(DATA_VALUE, &entry.key))
                    .nest(2, |m| m.attr(DATA_VALUE, &entry.value))
            })
        })
}

/// A base chain that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundChain {
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Whether it is hooked in where packets pass through the machine and drops what no rule accepts.
    pub(crate) stops_forwarding: bool,
}

/// A rule that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRule {
    family: Family,
    table: String,
    chain: String,
    handle: Vec<u8>,
}

impl Netlink {
    /// Makes the changes.
    pub(crate) fn apply(&self, batch: Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.batch(&batch.bytes())
    }

    /// Whether there is a table of this name for both IPv4 and IPv6.
    pub(crate) fn has_table(&self, name: &str) -> io::Result<bool> {
        match self.get(message(GET_TABLE, Family::Inet.number()).text(1, name)) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// All chains of a family.
    pub(crate) fn chains(&self, family: Family) -> io::Result<Vec<FoundChain>> {
        let all = self.dump(message(GET_CHAIN, family.number()))?;
        Ok(all.iter().filter_map(|body| found_chain(family, body)).collect())
    }

    /// The rules of a chain that have this remark.
    pub(crate) fn rules(&self, chain: &FoundChain, remark: &str) -> io::Result<Vec<FoundRule>> {
        let wanted = message(GET_RULE, chain.family.number())
            .text(1, &chain.table)
            .text(2, &chain.name);
        let remark = remark_bytes(remark);
        let of = |body: &Vec<u8>| {
            let attributes = body.get(4..)?;
            let is_here = find(attributes, 2).map(text) == Some(&chain.name);
            (is_here && find(attributes, 7) == Some(&remark)).then_some(())?;
            Some(FoundRule {
                family: chain.family,
                table: chain.table.clone(),
                chain: chain.name.clone(),
                handle: find(attributes, 3)?.to_vec(),
            })
        };
        Ok(self.dump(wanted)?.iter().filter_map(of).collect())
    }

    /// The entries of a map.
    pub(crate) fn entries(&self, table: &str, map: &'static str) -> io::Result<Vec<Entry>> {
        let wanted = message(GET_ELEMENT, Family::Inet.number())
            .text(1, table)
            .text(2, map);
        let mut entries = Vec::new();
        for body in self.dump(wanted)? {
            let list = body.get(4..).and_then(|attributes| find(attributes, 3));
            for (_, element) in super::attributes(list.unwrap_or_default()) {
                let part = |kind| find(element, kind).and_then(|data| find(data, DATA_VALUE));
                if let (Some(key), Some(value)) = (part(1), part(2)) {
                    entries.push(Entry {
                        map,
                        key: key.to_vec(),
                        value: value.to_vec(),
                    });
                }
            }
        }
        Ok(entries)
    }
}

fn found_chain(family: Family, body: &[u8]) -> Option<FoundChain> {
    let attributes = body.get(4..)?;
    let number = |bytes: &[u8]| bytes.first_chunk().map(|b| u32::from_be_bytes(*b));
    let hook = find(attributes, 4)
        .and_then(|hook| find(hook, 1))
        .and_then(number);
    let policy = find(attributes, 5).and_then(number);
    Some(FoundChain {
        family,
        table: text(find(attributes, 1)?).to_owned(),
        name: text(find(attributes, 3)?).to_owned(),
        stops_forwarding: hook == Some(libc::NF_INET_FORWARD as u32) && policy == Some(0),
    })
}
