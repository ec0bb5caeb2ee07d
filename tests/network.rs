//! Networks of `box run` and `box build`. Each test has a host of its own: a network namespace of its thread's.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::machines::{
    FOR_WORLD, PATIENCE, ROUTER, WORLD, World, is_closed, name_server, own_network, server, sh, tcp,
};
use common::{BOX, Bench, OrdinaryUser, Traces, success, text};

const LEASES: &str = "/run/box/net";
/// Says hello to whoever connects to port 80.
const HELLO: &str = "exec nc -ll -p 80 -e echo hello";
/// The same, staying on the line a moment: an old pasta loses what is said and ended at once.
const SLOW_HELLO: &str = "exec nc -ll -p 80 -e sh -c 'echo hello; sleep 0.5'";

/// Links, rules and leases of this thread's machine.
fn traces() -> BTreeSet<String> {
    let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let own = own
        .to_str()
        .unwrap()
        .trim_matches(|c: char| !c.is_ascii_digit())
        .to_owned();
    let leases = Path::new(LEASES).join(own);
    let text = sh("ip -o link show; nft -s list ruleset");
    let mut all: BTreeSet<String> = text
        .lines()
        .map(|line| line.split(" mtu ").next().unwrap().to_owned())
        .collect();
    for entry in std::fs::read_dir(leases).into_iter().flatten().flatten() {
        all.insert(entry.path().display().to_string());
    }
    all
}

