//! Namespaces that a container shares with its host or with another one, and what opens it: for root and for ordinary users.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::process::Output;
use std::time::{Duration, Instant};

use common::{Bench, OrdinaryUser, Traces, USER_ID, sh, success, text};
use serde_json::Value;

/// Who runs box.
enum Who {
    Root,
    Ordinary(OrdinaryUser),
}

struct Host {
    bench: Bench,
    who: Who,
}

impl Host {
    fn of_root() -> Self {
        Self {
            bench: Bench::with_busybox(),
            who: Who::Root,
        }
    }

    fn of_user() -> Self {
        let bench = Bench::new();
        let user = OrdinaryUser::new(&bench);
        let tar = bench.busybox_tar();
        user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
        Self {
            bench,
            who: Who::Ordinary(user),
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        match &self.who {
            Who::Root => self.bench.run(args),
            Who::Ordinary(user) => user.command(args).output().unwrap(),
        }
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        success(self.run(args))
    }

    /// Its words on standard error.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// A shell line in a new container without network.
    #[track_caller]
    fn sh(&self, options: &[&str], line: &str) -> String {
        let start: &[&str] = &["run", "--rm", "--network", "none"];
        self.ok(&[start, options, &["busybox", "sh", "-c", line]].concat())
    }

    /// One in the background.
    #[track_caller]
    fn start(&self, name: &str, options: &[&str], line: &str) {
        let start: &[&str] = &["run", "-d", "--name", name];
        self.ok(&[start, options, &["busybox", "sh", "-c", line]].concat());
    }

    fn inspect(&self, name: &str) -> Value {
        let found: Value = serde_json::from_str(&self.ok(&["inspect", name])).unwrap();
        found[0].clone()
    }

    /// A namespace of its first process.
    fn namespace(&self, name: &str, kind: &str) -> String {
        let pid = self.inspect(name)["State"]["Pid"].as_i64().unwrap();
        link(&format!("/proc/{pid}/ns/{kind}"))
    }

    /// The processes of this kind, zombies left out.
    fn sleeping(&self, seconds: u32) -> usize {
        let wanted = format!("sleep\0{seconds}\0");
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let is_it = |path: std::path::PathBuf| {
            std::fs::read(path.join("cmdline")).is_ok_and(|line| line == wanted.as_bytes())
        };
        all.filter(|entry| is_it(entry.path())).count()
    }
}

fn link(path: &str) -> String {
    std::fs::read_link(path).unwrap().to_string_lossy().into_owned()
}

fn both(check: impl Fn(&Host)) {
    for host in [Host::of_root(), Host::of_user()] {
        let before = Traces::of(&host.bench);
        check(&host);
        assert_eq!(Traces::of(&host.bench), before, "nothing is left");
    }
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const NONE: [&str; 2] = ["--network", "none"];
const SEE: &str = "for n in pid ipc uts cgroup net user; do ls -l /proc/self/ns/$n | sed 's/.*-> //'; done";

fn namespaces_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn own_namespaces() -> Vec<String> {
    let kinds = ["pid", "ipc", "uts", "cgroup", "net", "user"];
    kinds.map(|kind| link(&format!("/proc/self/ns/{kind}"))).to_vec()
}

#[test]
fn those_of_the_host() {
    both(|host| {
        let own = own_namespaces();
        let apart = namespaces_of(&host.sh(&[], SEE));
        assert!(
            apart.iter().zip(&own).all(|(inside, outside)| inside != outside),
            "{apart:?}"
        );
        let options = [
            "--pid",
            "host",
            "--ipc",
            "host",
            "--uts",
            "host",
            "--cgroupns",
            "host",
        ];
        let shared = namespaces_of(&host.sh(&options, SEE));
        assert_eq!(shared[..4], own[..4]);
        assert!(
            shared[4] != own[4] && shared[5] != own[5],
            "the network and the users are not"
        );
        // Nothing of the host can be got at by that.
        let line = "test -d /proc/1 && hostname && ls /proc/1/root 2>&1; kill -9 1 2>&1; echo x >/proc/sys/kernel/panic; \
                    echo x >/sys/fs/cgroup/x/y; hostname changed 2>&1; sethostname 2>&1; head -c1 /proc/kcore | wc -c; true";
        let seen = host.sh(&options, line);
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert!(seen.starts_with(&name), "{seen}");
        assert!(
            seen.contains("Permission denied") && seen.contains("not permitted"),
            "{seen}"
        );
        assert!(seen.trim_end().ends_with('0'), "kcore is masked: {seen}");
        let after = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(after, name);
        let failure = host.fails(&[
            "run",
            "--rm",
            "--uts",
            "host",
            "--hostname",
            "x",
            "busybox",
            "true",
        ]);
        assert!(failure.contains("--hostname"), "{failure}");
        let failure = host.fails(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--ipc",
            "host",
            "--sysctl",
            "kernel.shmmax=1",
            "busybox",
            "true",
        ]);
        assert!(failure.contains("shmmax"), "{failure}");
    });
}

/// The first process is not the first of its pid namespace, so that the others do not end with it by themselves.
#[test]
fn all_processes_end_with_the_first_one() {
    both(|host| {
        let left = "(setsid sleep 86411 &) ; (setsid sh -c 'trap \"\" TERM; exec sleep 86411' &); sleep 0.3";
        host.sh(&["--pid", "host"], left);
        assert_eq!(host.sleeping(86_411), 0);
        host.start("donor", &NONE, "exec sleep 86400");
        host.sh(&["--pid", "container:donor"], left);
        assert_eq!(host.sleeping(86_411), 0);
        // And when it is killed, by its user or with its monitor.
        host.start(
            "guest",
            &["--network", "none", "--pid", "container:donor"],
            &format!("{left}; sleep 86412"),
        );
        eventually("it runs", || host.sleeping(86_412) == 1);
        assert_eq!(host.sleeping(86_411), 2);
        let top = host.ok(&["top", "guest"]);
        assert_eq!(
            top.matches("sleep").count(),
            3,
            "its own processes and no others: {top}"
        );
        assert!(
            host.ok(&["exec", "guest", "ps"]).contains("sleep 86400"),
            "it sees the other's"
        );
        host.ok(&["kill", "guest"]);
        eventually("all have ended", || {
            host.sleeping(86_411) + host.sleeping(86_412) == 0
        });
        assert_eq!(host.inspect("guest")["State"]["ExitCode"], 137);
        host.ok(&["start", "guest"]);
        eventually("it runs again", || {
            host.sleeping(86_412) == 1 && host.sleeping(86_411) == 2
        });
        let pid = host.inspect("guest")["State"]["Pid"].as_i64().unwrap();
        let parent = |pid: i64| -> i64 {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            line.unwrap().trim().parse().unwrap()
        };
        // The keeper is the parent of the first process, the monitor that of the keeper.
        sh(&format!("kill -9 {}", parent(parent(pid))));
        eventually("all have ended", || {
            host.sleeping(86_411) + host.sleeping(86_412) == 0
        });
        host.ok(&["rm", "-f", "guest", "donor"]);
    });
}

#[test]
fn those_of_another_container() {
    both(|host| {
        let name = ["--network", "none", "--ipc", "shareable", "--hostname", "alpha"];
        host.start("a", &name, "echo hello >/dev/shm/file; exec sleep 86420");
        eventually("it runs", || {
            host.ok(&["exec", "a", "cat", "/dev/shm/file"]) == "hello\n"
        });
        let options = [
            "--pid",
            "container:a",
            "--ipc",
            "container:a",
            "--uts",
            "container:a",
        ];
        let start: &[&str] = &["run", "--rm", "--network", "container:a"];
        let line = format!("{SEE}; cat /dev/shm/file; hostname; cat /etc/hostname; ps");
        let seen = host.ok(&[start, &options, &["busybox", "sh", "-c", &line]].concat());
        for (line, kind) in seen.lines().zip(["pid", "ipc", "uts"]) {
            assert_eq!(line, host.namespace("a", kind));
        }
        let lines: Vec<&str> = seen.lines().collect();
        assert_ne!(lines[3], host.namespace("a", "cgroup"), "its cgroups are its own");
        assert_eq!(
            lines[4..6],
            [host.namespace("a", "net"), host.namespace("a", "user")]
        );
        assert_eq!(lines[6..9], ["hello", "alpha", "alpha"]);
        assert!(seen.contains("sleep 86420"), "{seen}");
        // Each of them alone leaves the others apart.
        let only = host.sh(&["--uts", "container:a"], SEE);
        let only: Vec<&str> = only.lines().collect();
        assert_eq!(only[2], host.namespace("a", "uts"));
        assert_ne!(only[0], host.namespace("a", "pid"));
        assert_ne!(only[4], host.namespace("a", "net"));
        host.ok(&["rm", "-f", "a"]);
    });
}

#[test]
fn its_network_and_what_is_said_of_it() {
    both(|host| {
        host.start(
            "web",
            &["--add-host", "database:10.0.0.7"],
            "httpd -f -p 8080 -h /etc",
        );
        let start: &[&str] = &["run", "--rm", "--network", "container:web", "busybox", "sh", "-c"];
        let line = "i=0; until wget -q -O - http://127.0.0.1:8080/hostname; do i=$((i+1)); [ $i -lt 50 ] || exit 1; sleep 0.1; done; \
                    hostname; grep database /etc/hosts; cat /etc/resolv.conf";
        let seen = host.ok(&[start, &[line]].concat());
        let name = host.inspect("web")["Config"]["Hostname"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            seen.starts_with(&format!("{name}\n{name}\n10.0.0.7\tdatabase\n")),
            "{seen}"
        );
        let files = |container: &[&str]| host.ok(&[container, &["cat", "/etc/resolv.conf"]].concat());
        assert!(seen.ends_with(&files(&["exec", "web"])));
        for option in [
            ["-p", "80"],
            ["--dns", "10.0.0.1"],
            ["--add-host", "x:10.0.0.1"],
            ["--hostname", "x"],
            ["--network-alias", "x"],
        ] {
            let begin: &[&str] = &["run", "--rm", "--network", "container:web"];
            host.fails(&[begin, &option, &["busybox", "true"]].concat());
        }
        host.ok(&["rm", "-f", "web"]);
    });
}

#[test]
fn a_container_that_does_not_run_or_does_not_share() {
    let host = Host::of_root();
    let join = |what: &str| {
        host.fails(&[
            "run",
            "--rm",
            "--network",
            "none",
            what,
            "container:a",
            "busybox",
            "true",
        ])
    };
    assert!(join("--pid").contains("no container named \"a\""));
    host.ok(&[
        "create",
        "--name",
        "a",
        "--network",
        "none",
        "busybox",
        "sleep",
        "86430",
    ]);
    let failure = join("--pid");
    assert!(
        failure.contains("container a, whose namespaces it joins, does not run")
            && failure.contains("box start a"),
        "{failure}"
    );
    host.ok(&["start", "a"]);
    let failure = join("--ipc");
    assert!(
        failure.contains("for itself alone") && failure.contains("shareable"),
        "{failure}"
    );
    let failure = host.fails(&[
        "run",
        "--pid",
        "container:a",
        "--userns",
        "host",
        "busybox",
        "true",
    ]);
    assert!(failure.contains("--userns host"), "{failure}");
    host.start("b", &NONE, "exec sleep 86430");
    let failure = host.fails(&[
        "run",
        "--rm",
        "--pid",
        "container:a",
        "--network",
        "container:b",
        "busybox",
        "true",
    ]);
    assert!(failure.contains("different user ids"), "{failure}");
    host.fails(&[
        "run",
        "--rm",
        "--ipc",
        "none",
        "--shm-size",
        "1m",
        "busybox",
        "true",
    ]);
    for wrong in [
        ["--pid", "a"],
        ["--ipc", "x"],
        ["--uts", "container:"],
        ["--userns", "b"],
        ["--cgroupns", "x"],
    ] {
        host.fails(&["run", "--rm", wrong[0], wrong[1], "busybox", "true"]);
    }
    host.ok(&["rm", "-f", "a", "b"]);
}

/// What sees box's own processes must have no rights in the user namespace that they are in.
#[test]
fn who_sees_the_host_shares_with_nobody() {
    let host = Host::of_root();
    host.start("a", &NONE, "exec sleep 86430");
    let begin: &[&str] = &[
        "run",
        "--rm",
        "--pid",
        "host",
        "--network",
        "container:a",
        "busybox",
        "true",
    ];
    assert!(host.fails(begin).contains("may not see the host's processes"));
    host.start("c", &["--network", "none", "--pid", "host"], "exec sleep 86430");
    for what in ["--pid", "--network", "--uts"] {
        let failure = host.fails(&["run", "--rm", what, "container:c", "busybox", "true"]);
        assert!(failure.contains("for itself alone"), "{failure}");
    }
    host.ok(&["rm", "-f", "c"]);
    host.start(
        "c",
        &["--network", "none", "--pid", "host", "--userns", "host"],
        "exec sleep 86430",
    );
    host.sh(&["--pid", "container:c"], "test -d /proc/1");
    host.ok(&["rm", "-f", "c"]);
    host.ok(&["rm", "-f", "a"]);
}

/// Started again, it joins what the other has then.
#[test]
fn a_restart_joins_again() {
    both(|host| {
        host.start("a", &NONE, "exec sleep 86440");
        let joining = [
            "--network",
            "container:a",
            "--pid",
            "container:a",
            "--restart",
            "always",
        ];
        host.start("b", &joining, "exec sleep 86441");
        let network = host.namespace("a", "net");
        assert_eq!(host.namespace("b", "net"), network);
        // The other's end is the end of all in its pid namespace.
        host.ok(&["restart", "-t", "0", "a"]);
        eventually("it ended with the other, and runs again or waits", || {
            host.inspect("b")["State"]["Status"] != "running"
                || host.namespace("b", "pid") == host.namespace("a", "pid")
        });
        host.ok(&["restart", "-t", "0", "b"]);
        assert_eq!(host.namespace("b", "net"), host.namespace("a", "net"));
        assert_eq!(host.namespace("b", "user"), host.namespace("a", "user"));
        host.ok(&["stop", "-t", "0", "a"]);
        host.run(&["stop", "-t", "0", "b"]);
        let failure = host.fails(&["start", "b"]);
        assert!(failure.contains("does not run"), "{failure}");
        host.ok(&["rm", "-f", "a", "b"]);
    });
}

/// When the machine starts, in the order in which they were made.
#[test]
fn those_that_always_run() {
    let host = Host::of_root();
    host.start(
        "a",
        &["--network", "none", "--restart", "always"],
        "exec sleep 86445",
    );
    host.start(
        "b",
        &["--network", "container:a", "--restart", "always"],
        "exec sleep 86446",
    );
    for name in ["a", "b"] {
        let pid = host.inspect(name)["State"]["Pid"].as_i64().unwrap();
        let parent = |of: i64| sh(&format!("awk '/^PPid:/ {{ print $2 }}' /proc/{of}/status"));
        let keeper: i64 = parent(pid).trim().parse().unwrap();
        sh(&format!("kill -9 {}", parent(keeper).trim()));
    }
    eventually("both have ended with their monitors", || {
        host.sleeping(86_445) + host.sleeping(86_446) == 0
    });
    assert_eq!(host.ok(&["start", "--restart-policy"]), "a\nb\n");
    assert_eq!(host.namespace("b", "net"), host.namespace("a", "net"));
    host.ok(&["rm", "-f", "a", "b"]);
}

/// Ids that two containers share are nobody else's as long as one of them runs.
#[test]
fn shared_ids_stay_taken() {
    let host = Host::of_root();
    host.start("a", &NONE, "exec sleep 86450");
    host.start("b", &["--network", "container:a"], "exec sleep 86451");
    let ids = |name: &str| host.ok(&["exec", name, "cat", "/proc/self/uid_map"]);
    let shared = ids("b");
    assert_eq!(ids("a"), shared);
    host.ok(&["rm", "-f", "a"]);
    let others: Vec<String> = (0..3).map(|_| host.sh(&[], "cat /proc/self/uid_map")).collect();
    assert!(others.iter().all(|other| *other != shared), "{others:?} {shared}");
    host.ok(&["rm", "-f", "b"]);
}

#[test]
fn users_of_the_host() {
    let host = Host::of_root();
    let map = "cat /proc/self/uid_map | tr -s ' '";
    assert_eq!(host.sh(&["--userns", "host"], map), " 0 0 4294967295\n");
    let line = "grep -E 'CapPrm|NoNewPrivs|Seccomp:' /proc/self/status | tr '\\t' ' '";
    let usual = host.sh(&[], line);
    assert_eq!(
        host.sh(&["--userns", "host"], line),
        usual,
        "no more rights than usual"
    );
    assert!(
        usual.contains("800405fb") && usual.contains("NoNewPrivs: 1"),
        "{usual}"
    );
    // The host's own device nodes can't be changed, and nodes of others are of no use.
    let before = sh("stat -c '%a %u' /dev/null");
    let line = "chmod 600 /dev/null; chmod 600 /proc/timer_list 2>&1; mknod /disk b 7 0 2>&1; echo x >/dev/null; echo done";
    let seen = host.sh(&["--userns", "host"], line);
    assert!(
        seen.contains("Read-only") && seen.contains("not permitted") && seen.ends_with("done\n"),
        "{seen}"
    );
    assert_eq!(sh("stat -c '%a %u' /dev/null"), before);
    let seen = host.sh(
        &["--userns", "host", "--cap-add", "MKNOD"],
        "mknod /dev/other c 1 11 && head -c 1 /dev/other 2>&1; mknod /dev/mem c 1 1 && head -c 1 /dev/mem 2>&1; true",
    );
    assert_eq!(seen.matches("not permitted").count(), 2, "{seen}");
    // All that a container can do is done in it.
    host.start(
        "c",
        &["--network", "none", "--userns", "host"],
        "exec sleep 86460",
    );
    assert_eq!(host.ok(&["exec", "c", "id", "-u"]), "0\n");
    assert_eq!(host.namespace("c", "user"), link("/proc/self/ns/user"));
    let file = host.bench.path("file");
    std::fs::write(&file, "text").unwrap();
    host.ok(&["cp", file.to_str().unwrap(), "c:/file"]);
    host.ok(&["stop", "-t", "0", "c"]);
    host.ok(&["cp", "c:/file", host.bench.path("copy").to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(host.bench.path("copy")).unwrap(), "text");
    host.ok(&["rm", "-f", "c"]);
    // Joined by another one, those are its own, too.
    host.start(
        "c",
        &["--network", "none", "--userns", "host"],
        "exec sleep 86460",
    );
    assert_eq!(host.sh(&["--pid", "container:c"], map), " 0 0 4294967295\n");
    host.ok(&["rm", "-f", "c"]);
}

#[test]
fn users_by_their_numbers() {
    let host = Host::of_root();
    let map = "cat /proc/self/uid_map | tr -s ' '";
    let seen = host.sh(
        &["--userns", "ranges:0:900000000:1000,1000:910000000:5"],
        &format!("{map}; stat -c %u /bin/busybox"),
    );
    assert_eq!(seen, " 0 900000000 1000\n 1000 910000000 5\n0\n");
    assert!(host.sh(&["--userns", "auto"], map).contains(" 65536"));
    let failure = host.fails(&["run", "--userns", "keep-id", "busybox", "true"]);
    assert!(failure.contains("ordinary users"), "{failure}");
    let user = Host::of_user();
    let failure = user.fails(&["run", "--userns", "auto", "busybox", "true"]);
    assert!(failure.contains("--userns auto"), "{failure}");
    let seen = user.sh(
        &["--userns", "ranges:0:1:500"],
        &format!("{map}; stat -c %u /bin/busybox"),
    );
    assert_eq!(seen, " 0 1 500\n0\n", "the user's own id is not among them");
    user.fails(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--userns",
        "ranges:0:70000:500",
        "busybox",
        "true",
    ]);
    assert_eq!(user.sh(&["--userns", "host"], map), user.sh(&[], map));
}

/// The user's own id is the same inside: files that are mounted are the user's, those of the image are whose they are in the image.
#[test]
fn an_ordinary_user_keeps_its_id() {
    let host = Host::of_user();
    let before = Traces::of(&host.bench);
    let dir = host.bench.path("home/shared");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(USER_ID), Some(USER_ID)).unwrap();
    let volume = format!("{}:/shared", dir.display());
    let line = "id -u; id -g; stat -c %u:%g /shared /bin/busybox /; touch /shared/new; touch /x 2>&1; true";
    let seen = host.sh(&["--userns", "keep-id", "-v", &volume], line);
    let id = USER_ID;
    assert!(
        seen.starts_with(&format!("{id}\n{id}\n{id}:{id}\n0:0\n0:0\n")) && seen.contains("Permission denied"),
        "{seen}"
    );
    assert_eq!(
        sh(&format!("stat -c %u {}/new", dir.display())).trim(),
        id.to_string()
    );
    let options = ["--userns", "keep-id:uid=5,gid=6", "-v", &volume];
    assert_eq!(
        host.sh(&options, "id -u; id -g; stat -c %u:%g /shared"),
        "5\n6\n5:6\n"
    );
    // Root in it is not the user, and can still do what roots do.
    let root = ["--userns", "keep-id", "-u", "0", "-v", &volume];
    let line = "id -u; touch /x && chown 7:8 /x && stat -c %u:%g /x; su -s /bin/sh nobody -c 'id -u' 2>&1";
    let seen = host.sh(&root, line);
    assert!(seen.starts_with("0\n7:8\n"), "{seen}");
    host.start(
        "k",
        &["--network", "none", "--userns", "keep-id"],
        "exec sleep 86470",
    );
    assert_eq!(
        host.ok(&["exec", "-u", "0", "k", "stat", "-c", "%u", "/bin/busybox"]),
        "0\n"
    );
    assert_eq!(
        host.inspect("k")["HostConfig"]["UsernsMode"],
        format!("keep-id:uid={id},gid={id}")
    );
    host.ok(&["restart", "-t", "0", "k"]);
    assert_eq!(host.ok(&["exec", "k", "id", "-u"]), format!("{id}\n"));
    host.ok(&["gc"]);
    host.ok(&["fsck"]);
    host.ok(&["rm", "-f", "k"]);
    let failure = host.fails(&["run", "--rm", "--userns", "keep-id:uid=70000", "busybox", "true"]);
    assert!(failure.contains("subordinate ids"), "{failure}");
    assert_eq!(Traces::of(&host.bench), before);
}

