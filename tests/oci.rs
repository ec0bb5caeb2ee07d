//! `box oci` against the runtime specification: each of its MUSTs that a test can see is a named case, passed through the program.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;
#[path = "oci/mod.rs"]
mod oci;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{OrdinaryUser, USER_ID, sh};
use oci::Bundle;
use serde_json::{Value, json};

/// runtime.md: State, Create.
#[test]
fn create_makes_a_container_whose_command_does_not_run_yet() {
    let b = Bundle::new();
    b.command("touch /ran");
    b.ok(&["create", "c"]);
    assert!(!b.rootfs("ran").exists(), "user code MUST NOT run at create");
    let state = b.state("c");
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "c");
    assert_eq!(state["bundle"], b.dir().to_str().unwrap());
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    assert!(state["pid"].as_i64().unwrap() > 0);
    b.ok(&["start", "c"]);
    b.wait_stopped("c");
    assert!(b.rootfs("ran").exists());
    assert_eq!(b.state("c")["status"], "stopped");
    b.ok(&["delete", "c"]);
}

#[test]
fn annotations_are_in_the_state() {
    let b = Bundle::new();
    b.set("/annotations", json!({"org.example.key": "value"}));
    b.ok(&["create", "c"]);
    assert_eq!(b.state("c")["annotations"]["org.example.key"], "value");
    b.ok(&["delete", "--force", "c"]);
}

#[test]
fn operations_without_or_with_an_unknown_id_are_errors() {
    let b = Bundle::new();
    for operation in ["create", "state", "start", "kill", "delete", "exec"] {
        b.fails(&[operation]);
    }
    for operation in ["state", "start", "kill", "delete"] {
        assert!(
            b.fails(&[operation, "none"]).contains("does not exist"),
            "{operation}"
        );
    }
    b.ok(&["delete", "--force", "none"]);
}

#[test]
fn an_id_is_unique_and_no_path() {
    let b = Bundle::new();
    b.command("sleep 100");
    b.ok(&["create", "c"]);
    let before = b.state("c");
    assert!(b.fails(&["create", "c"]).contains("already exists"));
    assert_eq!(b.state("c"), before, "the container that is there is not touched");
    for bad in ["", ".", "..", "a/b", "../c", "-x"] {
        b.fails(&["create", "--", bad]);
    }
    b.ok(&["delete", "--force", "c"]);
    b.ok(&["create", "c"]);
    b.ok(&["delete", "--force", "c"]);
    assert_eq!(b.ok(&["list", "-q"]), "");
}

#[test]
fn changes_of_config_json_after_create_have_no_effect() {
    let b = Bundle::new();
    b.command("echo one > /out");
    b.ok(&["create", "c"]);
    b.command("echo two > /out");
    b.ok(&["start", "c"]);
    b.wait_stopped("c");
    assert_eq!(std::fs::read_to_string(b.rootfs("out")).unwrap(), "one\n");
    b.ok(&["delete", "c"]);
}

#[test]
fn start_twice_or_after_the_end_is_an_error_without_effect() {
    let b = Bundle::new();
    b.command("sleep 100");
    b.ok(&["create", "c"]);
    b.ok(&["start", "c"]);
    assert_eq!(b.state("c")["status"], "running");
    b.fails(&["start", "c"]);
    assert_eq!(b.state("c")["status"], "running");
    b.ok(&["kill", "c", "KILL"]);
    b.wait_stopped("c");
    b.fails(&["start", "c"]);
    b.ok(&["delete", "c"]);
}

#[test]
fn kill_reaches_created_and_running_containers_and_no_others() {
    let b = Bundle::new();
    b.command("trap 'exit 0' USR1; echo ready > /ready; while :; do sleep 0.05; done");
    b.ok(&["create", "c"]);
    b.ok(&["kill", "c", "0"]);
    b.ok(&["kill", "c", "TERM"]);
    b.wait_stopped("c");
    b.ok(&["delete", "c"]);
    b.ok(&["create", "c"]);
    b.ok(&["start", "c"]);
    b.wait_for("ready");
    b.ok(&["kill", "c", "SIGUSR1"]);
    b.wait_stopped("c");
    assert!(b.fails(&["kill", "c", "TERM"]).contains("not running"));
    b.fails(&["kill", "c", "NOSUCH"]);
    b.ok(&["delete", "c"]);
}

#[test]
fn delete_of_what_is_not_stopped_is_an_error() {
    let b = Bundle::new();
    b.command("sleep 100");
    b.ok(&["create", "c"]);
    assert!(b.fails(&["delete", "c"]).contains("not stopped"));
    b.ok(&["start", "c"]);
    b.fails(&["delete", "c"]);
    assert_eq!(b.state("c")["status"], "running");
    b.ok(&["delete", "--force", "c"]);
    b.fails(&["state", "c"]);
}

