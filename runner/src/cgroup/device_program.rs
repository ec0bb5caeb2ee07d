//! Rules of devices for cgroup version 2, which has no controller for them: an eBPF program that is asked for every use of one.
//!
//! As with the controller of version 1, the last rule that speaks of an access decides on it. So the rules are gone through from the
//! last to the first: what one allows is no longer asked of those before it, and what one denies ends it.

use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::sys::{EbpfInsn, attach_device_program};

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Allows a version 2 group these devices (rules as `c 1:3 rw`), and no others.
pub(super) fn attach(group: &Path, allowed: &[&str]) -> Result<(), String> {
    let rules = allowed.iter().map(|rule| parsed(rule, true));
    let rules: Result<Vec<_>, String> = std::iter::once(parsed("a *:* rwm", false)).chain(rules).collect();
    load(group, &rules?)
}

/// Has these rules decide on what the processes of a version 2 group do with devices.
pub(super) fn load(group: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), String> {
    let program = compile(rules)?;
    let dir = std::fs::File::open(group).map_err(super::told("open", group))?;
    attach_device_program(dir.as_fd(), &program)
        .map_err(|e| format!("load the program that limits devices: {e}"))
}

/// A rule in the kernel's own words.
pub(super) fn parsed(text: &str, allow: bool) -> Result<LinuxDeviceCgroup, String> {
    let wrong = || format!("{text:?} is no rule");
    let mut parts = text.split([' ', ':']);
    let mut next = || parts.next().ok_or_else(wrong);
    let typ = match next()? {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        _ => LinuxDeviceType::C,
    };
    let (major, minor, access) = (next()?, next()?, next()?);
    let number = |text: &str| text.parse().unwrap_or(-1);
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(typ))
        .set_major(Some(number(major)))
        .set_minor(Some(number(minor)))
        .set_access(Some(access.to_owned()));
    Ok(rule)
}

/// The program for these rules; what they ask for and can't be had, otherwise.
fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Vec<EbpfInsn>, String> {
    let insn = |code, to: u8, from: u8, offset, immediate| EbpfInsn {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    };
    // The first word holds the kind in its lower half, and what is to be done in the upper one.
    let mut program = vec![
        insn(LOAD_WORD, KIND, R1, 0, 0),
        insn(AND, KIND, 0, 0, 0xffff),
        insn(LOAD_WORD, ACCESS, R1, 0, 0),
        insn(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, R1, 4, 0),
        insn(LOAD_WORD, MINOR, R1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let access = access(rule)?;
        let verdict = [
            insn(MOVE, R0, 0, 0, i32::from(rule.allow())),
            insn(EXIT, 0, 0, 0, 0),
        ];
        let mut body = match rule.allow() {
            true => vec![
                insn(AND, ACCESS, 0, 0, !access),
                insn(JUMP_NOT_EQUAL, ACCESS, 0, 2, 0),
            ],
            false => vec![
                insn(MOVE_REGISTER, R1, ACCESS, 0, 0),
                insn(AND, R1, 0, 0, access),
                insn(JUMP_EQUAL, R1, 0, 2, 0),
            ],
        };
        body.extend(verdict);
        for (register, wanted) in conditions(rule)?.into_iter().rev() {
            let skip = i16::try_from(body.len()).map_err(|_| "too many rules")?;
            body.insert(0, insn(JUMP_NOT_EQUAL, register, 0, skip, wanted));
        }
        program.extend(body);
    }
    // What no rule speaks of is as it would be without any.
    program.extend([insn(MOVE, R0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]);
    Ok(program)
}

fn conditions(rule: &LinuxDeviceCgroup) -> Result<Vec<(u8, i32)>, String> {
    let mut all = Vec::new();
    match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => {}
        LinuxDeviceType::B => all.push((KIND, BLOCK)),
        LinuxDeviceType::C | LinuxDeviceType::U => all.push((KIND, CHARACTER)),
        LinuxDeviceType::P => return Err("type p has no rules".to_owned()),
    }
    for (register, number) in [(MAJOR, rule.major()), (MINOR, rule.minor())] {
        if let Some(number) = number.filter(|number| *number >= 0) {
            let number = i32::try_from(number).map_err(|_| format!("{number} is no number of a device"))?;
            all.push((register, number));
        }
    }
    Ok(all)
}

fn access(rule: &LinuxDeviceCgroup) -> Result<i32, String> {
    let text = rule
        .access()
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    let bit = |letter| match letter {
        'r' => Ok(READ),
        'w' => Ok(WRITE),
        'm' => Ok(MAKE),
        _ => Err(format!("access {text:?} (r, w and m)")),
    };
    text.chars().try_fold(0, |all, letter| Ok(all | bit(letter)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpret(program: &[EbpfInsn], (kind, access, major, minor): (i32, i32, i32, i32)) -> bool {
        let (mut r, mut pc) = ([0i64; 11], 0usize);
        loop {
            let i = program[pc];
            pc += 1;
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = i64::from(i.immediate);
            let jump = |yes: bool| if yes { i.offset as usize } else { 0 };
            match i.code {
                LOAD_WORD => r[to] = i64::from([access << 16 | kind, major, minor][i.offset as usize / 4]),
                AND => r[to] = i64::from((r[to] as u32) & i.immediate as u32),
                SHIFT_RIGHT => r[to] >>= immediate,
                MOVE => r[to] = immediate,
                MOVE_REGISTER => r[to] = r[from],
                JUMP_EQUAL => pc += jump(r[to] == immediate),
                JUMP_NOT_EQUAL => pc += jump(r[to] != immediate),
                EXIT => return r[0] != 0,
                code => panic!("code {code:#x}"),
            }
        }
    }

    fn program(rules: serde_json::Value) -> Vec<EbpfInsn> {
        compile(&serde_json::from_value::<Vec<_>>(rules).unwrap()).unwrap()
    }

    #[test]
    fn the_last_rule_decides_on_each_access() {
        let program = program(serde_json::json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "w"},
            {"allow": true, "type": "b", "major": 8, "access": "rw"},
            {"allow": false, "type": "b", "major": 8, "minor": 2, "access": "w"},
        ]));
        let is_allowed = |of| interpret(&program, of);
        assert!(is_allowed((CHARACTER, READ | WRITE, 1, 3)));
        assert!(is_allowed((CHARACTER, MAKE, 200, 1)));
        assert!(!is_allowed((CHARACTER, READ, 1, 11)) && !is_allowed((CHARACTER, READ | MAKE, 1, 11)));
        assert!(!is_allowed((BLOCK, READ, 1, 3)) && !is_allowed((BLOCK, MAKE, 8, 1)));
        assert!(is_allowed((BLOCK, READ | WRITE, 8, 1)) && is_allowed((BLOCK, READ, 8, 2)));
        assert!(!is_allowed((BLOCK, READ | WRITE, 8, 2)));
    }

    #[test]
    fn without_rules_all_is_allowed() {
        assert!(interpret(&program(serde_json::json!([])), (BLOCK, READ, 8, 1)));
        let nonsense = serde_json::from_value(serde_json::json!({"allow": true, "access": "x"})).unwrap();
        assert!(compile(&[nonsense]).is_err());
    }
}