#[test]
fn privileged() {
    let host = Host::of_root();
    let line = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr '\\t' ' '; tr -s ' ' </proc/self/uid_map; \
                mkdir /m && mount -t tmpfs x /m && echo mounted; test -e /proc/kcore && echo kcore; \
                mount | grep -c ' /proc/'; [ -w /proc/sys/kernel/panic ] && echo writable; \
                grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -c1-2; mkdir /sys/fs/cgroup/pids/sub && echo group; \
                mknod /loop b 7 0; dd if=/loop of=/dev/null bs=1 count=0 2>/dev/null && echo node";
    let seen = host.sh(&["--privileged"], line);
    let unmasked = "NoNewPrivs: 0\nSeccomp: 0\n 0 0 4294967295\nmounted\n";
    assert!(seen.starts_with(unmasked), "{seen}");
    assert!(
        seen.contains("\n0\nwritable\nrw\n") && seen.ends_with("node\n"),
        "{seen}"
    );
    let count = |text: &str| text.trim().parse::<usize>().unwrap();
    let devices = count(&sh(
        "find /dev -xdev -type c -o -xdev -type b | grep -vE '/dev/(pts|shm)/|console|ptmx' | wc -l",
    ));
    let inside = count(&host.sh(
        &["--privileged"],
        "find /dev -type c -o -type b | grep -vE '/dev/pts|console' | wc -l",
    ));
    assert_eq!(inside, devices);
    host.start("p", &["--network", "none", "--privileged"], "exec sleep 86480");
    let of = &host.inspect("p")["HostConfig"];
    assert_eq!(
        (&of["Privileged"], &of["UsernsMode"]),
        (&true.into(), &"host".into())
    );
    assert!(
        host.ok(&["exec", "p", "grep", "Seccomp:", "/proc/self/status"])
            .contains('0')
    );
    host.ok(&["rm", "-f", "p"]);
    // A command of a container that is not.
    host.start("p", &NONE, "exec sleep 86480");
    let line = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr '\\t' ' '; mkdir /m; mount -t tmpfs x /m && echo mounted; \
                umount /proc/timer_list 2>&1; echo 1 >/proc/sys/kernel/panic; tr -s ' ' </proc/self/uid_map";
    let seen = host.ok(&["exec", "--privileged", "p", "sh", "-c", line]);
    assert!(seen.starts_with("NoNewPrivs: 0\nSeccomp: 0\nmounted\n"), "{seen}");
    assert!(seen.ends_with(" 65536\n"), "its users are its own: {seen}");
    assert!(
        !host
            .ok(&["exec", "p", "sh", "-c", "mount -t tmpfs x /m 2>&1; true"])
            .is_empty()
    );
    host.ok(&["rm", "-f", "p"]);
    // Less of it where that is said, too.
    let options = [
        "--privileged",
        "--userns",
        "auto",
        "--cap-drop",
        "SYS_ADMIN",
        "--security-opt",
        "no-new-privileges",
    ];
    let seen = host.sh(
        &options,
        "grep NoNewPrivs /proc/self/status; mount -t tmpfs x /tmp 2>&1; tr -s ' ' </proc/self/uid_map",
    );
    assert!(
        seen.contains("\t1\n") && seen.contains("denied") && seen.contains(" 65536"),
        "{seen}"
    );
    // Nothing that it did is left.
    assert_eq!(
        sh("find /sys/fs/cgroup -name sub -path '*box-*' | wc -l").trim(),
        "0"
    );
}

