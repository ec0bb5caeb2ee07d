//! Options of `box run` for the process and the machine it sees.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use common::{Bench, OrdinaryUser};

/// What a command in the container prints, with these options.
fn told(bench: &Bench, options: &[&str], line: &str) -> String {
    let args = [
        &["run", "--rm", "--network", "none"],
        options,
        &["busybox", "sh", "-c", line],
    ]
    .concat();
    bench.ok(args)
}

fn refused(bench: &Bench, options: &[&str], expect: &str) {
    let args = [
        &["run", "--rm", "--network", "none"],
        options,
        &["busybox", "true"],
    ]
    .concat();
    let said = bench.fails(125, args);
    assert!(said.contains(expect), "{options:?}: {said}");
}

/// An ordinary user with the image `busybox`.
fn ordinary(bench: &Bench) -> OrdinaryUser {
    let user = OrdinaryUser::new(bench);
    let tar = bench.busybox_tar();
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    user
}

#[test]
fn limits_of_processes() {
    let bench = Bench::with_busybox();
    let limits = |options: &[&str]| told(&bench, options, "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc");
    // The hard limit of files is that of the machine where it is lower.
    let hard: u64 = common::sh("ulimit -Hn").trim().parse().unwrap_or(u64::MAX);
    assert_eq!(limits(&[]), format!("1024\n{}\n0\n0\n", hard.min(524_288)));
    assert_eq!(limits(&["--ulimit", "nofile=100:200"]), "100\n200\n0\n0\n");
    assert_eq!(
        limits(&["--ulimit", "nofile=77", "--ulimit", "core=-1"]),
        "77\n77\nunlimited\nunlimited\n"
    );
    // The last one counts; a small one stops the command at most.
    let twice = ["--ulimit", "nofile=10:20", "--ulimit", "nofile=30:40"];
    assert_eq!(limits(&twice), "30\n40\n0\n0\n");
    let small = ["--ulimit", "nofile=6", "--ulimit", "fsize=0"];
    assert_eq!(told(&bench, &small, "echo on"), "on\n");
    refused(
        &bench,
        &["--ulimit", "nofile=200:100"],
        "the soft limit is larger",
    );
    refused(
        &bench,
        &["--ulimit", "files=1"],
        "there is no limit 'files'; there are as, core",
    );
}

#[test]
fn shared_memory() {
    let bench = Bench::with_busybox();
    let size = |options: &[&str]| told(&bench, options, "df -k /dev/shm | tail -1 | awk '{print $2}'");
    assert_eq!(size(&[]), "65536\n");
    assert_eq!(size(&["--shm-size", "1m"]), "1024\n");
    let full = told(
        &bench,
        &["--shm-size", "1m"],
        "dd if=/dev/zero of=/dev/shm/x bs=64k count=32 2>/dev/null; wc -c < /dev/shm/x",
    );
    assert_eq!(full, "1048576\n");
    refused(&bench, &["--shm-size", "0"], "no size");
}

#[test]
fn groups() {
    let bench = Bench::with_busybox();
    let context = bench.context(
        "g",
        &[
            ("group", "root:x:0:\nvideo:x:44:\nweb:x:80:web\n"),
            ("passwd", "root:x:0:0::/:/bin/sh\nweb:x:80:80::/:/bin/sh\n"),
        ],
    );
    bench.build(
        &context,
        "FROM busybox\nCOPY group passwd /etc/\n",
        &["-t", "busybox"],
    );
    assert_eq!(told(&bench, &["-u", "web"], "id -G"), "80\n");
    assert_eq!(
        told(
            &bench,
            &["-u", "web", "--group-add", "video", "--group-add", "1234"],
            "id -G"
        ),
        "80 44 1234\n"
    );
    refused(&bench, &["--group-add", "nobody"], "no group \"nobody\"");
}

