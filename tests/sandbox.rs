//! What a container sees and may do, tried from inside (security.md, "The default container").
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::collections::BTreeMap;

use common::{Bench, OrdinaryUser, sh, success};

/// Builds the probe and an image that holds it.
fn probe_image(bench: &Bench) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/probe.c");
    let context = bench.context("probe", &[]);
    sh(&format!(
        "gcc -static -O1 -o {}/probe {source}",
        context.display()
    ));
    bench.build(&context, "FROM busybox\nCOPY probe /probe\n", &["-t", "probe"]);
}

fn attempts(output: &str) -> BTreeMap<String, String> {
    let lines = output.lines().filter_map(|l| l.split_once(' '));
    lines
        .map(|(name, result)| (name.to_owned(), result.to_owned()))
        .collect()
}

/// What must be refused, and how; `ok` for what must work.
const EXPECTED: [(&str, &str); 27] = [
    ("mount", "EPERM"),
    ("umount", "EPERM"),
    ("pivot_root", "EPERM"),
    ("fsopen", "EPERM"),
    ("open_tree", "EPERM"),
    ("unshare-user", "EPERM"),
    ("unshare-mount", "EPERM"),
    ("clone-user", "EPERM"),
    ("clone3", "ENOSYS"),
    ("keyctl", "EPERM"),
    ("add_key", "EPERM"),
    ("bpf", "EPERM"),
    ("io_uring_setup", "EPERM"),
    ("perf_event_open", "EPERM"),
    ("kexec_load", "EPERM"),
    ("init_module", "EPERM"),
    ("userfaultfd", "EPERM"),
    ("vsock", "EPERM"),
    ("vsock-high", "EPERM"),
    ("alg-socket", "EPERM"),
    ("inet-socket", "ok"),
    ("unknown-call", "ENOSYS"),
    ("write-proc-sys", "EROFS"),
    ("write-sysrq", "EROFS"),
    ("kcore", "ENODATA"),
    ("mknod", "EPERM"),
    ("chroot", "ok"),
];

fn check_attempts(output: &str) {
    let got = attempts(output);
    for (name, expected) in EXPECTED {
        let got = got.get(name).map(String::as_str);
        // Which of the two refusals comes first is the kernel's business: both are refusals.
        let same = got == Some(expected)
            || (expected == "EROFS" && matches!(got, Some("EACCES" | "EPERM" | "ENOENT")));
        assert!(same, "{name}: expected {expected}, got {got:?}\n{output}");
    }
    assert!(!output.contains("leaked"), "file descriptors leak in:\n{output}");
}

#[test]
fn calls_are_refused_in_run() {
    let bench = Bench::with_busybox();
    probe_image(&bench);
    check_attempts(&bench.ok(["run", "--rm", "--network", "none", "probe", "/probe"]));
}

#[test]
fn calls_are_refused_in_a_build_step() {
    let bench = Bench::with_busybox();
    probe_image(&bench);
    let empty = bench.context("empty", &[]);
    bench.build(
        &empty,
        "FROM probe\nRUN --network=none /probe > /result\n",
        &["-t", "result"],
    );
    check_attempts(&bench.sh("result", "cat /result"));
}

#[test]
fn inherited_descriptors_do_not_reach_the_container() {
    let bench = Bench::with_busybox();
    probe_image(&bench);
    let line = format!(
        "exec 7</etc/passwd 8</; exec {} run --rm --network none probe /probe",
        common::BOX
    );
    let mut command = std::process::Command::new("bash");
    let output = success(
        command
            .args(["-c", &line])
            .env("BOX_ROOT", bench.store())
            .output()
            .unwrap(),
    );
    assert!(!output.contains("leaked"), "{output}");
}

