//! The system call filter: Docker's default profile as a BPF program of our own making.
//!
//! Layout: one binary search tree over call numbers per architecture, with the few rules on
//! arguments as leaves. i386 is let in under its own numbers, x32 is not there. What the profile
//! has never heard of is ENOSYS, so that programs fall back; all else it refuses is EPERM.
//!
//! Stricter than Docker's: the socket family is compared as the 32 bits the kernel looks at, and
//! i386's socketcall, whose family no filter can see, is ENOSYS.

pub(crate) mod docker;
pub(crate) mod profile;
mod table;
pub(crate) mod told;

use super::Capabilities;
use crate::sys::BpfInsn;

const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;
/// Calls of the x32 ABI have this bit; so do numbers that are none.
const X32_BIT: u32 = 0x4000_0000;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0_LOW: u32 = 16;
const OFFSET_ARG0_HIGH: u32 = 20;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// Every clone flag that makes a namespace, but the time namespace, whose bit clone(2) can't pass.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Errno(i32),
    Socket,
    CloneNoNamespaces,
    Personality,
}

/// The numbers of the calls with rules of their own.
struct Special {
    socket: u32,
    clone: u32,
    clone3: u32,
    personality: u32,
    socketcall: Option<u32>,
}

/// The filter for a container with these capabilities.
pub(crate) fn build(caps: Capabilities) -> Vec<BpfInsn> {
    use syscalls::{x86, x86_64};
    let search = |segments: Vec<(u32, Verdict)>| {
        tree(
            &segments,
            &|verdict: &Verdict| leaf(*verdict),
            ret(errno(libc::EPERM)),
        )
    };
    let long = search(verdicts(
        caps,
        |c| c.x86_64,
        &Special {
            socket: x86_64::Sysno::socket as u32,
            clone: x86_64::Sysno::clone as u32,
            clone3: x86_64::Sysno::clone3 as u32,
            personality: x86_64::Sysno::personality as u32,
            socketcall: None,
        },
    ));
    let short = search(verdicts(
        caps,
        |c| c.x86,
        &Special {
            socket: x86::Sysno::socket as u32,
            clone: x86::Sysno::clone as u32,
            clone3: x86::Sysno::clone3 as u32,
            personality: x86::Sysno::personality as u32,
            socketcall: Some(x86::Sysno::socketcall as u32),
        },
    ));
    let mut program = vec![
        insn(LOAD, 0, 0, OFFSET_ARCH),
        insn(JUMP_EQ, 1, 0, ARCH_X86_64),
        insn(JUMP, 0, 0, long.len() as u32 + 1),
        insn(LOAD, 0, 0, OFFSET_NR),
    ];
    program.extend(long);
    program.extend([
        insn(JUMP_EQ, 1, 0, ARCH_I386),
        ret(RET_KILL_PROCESS),
        insn(LOAD, 0, 0, OFFSET_NR),
    ]);
    program.extend(short);
    program
}

/// The numbers at which the verdict changes, the first being 0, in order.
fn verdicts(
    caps: Capabilities,
    of: impl Fn(&table::Calls) -> &'static [u32],
    special: &Special,
) -> Vec<(u32, Verdict)> {
    let admin = caps.has("SYS_ADMIN");
    let or_allow = |verdict| if admin { Verdict::Allow } else { verdict };
    // The first rule of a number counts.
    let mut rules = vec![
        (special.socket, Verdict::Socket),
        (special.personality, Verdict::Personality),
        (special.clone, or_allow(Verdict::CloneNoNamespaces)),
        (special.clone3, or_allow(Verdict::Errno(libc::ENOSYS))),
    ];
    rules.extend(special.socketcall.map(|n| (n, Verdict::Errno(libc::ENOSYS))));
    rules.extend(of(&table::ALWAYS).iter().map(|n| (*n, Verdict::Allow)));
    let mut newest = rules.iter().map(|(n, _)| *n).max().unwrap_or(0);
    for (name, calls) in table::WITH_CAPABILITY {
        newest = of(calls).iter().copied().fold(newest, u32::max);
        if caps.has(name) {
            rules.extend(of(calls).iter().map(|n| (*n, Verdict::Allow)));
        }
    }
    segments(rules, newest)
}