#[test]
fn delete_removes_what_create_made_and_nothing_else() {
    let b = Bundle::new();
    let group = format!("box-oci-test-{}", std::process::id());
    b.set("/linux/cgroupsPath", json!(format!("/{group}/c")));
    let find = || {
        sh(&format!(
            "find /sys/fs/cgroup -type d -path '*{group}*' -name c 2>/dev/null || true"
        ))
    };
    b.ok(&["create", "c"]);
    assert!(!find().is_empty());
    b.ok(&["delete", "--force", "c"]);
    assert_eq!(find(), "");
    assert!(b.rootfs("bin").exists());
    sh(&format!(
        "find /sys/fs/cgroup -depth -type d -name {group} -exec rmdir {{}} + ; true"
    ));
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let b = Bundle::new();
    b.set("/process/args", json!(["/no/such/program"]));
    let group = format!("/box-oci-none-{}", std::process::id());
    b.set("/linux/cgroupsPath", json!(group));
    let mounts = sh("cat /proc/self/mountinfo | wc -l");
    assert!(b.fails(&["create", "c"]).contains("executable file not found"));
    b.fails(&["state", "c"]);
    assert_eq!(
        sh(&format!(
            "find /sys/fs/cgroup -type d -path '*{group}' 2>/dev/null || true"
        )),
        ""
    );
    assert_eq!(sh("cat /proc/self/mountinfo | wc -l"), mounts);
    assert_eq!(b.processes(), "");
}

/// Killed at whatever moment, `create` leaves nothing that `delete --force` does not remove.
#[test]
fn a_create_that_is_killed_leaves_nothing_after_delete() {
    let b = Bundle::new();
    let group = format!("/box-oci-killed-{}", std::process::id());
    b.set("/linux/cgroupsPath", json!(format!("{group}/c")));
    b.command("sleep 100");
    let mut kinds = [0; 2];
    for moment in 0..40u64 {
        let mut create = b.start(&["create", "c"]);
        std::thread::sleep(std::time::Duration::from_micros(moment * 1500));
        let _ = create.kill();
        kinds[usize::from(create.wait().unwrap().success())] += 1;
        b.ok(&["delete", "--force", "c"]);
        b.fails(&["state", "c"]);
        assert_eq!(
            sh(&format!(
                "find /sys/fs/cgroup -type d -path '*{group}/c' 2>/dev/null || true"
            )),
            "",
            "{moment}"
        );
        b.wait_gone();
    }
    assert!(kinds[0] > 0, "{kinds:?}");
    sh(&format!(
        "find /sys/fs/cgroup -depth -type d -path '*{group}' -exec rmdir {{}} + ; true"
    ));
}

/// The number in the pid file is a child of the nearest reaper, and nobody of ours stays.
#[test]
fn nobody_stays_between_the_container_and_its_reaper() {
    let b = Bundle::new();
    b.command("sleep 100");
    b.ok(&["create", "--pid-file", b.path("pid").to_str().unwrap(), "c"]);
    let pid = std::fs::read_to_string(b.path("pid")).unwrap();
    assert_eq!(b.state("c")["pid"].to_string(), pid);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned();
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert_ne!(name.trim(), "box", "{parent}");
    b.ok(&["delete", "--force", "c"]);
}

/// config.md: Process, and config-linux.md: what a process gets.
#[test]
fn the_process_is_what_it_is_asked_to_be() {
    let b = Bundle::new();
    b.set(
        "/process/user",
        json!({"uid": 11, "gid": 12, "additionalGids": [13, 14], "umask": 0o027}),
    );
    b.set("/process/env", json!(["PATH=/bin", "A=b", "EMPTY="]));
    b.set("/process/cwd", json!("/made/when/missing"));
    b.set("/process/noNewPrivileges", json!(true));
    b.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]),
    );
    b.set("/process/oomScoreAdj", json!(300));
    b.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        }),
    );
    b.set("/hostname", json!("name"));
    b.set("/domainname", json!("domain"));
    let out = b.output(
        "id -u; id -g; id -G; umask; echo $A-$EMPTY-; pwd; ulimit -n; ulimit -Hn; hostname; cat /proc/sys/kernel/domainname; \
         cat /proc/self/oom_score_adj; grep -E 'Cap|NoNew' /proc/self/status | cut -f2; echo $HOME",
    );
    let lines: Vec<&str> = out.lines().collect();
    let caps = ["20", "20", "20", "21", "20"].map(|c| format!("{c:0>16}"));
    assert_eq!(
        lines[..11],
        [
            "11",
            "12",
            "12 13 14",
            "0027",
            "b--",
            "/made/when/missing",
            "100",
            "200",
            "name",
            "domain",
            "300"
        ]
    );
    assert_eq!(lines[11..16], caps);
    assert_eq!(lines[16], "1");
}

#[test]
fn a_process_without_capabilities_has_none() {
    let b = Bundle::new();
    b.remove("/process/capabilities");
    let out = b.output("grep -E 'Cap' /proc/self/status | cut -f2 | sort -u");
    assert_eq!(out.trim(), "0000000000000000");
}

#[test]
fn a_capability_nobody_knows_is_a_warning() {
    let b = Bundle::new();
    b.set(
        "/process/capabilities/bounding",
        json!(["CAP_KILL", "CAP_OF_TOMORROW"]),
    );
    b.command("exit 0");
    let output = b.run(&["run", "c"]);
    assert!(output.status.success());
    assert!(common::text(&output.stderr).contains("CAP_OF_TOMORROW"));
}

