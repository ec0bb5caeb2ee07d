//! The container as it is seen from inside and outside.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use box_runner::*;
use support::Fixture;

#[test]
fn says_hello() {
    let f = Fixture::new();
    let ran = f.run(&f.spec(&["echo", "hello"]));
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str(), ran.code()),
        ("hello\n", "", 0)
    );
}

#[test]
fn ends_as_the_command_does() {
    let f = Fixture::new();
    assert_eq!(f.sh("exit 7").outcome.status, Status::Exited(7));
    // Pid 1 is deaf to its own SIGKILL; below our init the command is not pid 1.
    let mut spec = f.spec(&["sh", "-c", "kill -9 $$"]);
    spec.init = true;
    assert_eq!(f.run(&spec).code(), 137);
    let spec = f.spec(&["sleep", "100"]);
    let running = f.runtime.spawn(&spec, &f.user, Stdio::null()).unwrap();
    running.handle().kill().unwrap();
    assert_eq!(running.wait().unwrap().status, Status::Signaled(9));
}

fn error_of(f: &Fixture, spec: &ContainerSpec) -> RunnerError {
    match f.try_run(spec) {
        Ok(ran) => panic!("must fail, gave {}", ran.code()),
        Err(e) => e,
    }
}

#[test]
fn failures_are_told_apart() {
    let f = Fixture::new();
    for init in [false, true] {
        let fails = |args: &[&str]| {
            let mut spec = f.spec(args);
            spec.init = init;
            error_of(&f, &spec)
        };
        assert!(matches!(fails(&["nope"]), RunnerError::CommandNotFound { .. }));
        assert!(matches!(
            fails(&["/bin/nope"]),
            RunnerError::CommandNotFound { .. }
        ));
        assert!(matches!(
            fails(&["/etc/passwd"]),
            RunnerError::CommandNotExecutable { .. }
        ));
        assert!(matches!(
            fails(&["/tmp"]),
            RunnerError::CommandNotExecutable { .. }
        ));
    }
    let mut spec = f.spec(&["true"]);
    spec.process.user = "nobody-here".into();
    assert!(matches!(error_of(&f, &spec), RunnerError::NoSuchUser { .. }));
    let mut spec = f.spec(&["true"]);
    spec.process.user = "70000".into();
    assert!(matches!(error_of(&f, &spec), RunnerError::NoSuchUser { .. }));
    let mut spec = f.spec(&["true"]);
    spec.mounts.push(bind("/no/such/source", "/data", false));
    assert!(matches!(error_of(&f, &spec), RunnerError::BindSource { .. }));
    let mut spec = f.spec(&["true"]);
    spec.network = Network::Private;
    assert!(matches!(error_of(&f, &spec), RunnerError::NoPrivateNetwork));
}

fn bind(source: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        read_only,
        ..Mount::new(MountKind::bind(source), target)
    }
}

#[test]
fn is_alone() {
    let f = Fixture::new();
    let mut spec = f.spec(&[
        "sh",
        "-c",
        "echo $$; hostname; ls /proc | grep -c '^[0-9]'; ls /sys/class/net",
    ]);
    spec.hostname = "alone".into();
    let out = f.run(&spec).stdout;
    let lines: Vec<&str> = out.lines().collect();
    // The shell, ls and grep are there, and nothing of the host.
    assert_eq!(lines[..2], ["1", "alone"]);
    assert!(lines[2].parse::<u32>().unwrap() <= 4, "{out}");
    assert_eq!(lines[3..], ["lo"]);
}

