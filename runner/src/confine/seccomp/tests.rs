//! Runs the filter in an interpreter against Docker's own profile, for every call number on both
//! architectures and telling arguments: nothing may be decided looser.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::*;

struct Call {
    arch: u32,
    nr: u32,
    args: [u64; 6],
}

fn interpret(program: &[BpfInsn], call: &Call) -> u32 {
    let (mut pc, mut acc) = (0usize, 0u32);
    for _ in 0..10_000 {
        let i = program[pc];
        pc += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LOAD => {
                acc = match i.k {
                    OFFSET_NR => call.nr,
                    OFFSET_ARCH => call.arch,
                    k if k >= 16 && k % 4 == 0 => {
                        let arg = call.args[(k as usize - 16) / 8];
                        if k % 8 == 0 {
                            arg as u32
                        } else {
                            (arg >> 32) as u32
                        }
                    }
                    k => panic!("load at {k}"),
                }
            }
            JUMP => pc += i.k as usize,
            JUMP_EQ => pc += branch(acc == i.k),
            JUMP_GE => pc += branch(acc >= i.k),
            JUMP_SET => pc += branch(acc & i.k != 0),
            RETURN => return i.k,
            code => panic!("code {code:#x}"),
        }
    }
    panic!("does not end");
}

struct Rule {
    names: Vec<String>,
    allow: bool,
    errno: u32,
    /// index, value, masked-equal?, operator
    args: Vec<(usize, u64, String)>,
}

fn profile() -> Value {
    let dir = std::env::var("BOX_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data").to_owned());
    let path = format!("{dir}/docker-seccomp-default.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap()
}

