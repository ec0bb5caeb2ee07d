//! A caller's profile, as the runtime specification has it, as a BPF program.
//!
//! For each architecture one binary search over call numbers; a leaf is the rules of that call, one after the other, and then the
//! default. What is newer than every call that the profile names is ENOSYS where the default is an error, so that programs fall back.

use std::collections::BTreeMap;
use std::str::FromStr;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::{
    ARCH_I386, ARCH_X86_64, JUMP, JUMP_EQ, JUMP_GE, LOAD, OFFSET_ARCH, OFFSET_NR, RET_ALLOW, RET_ERRNO,
    RET_KILL_PROCESS, X32_BIT, insn, ret, tree,
};
use crate::sys::BpfInsn;

const JUMP_GT: u16 = 0x25;
const AND: u16 = 0x54;
const OFFSET_ARGS: u32 = 16;
const RET_LOG: u32 = 0x7ffc_0000;
/// The most that errno can be.
const MAX_ERRNO: u32 = 4095;

/// A compiled profile, and the flags it is loaded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) program: Vec<BpfInsn>,
    pub(crate) flags: u64,
}

/// Compiles a profile; what it asks for and can't be had, otherwise.
pub(crate) fn compile(profile: &LinuxSeccomp) -> Result<Filter, String> {
    if profile.listener_path().is_some() || profile.listener_metadata().is_some() {
        return Err("listenerPath: a supervisor of system calls is not supported".to_owned());
    }
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let long = architecture(rules, default, |name| {
        syscalls::x86_64::Sysno::from_str(name).ok().map(|n| n as u32)
    })?;
    let has = |arch: Arch| profile.architectures().iter().flatten().any(|a| *a == arch);
    let mut program = vec![
        insn(LOAD, 0, 0, OFFSET_ARCH),
        insn(JUMP_EQ, 1, 0, ARCH_X86_64),
        insn(JUMP, 0, 0, long.len() as u32 + 1),
        insn(LOAD, 0, 0, OFFSET_NR),
    ];
    program.extend(long);
    if has(Arch::ScmpArchX86) {
        let short = architecture(rules, default, |name| {
            syscalls::x86::Sysno::from_str(name).ok().map(|n| n as u32)
        })?;
        program.extend([
            insn(JUMP_EQ, 1, 0, ARCH_I386),
            ret(RET_KILL_PROCESS),
            insn(LOAD, 0, 0, OFFSET_NR),
        ]);
        program.extend(short);
    } else {
        program.push(ret(RET_KILL_PROCESS));
    }
    if program.len() > 4096 {
        return Err(format!("{} instructions; the kernel takes 4096", program.len()));
    }
    let flags = profile.flags().iter().flatten();
    Ok(Filter {
        program,
        flags: flags
            .map(|flag| bits(*flag))
            .try_fold(0, |all, bit| Ok::<_, String>(all | bit?))?,
    })
}

fn bits(flag: LinuxSeccompFilterFlag) -> Result<u64, String> {
    match flag {
        // There is but one thread.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(0),
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(libc::SECCOMP_FILTER_FLAG_LOG),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Err(
            "flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: only for a supervisor, which is not supported"
                .to_owned(),
        ),
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, String> {
    match (action, errno) {
        (LinuxSeccompAction::ScmpActNotify, _) => {
            Err("action SCMP_ACT_NOTIFY: a supervisor of system calls is not supported".to_owned())
        }
        (LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace, Some(number))
            if number > MAX_ERRNO =>
        {
            Err(format!("errnoRet {number} is more than {MAX_ERRNO}"))
        }
        (LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace, _) => Ok(action.as_u32(errno)),
        (_, Some(_)) => Err(format!("errnoRet with action {action}")),
        (_, None) => Ok(action.as_u32(None)),
    }
}

/// A rule of one call: the conditions, all of which must hold, and what is done then.
type Rule = (Vec<LinuxSeccompArg>, u32);

fn architecture(
    rules: &[LinuxSyscall],
    default: u32,
    number: impl Fn(&str) -> Option<u32>,
) -> Result<Vec<BpfInsn>, String> {
    let mut calls: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        let args = rule.args().as_deref().unwrap_or_default();
        for conditions in alternatives(args)? {
            // A name of another kernel or architecture can't be called here.
            for call in rule.names().iter().filter_map(|name| number(name)) {
                calls.entry(call).or_default().push((conditions.clone(), action));
            }
        }
    }
    let newest = calls.keys().next_back().copied();
    let mut segments: Vec<(u32, Vec<BpfInsn>)> = Vec::new();
    let mut next = 0;
    for (call, rules) in calls {
        if call > next {
            segments.push((next, vec![ret(default)]));
        }
        segments.push((call, leaf(&rules, default)));
        next = call + 1;
    }
    let is_error = default & 0xffff_0000 == RET_ERRNO;
    let beyond = match newest {
        Some(_) if is_error => RET_ERRNO | libc::ENOSYS as u32,
        _ => default,
    };
    segments.push((next, vec![ret(beyond)]));
    // Calls of x32 have other meanings than their numbers say, so that ABI is not there.
    let is_open = matches!(default, RET_ALLOW | RET_LOG);
    let x32 = if is_open {
        RET_ERRNO | libc::ENOSYS as u32
    } else {
        beyond
    };
    segments.push((X32_BIT, vec![ret(x32)]));
    segments.dedup_by(|later, earlier| later.1 == earlier.1);
    Ok(tree(&segments, &Vec::clone, ret(RET_KILL_PROCESS)))
}

/// Conditions on one argument twice can't be told in libseccomp's rules, where every runtime takes them as alternatives.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<LinuxSeccompArg>>, String> {
    if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
        return Err(format!("argument {} (a call has 0 to 5)", arg.index()));
    }
    let mut seen = [false; 6];
    let twice = args.iter().any(|arg| {
        seen.get_mut(arg.index())
            .is_some_and(|seen| std::mem::replace(seen, true))
    });
    Ok(match twice {
        true => args.iter().map(|arg| vec![*arg]).collect(),
        false => vec![args.to_vec()],
    })
}