/// config-linux.md: Default Devices and Dev symbolic links.
#[test]
fn default_devices_and_links_are_there() {
    let b = Bundle::new();
    let out = b.output(
        "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' /dev/$d; done; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done",
    );
    let lines: Vec<&str> = out.lines().collect();
    let node = |name: &str, device: &str| format!("/dev/{name} character special file {device} 666");
    assert_eq!(
        lines[..6],
        [
            node("null", "1:3"),
            node("zero", "1:5"),
            node("full", "1:7"),
            node("random", "1:8"),
            node("urandom", "1:9"),
            node("tty", "5:0")
        ]
    );
    assert_eq!(
        lines[6..],
        [
            "/proc/self/fd",
            "/proc/self/fd/0",
            "/proc/self/fd/1",
            "/proc/self/fd/2",
            "pts/ptmx"
        ]
    );
}

#[test]
fn devices_asked_for_are_made() {
    let b = Bundle::new();
    b.set("/linux/devices", json!([
        {"path": "/dev/loose", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/deep/pipe", "type": "p", "major": 0, "minor": 0},
    ]));
    let out = b.output("stat -c '%F %t:%T %a %u:%g' /dev/loose; stat -c %F /dev/deep/pipe");
    assert_eq!(out, "character special file a:e5 640 5:6\nfifo\n");
}

#[test]
fn device_rules_hold() {
    let b = Bundle::new();
    b.set(
        "/linux/devices",
        json!([{"path": "/dev/loose", "type": "c", "major": 10, "minor": 229}]),
    );
    b.set(
        "/linux/resources/devices",
        json!([{"allow": false, "access": "rwm"}]),
    );
    assert_eq!(
        b.output("head -c 1 /dev/loose > /x 2>&1 && echo open || echo closed; echo > /dev/null && echo null"),
        "closed\nnull\n"
    );
    b.set("/linux/resources/devices", json!([
        {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
    ]));
    assert_eq!(b.output("exec 3</dev/loose && echo open"), "open\n");
}

/// config.md: Root, Mounts; config-linux.md: Readonly Paths, Masked Paths.
#[test]
fn root_and_mounts_are_as_asked_for() {
    let b = Bundle::new();
    std::fs::create_dir(b.path("given")).unwrap();
    std::fs::write(b.path("given/file"), "content").unwrap();
    b.set("/root/readonly", json!(true));
    b.mount(json!({"destination": "/ro", "source": "../given", "options": ["bind", "ro", "nosuid"]}));
    b.mount(json!({"destination": "/rw/deep", "type": "bind", "source": b.path("given"), "options": ["rbind", "rw"]}));
    b.mount(json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700", "noexec"]}));
    b.mount(json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    let out = b.output(
        "touch /x 2>&1 || echo root; touch /ro/x 2>&1 || echo ro; cat /ro/file; echo; touch /rw/deep/new && echo rw; \
         stat -c %a /t; grep -c ' /t tmpfs rw,noexec' /proc/mounts; grep -c root /etc/passwd; touch /etc/new && echo etc",
    );
    let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with("touch:")).collect();
    assert_eq!(lines, ["root", "ro", "content", "rw", "700", "1", "1", "etc"]);
    assert!(b.path("given/new").exists());
    assert!(!b.rootfs("etc/new").exists());
}

#[test]
fn masked_and_read_only_paths_hold() {
    let b = Bundle::new();
    std::fs::write(b.rootfs("secret"), "secret").unwrap();
    b.set(
        "/linux/maskedPaths",
        json!(["/secret", "/proc/kcore", "/sys/firmware", "/not/there"]),
    );
    b.set("/linux/readonlyPaths", json!(["/tmp", "/proc/sys", "/not/there"]));
    let out = b.output(
        "cat /secret; ls /sys/firmware | wc -l; head -c 1 /proc/kcore | wc -c; touch /tmp/x 2>&1 || echo ro; \
         echo 1 2>&1 > /proc/sys/kernel/panic || echo ro; umount /secret 2>&1 || echo stays",
    );
    let lines: Vec<&str> = out.lines().filter(|line| !line.contains(':')).collect();
    assert_eq!(lines, ["0", "0", "ro", "ro", "stays"]);
}

/// config-linux.md: Namespaces.
#[test]
fn namespaces_are_new_joined_or_the_callers() {
    let b = Bundle::new();
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}"))
            .unwrap()
            .display()
            .to_string()
    };
    let show = "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done";
    let new = b.output(show);
    for (line, kind) in new.lines().zip(["pid", "net", "ipc", "uts", "mnt", "cgroup"]) {
        assert_ne!(line, own(kind), "{kind}");
    }
    let holder = std::process::Command::new("unshare")
        .args(["-nu", "sleep", "100"])
        .spawn()
        .unwrap();
    let mut holder = Ended(holder);
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", holder.0.id());
    while std::fs::read_link(path("net")).unwrap().display().to_string() == own("net") {
        std::thread::yield_now();
    }
    let theirs = std::fs::read_link(path("net")).unwrap().display().to_string();
    b.remove("/hostname");
    b.set("/linux/namespaces", json!([{"type": "mount"}, {"type": "network", "path": path("net")}, {"type": "uts", "path": path("uts")}]));
    let out = b.output("readlink /proc/self/ns/net; readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc");
    assert_eq!(out, format!("{theirs}\n{}\n{}\n", own("pid"), own("ipc")));
    holder.0.kill().unwrap();
    let refuse = |b: &Bundle, namespaces: Value, what: &str| {
        b.set("/linux/namespaces", namespaces);
        let message = b.fails(&["create", "c"]);
        assert!(message.contains(what), "{message}");
    };
    refuse(
        &b,
        json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]),
        "twice",
    );
    refuse(
        &b,
        json!([{"type": "mount"}, {"type": "network", "path": "/etc/passwd"}]),
        "network",
    );
    refuse(
        &b,
        json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/uts"}]),
        "net",
    );
    refuse(
        &b,
        json!([{"type": "mount"}, {"type": "network", "path": "proc/self/ns/net"}]),
        "absolute",
    );
    refuse(&b, json!([{"type": "nonsense"}]), "nonsense");
    refuse(&b, json!([{"type": "pid"}]), "mount");
    refuse(&b, json!([{"type": "mount"}, {"type": "time"}]), "time");
}

struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// config-linux.md: User namespace mappings.
#[test]
fn a_user_namespace_is_mapped_as_asked_for() {
    let b = Bundle::new();
    sh(&format!("chown -R 300000:400000 {}", b.rootfs("").display()));
    b.namespace("user");
    b.set(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": 300_000, "size": 1000}]),
    );
    b.set(
        "/linux/gidMappings",
        json!([{"containerID": 0, "hostID": 400_000, "size": 2000}]),
    );
    let out = b.output(
        "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; touch /made; echo > /dev/null && echo null; id -u; \
         mount -o remount,bind,rw /sys 2>&1 | grep -c denied",
    );
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(lines[..4], ["0 300000 1000", "0 400000 2000", "null", "0"]);
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::metadata(b.rootfs("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (300_000, 400_000));
    b.remove("/linux/uidMappings");
    assert!(b.fails(&["create", "c"]).contains("uidMappings"));
}

/// `box oci` as an ordinary user, whose bundle it is. Gives the exit code, and what was printed.
fn as_user(b: &Bundle, user: &OrdinaryUser, before: &[&str], args: &[&str]) -> (Option<i32>, String) {
    let state = user.home().join("state");
    let program = user.home().join("box");
    let words: Vec<&OsStr> = before
        .iter()
        .map(OsStr::new)
        .chain([
            program.as_os_str(),
            "oci".as_ref(),
            "--root".as_ref(),
            state.as_os_str(),
        ])
        .chain(args.iter().map(OsStr::new))
        .collect();
    // The container keeps the streams of its `create`: a pipe would be waited for.
    let told = b.path("told");
    let file = std::fs::File::create(&told).unwrap();
    let mut command = user.command_of(&words);
    let status = command
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    (status.code(), std::fs::read_to_string(told).unwrap())
}

/// A user namespace is not asked of root: whoever has none makes it.
#[test]
fn an_ordinary_user_has_containers_of_its_own_ids() {
    let b = Bundle::new();
    let user = OrdinaryUser::new(b.bench());
    b.set("/process/capabilities/bounding", json!(["CAP_CHOWN", "CAP_KILL"]));
    b.set(
        "/process/capabilities/effective",
        json!(["CAP_CHOWN", "CAP_KILL"]),
    );
    b.set(
        "/process/capabilities/permitted",
        json!(["CAP_CHOWN", "CAP_KILL"]),
    );
    sh(&format!("chown -R {USER_ID}:{USER_ID} {}", b.dir().display()));
    let dir = b.dir().display().to_string();
    let run = |args: &[&str]| as_user(&b, &user, &[], args);
    let said = run(&["create", "--bundle", &dir, "c"]);
    assert!(
        said.0 == Some(1) && said.1.contains("needs a user namespace of its own"),
        "{said:?}"
    );
    b.namespace("user");
    let map = |first: u32, size: u32| {
        let map = json!([
            {"containerID": 0, "hostID": USER_ID, "size": 1},
            {"containerID": 1, "hostID": first, "size": size}
        ]);
        b.set("/linux/uidMappings", map.clone());
        b.set("/linux/gidMappings", map);
    };
    for (first, size) in [
        (0, 1),
        (5, 1),
        (USER_ID, 2),
        (699_999_999, 2),
        (700_000_000, 65_537),
    ] {
        map(first, size);
        let said = run(&["create", "--bundle", &dir, "c"]);
        assert!(
            said.0 == Some(1) && said.1.contains("the user may not map"),
            "{said:?}"
        );
        assert_eq!(run(&["list", "-q"]), (Some(0), String::new()));
    }
    map(700_000_000, 65_536);
    b.command("touch /made; chown 7:8 /made; echo > /dev/null; id -u > /told; sleep 100");
    assert_eq!(run(&["create", "--bundle", &dir, "c"]), (Some(0), String::new()));
    assert_eq!(run(&["start", "c"]), (Some(0), String::new()));
    b.wait_for("told");
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::metadata(b.rootfs("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (700_000_006, 700_000_007));
    let said = run(&[
        "exec",
        "c",
        "sh",
        "-c",
        "id -u; grep CapBnd /proc/self/status; exit 9",
    ]);
    assert_eq!(said, (Some(9), "0\nCapBnd:\t0000000000000021\n".to_owned()));
    let state: Value = serde_json::from_str(&run(&["state", "c"]).1).unwrap();
    assert_eq!(state["status"], "running");
    let processes = run(&["ps", "c"]).1;
    assert!(processes.contains(&format!("{}\n", state["pid"])), "{processes}");
    assert_eq!(run(&["kill", "c", "KILL"]), (Some(0), String::new()));
    b.wait_gone();
    assert_eq!(run(&["delete", "c"]), (Some(0), String::new()));
    // A limit that the user can't have is refused, not forgotten.
    b.set("/linux/resources", json!({"pids": {"limit": 9}}));
    let said = run(&["run", "--bundle", &dir, "d"]);
    assert!(said.0 == Some(1) && said.1.contains("pids"), "{said:?}");
    assert_eq!(run(&["list", "-q"]), (Some(0), String::new()));
}

/// As podman starts the runtime of an ordinary user: root already, in a user namespace that is the container's, too.
#[test]
fn root_of_a_user_namespace_shares_it_with_its_containers() {
    let b = Bundle::new();
    let user = OrdinaryUser::new(b.bench());
    sh(&format!("chown -R {USER_ID}:{USER_ID} {}", b.dir().display()));
    b.command("id -u; tr -s ' ' < /proc/self/uid_map; echo > /dev/null && echo null; test -c /dev/zero && echo zero");
    let dir = b.dir().display().to_string();
    let inside = ["unshare", "--user", "--map-root-user", "--mount"];
    let said = as_user(&b, &user, &inside, &["run", "--bundle", &dir, "c"]);
    assert_eq!(said, (Some(0), format!("0\n 0 {USER_ID} 1\nnull\nzero\n")));
}

/// config-linux.md: Sysctl.
#[test]
fn sysctls_of_the_containers_namespaces_alone() {
    let b = Bundle::new();
    b.set(
        "/linux/sysctl",
        json!({"kernel.msgmax": "4096", "net.ipv4.ip_forward": "1"}),
    );
    assert_eq!(
        b.output("cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward"),
        "4096\n1\n"
    );
    for name in [
        "kernel.panic",
        "vm.swappiness",
        "kernel.core_pattern",
        "net.ipv4.../../kernel/panic",
        "../x",
    ] {
        b.set("/linux/sysctl", json!({name: "1"}));
        assert!(b.fails(&["create", "c"]).contains("linux.sysctl"), "{name}");
    }
    b.set("/linux/sysctl", json!({"kernel.msgmax": "4096"}));
    b.set(
        "/linux/namespaces",
        json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]),
    );
    assert!(b.fails(&["create", "c"]).contains("host's"));
}

/// config-linux.md: Control groups.
#[test]
fn limits_are_set_in_the_group_that_is_named() {
    let b = Bundle::new();
    let path = format!("/box-oci-limits-{}", std::process::id());
    b.set("/linux/cgroupsPath", json!(path));
    b.set("/linux/resources", json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432}, "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 20}, "devices": [{"allow": false, "access": "rwm"}],
    }));
    b.command("sleep 100");
    b.ok(&["create", "c"]);
    let read = |names: &[&str]| {
        let found = names
            .iter()
            .find_map(|name| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok());
        found.unwrap_or_else(|| panic!("{names:?}")).trim().to_owned()
    };
    let (v1, v2) = (
        |c: &str, f: &str| format!("{c}{path}/{f}"),
        |f: &str| format!("{path}/{f}"),
    );
    assert_eq!(
        read(&[&v1("memory", "memory.limit_in_bytes"), &v2("memory.max")]),
        "67108864"
    );
    assert_eq!(read(&[&v1("pids", "pids.max"), &v2("pids.max")]), "20");
    assert!(
        ["50000", "50000 100000"].contains(&read(&[&v1("cpu", "cpu.cfs_quota_us"), &v2("cpu.max")]).as_str())
    );
    assert_eq!(read(&[&v1("cpuset", "cpuset.cpus"), &v2("cpuset.cpus")]), "0");
    let pid = b.state("c")["pid"].to_string();
    assert!(
        read(&[&v1("pids", "cgroup.procs"), &v2("cgroup.procs")])
            .lines()
            .any(|line| line == pid)
    );
    b.ok(&["delete", "--force", "c"]);
    for (resource, what) in [
        (json!({"unified": {"no.such.file": "1"}}), "unified"),
        (
            json!({"hugepageLimits": [{"pageSize": "../../x", "limit": 1}]}),
            "linux.resources",
        ),
        (json!({"memory": {"kernel": 1000}}), "kernel"),
    ] {
        b.set("/linux/resources", resource);
        assert!(b.fails(&["create", "c"]).contains(what), "{what}");
    }
    for bad in ["/", "/../x", "a/../../b"] {
        b.set("/linux/cgroupsPath", json!(bad));
        assert!(b.fails(&["create", "c"]).contains("cgroupsPath"), "{bad}");
    }
}

