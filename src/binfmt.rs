//! Which foreign programs the kernel runs here by an emulator (binfmt_misc).

use std::collections::BTreeSet;
use std::path::Path;

const REGISTRY: &str = "/proc/sys/fs/binfmt_misc";

/// The architectures, in OCI's words, whose programs an emulator runs, in containers too.
pub(crate) fn emulated() -> BTreeSet<String> {
    emulated_in(Path::new(REGISTRY))
}

fn emulated_in(registry: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(registry).into_iter().flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    texts
        .filter_map(|text| architecture(&text))
        .map(str::to_owned)
        .collect()
}

/// The architecture of an entry that is enabled, and whose emulator was opened when it was registered (flag F): another
/// one would be looked for in the container.
fn architecture(entry: &str) -> Option<&'static str> {
    let mut lines = entry.lines();
    let is_enabled = lines.next() == Some("enabled");
    let value = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name));
    let is_opened = value("flags:").is_some_and(|flags| flags.contains('F'));
    let magic = value("magic ").filter(|_| is_enabled && is_opened && value("offset ") == Some("0"))?;
    let byte = |at: usize| u8::from_str_radix(magic.get(2 * at..2 * at + 2)?, 16).ok();
    if magic.get(..8) != Some("7f454c46") {
        return None;
    }
    let (wide, little) = (byte(4)? == 2, byte(5)? == 1);
    let machine = match little {
        true => u16::from_le_bytes([byte(18)?, byte(19)?]),
        false => u16::from_be_bytes([byte(18)?, byte(19)?]),
    };
    // The numbers of elf(5).
    match (machine, wide, little) {
        (3, false, true) => Some("386"),
        (8, true, true) => Some("mips64le"),
        (8, true, false) => Some("mips64"),
        (8, false, true) => Some("mipsle"),
        (21, true, true) => Some("ppc64le"),
        (21, true, false) => Some("ppc64"),
        (22, true, false) => Some("s390x"),
        (40, false, true) => Some("arm"),
        (62, true, true) => Some("amd64"),
        (183, true, true) => Some("arm64"),
        (243, true, true) => Some("riscv64"),
        (258, true, true) => Some("loong64"),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(state: &str, flags: &str, magic: &str) -> String {
        format!("{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\nmagic {magic}\nmask ffff\n")
    }

    #[test]
    fn entries_are_read() {
        let arm64 = "7f454c460201010000000000000000000200b700";
        let s390x = "7f454c4602020100000000000000000000020016";
        let check = |text: String, want: Option<&str>| assert_eq!(architecture(&text), want, "{text}");
        check(entry("enabled", "F", arm64), Some("arm64"));
        check(entry("enabled", "OCF", s390x), Some("s390x"));
        check(entry("disabled", "F", arm64), None);
        check(entry("enabled", "OC", arm64), None);
        check(entry("enabled", "F", "7f454c4602"), None);
        check(entry("enabled", "F", "4d5a"), None);
        check("enabled\n".to_owned(), None);
        check(String::new(), None);
        let registry = tempfile::tempdir().unwrap();
        std::fs::write(registry.path().join("status"), "enabled\n").unwrap();
        std::fs::write(registry.path().join("qemu"), entry("enabled", "F", arm64)).unwrap();
        assert_eq!(emulated_in(registry.path()), BTreeSet::from(["arm64".to_owned()]));
        assert!(emulated_in(Path::new("/nowhere")).is_empty());
    }
}
