//! Why this machine forbids namespaces or mounts, in words with the cure: what the kernel's bare "not permitted" does not tell.

use std::fs;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Machine {
    /// The machine's root, who may make namespaces in any case.
    is_root: bool,
    /// AppArmor takes the rights in a user namespace from programs without a profile (Ubuntu since 23.10).
    has_apparmor_rule: bool,
    /// Debian's switch is off.
    is_switched_off: bool,
    /// There may be no user namespaces at all.
    has_none: bool,
    /// Something is mounted over parts of /proc, so that the kernel lets nobody mount another.
    has_masks: bool,
}

/// What can be done about it.
pub(crate) fn cure() -> String {
    told(Machine::look()).to_owned()
}

impl Machine {
    fn look() -> Machine {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Machine {
            is_root: rustix::process::geteuid().is_root() && is_whole(&map),
            has_apparmor_rule: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1),
            is_switched_off: number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0),
            has_none: number("/proc/sys/user/max_user_namespaces") == Some(0),
            has_masks: has_masks(&mounts),
        }
    }
}

fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// But for what distributions themselves mount there.
fn has_masks(mountinfo: &str) -> bool {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| point.starts_with("/proc/"))
        .any(|point| !point.starts_with("/proc/sys/fs/binfmt_misc") && !point.starts_with("/proc/fs/nfsd"))
}

fn told(machine: Machine) -> &'static str {
    match machine {
        Machine { has_none: true, .. } => {
            "this machine allows no user namespaces; as root: sysctl -w user.max_user_namespaces=15000"
        }
        Machine {
            is_root: false,
            is_switched_off: true,
            ..
        } => {
            "this machine allows user namespaces to root alone; as root: sysctl -w kernel.unprivileged_userns_clone=1"
        }
        Machine {
            is_root: false,
            has_apparmor_rule: true,
            ..
        } => {
            "AppArmor lets only programs with a profile use user namespaces; as root write /etc/apparmor.d/box: \"abi <abi/4.0>, profile box /PATH/OF/box flags=(unconfined) { userns, }\" and run apparmor_parser -r on it, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        }
        Machine { has_masks: true, .. } => {
            "parts of /proc are masked here, as in a container; run that one with --security-opt systempaths=unconfined --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        }
        _ => {
            "inside another container run that one with --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hindrance_has_its_cure() {
        let check = |machine: Machine, words: &str| {
            let text = told(machine);
            assert!(text.contains(words), "{machine:?}: {text}");
        };
        let plain = Machine::default();
        check(
            Machine {
                has_none: true,
                has_apparmor_rule: true,
                ..plain
            },
            "user.max_user_namespaces=",
        );
        check(
            Machine {
                is_switched_off: true,
                ..plain
            },
            "kernel.unprivileged_userns_clone=1",
        );
        let apparmor = Machine {
            has_apparmor_rule: true,
            ..plain
        };
        check(apparmor, "/etc/apparmor.d/box");
        check(
            Machine {
                is_root: true,
                ..apparmor
            },
            "seccomp=unconfined",
        );
        check(
            Machine {
                has_masks: true,
                ..plain
            },
            "/proc are masked",
        );
        check(plain, "inside another container");
    }

    #[test]
    fn masks_are_seen() {
        let at = |point: &str| {
            has_masks(&format!(
                "1 2 0:3 / /proc rw - proc proc rw\n1 2 0:3 / {point} rw - tmpfs x rw\n"
            ))
        };
        assert!(at("/proc/kcore") && at("/proc/sys"));
        assert!(!at("/proc/sys/fs/binfmt_misc") && !at("/tmp") && !at("/procedures/x"));
    }

    #[test]
    fn whole_maps() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("0 1000 1\n1 100000 65536\n") && !is_whole(""));
    }
}