/// What is in it would be killed with the container.
#[test]
fn a_group_of_others_is_refused() {
    let b = Bundle::new();
    let path = format!("/box-oci-shared-{}", std::process::id());
    b.set("/linux/cgroupsPath", json!(path));
    b.command("sleep 100");
    b.ok(&["create", "one"]);
    assert!(b.fails(&["create", "two"]).contains("has processes already"));
    assert_eq!(b.state("one")["status"], "created");
    b.ok(&["delete", "--force", "one"]);
    b.ok(&["create", "two"]);
}

/// config-linux.md: Seccomp.
#[test]
fn the_filter_is_the_one_given() {
    let b = Bundle::new();
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
    ]}));
    let out = b.output(
        "grep Seccomp: /proc/self/status; mkdir /d 2>&1; kill -USR1 99999 2>&1; kill -USR2 99999 2>&1; true",
    );
    assert!(out.contains("Seccomp:\t2"), "{out}");
    assert!(out.contains("Cannot assign requested address"), "errno 99: {out}");
    assert!(
        out.contains("Operation not permitted") && out.contains("No such process"),
        "{out}"
    );
    for (profile, what) in [
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
            "NOTIFY",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}),
            "listenerPath",
        ),
        (json!({"defaultAction": "SCMP_ACT_NONSENSE"}), "NONSENSE"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
            "argument 6",
        ),
    ] {
        b.set("/linux/seccomp", profile);
        let message = b.fails(&["create", "c"]);
        assert!(message.contains(what), "{what}: {message}");
    }
}