#[track_caller]
fn nothing_is_left(before: &BTreeSet<String>) {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = traces();
        if now == *before {
            return;
        }
        assert!(
            Instant::now() < until,
            "left: {:#?}",
            now.difference(before).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A box at work; killed with the test that fails.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(mut command: Command) -> Started {
    Started(command.spawn().unwrap())
}

/// Asks it to end.
fn end(mut started: Started) {
    sh(&format!("kill {}", started.0.id()));
    started.0.wait().unwrap();
}

#[test]
fn the_default_has_a_way_out_and_a_name_server() {
    own_network();
    let world = World::new();
    let before = traces();
    let bench = Bench::with_busybox();
    let (at, served) = world.run(|| server("0.0.0.0"));
    let said = bench.ok([
        "run",
        "--rm",
        "busybox",
        "nc",
        &WORLD.to_string(),
        &at.port().to_string(),
    ]);
    assert_eq!(said.trim(), FOR_WORLD.to_string());
    served.join().unwrap();
    let line = "cat /etc/resolv.conf; grep $HOSTNAME /etc/hosts; ip -o -4 addr show eth0";
    let options = [
        "--dns",
        "192.0.2.7",
        "--dns-search",
        "a.example",
        "--dns-option",
        "ndots:3",
    ];
    for name in ["private", "bridge", "default"] {
        let said = bench.ok([
            &["run", "--rm", "--network", name][..],
            &options,
            &["busybox", "sh", "-c", line],
        ]
        .concat());
        let expect = "nameserver 192.0.2.7\nsearch a.example\noptions ndots:3\n10.";
        assert!(said.starts_with(expect), "{said}");
        assert!(said.contains("/16"), "{said}");
    }
    let said = bench.fails(
        125,
        ["run", "--rm", "--network", "host", "-p", "80", "busybox", "true"],
    );
    assert!(said.contains("only a private network has ports"), "{said}");
    let said = bench.fails(125, ["run", "--rm", "--network", "x", "busybox", "true"]);
    assert!(said.contains("there is no network \"x\""), "{said}");
    nothing_is_left(&before);
}

#[test]
fn published_ports_of_run() {
    own_network();
    let world = World::new();
    let before = traces();
    let bench = Bench::with_busybox();
    let context = bench.context("ctx", &[]);
    bench.build(&context, "FROM busybox\nEXPOSE 80\n", &["-t", "exposing"]);
    let args = [
        "run",
        "--rm",
        "--init",
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:80/tcp",
        "busybox",
        "sh",
        "-c",
        HELLO,
    ];
    let running = start(bench.command(args));
    let local = Ipv4Addr::LOCALHOST;
    assert_eq!(tcp((local, 8080)).unwrap(), "hello\n");
    assert_eq!(tcp((local, 8081)).unwrap(), "hello\n");
    assert_eq!(world.run(|| tcp((FOR_WORLD, 8080)).unwrap()), "hello\n");
    assert!(world.run(|| is_closed((FOR_WORLD, 8081))));
    let said = bench.fails(125, ["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(
        said.contains("port 0.0.0.0:8080/tcp of the host can't be published"),
        "{said}"
    );
    // A free one, which the packet rules name.
    let exposing = start(bench.command(["run", "--rm", "--init", "-P", "exposing", "sh", "-c", HELLO]));
    let until = Instant::now() + PATIENCE;
    let free: u16 = loop {
        let elements =
            sh("nft list map inet box any4 | tr ',' '\\n' | grep -oE 'tcp [.] [0-9]+' | grep -oE '[0-9]+'");
        match elements
            .lines()
            .map(|port| port.parse().unwrap())
            .find(|port| *port != 8080)
        {
            Some(port) => break port,
            None => assert!(Instant::now() < until),
        }
    };
    assert_eq!(tcp((local, free)).unwrap(), "hello\n");
    end(exposing);
    end(running);
    nothing_is_left(&before);
}

#[test]
fn steps_share_a_network() {
    own_network();
    let before = traces();
    let bench = Bench::with_busybox();
    let context = bench.context("ctx", &[]);
    let boxfile = "FROM busybox\nRUN ip -o -4 addr show eth0 >/one\nRUN ip -o -4 addr show eth0 >/two\n\
                   RUN --network=none ls /sys/class/net >/three\nRUN --network=host ip -o link >/four\n";
    sh("ip link add only-here type bridge");
    bench.build(&context, boxfile, &["-t", "shared"]);
    let said = bench.sh("shared", "cmp /one /two && cat /one /three /four");
    assert!(said.contains("10.200.0.2/16"), "{said}");
    assert!(said.contains("only-here"), "{said}");
    // The mode is part of what a step is known by.
    let again = |mode: &str| bench.build_plain(&context, boxfile, &["--network", mode]);
    assert!(again("private").matches("CACHED").count() >= 4);
    let none = bench.try_build(&context, boxfile, &["--network", "none"]);
    assert!(
        !none.status.success(),
        "no eth0 without a network: {}",
        text(&none.stdout)
    );
    sh("ip link del only-here");
    nothing_is_left(&before);
}

#[test]
fn a_killed_box_leaves_nothing_to_the_next_command() {
    own_network();
    let before = traces();
    let bench = Bench::with_busybox();
    for rounds in [1, 3] {
        let mut killed = Vec::new();
        for round in 0..rounds {
            let port = format!("{}:80", 8080 + round);
            let child = start(bench.command(["run", "--rm", "-p", &port, "busybox", "sh", "-c", HELLO]));
            assert_eq!(tcp((Ipv4Addr::LOCALHOST, 8080 + round)).unwrap(), "hello\n");
            killed.push(child);
        }
        drop(killed);
        let now = traces();
        assert!(now.iter().any(|line| line.contains("box0")), "{now:?}");
        bench.ok(["images"]);
        let now = traces();
        assert_eq!(now, before);
    }
    // One of two: what is the other's stays.
    let spawn = |port: &str| {
        start(bench.command(["run", "--rm", "--init", "-p", port, "busybox", "sh", "-c", HELLO]))
    };
    let (one, two) = (spawn("8080:80"), spawn("8090:80"));
    for port in [8080, 8090] {
        assert_eq!(tcp((Ipv4Addr::LOCALHOST, port)).unwrap(), "hello\n");
    }
    drop(one);
    bench.ok(["images"]);
    assert_eq!(tcp((Ipv4Addr::LOCALHOST, 8090)).unwrap(), "hello\n");
    assert!(!sh("nft list ruleset").contains("8080"));
    end(two);
    nothing_is_left(&before);
}

#[test]
fn twenty_at_once() {
    own_network();
    let before = traces();
    let bench = Bench::with_busybox();
    let spawn = |_| {
        let mut command = bench.command([
            "run", "--rm", "-p", "80", "busybox", "ip", "-o", "-4", "addr", "show", "eth0",
        ]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<Child> = (0..20).map(spawn).collect();
    let mut addresses = BTreeSet::new();
    for child in all {
        addresses.insert(success(child.wait_with_output().unwrap()));
    }
    assert!(addresses.len() >= 10, "{addresses:?}");
    nothing_is_left(&before);
}

/// With a port, a limit and a volume each; every fourth in the background. Long (BOX_LONG=1): a thousand.
#[test]
fn one_after_another() {
    own_network();
    let (machine, bench) = (traces(), Bench::with_busybox());
    let long = std::env::var_os("BOX_LONG").is_some();
    let count = if long { 1000 } else { 24 };
    let options = [
        "--name", "again", "-p", "80", "-m", "64m", "-v", "/data", "busybox",
    ];
    let one = |number: usize| match number % 4 {
        0 => {
            bench.ok([&["run", "-d"][..], &options, &["sleep", "1000"]].concat());
            bench.ok(["exec", "again", "touch", "/data/file"]);
            bench.ok(["rm", "-f", "-v", "again"]);
        }
        _ => {
            bench.ok([&["run", "--rm"][..], &options, &["touch", "/data/file"]].concat());
        }
    };
    let files = || -> BTreeSet<String> {
        let all = walkdir::WalkDir::new(bench.store())
            .into_iter()
            .map(Result::unwrap);
        let kept = all.filter(|entry| {
            !entry
                .path()
                .components()
                .any(|part| part.as_os_str() == "journal")
        });
        kept.map(|entry| entry.path().display().to_string()).collect()
    };
    (0..4).for_each(one);
    let before = (Traces::of(&bench), files());
    (0..count).for_each(one);
    nothing_is_left(&machine);
    assert_eq!(Traces::of(&bench), before.0);
    let after = files();
    assert!(
        after == before.1,
        "{:?}",
        after.symmetric_difference(&before.1).take(20).collect::<Vec<_>>()
    );
}

/// An ordinary user with the image `busybox`.
fn ordinary(bench: &Bench) -> OrdinaryUser {
    let user = OrdinaryUser::new(bench);
    let tar = bench.busybox_tar();
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    user
}

/// How many there are in this thread's network namespace.
fn pastas() -> usize {
    let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let name = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        name.starts_with(b"pasta\0")
            && std::fs::read_link(entry.path().join("ns/net")).ok().as_ref() == Some(&own)
    })
    .count()
}

#[track_caller]
fn no_pasta_is_left() {
    let until = Instant::now() + PATIENCE;
    while pastas() > 0 {
        assert!(Instant::now() < until, "a pasta is left");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_ordinary_user_by_pasta() {
    own_network();
    let world = World::new();
    // An old pasta can't tell a caller that is the router from itself.
    sh(&format!("ip route add default via {ROUTER}"));
    let before = traces();
    let bench = Bench::new();
    let user = ordinary(&bench);
    let (at, served) = world.run(|| server("0.0.0.0"));
    // An old pasta loses the end of a connection that both sides end at once.
    let line = format!("sleep 1 | nc {WORLD} {}", at.port());
    let said = user.ok(["run", "--rm", "busybox", "sh", "-c", &line]);
    assert_eq!(said.trim(), FOR_WORLD.to_string());
    served.join().unwrap();
    no_pasta_is_left();
    // Services of the host's loopback are not the container's, by none of its addresses.
    let (at, _never) = server("127.0.0.1");
    let port = at.port();
    let line =
        format!("for a in 127.0.0.1 {FOR_WORLD} {WORLD}; do nc -w 1 $a {port} && echo reached; done; true");
    assert!(
        !user
            .ok(["run", "--rm", "busybox", "sh", "-c", &line])
            .contains("reached")
    );
    let args = [
        "run",
        "--rm",
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:80",
        "busybox",
        "sh",
        "-c",
        SLOW_HELLO,
    ];
    let running = start(user.command(args));
    let local = Ipv4Addr::LOCALHOST;
    assert_eq!(tcp((local, 8080)).unwrap(), "hello\n");
    assert_eq!(tcp((local, 8081)).unwrap(), "hello\n");
    assert!(world.run(|| is_closed((FOR_WORLD, 8081))));
    let output = user
        .command(["run", "--rm", "-p", "8080:80", "busybox", "true"])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(
        said.contains("port 0.0.0.0:8080/tcp of the host can't be published"),
        "{said}"
    );
    assert_eq!(pastas(), 1);
    drop(running);
    no_pasta_is_left();
    // A process that ends has no command line any more when its sockets are closed.
    let until = Instant::now() + PATIENCE;
    while !is_closed((local, 8080)) {
        assert!(Instant::now() < until);
    }
    let context = bench.context(
        "ctx",
        &[(
            "Boxfile",
            "FROM busybox\nRUN ip -o -4 addr show eth0\nRUN ip addr >/a\n",
        )],
    );
    user.ok(["build", "-q", context.to_str().unwrap()]);
    no_pasta_is_left();
    nothing_is_left(&before);
}

#[test]
fn without_pasta_the_cure_is_said() {
    let bench = Bench::new();
    let user = ordinary(&bench);
    let hide = ["run", "--rm", "busybox", "true"];
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c"]);
    command.arg("for d in /usr/bin /bin /usr/local/bin /usr/sbin; do [ -e $d/pasta ] && mount --bind /dev/null $d/pasta; done; exec \"$@\"");
    command
        .arg("sh")
        .arg(user.command(hide).get_program())
        .args(user.command(hide).get_args());
    command
        .env("HOME", user.home())
        .env("BOX_ROOT", user.home().join("store"));
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.contains("apt-get install passt") && said.contains("--network host"),
        "{said}"
    );
}

#[test]
fn named_networks() {
    own_network();
    let before = traces();
    let bench = Bench::with_busybox();
    bench.ok(["network", "create", "front"]);
    bench.ok(["network", "create", "back"]);
    for wrong in ["front", "host", "a/b", ""] {
        bench.fails(1, ["network", "create", wrong]);
    }
    assert_eq!(bench.ok(["network", "ls", "-q"]), "back\nfront\n");
    let args = [
        "run",
        "--rm",
        "--init",
        "--name",
        "web",
        "--network",
        "front",
        "--network-alias",
        "www",
        "busybox",
        "sh",
        "-c",
        HELLO,
    ];
    let web = start(bench.command(args));
    let until = Instant::now() + PATIENCE;
    while !bench.ok(["network", "inspect", "front"]).contains("\"www\"") {
        assert!(Instant::now() < until);
    }
    let ask = |network: &str, name: &str| {
        let line = format!("for i in 1 2 3 4 5; do nc -w 1 {name} 80 && exit; sleep 0.2; done; exit 1");
        bench.run(["run", "--rm", "--network", network, "busybox", "sh", "-c", &line])
    };
    for name in ["web", "www"] {
        assert_eq!(success(ask("front", name)), "hello\n");
    }
    assert!(!ask("back", "web").status.success());
    let said = bench.fails(1, ["network", "rm", "front"]);
    assert!(said.contains("in use"), "{said}");
    let said = bench.fails(125, ["run", "--rm", "--network-alias", "x", "busybox", "true"]);
    assert!(said.contains("named network"), "{said}");
    end(web);
    bench.ok(["network", "rm", "front", "back"]);
    assert_eq!(bench.ok(["network", "ls", "-q"]), "");
    nothing_is_left(&before);
}

#[test]
fn name_servers_on_the_hosts_loopback() {
    own_network();
    let before = traces();
    let bench = Bench::with_busybox();
    name_server([192, 0, 2, 99]);
    let file = bench.path("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
    let boxed = |args: &[&str]| {
        // Where systemd-resolved is at work, what is behind it would be asked.
        let hide = "mount --bind \"$0\" /etc/resolv.conf; mkdir -p /run/systemd/resolve 2>/dev/null; \
                    mount -t tmpfs none /run/systemd/resolve; exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", hide])
            .arg(&file)
            .arg(BOX)
            .args(args);
        success(command.env("BOX_ROOT", bench.store()).output().unwrap())
    };
    let said = boxed(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "cat /etc/resolv.conf; nslookup some.example",
    ]);
    assert!(
        said.starts_with("nameserver 127.0.0.11\n") && said.contains("192.0.2.99"),
        "{said}"
    );
    let context = bench.context(
        "ctx",
        &[("Boxfile", "FROM busybox\nRUN nslookup some.example >/said\n")],
    );
    boxed(&["build", "-q", "-t", "asking", context.to_str().unwrap()]);
    assert!(bench.sh("asking", "cat /said").contains("192.0.2.99"));
    let said = boxed(&[
        "run",
        "--rm",
        "--dns",
        "192.0.2.7",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ]);
    assert_eq!(said, "nameserver 192.0.2.7\n");
    nothing_is_left(&before);
}