/// All that the user's own namespace allows, and nothing of the host's.
#[test]
fn privileged_for_an_ordinary_user() {
    let host = Host::of_user();
    let before = Traces::of(&host.bench);
    let line = "mkdir /m && mount -t tmpfs x /m && echo mounted; unshare -m true && echo unshared; grep Seccomp: /proc/self/status; \
                mknod /disk b 8 0 2>&1; echo 1 >/proc/sys/kernel/panic; mount | grep -c ' /proc/'; true";
    let seen = host.sh(&["--privileged"], line);
    assert!(seen.starts_with("mounted\nunshared\nSeccomp:\t0\n"), "{seen}");
    assert!(seen.contains("not permitted") && seen.ends_with("0\n"), "{seen}");
    assert_eq!(host.inspect_of_new()["UsernsMode"], "");
    assert_eq!(Traces::of(&host.bench), before);
}

impl Host {
    /// What is said of a privileged container that was never started.
    fn inspect_of_new(&self) -> Value {
        self.ok(&["create", "--name", "new", "--privileged", "busybox", "true"]);
        let found = self.inspect("new")["HostConfig"].clone();
        self.ok(&["rm", "new"]);
        found
    }
}

#[test]
fn paths_of_the_kernel() {
    let host = Host::of_root();
    let masks = "mount | grep -cE ' /proc/| /sys/firmware'; test -c /proc/timer_list && echo masked; true";
    assert!(host.sh(&[], masks).ends_with("masked\n"));
    assert_eq!(
        host.sh(&["--security-opt", "systempaths=unconfined"], masks),
        "0\n"
    );
    assert_eq!(host.sh(&["--security-opt", "unmask=ALL"], masks), "0\n");
    let seen = host.sh(&["--security-opt", "unmask=/proc/timer_list:/proc/sys"], masks);
    assert!(!seen.contains("masked") && seen != "0\n", "{seen}");
    let write = "(echo 4 >/proc/sys/kernel/shm_rmid_forced) 2>&1; true";
    assert!(
        host.sh(&["--security-opt", "unmask=/proc/timer_list"], write)
            .contains("Read-only")
    );
    // What is open is still the host's: it can be seen and not changed.
    let write = "echo 1 >/proc/sys/kernel/panic; echo 3 >/proc/sys/vm/drop_caches; echo over";
    let output = host.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--security-opt",
        "systempaths=unconfined",
        "busybox",
        "sh",
        "-c",
        write,
    ]);
    assert_eq!(
        text(&output.stderr).matches("ermission denied").count(),
        2,
        "{}",
        text(&output.stderr)
    );
    host.fails(&["run", "--rm", "--security-opt", "unmask=/etc", "busybox", "true"]);
}