#[test]
fn has_little_privilege() {
    let f = Fixture::new();
    let status = f.out("cat /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), "00000000800405fb", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    let map = f.out("cat /proc/self/uid_map /proc/self/gid_map");
    let numbers: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(numbers, ["0", "2000000", "65536", "0", "2000000", "65536"]);
    assert_eq!(f.out("id -u; id -g; id -G"), "0\n0\n0\n");
}

#[test]
fn without_no_new_privs_the_filter_is_there_all_the_same() {
    let f = Fixture::new();
    let mut spec = f.spec(&["grep", "-E", "NoNewPrivs|Seccomp:|CapEff", "/proc/self/status"]);
    spec.no_new_privs = false;
    let out = f.run(&spec).stdout;
    assert!(
        out.contains("NoNewPrivs:\t0") && out.contains("Seccomp:\t2"),
        "{out}"
    );
    assert!(out.contains("CapEff:\t00000000800405fb"), "{out}");
}

#[test]
fn dangerous_calls_are_refused() {
    let f = Fixture::new();
    for no_new_privs in [true, false] {
        let mut spec = f.spec(&["/bin/probe", "syscalls"]);
        spec.no_new_privs = no_new_privs;
        let ran = f.run(&spec);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        assert_eq!(ran.stdout.lines().count(), 25, "{}", ran.stdout);
        for line in ran.stdout.lines() {
            let expect = if line.starts_with("clone3") || line.starts_with("x32") {
                "errno 38"
            } else {
                "errno 1"
            };
            assert!(line.ends_with(&format!("={expect}")), "{line}");
        }
    }
}

#[test]
fn i386_has_the_same_filter() {
    let f = Fixture::new();
    let out = f.run(&f.spec(&["/bin/probe", "i386-syscalls"])).stdout;
    assert_eq!(
        out,
        "getpid=1\nmount=-1\nsocketcall=-38\nunshare=-1\nsocket-vsock=-1\nbpf=-1\n"
    );
}

#[test]
fn mounts_are_as_the_contract_says() {
    let f = Fixture::new();
    let info = f.out("cat /proc/self/mountinfo");
    let options = |target: &str| {
        let line = info.lines().rfind(|l| l.split(' ').nth(4) == Some(target));
        let line = line.unwrap_or_else(|| panic!("{target} is not mounted:\n{info}"));
        (
            line.split(' ').nth(5).unwrap().to_owned(),
            line.split(" - ").nth(1).unwrap().to_owned(),
        )
    };
    for (target, flags, kind) in [
        ("/", "rw,nodev", "overlay"),
        ("/proc", "rw,nosuid,nodev,noexec", "proc"),
        ("/proc/sys", "ro,nosuid,nodev,noexec", "proc"),
        ("/proc/bus", "ro,nosuid,nodev,noexec", "proc"),
        ("/proc/irq", "ro,nosuid,nodev,noexec", "proc"),
        ("/sys", "ro,nosuid,nodev,noexec", "sysfs"),
        ("/sys/fs/cgroup", "ro,nosuid,nodev,noexec", ""),
        ("/dev", "rw,nosuid,noexec", "tmpfs"),
        ("/dev/pts", "rw,nosuid,noexec", "devpts"),
        ("/dev/shm", "rw,nosuid,nodev,noexec", "tmpfs"),
        ("/dev/mqueue", "rw,nosuid,nodev,noexec", "mqueue"),
        ("/dev/null", "rw,nosuid,noexec", "devtmpfs"),
        ("/etc/hosts", "rw,nosuid,nodev,noexec", "tmpfs"),
    ] {
        let (have, fs) = options(target);
        assert!(have.starts_with(flags), "{target}: {have}");
        assert!(fs.starts_with(kind), "{target}: {fs}");
    }
    assert!(options("/dev/pts").1.contains("ptmxmode=666") && options("/dev/pts").1.contains("mode=620"));
    assert!(options("/dev/shm").1.contains("size=65536k"));
    assert!(!info.contains("shared:") && !info.contains("master:"), "{info}");
    let expected = "console\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    assert_eq!(f.out("ls /dev"), expected);
    assert_eq!(f.out("stat -c %a /dev/shm /dev"), "1777\n755\n");
}

#[test]
fn kernel_interfaces_are_masked_and_read_only() {
    let f = Fixture::new();
    let out = f.out("cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls /sys/firmware /proc/acpi | grep -v : | tr -d '\\n'");
    assert_eq!(out, "0\n");
    for line in [
        "echo x > /proc/sys/kernel/hostname",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo b > /proc/sysrq-trigger",
        "touch /sys/x",
        "mkdir /sys/fs/cgroup/x",
    ] {
        assert_ne!(f.sh(line).code(), 0, "{line}");
    }
}

#[test]
fn host_network_is_the_hosts() {
    let f = Fixture::new();
    let mut spec = f.spec(&[
        "sh",
        "-c",
        "ls /sys/class/net; touch /sys/x; ls /sys/fs/cgroup; ls /sys/firmware",
    ]);
    spec.network = Network::Host;
    let ran = f.run(&spec);
    let mut host: Vec<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    host.sort();
    assert!(ran.stdout.starts_with(&host.join("\n")), "{}", ran.stdout);
    assert!(ran.stderr.contains("Read-only"), "{}", ran.stderr);
}

#[test]
fn ids_on_disk_are_real() {
    let f = Fixture::new();
    let spec = f.spec(&[
        "sh",
        "-c",
        "touch /tmp/a /tmp/b; chown 33:34 /tmp/b; stat -c %u /bin/busybox",
    ]);
    assert_eq!(f.run(&spec).stdout, "0\n");
    let owner = |name: &str| {
        let meta = fs::symlink_metadata(spec.rootfs.upper.join("tmp").join(name)).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!((owner("a"), owner("b")), ((0, 0), (33, 34)));
}

#[test]
fn nothing_of_the_runner_gets_into_the_upper() {
    let f = Fixture::new();
    let spec = f.spec(&["true"]);
    f.run(&spec);
    let left: Vec<_> = fs::read_dir(&spec.rootfs.upper)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn etc_files_are_the_containers() {
    let f = Fixture::new();
    let mut spec = f.spec(&[
        "sh",
        "-c",
        "cat /etc/resolv.conf /etc/hosts /etc/hostname; echo more >> /etc/hosts",
    ]);
    spec.etc = EtcFiles {
        resolv_conf: b"r\n".into(),
        hosts: b"h\n".into(),
        hostname: b"n\n".into(),
    };
    let ran = f.run(&spec);
    assert_eq!((ran.stdout.as_str(), ran.code()), ("r\nh\nn\n", 0));
    assert!(!spec.rootfs.upper.join("etc").exists());
}

#[test]
fn users_of_the_image() {
    let f = Fixture::new();
    let run = |user: &str| {
        let mut spec = f.spec(&[
            "sh",
            "-c",
            "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status; echo x >/dev/stdout",
        ]);
        spec.process.user = user.into();
        let ran = f.run(&spec);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        ran.stdout
    };
    assert_eq!(run("web"), "33\n34\n34 5\n/tmp\nCapEff:\t0000000000000000\nx\n");
    assert_eq!(run("33:0"), "33\n0\n0\n/tmp\nCapEff:\t0000000000000000\nx\n");
    assert_eq!(run("1234"), "1234\n0\n0\n/\nCapEff:\t0000000000000000\nx\n");
    assert!(run("").starts_with("0\n0\n0\n/root\n"));
}

#[test]
fn set_user_id_programs_need_new_privileges() {
    let f = Fixture::new();
    let probe = f.lower().join("bin/probe");
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o4755)).unwrap();
    for (no_new_privs, expect) in [(true, "euid=33\n"), (false, "euid=0\n")] {
        let mut spec = f.spec(&["/bin/probe", "euid"]);
        spec.process.user = "web".into();
        spec.no_new_privs = no_new_privs;
        assert_eq!(f.run(&spec).stdout, expect);
    }
}

#[test]
fn binds_and_tmpfs() {
    let f = Fixture::new();
    let source = f.dir.join("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    let source = source.to_str().unwrap();
    let line = "cat /data/file; echo new > /data/new; echo x > /ro/x; cat /one; echo t > /scratch/t; stat -c %a /scratch";
    let mut spec = f.spec(&["sh", "-c", line]);
    spec.mounts.push(bind(source, "/data", false));
    spec.mounts.push(bind(source, "/ro", true));
    spec.mounts.push(bind(&format!("{source}/file"), "/one", true));
    let scratch = Tmpfs {
        size: Some(1 << 20),
        mode: 0o700,
        ..Tmpfs::default()
    };
    spec.mounts
        .push(Mount::new(MountKind::Tmpfs(scratch), "/scratch"));
    let ran = f.run(&spec);
    assert_eq!(ran.stdout, "content\ncontent\n700\n", "{}", ran.stderr);
    assert!(ran.stderr.contains("Read-only"), "{}", ran.stderr);
    let new = fs::metadata(format!("{source}/new")).unwrap();
    assert_eq!((new.uid(), new.len()), (0, 4));
    assert!(!spec.rootfs.upper.join("scratch/t").exists());
}

#[test]
fn read_only_root() {
    let f = Fixture::new();
    let mut spec = f.spec(&["sh", "-c", "pwd; touch /x; touch /dev/shm/y && echo shm"]);
    spec.rootfs.read_only = true;
    spec.process.cwd = "/made/for/it".into();
    let ran = f.run(&spec);
    assert_eq!(ran.stdout, "/made/for/it\nshm\n");
    assert!(ran.stderr.contains("Read-only"), "{}", ran.stderr);
}

#[test]
fn no_descriptor_leaks() {
    let f = Fixture::new();
    let leak = fs::File::open("/etc/passwd").unwrap();
    unsafe { libc::fcntl(leak.as_raw_fd(), libc::F_SETFD, 0) };
    for init in [false, true] {
        let mut spec = f.spec(&["/bin/probe", "fds"]);
        spec.init = init;
        assert_eq!(f.run(&spec).stdout, "0\n1\n2\n", "init {init}");
    }
}

#[test]
fn init_reaps_and_forwards() {
    let f = Fixture::new();
    let mut spec = f.spec(&["/bin/probe", "orphans"]);
    spec.init = true;
    assert_eq!(f.run(&spec).stdout, "zombies=0\n");
    let mut spec = f.spec(&[
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    spec.init = true;
    let mut running = f.runtime.spawn(&spec, &f.user, Stdio::captured()).unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut running.take_stdout().unwrap(), &mut ready).unwrap();
    running.handle().signal(15).unwrap();
    assert_eq!(running.wait().unwrap().status, Status::Exited(5));
}

#[test]
fn limits_of_setrlimit() {
    let f = Fixture::new();
    let out = f.run(&f.spec(&["/bin/probe", "rlimit"])).stdout;
    assert!(out.starts_with("core=0:0\nnofile=1024:"), "{out}");
    let mut spec = f.spec(&["/bin/probe", "rlimit"]);
    spec.rlimits.push(Rlimit {
        resource: Resource::Nofile,
        soft: 99,
        hard: 100,
    });
    assert_eq!(f.run(&spec).stdout, "core=0:0\nnofile=99:100\n");
}

#[test]
fn a_terminal() {
    let f = Fixture::new();
    let mut spec = f.spec(&[
        "sh",
        "-c",
        "tty; stty size; stat -c %t:%T /dev/console; read x; echo got $x; exit 3",
    ]);
    spec.terminal = true;
    let mut running = f.runtime.spawn(&spec, &f.user, Stdio::inherit()).unwrap();
    let terminal = running.take_terminal().unwrap();
    terminal.set_size(33, 77).unwrap();
    let mut file = terminal.file().unwrap();
    std::io::Write::write_all(&mut file, b"word\n").unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // Ends in EIO when the container is gone.
        let _ = std::io::Read::read_to_end(&mut file, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let outcome = running.wait().unwrap();
    drop(terminal);
    let text = reader.join().unwrap();
    assert_eq!(outcome.status, Status::Exited(3), "{text}");
    assert!(
        text.contains("/dev/console") || text.contains("/dev/pts/0"),
        "{text}"
    );
    assert!(text.contains("got word"), "{text}");
    assert!(text.contains("88:0"), "{text}");
}

#[test]
fn a_container_outlives_the_thread_that_started_it() {
    let f = Fixture::new();
    let spec = f.spec(&["sh", "-c", "sleep 0.3; exit 4"]);
    let running = std::thread::scope(|s| {
        s.spawn(|| f.runtime.spawn(&spec, &f.user, Stdio::null()).unwrap())
            .join()
            .unwrap()
    });
    assert_eq!(running.wait().unwrap().status, Status::Exited(4));
}

#[test]
fn many_at_once_from_many_threads() {
    let f = Fixture::new();
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                for i in 0..5 {
                    let ran = f.sh(&format!("echo {i}; exit {i}"));
                    assert_eq!(
                        (ran.stdout, ran.outcome.status),
                        (format!("{i}\n"), Status::Exited(i))
                    );
                }
            });
        }
    });
}