/// runtime.md: Lifecycle; config.md: POSIX-platform Hooks.
#[test]
fn hooks_run_at_their_points_with_the_state() {
    let b = Bundle::new();
    let log = b.path("hooks");
    std::fs::write(&log, "").unwrap();
    let hook = |name: &str| {
        json!([{"path": "/bin/sh", "args": ["sh", "-c", format!(
            "s=$(cat); echo {name} $(echo $s | tr -d ' \\n\"' | grep -o 'status:[a-z]*') >> {}", log.display()
        )], "env": ["PATH=/usr/bin:/bin"]}])
    };
    // What runs in the container's own root writes there.
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /inside; echo $V >> /inside"], "env": ["V=value"]}]);
    b.set("/hooks", json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
        "startContainer": inside, "poststart": hook("poststart"), "poststop": hook("poststop"),
    }));
    b.command("sleep 100");
    let lines = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    b.ok(&["create", "c"]);
    assert_eq!(
        lines(),
        [
            "prestart status:creating",
            "createRuntime status:creating",
            "createContainer status:creating"
        ]
    );
    assert!(!b.rootfs("inside").exists());
    b.ok(&["start", "c"]);
    assert_eq!(lines()[3..], ["poststart status:running"]);
    let inside = std::fs::read_to_string(b.rootfs("inside")).unwrap();
    let (state, variable) = inside.rsplit_once('}').unwrap();
    let state: Value = serde_json::from_str(&format!("{state}}}")).unwrap();
    assert_eq!(
        (state["id"].as_str(), state["pid"].as_i64()),
        (Some("c"), Some(1))
    );
    assert_eq!(variable.trim(), "value");
    b.ok(&["delete", "--force", "c"]);
    assert_eq!(lines()[4..], ["poststop status:stopped"]);
}

#[test]
fn a_failing_hook_fails_its_operation() {
    let b = Bundle::new();
    let fails = json!([{"path": "/bin/false"}]);
    for point in ["prestart", "createRuntime", "createContainer"] {
        b.set("/hooks", json!({point: fails}));
        assert!(b.fails(&["create", "c"]).contains("hook"), "{point}");
        b.fails(&["state", "c"]);
    }
    b.set("/hooks", json!({"startContainer": fails}));
    b.command("touch /ran");
    b.ok(&["create", "c"]);
    assert!(b.fails(&["start", "c"]).contains("hook"));
    b.wait_stopped("c");
    assert!(!b.rootfs("ran").exists());
    b.ok(&["delete", "c"]);
    for point in ["poststart", "poststop"] {
        b.set("/hooks", json!({point: fails}));
        assert!(b.run(&["run", "c"]).status.success(), "{point} only warns");
    }
    b.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}),
    );
    assert!(b.fails(&["create", "c"]).contains("within 1 s"));
    for hook in [
        json!({"path": "bin/true"}),
        json!({"path": "/bin/true", "timeout": 0}),
    ] {
        b.set("/hooks", json!({"prestart": [hook]}));
        b.fails(&["create", "c"]);
    }
}

/// Hostile bundles: none reaches outside its root.
#[test]
fn mount_destinations_never_lead_outside() {
    let b = Bundle::new();
    let outside = b.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, b.rootfs("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../..", b.rootfs("up")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", b.rootfs("magic")).unwrap();
    let down = outside.display().to_string();
    for destination in [
        "/absolute/x".to_owned(),
        format!("/up{down}/x"),
        format!("/../../..{down}/x"),
        format!("/tmp/../..{down}/y"),
    ] {
        b.remove_mounts();
        b.mount(
            json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["mode=700"]}),
        );
        b.output("true");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{destination}");
    }
    for destination in ["/magic/x", "/proc/self/x", "/proc/sys", "/", "/.."] {
        b.remove_mounts();
        b.mount(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
        b.fails(&["create", "c"]);
    }
}