fn leaf(rules: &[Rule], default: u32) -> Vec<BpfInsn> {
    let mut program = Vec::new();
    for (conditions, action) in rules {
        let mut code = vec![ret(*action)];
        // From the end: each condition knows how far away the next rule is.
        for condition in conditions.iter().rev() {
            code = [compare(condition, code.len() as u8), code].concat();
        }
        program.extend(code);
        if conditions.is_empty() {
            return program;
        }
    }
    program.push(ret(default));
    program
}

/// Goes on when the condition holds, and otherwise past what follows it, `rest` instructions.
///
/// An argument has 64 bits, which BPF sees as two halves. Six conditions and a verdict are 43 instructions, so every jump fits.
fn compare(arg: &LinuxSeccompArg, rest: u8) -> Vec<BpfInsn> {
    let low_at = OFFSET_ARGS + 8 * arg.index() as u32;
    let (low, high) = (insn(LOAD, 0, 0, low_at), insn(LOAD, 0, 0, low_at + 4));
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    let (value_low, value_high) = halves(arg.value());
    // What is compared in the upper half decides unless both are equal.
    let ordered = |jump: u16, holds_if_more: bool| {
        let (more, less) = match holds_if_more {
            true => (3, rest + 2),
            false => (rest + 3, 2),
        };
        let verdict = match holds_if_more {
            true => insn(jump, 0, rest, value_low),
            false => insn(jump, rest, 0, value_low),
        };
        vec![
            high,
            insn(JUMP_GT, more, 0, value_high),
            insn(JUMP_EQ, 0, less, value_high),
            low,
            verdict,
        ]
    };
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => vec![
            high,
            insn(JUMP_EQ, 0, rest + 2, value_high),
            low,
            insn(JUMP_EQ, 0, rest, value_low),
        ],
        LinuxSeccompOperator::ScmpCmpNe => vec![
            high,
            insn(JUMP_EQ, 0, 2, value_high),
            low,
            insn(JUMP_EQ, rest, 0, value_low),
        ],
        LinuxSeccompOperator::ScmpCmpGt => ordered(JUMP_GT, true),
        LinuxSeccompOperator::ScmpCmpGe => ordered(JUMP_GE, true),
        LinuxSeccompOperator::ScmpCmpLt => ordered(JUMP_GE, false),
        LinuxSeccompOperator::ScmpCmpLe => ordered(JUMP_GT, false),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            // `value` is the mask here, and `valueTwo` what is compared with.
            let (wanted_low, wanted_high) = halves(arg.value_two().unwrap_or(0));
            vec![
                high,
                insn(AND, 0, 0, value_high),
                insn(JUMP_EQ, 0, rest + 3, wanted_high),
                low,
                insn(AND, 0, 0, value_low),
                insn(JUMP_EQ, 0, rest, wanted_low),
            ]
        }
    }
}

#[cfg(test)]
mod tests;