#[test]
fn the_view_from_inside() {
    let bench = Bench::with_busybox();
    let view = |line: &str| bench.sh("busybox", line);
    assert_eq!(view("echo $$").trim(), "1");
    assert_ne!(view("hostname").trim(), sh("hostname").trim());
    assert_eq!(
        view("ls -d /proc/[0-9]* | wc -l").trim(),
        "3",
        "the shell, ls and wc alone"
    );
    assert_eq!(view("ls /dev | sort | tr '\\n' ' '").trim(), DEVICES);
    let status = view("cat /proc/self/status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {status}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    // The eleven: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot setfcap.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "00000000800405fb", "{set}");
    }
    assert_eq!(
        (field("CapInh"), field("CapAmb")),
        ("0000000000000000".into(), "0000000000000000".into())
    );
    assert_eq!((field("Seccomp"), field("NoNewPrivs")), ("2".into(), "1".into()));
    let map = view("cat /proc/self/uid_map");
    let map: Vec<u64> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(
        map[0] == 0 && map[1] >= 1 << 30 && map[2] == 65536,
        "root inside is nobody outside: {map:?}"
    );
    assert_eq!(view("ulimit -c").trim(), "0");
    assert_eq!(view("ulimit -n").trim(), "1024");
    assert_eq!(
        view("ls /sys/firmware; ls /proc/acpi 2>/dev/null; true"),
        "",
        "masked directories are empty"
    );
    assert_eq!(
        view("ip addr 2>/dev/null | grep -c ^[0-9] || cat /proc/net/dev | grep -c :").trim(),
        "1",
        "loopback alone"
    );
}

const DEVICES: &str = "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";

#[test]
fn the_mounts_are_as_promised() {
    let bench = Bench::with_busybox();
    let mounts = bench.sh("busybox", "cat /proc/self/mounts");
    let options = |target: &str| -> Vec<String> {
        let line = mounts.lines().rev().find(|l| l.split(' ').nth(1) == Some(target));
        let line = line.unwrap_or_else(|| panic!("{target} is no mount:\n{mounts}"));
        line.split(' ')
            .nth(3)
            .unwrap()
            .split(',')
            .map(str::to_owned)
            .collect()
    };
    let check = |target: &str, expected: &[&str]| {
        let options = options(target);
        for option in expected {
            assert!(
                options.iter().any(|o| o == option),
                "{target}: {option} is missing in {options:?}"
            );
        }
    };
    check("/", &["rw"]);
    check("/proc", &["nosuid", "nodev", "noexec"]);
    check("/dev", &["nosuid", "size=64k", "mode=755"]);
    check("/dev/pts", &["nosuid", "noexec", "ptmxmode=666", "mode=620"]);
    check("/dev/shm", &["nosuid", "nodev", "noexec", "size=65536k"]);
    check("/dev/mqueue", &["nosuid", "nodev", "noexec"]);
    check("/sys", &["ro", "nosuid", "nodev", "noexec"]);
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"] {
        check(path, &["ro"]);
    }
    assert!(
        mounts
            .lines()
            .filter(|l| l.contains("cgroup"))
            .all(|l| l.contains(" ro,") || l.contains("tmpfs")),
        "{mounts}"
    );
}