#[test]
fn proc_is_proc_or_the_container_is_refused() {
    let b = Bundle::new();
    let mount = |kind: Value| {
        let mounts = json!([kind]);
        b.set("/mounts", mounts);
    };
    std::fs::create_dir(b.path("fake")).unwrap();
    mount(json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}));
    b.fails(&["create", "c"]);
    mount(json!({"destination": "/proc", "type": "bind", "source": b.path("fake"), "options": ["bind"]}));
    assert!(b.fails(&["create", "c"]).contains("no proc"));
    mount(json!({"destination": "/proc", "type": "proc", "source": "proc"}));
    sh(&format!(
        "cd {} && rmdir proc && ln -s tmp proc",
        b.rootfs("").display()
    ));
    assert!(b.fails(&["create", "c"]).contains("symlink"));
}

#[test]
fn a_root_that_is_a_link_or_missing_is_refused() {
    let b = Bundle::new();
    std::os::unix::fs::symlink("rootfs", b.dir().join("link")).unwrap();
    b.set("/root/path", json!("link"));
    assert!(b.fails(&["create", "c"]).contains("symlink"));
    b.set("/root/path", json!("none"));
    b.fails(&["create", "c"]);
    b.set("/root/path", json!("config.json"));
    b.fails(&["create", "c"]);
    b.remove("/root");
    assert!(b.fails(&["create", "c"]).contains("root"));
}

/// A device of the root file system does not stand in for one that is asked for (CVE-2025-31133).
#[test]
fn devices_of_the_root_file_system_are_not_believed() {
    let b = Bundle::new();
    b.set(
        "/mounts",
        json!([{"destination": "/proc", "type": "proc", "source": "proc"}]),
    );
    b.set("/linux/maskedPaths", json!(["/secret"]));
    std::fs::write(b.rootfs("secret"), "secret").unwrap();
    sh(&format!("mknod {} c 1 5", b.rootfs("dev/null").display()));
    assert!(b.fails(&["create", "c"]).contains("another device"));
    sh(&format!(
        "cd {} && rm null && ln -s /etc/passwd null",
        b.rootfs("dev").display()
    ));
    assert!(b.fails(&["create", "c"]).contains("another device"));
}

#[test]
fn no_descriptor_leaks_and_a_working_directory_outside_is_refused() {
    let b = Bundle::new();
    assert_eq!(b.output("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ");
    b.set("/process/cwd", json!("/proc/self/fd/7"));
    b.fails(&["create", "c"]);
    b.set("/process/cwd", json!("relative"));
    assert!(b.fails(&["create", "c"]).contains("process.cwd"));
}

#[test]
fn descriptors_asked_for_are_kept() {
    let b = Bundle::new();
    b.command("cat <&3; ls /proc/self/fd | tr '\\n' ' '");
    std::fs::write(b.path("given"), "given ").unwrap();
    let line = format!(
        "{} oci --root {} run -b {} --preserve-fds 1 c 3<{}",
        common::BOX,
        b.path("state").display(),
        b.dir().display(),
        b.path("given").display()
    );
    assert_eq!(sh(&line), "given 0 1 2 3 4 ");
}

/// What is not supported is refused by name, never ignored; what nobody knows is ignored, as config.md has it.
#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (place, value, name) in [
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        (
            "/linux/personality",
            json!({"domain": "LINUX32"}),
            "linux.personality",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            "linux.timeOffsets",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
            "process.ioPriority",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH"}),
            "process.scheduler",
        ),
        ("/process/terminal", json!(true), "--console-socket"),
        ("/process/apparmorProfile", json!("x"), "process.apparmorProfile"),
        ("/process/selinuxLabel", json!("x"), "process.selinuxLabel"),
        ("/linux/mountLabel", json!("x"), "linux.mountLabel"),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation",
        ),
        ("/process/args", json!([]), "process.args"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
            "twice",
        ),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "ext4", "source": "/dev/sda"}]),
            "ext4",
        ),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"]}]),
            "idmap",
        ),
        ("/hostname", json!("x".repeat(65)), "hostname"),
    ] {
        let b = Bundle::new();
        if std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.trim() == "Y")
            && place.contains("apparmor")
        {
            continue;
        }
        b.set(place, value);
        let message = b.fails(&["create", "c"]);
        assert!(message.contains(name), "{place}: {message}");
        b.fails(&["state", "c"]);
    }
    let b = Bundle::new();
    b.set("/unheardOf", json!({"x": 1}));
    b.set("/linux/unheardOf", json!(1));
    assert_eq!(b.output("echo fine"), "fine\n");
}

