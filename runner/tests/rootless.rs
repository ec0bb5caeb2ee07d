//! The container of an ordinary user. The tests run as root and become one, with subordinate ids
//! that exist only in a mount namespace of the test.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{PROBE, fresh_dir, make_root};

const UID: u32 = 54_321;

struct User {
    dir: PathBuf,
}

impl User {
    fn new(subids: &str) -> User {
        let dir = fresh_dir();
        make_root(&dir.join("lower"));
        fs::copy(PROBE, dir.join("probe")).unwrap();
        for name in ["active/upper", "active/work"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::write(dir.join("passwd"), format!("ann:x:{UID}:{UID}::/:/bin/sh\n")).unwrap();
        fs::write(dir.join("subids"), subids).unwrap();
        give(&dir);
        User { dir }
    }

    /// Runs the probe as the user, as the runner of a container.
    fn run(&self, args: &[&str]) -> Output {
        let dir = self.dir.display();
        let script = format!(
            "set -e; for f in passwd subuid subgid; do [ -e /etc/$f ] || : > /etc/$f; done
             mount --bind {dir}/passwd /etc/passwd
             mount --bind {dir}/subids /etc/subuid
             mount --bind {dir}/subids /etc/subgid
             exec setpriv --reuid={UID} --regid={UID} --clear-groups \\
               sh -c '\"$0\" \"$@\" | cat' {dir}/probe outside rootless \"$@\""
        );
        let owner = format!("user{}", std::process::id());
        Command::new("unshare")
            .args(["-m", "sh", "-c", &script, "sh", &owner])
            .arg(self.dir.join("active"))
            .arg(self.dir.join("lower"))
            .args(args)
            .output()
            .unwrap()
    }

    fn out(&self, args: &[&str]) -> String {
        let output = self.run(args);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn give(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    std::os::unix::fs::lchown(path, Some(UID), Some(UID)).unwrap();
    if meta.is_dir() {
        fs::read_dir(path).unwrap().for_each(|e| give(&e.unwrap().path()));
    }
}

const RANGES: &str = "ann:300000:65536\n";

#[test]
fn runs_a_container() {
    let user = User::new(RANGES);
    let line = "id -u; cat /proc/self/uid_map; grep -E 'CapEff|Seccomp:' /proc/self/status; touch /tmp/x; chown 33:34 /tmp/x; mount -t tmpfs x /tmp || echo refused; ls /sys/class/net; echo out >/dev/stdout; ls / | tr '\\n' ' '";
    let out = user.out(&["sh", "-c", line]);
    assert_eq!(out.lines().find(|l| *l != "running"), Some("0"), "{out}");
    for expected in [
        "65536",
        "CapEff:\t00000000800405fb",
        "Seccomp:\t2",
        "refused",
        "lo\n",
        "out\n",
        "code=0",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    let made = fs::symlink_metadata(user.dir.join("active/upper/tmp/x")).unwrap();
    assert_eq!((made.uid(), made.gid()), (300_032, 300_033));
}

#[test]
fn without_subordinate_ids_one_is_mapped() {
    let line = "id -u; touch /tmp/x && chown 33 /tmp/x || echo refused; cat /proc/self/uid_map";
    let out = User::new("bob:300000:65536\n").out(&["sh", "-c", line]);
    assert_eq!(out.lines().find(|l| *l != "running"), Some("0"), "{out}");
    assert!(out.contains("refused\n") && out.contains("code=0"), "{out}");
    let map = out.lines().find(|line| line.split_whitespace().count() == 3);
    assert_eq!(
        map.and_then(|map| map.split_whitespace().last()),
        Some("1"),
        "{out}"
    );
}

#[test]
fn dangerous_calls_are_refused_as_for_root() {
    let out = User::new(RANGES).out(&["/bin/probe", "syscalls"]);
    assert!(
        out.contains("mount=errno 1") && out.contains("socket-vsock-high=errno 1"),
        "{out}"
    );
    assert!(!out.contains("ALLOWED"), "{out}");
}

#[test]
fn the_hosts_network() {
    let out = User::new(RANGES).out(&["net=host", "sh", "-c", "touch /sys/x; ls /sys/fs/cgroup | wc -l"]);
    assert!(out.contains("Read-only") && out.contains("code=0"), "{out}");
}

#[test]
fn a_limit_without_a_delegated_cgroup_is_refused() {
    let user = User::new(RANGES);
    let out = user.out(&["pids=20", "true"]);
    assert!(out.contains("error=the pids limit can't be enforced"), "{out}");
    assert!(out.contains("--limits=best-effort"), "{out}");
    let user = User::new(RANGES);
    let out = user.out(&["pids=20", "policy=best-effort", "true"]);
    assert!(out.contains("code=0"), "{out}");
}

#[test]
fn a_delegated_cgroup_holds_limits() {
    let name = format!("box-test-delegated-{}", std::process::id());
    let made: Vec<PathBuf> = ["memory", "pids", "cpu", ""]
        .iter()
        .map(|c| Path::new("/sys/fs/cgroup").join(c))
        .filter(|d| d.join("cgroup.procs").exists())
        .map(|d| d.join(&name))
        .collect();
    for dir in &made {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        chown(dir, Some(UID), Some(UID)).unwrap();
        for file in ["cgroup.procs", "tasks", "cgroup.subtree_control"] {
            if dir.join(file).exists() {
                chown(dir.join(file), Some(UID), Some(UID)).unwrap();
            }
        }
    }
    let user = User::new(RANGES);
    let out = user.out(&[&format!("cgroup=/{name}"), "pids=20", "/bin/probe", "fork-bomb"]);
    let left: usize = made
        .iter()
        .map(|d| {
            fs::read_dir(d)
                .unwrap()
                .flatten()
                .filter(|e| e.path().is_dir())
                .count()
        })
        .sum();
    made.iter().for_each(|d| fs::remove_dir(d).unwrap());
    assert!(out.contains("started=19") && out.contains("code=0"), "{out}");
    assert_eq!(left, 0);
}