/// This machine may have neither; then they are refused, and what is so is accepted.
#[test]
fn security_modules() {
    let host = Host::of_root();
    let has = |path: &str| std::path::Path::new(path).exists();
    if !has("/sys/kernel/security/apparmor") {
        let failure = host.fails(&[
            "run",
            "--rm",
            "--security-opt",
            "apparmor=docker-default",
            "busybox",
            "true",
        ]);
        assert!(
            failure.contains("no AppArmor") && failure.contains("apparmor=unconfined"),
            "{failure}"
        );
    }
    if !has("/sys/fs/selinux/enforce") {
        let failure = host.fails(&[
            "run",
            "--rm",
            "--security-opt",
            "label=type:spc_t",
            "busybox",
            "true",
        ]);
        assert!(
            failure.contains("no SELinux") && failure.contains("label=disable"),
            "{failure}"
        );
    }
    host.sh(
        &[
            "--security-opt",
            "apparmor=unconfined",
            "--security-opt",
            "label=disable",
        ],
        "true",
    );
    host.ok(&[
        "create",
        "--name",
        "s",
        "--security-opt",
        "label=disable",
        "busybox",
        "true",
    ]);
    assert_eq!(host.inspect("s")["HostConfig"]["SecurityOpt"][0], "label=disable");
    let failure = host.fails(&[
        "run",
        "--rm",
        "--security-opt",
        "credentialspec=x",
        "busybox",
        "true",
    ]);
    assert!(failure.contains("not supported"), "{failure}");
}

