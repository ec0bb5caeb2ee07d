//! Advisories of tools of this kind, each shown not to work here.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use box_runner::*;
use support::Fixture;

/// A program in the container writes to the runner's own program through /proc/self/exe or
/// /proc/1/exe.
#[test]
fn cve_2019_5736() {
    let f = Fixture::new();
    let before = fs::read(support::PROBE).unwrap();
    for (init, no_new_privs) in [(false, true), (true, true), (false, false)] {
        // The image's command is a link to the running program, which is then started from within.
        for args in [
            &["/proc/self/exe", "write-self"][..],
            &["/bin/probe", "write-self"],
        ] {
            let mut spec = f.spec(args);
            (spec.init, spec.no_new_privs) = (init, no_new_privs);
            let ran = f.run(&spec);
            assert_eq!(ran.stdout.lines().count(), 2, "{}{}", ran.stdout, ran.stderr);
            assert!(!ran.stdout.contains("WRITABLE"), "{}", ran.stdout);
        }
    }
    assert!(before == fs::read(support::PROBE).unwrap());
}

/// Code of the image is loaded by a process outside: no NSS here, and hostile files don't hang it.
#[test]
fn cve_2019_14271() {
    let f = Fixture::new();
    let passwd = f.lower().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &passwd, 0o644.into()).unwrap();
    let started = Instant::now();
    let mut spec = f.spec(&["true"]);
    spec.process.user = "web".into();
    assert!(matches!(f.try_run(&spec), Err(RunnerError::NoSuchUser { .. })));
    fs::remove_file(&passwd).unwrap();
    symlink("/proc/kmsg", &passwd).unwrap();
    let mut spec = f.spec(&["true"]);
    spec.process.user = "web".into();
    assert!(f.try_run(&spec).is_err());
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// A mount target is exchanged for a symlink that leads outside while it is being mounted on.
#[test]
fn cve_2021_30465() {
    let f = Fixture::new();
    let canary = f.dir.join("canary");
    fs::create_dir_all(&canary).unwrap();
    let outside = format!("/../../../../../..{}", canary.display());
    symlink(outside, f.lower().join("data")).unwrap();
    let mut spec = f.spec(&["touch", "/data/escaped"]);
    spec.mounts
        .push(Mount::new(MountKind::Tmpfs(Tmpfs::default()), "/data/sub"));
    f.try_run(&spec).ok();
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
}

/// Likewise where the kernel's file systems go: such an image is refused.
#[test]
fn cve_2019_16884_and_2023_27561() {
    for name in ["proc", "sys", "dev"] {
        let f = Fixture::new();
        fs::remove_dir(f.lower().join(name)).unwrap();
        symlink("tmp", f.lower().join(name)).unwrap();
        match f.try_run(&f.spec(&["true"])) {
            Err(RunnerError::RootFsRefused { what }) => assert!(what.contains(name), "{what}"),
            other => panic!("/{name}: {:?}", other.map(|r| r.code())),
        }
    }
}

/// release_agent of a cgroup of version 1 runs a program as the host's root.
#[test]
fn cve_2022_0492() {
    let f = Fixture::new();
    let ran = f.sh("for d in /sys/fs/cgroup/*; do echo x > $d/release_agent && echo BAD; echo 1 > $d/notify_on_release && echo BAD; done; mkdir /tmp/c; mount -t cgroup -o memory cgroup /tmp/c && echo BAD; true");
    assert!(!ran.stdout.contains("BAD"), "{}", ran.stdout);
}

/// The container's cgroup is writable from inside.
#[test]
fn cve_2023_25809() {
    let f = Fixture::new();
    for network in [Network::None, Network::Host] {
        let line = "for g in $(ls -d /sys/fs/cgroup/* /sys/fs/cgroup); do touch $g/x 2>/dev/null && echo BAD; mkdir $g/y 2>/dev/null && echo BAD; done; true";
        let mut spec = f.spec(&["sh", "-c", line]);
        spec.network = network;
        assert_eq!(f.run(&spec).stdout, "");
    }
}

/// The working directory is a descriptor the runtime left open on the host's file system.
#[test]
fn cve_2024_21626() {
    let f = Fixture::new();
    for fd in 3..24 {
        let mut spec = f.spec(&["sh", "-c", "ls ../../../../../../tmp | grep box-runner-test"]);
        spec.process.cwd = format!("/proc/self/fd/{fd}").into();
        if let Ok(ran) = f.try_run(&spec) {
            assert_eq!(ran.stdout, "", "fd {fd}");
            assert_ne!(ran.code(), 0);
        }
    }
}

/// The image's /dev/null is a symlink, so that masks are bound from elsewhere.
#[test]
fn cve_2025_31133() {
    let f = Fixture::new();
    symlink("/proc/sys/kernel/core_pattern", f.lower().join("dev/null")).unwrap();
    let ran = f.run(&f.spec(&[
        "/bin/probe",
        "node",
        "/dev/null",
        "/proc/keys",
        "/proc/timer_list",
    ]));
    assert_eq!(
        ran.stdout,
        "/dev/null=char 1:3\n/proc/keys=char 1:3\n/proc/timer_list=char 1:3\n"
    );
}

/// The console is bound from a path the image controls.
#[test]
fn cve_2025_52565() {
    let f = Fixture::new();
    fs::create_dir_all(f.lower().join("dev/pts")).unwrap();
    symlink("/proc/sysrq-trigger", f.lower().join("dev/console")).unwrap();
    symlink("/proc/sysrq-trigger", f.lower().join("dev/pts/0")).unwrap();
    symlink("/proc/sysrq-trigger", f.lower().join("dev/ptmx")).unwrap();
    let mut spec = f.spec(&["/bin/probe", "node", "/dev/console"]);
    spec.terminal = true;
    let mut running = f.runtime.spawn(&spec, &f.user, Stdio::null()).unwrap();
    let mut master = running.take_terminal().unwrap().file().unwrap();
    let mut text = Vec::new();
    let reader = std::thread::spawn(move || {
        let _ = std::io::Read::read_to_end(&mut master, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    assert_eq!(running.wait().unwrap().status, Status::Exited(0));
    assert!(reader.join().unwrap().contains("char 136:0"));
}

/// Writes to procfs are sent to another file by racing mounts: sysctls and the hostname go by the
/// descriptor of a checked proc, and what the image has at /proc is covered, not read.
#[test]
fn cve_2025_52881() {
    let f = Fixture::new();
    fs::create_dir_all(f.lower().join("proc/sys/net/ipv4")).unwrap();
    let trap = f.lower().join("proc/sys/net/ipv4/ip_unprivileged_port_start");
    fs::write(&trap, "untouched").unwrap();
    assert_eq!(f.out("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
    assert_eq!(fs::read_to_string(trap).unwrap(), "untouched");
}

/// A bind source that is a symlink in a directory the attacker controls is opened once and shown as
/// what it is; one that leads to a device or a socket is no way to write to the host's.
#[test]
fn cve_2024_1753() {
    let f = Fixture::new();
    let secret = f.dir.join("secret");
    fs::write(&secret, "secret").unwrap();
    let mut spec = f.spec(&["sh", "-c", "echo x > /mnt; true"]);
    spec.mounts.push(Mount {
        read_only: true,
        ..Mount::new(MountKind::bind(&secret), "/mnt")
    });
    f.run(&spec);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}
