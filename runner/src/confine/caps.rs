//! Capability sets: Podman's eleven, names, and what the kernel is told.

use crate::error::RunnerError;

/// Names in the order of the kernel's numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
];

/// A set of capabilities. The default is Podman's eleven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capabilities(u64);

impl Default for Capabilities {
    fn default() -> Self {
        DEFAULT
            .iter()
            .fold(Capabilities::NONE, |set, name| set.with(name))
    }
}

impl Capabilities {
    /// None at all.
    pub const NONE: Capabilities = Capabilities(0);
    /// All that this program knows.
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    /// Adds one by name, as `--cap-add`: `NET_RAW`, `cap_net_raw` or `ALL`.
    pub fn add(&mut self, name: &str) -> Result<(), RunnerError> {
        self.0 |= parse(name)?;
        Ok(())
    }

    /// Takes one away by name, as `--cap-drop`.
    pub fn drop(&mut self, name: &str) -> Result<(), RunnerError> {
        self.0 &= !parse(name)?;
        Ok(())
    }

    /// Whether the set has the capability of this upper-case name without `CAP_`.
    pub fn has(&self, name: &str) -> bool {
        bit(name).is_some_and(|b| self.0 & b != 0)
    }

    /// The names that are known, in the order of the kernel's numbers.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter()
    }

    /// The set as the kernel has it, bit n for capability n.
    pub fn bits(&self) -> u64 {
        self.0
    }

    fn with(self, name: &str) -> Capabilities {
        Capabilities(self.0 | bit(name).unwrap_or(0))
    }
}

fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|n| *n == name).map(|n| 1 << n)
}

fn parse(name: &str) -> Result<u64, RunnerError> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if short == "ALL" {
        return Ok(Capabilities::ALL.0);
    }
    bit(short).ok_or_else(|| RunnerError::InvalidSpec {
        what: "capability",
        value: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_podmans() {
        assert_eq!(Capabilities::default().bits(), 0x800405fb);
    }

    #[test]
    fn names_are_parsed() {
        let mut caps = Capabilities::NONE;
        caps.add("cap_net_raw").unwrap();
        assert!(caps.has("NET_RAW"));
        caps.add("ALL").unwrap();
        caps.drop("SYS_ADMIN").unwrap();
        assert!(caps.has("BPF") && !caps.has("SYS_ADMIN"));
        assert!(caps.add("NO_SUCH").is_err());
    }
}