#[test]
fn dropping_kills() {
    let f = Fixture::new();
    let spec = f.spec(&["sleep", "100"]);
    let started = Instant::now();
    drop(f.runtime.spawn(&spec, &f.user, Stdio::null()).unwrap());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(support::cgroups_of(&f.owner).is_empty());
}

#[test]
fn nothing_is_left() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let f = Fixture::new();
    f.out("true");
    assert_eq!(before, mounts());
    assert!(support::cgroups_of(&f.owner).is_empty());
}

#[test]
fn symlinks_in_the_image_stay_inside() {
    let f = Fixture::new();
    symlink("/../../../tmp/deep", f.lower().join("data")).unwrap();
    fs::create_dir_all(f.lower().join("tmp/deep")).unwrap();
    let mut spec = f.spec(&["sh", "-c", "echo x > /data/x; ls /tmp/deep"]);
    spec.mounts
        .push(Mount::new(MountKind::Tmpfs(Tmpfs::default()), "/data"));
    assert_eq!(f.run(&spec).stdout, "x\n");
}

#[test]
fn the_callers_umask_does_not_matter() {
    let f = Fixture::new();
    let rootfs = f.rootfs();
    let line = "stat -c %a /etc/hosts /dev/shm /dev/pts; umask; touch /tmp/x; stat -c %a /tmp/x";
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "umask 077; exec \"$@\"",
            "sh",
            support::PROBE,
            "outside",
            "hold",
            "umask1",
        ])
        .arg(rootfs.upper.parent().unwrap())
        .arg(f.lower())
        .args(["sh", "-c", line])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).replace("running\n", "");
    assert!(out.contains("644\n1777\n755\n0022\n644\n"), "{out}");
}

#[test]
fn many_layers() {
    let f = Fixture::new();
    let mut spec = f.spec(&["sh", "-c", "ls / | grep -c layer"]);
    for number in 0..150 {
        let layer = f.dir.join(format!("l{number}"));
        fs::create_dir_all(layer.join(format!("layer{number}"))).unwrap();
        spec.rootfs.lower.insert(0, layer);
    }
    assert_eq!(f.run(&spec).stdout, "150\n");
}

/// A bind of the caller's over /proc/sys by way of a symlink takes no sysctl for itself.
#[test]
fn sysctls_are_written_to_the_kernel_alone() {
    let f = Fixture::new();
    symlink("/proc/sys", f.lower().join("detour")).unwrap();
    let trap = f.dir.join("trap");
    fs::create_dir_all(trap.join("net/ipv4")).unwrap();
    let file = trap.join("net/ipv4/ip_unprivileged_port_start");
    fs::write(&file, "untouched").unwrap();
    let mut spec = f.spec(&["true"]);
    spec.mounts.push(bind(trap.to_str().unwrap(), "/detour", false));
    assert!(f.try_run(&spec).is_err());
    assert_eq!(fs::read_to_string(file).unwrap(), "untouched");
}