/// The command line of other runtimes.
#[test]
fn exec_run_list_and_the_log_are_as_others_have_them() {
    let b = Bundle::new();
    b.command("sleep 100");
    b.ok(&["create", "c"]);
    b.ok(&["start", "c"]);
    let process = b.path("process.json");
    let given = json!({"user": {"uid": 7, "gid": 8}, "args": ["sh", "-c", "id -u; ps | wc -l; cat /proc/self/cgroup; exit 9"], "env": ["PATH=/bin"], "cwd": "/tmp"});
    std::fs::write(&process, given.to_string()).unwrap();
    let output = b.run(&["exec", "--process", process.to_str().unwrap(), "c"]);
    assert_eq!(output.status.code(), Some(9), "{}", common::text(&output.stderr));
    assert!(common::text(&output.stdout).starts_with("7\n"));
    assert_eq!(
        common::text(&b.run(&["exec", "c", "echo", "-n", "-x"]).stdout),
        "-x"
    );
    let pid = b.path("exec.pid");
    b.ok(&[
        "exec",
        "--detach",
        "--pid-file",
        pid.to_str().unwrap(),
        "c",
        "sleep",
        "50",
    ]);
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(b.ok(&["ps", "--format", "json", "c"]).contains(&pid));
    assert!(
        b.fails(&["exec", "c", "/no/such"])
            .contains("executable file not found")
    );
    assert!(b.ok(&["list"]).contains("running"));
    b.ok(&["kill", "--all", "c", "KILL"]);
    b.wait_stopped("c");
    b.fails(&["exec", "c", "true"]);
    b.ok(&["delete", "c"]);
    b.command("exit 5");
    assert_eq!(b.run(&["run", "c"]).status.code(), Some(5));
    let log = b.path("log");
    let output = b.with(
        &["--log", log.to_str().unwrap(), "--log-format", "json"],
        &["state", "none"],
    );
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"));
    assert!(common::text(&b.with(&["--systemd-cgroup"], &["state", "c"]).stderr).contains("not supported"));
    let features: Value = serde_json::from_str(&b.ok(&["features"])).unwrap();
    assert!(features["linux"]["seccomp"]["actions"].as_array().unwrap().len() > 5);
}

#[test]
fn paused_containers_stand_still_and_can_be_removed() {
    let b = Bundle::new();
    b.command("while :; do sleep 0.05; done");
    b.ok(&["create", "c"]);
    b.fails(&["pause", "c"]);
    b.ok(&["start", "c"]);
    b.ok(&["pause", "c"]);
    assert_eq!(b.state("c")["status"], "paused");
    b.fails(&["pause", "c"]);
    b.fails(&["exec", "c", "true"]);
    b.ok(&["resume", "c"]);
    assert_eq!(b.state("c")["status"], "running");
    b.ok(&["pause", "c"]);
    b.ok(&["delete", "--force", "c"]);
}

#[test]
fn a_terminal_goes_to_the_socket() {
    let b = Bundle::new();
    b.set("/process/terminal", json!(true));
    b.set("/process/consoleSize", json!({"height": 33, "width": 77}));
    b.set("/process/user", json!({"uid": 5, "gid": 5}));
    b.command("tty; stty size; stat -c '%t:%u' /dev/console; echo again > /dev/tty; read x; exit 4");
    let script = b.path("console.py");
    std::fs::write(&script, oci::CONSOLE).unwrap();
    let socket = b.path("console");
    let line = format!(
        "python3 {} {} {} oci --root {} create -b {} --console-socket {} c && true",
        script.display(),
        socket.display(),
        common::BOX,
        b.path("state").display(),
        b.dir().display(),
        socket.display()
    );
    let out = sh(&line);
    assert!(
        out.contains("/dev/pts/0") && out.contains("33 77") && out.contains("88:5") && out.contains("again"),
        "{out}"
    );
    b.ok(&["delete", "--force", "c"]);
}

#[test]
fn called_by_its_own_name_it_is_the_runtime() {
    let b = Bundle::new();
    let link = b.path("box-oci");
    std::os::unix::fs::symlink(common::BOX, &link).unwrap();
    let out = sh(&format!(
        "{} --root {} list; {} --version",
        link.display(),
        b.path("state").display(),
        link.display()
    ));
    assert!(out.starts_with("ID") && out.contains("box"), "{out}");
}

/// `box bundle` writes what every runtime runs.
#[test]
fn an_image_becomes_a_bundle() {
    let bench = common::Bench::with_busybox();
    let context = bench.context("ctx", &[]);
    bench.build(&context, "FROM busybox\nUSER nobody\nENV A=b\nWORKDIR /var\nCMD [\"sh\", \"-c\", \"id -u; echo $A; pwd; grep -c Seccomp:.2 /proc/self/status; cat /proc/keys | wc -c; exit 3\"]\n", &["-t", "made"]);
    let dir = bench.path("bundle");
    bench.ok(["bundle", "made", dir.to_str().unwrap()]);
    assert!(
        bench
            .fails(125, ["bundle", "made", dir.to_str().unwrap()])
            .contains("not empty")
    );
    let mode = dir.join("config.json").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o077 & 0o022, 0);
    let state = bench.path("state");
    let runtimes = [format!("{} oci", common::BOX), "runc".to_owned()];
    for runtime in runtimes
        .iter()
        .filter(|name| !name.starts_with("runc") || Path::new("/usr/sbin/runc").exists())
    {
        let out = sh(&format!(
            "cd {} && {runtime} --root {} run b || echo $?",
            dir.display(),
            state.display()
        ));
        assert_eq!(out, "65534\nb\n/var\n1\n0\n3\n", "{runtime}");
    }
}