#[test]
fn the_host_by_name() {
    let host = Host::of_root();
    let line = "grep gw /etc/hosts | cut -f1; ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'";
    let seen = host.ok(&[
        "run",
        "--rm",
        "--add-host",
        "gw:host-gateway",
        "busybox",
        "sh",
        "-c",
        line,
    ]);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], lines[1]);
    let seen = host.ok(&[
        "run",
        "--rm",
        "--network",
        "host",
        "--add-host",
        "gw:host-gateway",
        "busybox",
        "grep",
        "gw",
        "/etc/hosts",
    ]);
    assert_eq!(seen, "127.0.0.1\tgw\n");
    let failure = host.fails(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--add-host",
        "gw:host-gateway",
        "busybox",
        "true",
    ]);
    assert!(failure.contains("host-gateway"), "{failure}");
}

/// box in a container of box, with its libraries, an archive to import, and a tmpfs for its store.
fn nested(host: &Host, options: &[&str], line: &str) -> Output {
    let tar = host.bench.busybox_tar();
    let libraries = sh(&format!("ldd {} | grep -oE '/[^ ]+' | sort -u", common::BOX));
    let mut volumes: Vec<String> = libraries
        .lines()
        .map(|path| format!("{path}:{path}:ro"))
        .collect();
    volumes.push(format!("{}:/bin/box:ro", common::BOX));
    volumes.push(format!("{}:/rootfs.tar:ro", tar.display()));
    let mut args = vec!["run", "--rm", "--network", "none", "--tmpfs", "/var/lib/box:exec"];
    args.extend(options);
    for volume in &volumes {
        args.extend(["-v", volume]);
    }
    args.extend(["busybox", "sh", "-c", line]);
    host.run(&args)
}