fn segments(mut rules: Vec<(u32, Verdict)>, newest: u32) -> Vec<(u32, Verdict)> {
    rules.sort_by_key(|(n, _)| *n);
    rules.dedup_by_key(|(n, _)| *n);
    let mut all = Vec::new();
    let mut next = 0;
    for (number, verdict) in rules {
        if number > next {
            all.push((next, Verdict::Errno(libc::EPERM)));
        }
        all.push((number, verdict));
        next = number + 1;
    }
    if next <= newest {
        all.push((next, Verdict::Errno(libc::EPERM)));
    }
    all.push((newest.max(next - 1) + 1, Verdict::Errno(libc::ENOSYS)));
    all.push((X32_BIT, Verdict::Errno(libc::ENOSYS)));
    all.dedup_by(|later, earlier| later.1 == earlier.1);
    all
}

/// A binary search over the segments; the accumulator holds the call's number. Without any, `none` is done.
fn tree<T>(segments: &[(u32, T)], leaf: &impl Fn(&T) -> Vec<BpfInsn>, none: BpfInsn) -> Vec<BpfInsn> {
    let (left, right) = match segments {
        [] => return vec![none],
        [(_, one)] => return leaf(one),
        more => more.split_at(more.len() / 2),
    };
    let middle = right.first().map_or(0, |(start, _)| *start);
    let (left, right) = (tree(left, leaf, none), tree(right, leaf, none));
    let mut program = match u8::try_from(left.len()) {
        Ok(skip) => vec![insn(JUMP_GE, skip, 0, middle)],
        Err(_) => vec![insn(JUMP_GE, 0, 1, middle), insn(JUMP, 0, 0, left.len() as u32)],
    };
    program.extend(left);
    program.extend(right);
    program
}

fn leaf(verdict: Verdict) -> Vec<BpfInsn> {
    let denied = ret(errno(libc::EPERM));
    match verdict {
        Verdict::Allow => vec![ret(RET_ALLOW)],
        Verdict::Errno(number) => vec![ret(errno(number))],
        Verdict::Socket => vec![
            insn(LOAD, 0, 0, OFFSET_ARG0_LOW),
            insn(JUMP_EQ, 2, 0, AF_ALG),
            insn(JUMP_EQ, 1, 0, AF_VSOCK),
            ret(RET_ALLOW),
            denied,
        ],
        Verdict::CloneNoNamespaces => vec![
            insn(LOAD, 0, 0, OFFSET_ARG0_LOW),
            insn(JUMP_SET, 1, 0, CLONE_NAMESPACES),
            ret(RET_ALLOW),
            denied,
        ],
        Verdict::Personality => personality(denied),
    }
}

fn personality(denied: BpfInsn) -> Vec<BpfInsn> {
    let count = PERSONALITIES.len() as u8;
    let mut program = vec![
        insn(LOAD, 0, 0, OFFSET_ARG0_HIGH),
        insn(JUMP_EQ, 0, count + 1, 0),
        insn(LOAD, 0, 0, OFFSET_ARG0_LOW),
    ];
    program.extend(
        (0..)
            .zip(PERSONALITIES)
            .map(|(i, value)| insn(JUMP_EQ, count - i, 0, value)),
    );
    program.extend([denied, ret(RET_ALLOW)]);
    program
}

const fn errno(number: i32) -> u32 {
    RET_ERRNO | number as u32
}

const fn insn(code: u16, jt: u8, jf: u8, k: u32) -> BpfInsn {
    BpfInsn { code, jt, jf, k }
}

const fn ret(value: u32) -> BpfInsn {
    insn(RETURN, 0, 0, value)
}

#[cfg(test)]
mod tests;
