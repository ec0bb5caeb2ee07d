//! The default filter in the words of the runtime specification, for the runtimes of others.
//!
//! One thing can't be said in them: that a socket's family is compared as 32 bits. So it is compared as Docker's profile does.

use serde_json::{Value, json};

use super::{CLONE_NAMESPACES, PERSONALITIES, table};
use crate::confine::Capabilities;

/// The filter for a container with these capabilities as `linux.seccomp`.
pub(crate) fn describe(caps: Capabilities) -> Value {
    let mut names = Vec::new();
    let mut add = |calls: &table::Calls| {
        let long = calls
            .x86_64
            .iter()
            .filter_map(|n| syscalls::x86_64::Sysno::new(*n as usize));
        names.extend(long.map(|call| call.name()));
        let short = calls
            .x86
            .iter()
            .filter_map(|n| syscalls::x86::Sysno::new(*n as usize));
        names.extend(short.map(|call| call.name()));
    };
    add(&table::ALWAYS);
    for (capability, calls) in table::WITH_CAPABILITY {
        if caps.has(capability) {
            add(calls);
        }
    }
    names.sort_unstable();
    names.dedup();
    names.retain(|name| {
        !matches!(
            *name,
            "socketcall" | "socket" | "personality" | "clone" | "clone3"
        )
    });
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    let allow = |name: &str, value: u64, op: &str| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]});
    // All families but 38 (AF_ALG) and 40 (AF_VSOCK).
    rules.extend([
        allow("socket", 38, "SCMP_CMP_LT"),
        allow("socket", 39, "SCMP_CMP_EQ"),
        allow("socket", 40, "SCMP_CMP_GT"),
    ]);
    rules.extend(PERSONALITIES.map(|value| allow("personality", value.into(), "SCMP_CMP_EQ")));
    let not_there =
        |name: &str| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS});
    rules.push(not_there("socketcall"));
    if caps.has("SYS_ADMIN") {
        rules.push(json!({"names": ["clone", "clone3"], "action": "SCMP_ACT_ALLOW"}));
    } else {
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
        ]}));
        rules.push(not_there("clone3"));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": rules,
    })
}