#[test]
fn kernel_parameters() {
    let bench = Bench::with_busybox();
    let host = std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let options = [
        "--sysctl",
        "kernel.msgmax=4096",
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
        "--sysctl",
        "fs.mqueue.msg_max=5",
    ];
    let read = "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl /proc/sys/fs/mqueue/msg_max";
    assert_eq!(told(&bench, &options, read), "4096\n77\n5\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), host);
    refused(&bench, &["--sysctl", "kernel.core_pattern=x"], "bad sysctl");
    refused(
        &bench,
        &["--sysctl", "net/../kernel/core_pattern=x"],
        "bad sysctl",
    );
    refused(
        &bench,
        &["--sysctl", "net.ipv4.no_such_thing=1"],
        "set net/ipv4/no_such_thing",
    );
    let said = bench.fails(
        125,
        [
            "run",
            "--rm",
            "--network",
            "host",
            "--sysctl",
            "net.core.somaxconn=1",
            "busybox",
            "true",
        ],
    );
    assert!(said.contains("it would be the host's"), "{said}");
}

#[test]
fn the_rest() {
    let bench = Bench::with_busybox();
    assert_eq!(told(&bench, &[], "umask"), "0022\n");
    assert_eq!(told(&bench, &["--umask", "0077"], "umask"), "0077\n");
    assert_eq!(
        told(
            &bench,
            &["--oom-score-adj", "500"],
            "cat /proc/self/oom_score_adj"
        ),
        "500\n"
    );
    // Less than it is takes a right that root does not have on every machine.
    match std::process::Command::new("sh")
        .args(["-c", "echo -200 > /proc/self/oom_score_adj"])
        .status()
        .unwrap()
        .success()
    {
        true => assert_eq!(
            told(
                &bench,
                &["--oom-score-adj", "-200"],
                "cat /proc/self/oom_score_adj"
            ),
            "-200\n"
        ),
        false => refused(&bench, &["--oom-score-adj", "-200"], "set the OOM score: "),
    }
    refused(&bench, &["--oom-score-adj", "1001"], "bad OOM score");
    let file = bench.path("cid");
    let file = file.to_str().unwrap();
    refused(&bench, &["--cidfile", file, "-u", "nobody-knows"], "no such user");
    let name = told(&bench, &["--cidfile", file], "hostname");
    assert!(std::fs::read_to_string(file).unwrap().starts_with(name.trim()));
    refused(
        &bench,
        &["--cidfile", file],
        "--cidfile takes a file that is not there",
    );
}

#[test]
fn as_an_ordinary_user() {
    let bench = Bench::with_busybox();
    let user = ordinary(&bench);
    let args = [
        "run",
        "--rm",
        "--network",
        "none",
        "--ulimit",
        "nofile=50",
        "--shm-size",
        "1m",
        "--group-add",
        "5",
        "--oom-score-adj",
        "300",
        "busybox",
        "sh",
        "-c",
        "ulimit -n; id -G; cat /proc/self/oom_score_adj",
    ];
    assert_eq!(user.ok(args), "50\n0 5\n300\n");
    let less = user
        .command([
            "run",
            "--rm",
            "--network",
            "none",
            "--oom-score-adj",
            "-300",
            "busybox",
            "true",
        ])
        .output()
        .unwrap();
    assert_eq!(less.status.code(), Some(125));
    assert!(
        common::text(&less.stderr).contains("set the OOM score"),
        "{less:?}"
    );
}

#[test]
fn what_is_made_for_the_user_has_the_users_modes() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("Boxfile", "FROM busybox\nRUN chmod 755 /\n")]);
    let user = ordinary(&bench);
    for (mask, file, directory) in [
        ("022", "644", "755"),
        ("007", "660", "770"),
        ("077", "600", "700"),
    ] {
        let check = |out: &std::path::Path, command: &mut std::process::Command| {
            let place = |name: &str| out.join(name).display().to_string();
            let local = place("a/b/c");
            command.args([
                "build",
                "-q",
                "--network",
                "none",
                "--iidfile",
                &place("id"),
                "-o",
                &format!("type=tar,dest={}", place("tar")),
                "-o",
                &local,
            ]);
            command.arg(&context);
            common::success(command.output().unwrap());
            let modes = common::sh(&format!(
                "cd {} && stat -c '%a %n' id tar a a/b a/b/c",
                out.display()
            ));
            assert_eq!(
                modes,
                format!("{file} id\n{file} tar\n{directory} a\n{directory} a/b\n755 a/b/c\n")
            );
        };
        let out = bench.path(&format!("out{mask}"));
        std::fs::create_dir(&out).unwrap();
        // The shell sets the mask, then is the program.
        let script = format!("umask {mask}; exec \"$0\" \"$@\"");
        let mut root = std::process::Command::new("sh");
        root.args(["-c", &script, common::BOX])
            .env("BOX_ROOT", bench.store());
        check(&out, &mut root);
        let theirs = user.home.join(format!("out{mask}"));
        std::fs::create_dir(&theirs).unwrap();
        common::sh(&format!("chown {0}:{0} {1}", common::USER_ID, theirs.display()));
        let mut command = user.command::<&str>([]);
        check(&theirs, command.env("TEST_UMASK", mask));
    }
}