#[test]
fn inside_another_container() {
    let host = Host::of_root();
    let before = Traces::of(&host.bench);
    let line = "box import --progress quiet /rootfs.tar bb >/dev/null && box run --rm --network none bb sh -c 'touch /x && chown 7:8 /x && stat -c %u:%g /x' && \
                mkdir /c && printf 'FROM bb\\nRUN id -u >/a\\n' >/c/Boxfile && box build -q --network none /c >/dev/null && \
                box run -d --name d --network none bb sleep 100 >/dev/null && box run --rm --network none --pid container:d bb ps | grep -c 'sleep 100' && box rm -f d";
    let open = [
        "seccomp=unconfined",
        "apparmor=unconfined",
        "systempaths=unconfined",
    ];
    let open: Vec<&str> = open
        .iter()
        .flat_map(|option| ["--security-opt", option])
        .collect();
    // As in Docker's container with these options, in one of box's own with every capability, and in a privileged one.
    let as_docker = [&["--userns", "host"], open.as_slice()].concat();
    let with_all = [&["--cap-add", "ALL"], open.as_slice()].concat();
    for options in [as_docker, with_all, vec!["--privileged"]] {
        let output = nested(&host, &options, line);
        assert_eq!(
            text(&output.stdout),
            "7:8\n1\nd\n",
            "{options:?}: {}",
            text(&output.stderr)
        );
    }
    // Without them it is refused in one message, with the cure.
    let output = nested(
        &host,
        &["--userns", "host"],
        "box run --rm --network none bb true",
    );
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.lines().count() == 1, "{told}");
    assert!(
        told.contains("seccomp=unconfined") && told.contains("systempaths=unconfined"),
        "{told}"
    );
    assert_eq!(Traces::of(&host.bench), before);
}