#[test]
fn options_of_run_change_what_they_say() {
    let bench = Bench::with_busybox();
    let run = |options: &[&str], line: &str| {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", line]);
        bench.ok(args)
    };
    assert_eq!(run(&["--hostname", "north"], "hostname").trim(), "north");
    assert_eq!(run(&["-e", "A=1 2"], "echo $A").trim(), "1 2");
    assert_eq!(run(&["-w", "/tmp"], "pwd").trim(), "/tmp");
    assert_eq!(run(&["-u", "nobody"], "id -u").trim(), "65534");
    assert_eq!(run(&["-u", "7:8"], "id -u; id -g; id -G").trim(), "7\n8\n8");
    assert_eq!(
        run(&["--read-only"], "touch /x 2>&1 || echo refused")
            .lines()
            .last(),
        Some("refused")
    );
    assert_eq!(
        run(
            &["--tmpfs", "/t:size=1m"],
            "grep ' /t ' /proc/mounts | grep -c size=1024k"
        )
        .trim(),
        "1"
    );
    assert!(run(&["--cap-drop", "ALL"], "grep CapEff /proc/self/status").contains("0000000000000000"));
    assert!(
        run(
            &["--cap-drop", "ALL", "--cap-add", "CHOWN"],
            "grep CapEff /proc/self/status"
        )
        .contains("0000000000000001")
    );
    assert!(
        run(
            &["--security-opt", "no-new-privileges=false"],
            "grep NoNewPrivs /proc/self/status"
        )
        .contains('0')
    );
    assert!(
        run(
            &["--security-opt", "seccomp=unconfined"],
            "grep Seccomp: /proc/self/status"
        )
        .contains('0')
    );
    assert_eq!(
        run(&["--init"], "ps -o comm | sed -n 2p; echo $$").lines().last(),
        Some("2"),
        "process 1 is the init"
    );
    let shared = bench.context("shared", &[("file", "from the host")]);
    let volume = format!("{}:/mnt/shared", shared.display());
    assert_eq!(
        run(&["-v", &volume], "cat /mnt/shared/file; echo x > /mnt/shared/new"),
        "from the host"
    );
    assert_eq!(std::fs::read_to_string(shared.join("new")).unwrap(), "x\n");
    let read_only = format!("{volume}:ro");
    assert_eq!(
        run(
            &["-v", &read_only],
            "touch /mnt/shared/y 2>/dev/null || echo refused"
        )
        .trim(),
        "refused"
    );
}

#[test]
fn exit_codes_are_the_usual_ones() {
    let bench = Bench::with_busybox();
    let code = |args: &[&str]| {
        let mut all = vec!["run", "--rm", "--network", "none", "busybox"];
        all.extend(args);
        bench.run(all).status.code()
    };
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["no-such-command"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    assert_eq!(
        code(&["sh", "-c", "kill -9 $$ ; sh -c 'kill -TERM $$'; exit $?"]),
        Some(128 + 15),
        "process 1 can't kill itself"
    );
    bench.fails(125, ["run", "--rm", "no-such-image", "true"]);
    bench.fails(125, ["run", "--no-such-option"]);
}

#[test]
fn an_ordinary_user_gets_the_same_sandbox() {
    let bench = Bench::with_busybox();
    probe_image(&bench);
    let archive = bench.path("probe.tar");
    bench.ok(["save", "-o", archive.to_str().unwrap(), "probe"]);
    sh(&format!("chmod 644 {}", archive.display()));
    let user = OrdinaryUser::new(&bench);
    user.ok(["load", "-i", archive.to_str().unwrap()]);
    check_attempts(&user.ok(["run", "--rm", "--network", "none", "probe", "/probe"]));
    let line = "id -u; cat /proc/self/uid_map; grep -E 'CapEff|Seccomp:' /proc/self/status";
    let view = user.ok(["run", "--rm", "--network", "none", "probe", "sh", "-c", line]);
    assert!(
        view.starts_with("0\n") && view.contains("00000000800405fb") && view.contains("Seccomp:\t2"),
        "{view}"
    );
}

/// Its init stays as long as the container: nothing of the host may be open in it, and nobody may look.
#[test]
fn nothing_is_open_in_an_init() {
    let bench = Bench::with_busybox();
    let user = OrdinaryUser::new(&bench);
    user.ok(["import", bench.busybox_tar().to_str().unwrap(), "busybox"]);
    let line = "ls /proc/1/fd /proc/1/cwd/ 2>&1; ls -l /proc/1/fd 2>&1 | grep -c ' -> '; true";
    let options = ["run", "--rm", "--init", "--network", "none", "-m", "64m"];
    let command = ["busybox", "sh", "-c", line];
    for extra in [&[][..], &["--userns", "host"], &["--privileged"]] {
        let shown = bench.ok([&options[..], extra, &command].concat());
        let open = shown.lines().last().unwrap().parse::<u32>().unwrap();
        assert!(open <= 3, "{extra:?}: {shown}");
    }
    let shown = user.ok([&["run", "--rm", "--init", "--network", "none"][..], &command].concat());
    assert_eq!(shown.lines().last(), Some("0"), "{shown}");
}