fn rules(profile: &Value, caps: Capabilities) -> Vec<Rule> {
    let has_cap = |v: &Value| {
        v.as_array()
            .unwrap()
            .iter()
            .any(|c| caps.has(c.as_str().unwrap().strip_prefix("CAP_").unwrap()))
    };
    let has_arch = |v: &Value| v.as_array().unwrap().iter().any(|a| a == "amd64");
    let applies = |s: &Value| {
        let (inc, exc) = (&s["includes"], &s["excludes"]);
        (inc["caps"].is_null() || has_cap(&inc["caps"]))
            && (inc["arches"].is_null() || has_arch(&inc["arches"]))
            && (exc["caps"].is_null() || !has_cap(&exc["caps"]))
            && (exc["arches"].is_null() || !has_arch(&exc["arches"]))
    };
    let rule = |s: &Value| Rule {
        names: s["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap().to_owned())
            .collect(),
        allow: s["action"] == "SCMP_ACT_ALLOW",
        errno: s["errnoRet"].as_u64().unwrap_or(1) as u32,
        args: s["args"].as_array().map_or(vec![], |a| {
            let one = |a: &Value| {
                let op = a["op"].as_str().unwrap().to_owned();
                (
                    a["index"].as_u64().unwrap() as usize,
                    a["value"].as_u64().unwrap(),
                    op,
                )
            };
            a.iter().map(one).collect()
        }),
    };
    profile["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| applies(s))
        .map(rule)
        .collect()
}

fn matches(rule: &Rule, args: &[u64; 6]) -> bool {
    rule.args.iter().all(|(index, value, op)| {
        let arg = args[*index];
        match op.as_str() {
            "SCMP_CMP_LT" => arg < *value,
            "SCMP_CMP_GT" => arg > *value,
            "SCMP_CMP_EQ" => arg == *value,
            // The profile leaves the second value out: it is 0.
            "SCMP_CMP_MASKED_EQ" => arg & value == 0,
            op => panic!("{op}"),
        }
    })
}

/// Docker's decision: `None` lets the call through.
fn docker(rules: &[&Rule], args: &[u64; 6]) -> Option<u32> {
    if rules.iter().any(|r| r.allow && matches(r, args)) {
        return None;
    }
    Some(
        rules
            .iter()
            .find(|r| !r.allow && matches(r, args))
            .map_or(1, |r| r.errno),
    )
}

fn probes() -> BTreeSet<u64> {
    let mut low: BTreeSet<u64> = [
        0u64,
        1,
        2,
        8,
        17,
        37,
        38,
        39,
        40,
        41,
        255,
        0x80,
        0x2_0000,
        0x2_0008,
        0xffff_ffff,
    ]
    .into();
    low.extend((0..32).map(|b| 1u64 << b));
    low.extend((0..32).map(|b| (1u64 << b) | 0x11));
    let high: Vec<u64> = low
        .iter()
        .flat_map(|l| [l | 1 << 32, l | 1 << 63, l | 0xffff_ffff << 32])
        .collect();
    low.into_iter().chain(high).collect()
}

fn name_of(arch: u32, nr: u32) -> Option<&'static str> {
    match arch {
        ARCH_X86_64 => syscalls::x86_64::Sysno::new(nr as usize).map(|s| s.name()),
        _ => syscalls::x86::Sysno::new(nr as usize).map(|s| s.name()),
    }
}

fn compare(caps: Capabilities, probes: &BTreeSet<u64>) -> (usize, usize) {
    let profile = profile();
    let rules = rules(&profile, caps);
    let mut by_name: HashMap<&str, Vec<&Rule>> = HashMap::new();
    for rule in &rules {
        for name in &rule.names {
            by_name.entry(name).or_default().push(rule);
        }
    }
    let program = build(caps);
    let (mut decisions, mut stricter) = (0, 0);
    for arch in [ARCH_X86_64, ARCH_I386] {
        for nr in 0..1024 {
            let name = name_of(arch, nr);
            let rules = name.and_then(|n| by_name.get(n)).map_or(&[][..], Vec::as_slice);
            for &probe in probes {
                if arch == ARCH_I386 && probe >> 32 != 0 {
                    continue;
                }
                let args = [probe, 0, 0, 0, 0, 0];
                let ours = interpret(&program, &Call { arch, nr, args });
                let theirs = docker(rules, &args);
                decisions += 1;
                match (ours == RET_ALLOW, theirs) {
                    (true, None) => {}
                    (true, Some(_)) => panic!("looser: {name:?} {nr} of {arch:#x} with {probe:#x}"),
                    (false, None) => {
                        let low = probe as u32;
                        let expected = name == Some("socket") && probe >> 32 != 0 && (low == 38 || low == 40);
                        let expected = expected || name == Some("socketcall");
                        assert!(expected, "stricter: {name:?} {nr} of {arch:#x} with {probe:#x}");
                        stricter += usize::from(name == Some("socket"));
                    }
                    (false, Some(_)) => {}
                }
            }
        }
    }
    (decisions, stricter)
}

#[test]
fn nothing_is_looser_than_dockers_profile() {
    let (decisions, stricter) = compare(Capabilities::default(), &probes());
    assert!(decisions > 200_000, "{decisions}");
    assert_eq!(stricter, 6);
}

#[test]
fn nor_with_any_capability_added() {
    let few: BTreeSet<u64> = [0, 38, 40, 0x1000_0000, 0x2_0008, 1 << 32 | 40].into();
    for name in table::WITH_CAPABILITY.iter().map(|(name, _)| *name) {
        let mut caps = Capabilities::default();
        caps.add(name).unwrap();
        compare(caps, &few);
        let mut alone = Capabilities::NONE;
        alone.add(name).unwrap();
        compare(alone, &few);
    }
    compare(Capabilities::ALL, &few);
    compare(Capabilities::NONE, &few);
}

fn check(arch: u32, nr: u32, arg: u64, expect: u32) {
    let program = build(Capabilities::default());
    let got = interpret(
        &program,
        &Call {
            arch,
            nr,
            args: [arg, 0, 0, 0, 0, 0],
        },
    );
    assert_eq!(got, expect, "call {nr} of {arch:#x} with {arg:#x}");
}

#[test]
fn refusals_have_the_right_number() {
    use syscalls::{x86, x86_64};
    let eperm = errno(libc::EPERM);
    let enosys = errno(libc::ENOSYS);
    check(ARCH_X86_64, x86_64::Sysno::clone3 as u32, 0, enosys);
    check(ARCH_I386, x86::Sysno::socketcall as u32, 1, enosys);
    check(ARCH_X86_64, x86_64::Sysno::mount as u32, 0, eperm);
    check(ARCH_X86_64, x86_64::Sysno::unshare as u32, 0, eperm);
    check(ARCH_X86_64, x86_64::Sysno::keyctl as u32, 0, eperm);
    check(ARCH_X86_64, x86_64::Sysno::bpf as u32, 0, eperm);
    check(ARCH_X86_64, x86_64::Sysno::io_uring_setup as u32, 0, eperm);
    check(ARCH_X86_64, 467, 0, enosys);
    check(ARCH_X86_64, 5000, 0, enosys);
    check(ARCH_X86_64, X32_BIT, 0, enosys);
    check(ARCH_X86_64, X32_BIT | 1, 0, enosys);
    check(ARCH_X86_64, u32::MAX, 0, enosys);
    check(ARCH_X86_64, x86_64::Sysno::socket as u32, 40, eperm);
    check(ARCH_X86_64, x86_64::Sysno::socket as u32, 1 << 32 | 40, eperm);
    check(ARCH_X86_64, x86_64::Sysno::socket as u32, 2, RET_ALLOW);
    check(0x1234, 0, 0, RET_KILL_PROCESS);
}

#[test]
fn the_kernel_takes_it() {
    let program = build(Capabilities::ALL);
    assert!(program.len() < 4096, "{}", program.len());
    assert!(build(Capabilities::default()).len() < 1024);
}

#[test]
fn what_is_needed_after_loading_is_let_through() {
    use syscalls::x86_64::Sysno;
    for call in [
        Sysno::capset,
        Sysno::capget,
        Sysno::prctl,
        Sysno::close_range,
        Sysno::execve,
        Sysno::setsid,
        Sysno::rt_sigaction,
        Sysno::rt_sigprocmask,
        Sysno::sendmsg,
        Sysno::write,
        Sysno::exit_group,
        Sysno::wait4,
        Sysno::rt_sigtimedwait,
        Sysno::setpgid,
        Sysno::ioctl,
        Sysno::kill,
    ] {
        check(ARCH_X86_64, call as u32, 0, RET_ALLOW);
    }
}