/// A description of an earlier version says nothing of all that.
#[test]
fn descriptions_of_earlier_versions() {
    let host = Host::of_root();
    host.ok(&[
        "create",
        "--name",
        "old",
        "--network",
        "none",
        "busybox",
        "echo",
        "read",
    ]);
    let id = host.inspect("old")["Id"].as_str().unwrap().to_owned();
    let path = host.bench.store().join("containers").join(id).join("config");
    let bytes = std::fs::read(&path).unwrap();
    let whole = text(&bytes);
    for field in [
        "namespaces",
        "privileged",
        "security_opt",
        "system_paths",
        "label",
        "host_names",
    ] {
        assert!(
            whole.contains(&format!("\"{field}\":")),
            "{field} is new: {whole}"
        );
    }
    host.ok(&["start", "-a", "old"]);
}

/// What one container does to the other in a pid namespace that both are in: it can't look into the one that is being set up, which is
/// more than itself then, nor get at the host by any process that it sees.
#[test]
fn a_hostile_donor() {
    both(|host| {
        const CANARY: &str = "nobody in a container reads this";
        let canary = host.bench.path("canary");
        std::fs::write(&canary, format!("{CANARY}\n")).unwrap();
        std::fs::set_permissions(&canary, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if let Who::Ordinary(_) = host.who {
            std::os::unix::fs::chown(&canary, Some(USER_ID), Some(USER_ID)).unwrap();
        }
        // It reads the host's file by the root of whatever comes up, and puts other things in the place of /dev/shm.
        let line = format!(
            "umount /dev/shm; rm -rf /dev/shm; ln -s /proc/1/root /dev/shm; \
             while true; do for p in /proc/[0-9]*; do read x <$p/root{} && echo \"$x\" >>/seen; done 2>/dev/null; done",
            canary.display()
        );
        let options = [
            "--network",
            "none",
            "--cap-add",
            "ALL",
            "--security-opt",
            "seccomp=unconfined",
            "--ipc",
            "shareable",
        ];
        host.start("bad", &options, &line);
        let failure = host.fails(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--ipc",
            "container:bad",
            "busybox",
            "true",
        ]);
        assert!(failure.contains("/dev/shm of another container"), "{failure}");
        for _ in 0..20 {
            host.sh(&["--pid", "container:bad"], "true");
        }
        let seen = host.ok(&["exec", "bad", "sh", "-c", "cat /seen 2>/dev/null; true"]);
        assert!(!seen.contains(CANARY), "it has read the host's file");
        host.ok(&["rm", "-f", "bad"]);
    });
}
