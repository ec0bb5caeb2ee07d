//! Compiled profiles in an interpreter.

use serde_json::{Value, json};

use super::super::{RETURN, build, told};
use super::*;
use crate::confine::Capabilities;

fn interpret(program: &[BpfInsn], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let (mut pc, mut acc) = (0usize, 0u32);
    loop {
        let i = program[pc];
        pc += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LOAD => {
                acc = match i.k {
                    OFFSET_NR => nr,
                    OFFSET_ARCH => arch,
                    k => {
                        let arg = args[(k as usize - 16) / 8];
                        if k % 8 == 0 {
                            arg as u32
                        } else {
                            (arg >> 32) as u32
                        }
                    }
                }
            }
            AND => acc &= i.k,
            JUMP => pc += i.k as usize,
            JUMP_EQ => pc += branch(acc == i.k),
            JUMP_GE => pc += branch(acc >= i.k),
            JUMP_GT => pc += branch(acc > i.k),
            super::super::JUMP_SET => pc += branch(acc & i.k != 0),
            RETURN => return i.k,
            code => panic!("code {code:#x}"),
        }
    }
}

fn filter(profile: Value) -> Vec<BpfInsn> {
    compile(&serde_json::from_value(profile).unwrap())
        .unwrap()
        .program
}

const HIGH: u64 = 1 << 32;

#[test]
fn every_operator_compares_64_bits() {
    let values = [
        0,
        1,
        5,
        6,
        7,
        HIGH,
        HIGH + 5,
        HIGH + 6,
        HIGH + 7,
        2 * HIGH,
        2 * HIGH + 6,
        u64::MAX,
    ];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    for (op, holds) in operators {
        for value in values {
            // With another condition behind it, so that both jumps have somewhere to go.
            let program = filter(
                json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": value, "op": op}, {"index": 5, "value": 9, "op": "SCMP_CMP_EQ"}]}]}),
            );
            for given in values {
                for other in [9, 8] {
                    let got = interpret(&program, ARCH_X86_64, 0, [0, 0, given, 0, 0, other]);
                    let wanted = holds(given, value) && other == 9;
                    assert_eq!(got == RET_ALLOW, wanted, "{given} {op} {value}, {other}");
                }
            }
        }
    }
}

#[test]
fn masks_are_of_64_bits() {
    let program = filter(
        json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": HIGH + 0xf0, "valueTwo": 0x50, "op": "SCMP_CMP_MASKED_EQ"}]}]}),
    );
    let is_allowed = |value| interpret(&program, ARCH_X86_64, 0, [value, 0, 0, 0, 0, 0]) == RET_ALLOW;
    assert!(is_allowed(0x50) && is_allowed(0x5f) && is_allowed(2 * HIGH + 0x50));
    assert!(!is_allowed(0x60) && !is_allowed(HIGH + 0x50));
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let program = filter(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]}]}),
    );
    let got = [1, 2, 3].map(|value| interpret(&program, ARCH_X86_64, 0, [value, 0, 0, 0, 0, 0]) == RET_ALLOW);
    assert_eq!(got, [true, false, true]);
}

#[test]
fn other_architectures_and_newer_calls_are_not_open() {
    let program = filter(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["read", "openat2", "of_tomorrow"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    let run = |arch, nr| interpret(&program, arch, nr, [0; 6]);
    assert_eq!(run(ARCH_X86_64, 0), RET_ALLOW);
    assert_eq!(run(ARCH_X86_64, 1), RET_ERRNO | 13);
    assert_eq!(run(ARCH_X86_64, 10_000), RET_ERRNO | libc::ENOSYS as u32);
    assert_eq!(run(ARCH_X86_64, X32_BIT), RET_ERRNO | libc::ENOSYS as u32);
    assert_eq!(run(ARCH_I386, 3), RET_KILL_PROCESS);
    let open = filter(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!(
        interpret(&open, ARCH_X86_64, X32_BIT, [0; 6]),
        RET_ERRNO | libc::ENOSYS as u32
    );
    assert_eq!(interpret(&open, ARCH_X86_64, 10_000, [0; 6]), RET_ALLOW);
}

/// Our own filter, told in the words of the specification and compiled from them, decides as the original.
#[test]
fn the_default_filter_survives_its_telling() {
    let everything = Capabilities::ALL;
    for caps in [Capabilities::default(), Capabilities::NONE, everything] {
        let (ours, again) = (build(caps), filter(told::describe(caps)));
        for arch in [ARCH_X86_64, ARCH_I386] {
            for nr in 0..480 {
                for first in [0, 2, 8, 38, 39, 40, 0x1000_0000, 0xffff_ffff] {
                    let args = [first, 1, 2, 3, 4, 5];
                    let (a, b) = (
                        interpret(&ours, arch, nr, args),
                        interpret(&again, arch, nr, args),
                    );
                    assert_eq!(
                        a == RET_ALLOW,
                        b == RET_ALLOW,
                        "{arch:#x} {nr} {first:#x}: {a:#x} {b:#x}"
                    );
                }
            }
        }
    }
}
