//! Volumes and mounts of `box run`, through the program: as root, and as an ordinary user.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, OrdinaryUser, Traces, sh, success, text};

const SECRET: &str = "correct horse battery staple";

/// An image whose /srv/data holds something, and is a VOLUME.
const APP: &str = "FROM busybox\n\
    RUN mkdir -p /srv/data/sub && echo of the image > /srv/data/file && ln /srv/data/file /srv/data/sub/link \
    && ln -s /etc/passwd /srv/data/symbolic && chown -R 7:8 /srv/data && chmod 1770 /srv/data && chmod 4755 /srv/data/file\n\
    VOLUME /srv/data\n";

/// Somebody with a store that holds `busybox` and `app`.
struct Who {
    bench: Bench,
    user: Option<OrdinaryUser>,
}

impl Who {
    fn root() -> Self {
        let bench = Bench::with_busybox();
        let user = None;
        Self { bench, user }.with_app()
    }

    fn ordinary() -> Self {
        let bench = Bench::new();
        let tar = bench.busybox_tar();
        let user = OrdinaryUser::new(&bench);
        let copy = user.home().join("rootfs.tar");
        fs::copy(tar, &copy).unwrap();
        user.ok(["import", "--progress", "quiet", copy.to_str().unwrap(), "busybox"]);
        let user = Some(user);
        Self { bench, user }.with_app()
    }

    fn with_app(self) -> Self {
        self.build(APP, "app");
        self
    }

    fn build(&self, boxfile: &str, name: &str) {
        let context = self.bench.context("context", &[("Boxfile", boxfile)]);
        self.ok(&["build", "-q", "-t", name, context.to_str().unwrap()]);
    }

    fn command(&self, args: &[&str]) -> Command {
        match &self.user {
            Some(user) => user.command(args),
            None => self.bench.command(args),
        }
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        success(self.output(args))
    }

    fn run_command(&self, options: &[&str], image: &str, line: &str) -> Command {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(options);
        args.extend([image, "sh", "-c", line]);
        self.command(&args)
    }

    /// Runs a shell line, which must succeed.
    #[track_caller]
    fn run(&self, options: &[&str], image: &str, line: &str) -> String {
        success(self.run_command(options, image, line).output().unwrap())
    }

    /// A run that box refuses; what it says.
    #[track_caller]
    fn refused(&self, options: &[&str], image: &str, expected: &[&str]) {
        let output = self.run_command(options, image, "echo started").output().unwrap();
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{options:?}: {told}");
        assert_eq!(text(&output.stdout), "", "{options:?}");
        for part in expected {
            assert!(told.contains(part), "{options:?}: no {part:?} in: {told}");
        }
    }

    /// A directory of the host that this user may write.
    fn directory(&self, name: &str) -> PathBuf {
        let dir = match &self.user {
            Some(user) => user.home().join(name),
            None => self.bench.path(name),
        };
        fs::create_dir_all(&dir).unwrap();
        if self.user.is_some() {
            std::os::unix::fs::chown(&dir, Some(common::USER_ID), Some(common::USER_ID)).unwrap();
        }
        dir
    }

    fn store(&self) -> PathBuf {
        match &self.user {
            Some(user) => user.home().join("store"),
            None => self.bench.store(),
        }
    }

    fn volumes(&self) -> String {
        self.ok(&["volume", "ls", "-q"])
    }
}

/// The test, as root and as an ordinary user.
fn as_both(test: impl Fn(&Who)) {
    test(&Who::root());
    test(&Who::ordinary());
}

#[test]
fn a_volume_is_shared_and_outlives_its_containers() {
    as_both(|who| {
        who.run(
            &["-v", "data:/data"],
            "busybox",
            "echo kept > /data/file; chown 7:8 /data/file",
        );
        let line = "cat /other/file; stat -c %u:%g:%h /other/file";
        assert_eq!(
            who.run(&["-v", "data:/other:ro"], "busybox", line),
            "kept\n7:8:1\n"
        );
        // On disk ids are the containers' own, however they are mapped outside.
        if who.user.is_none() {
            let file = fs::metadata(who.store().join("volumes/data/data/file")).unwrap();
            assert_eq!((file.uid(), file.gid()), (7, 8));
        }
        let line = "echo x > /data/file || echo refused; touch /data/new || echo refused";
        assert_eq!(
            who.run(&["-v", "data:/data:ro"], "busybox", line),
            "refused\nrefused\n"
        );
        // Two at once: each sees what the other one writes.
        let mut first = who
            .run_command(
                &["-v", "data:/a"],
                "busybox",
                "until [ -e /a/go ]; do sleep 0.05; done; echo done > /a/answer",
            )
            .spawn()
            .unwrap();
        let line = "echo > /b/go; until [ -s /b/answer ]; do sleep 0.05; done; cat /b/answer";
        assert_eq!(who.run(&["-v", "data:/b"], "busybox", line), "done\n");
        assert!(first.wait().unwrap().success());
        assert_eq!(who.volumes(), "data\n");
    });
}

#[test]
fn a_volume_is_filled_once() {
    as_both(|who| {
        let line = "stat -c %n:%u:%g:%a:%h /srv/data /srv/data/file; cat /srv/data/file /srv/data/sub/link; readlink /srv/data/symbolic";
        let filled =
            "/srv/data:7:8:1770:3\n/srv/data/file:7:8:4755:2\nof the image\nof the image\n/etc/passwd\n";
        assert_eq!(who.run(&["-v", "data:/srv/data"], "app", line), filled);
        let line = "rm /srv/data/file; echo changed > /srv/data/sub/link";
        who.run(&["-v", "data:/srv/data"], "app", line);
        let line = "ls /srv/data; cat /srv/data/sub/link";
        assert_eq!(
            who.run(&["-v", "data:/srv/data"], "app", line),
            "sub\nsymbolic\nchanged\n"
        );
        assert_eq!(
            who.run(&["-v", "none:/srv/data:nocopy"], "app", "ls -A /srv/data"),
            ""
        );
        // Of the empty volume the next one to ask is the first again.
        let read_only = ["--mount", "src=none,dst=/srv/data,ro"];
        assert_eq!(who.run(&read_only, "app", "cat /srv/data/file"), "of the image\n");
        let no_copy = [
            "--mount",
            "src=none2,dst=/srv/data,volume-nocopy,volume-label=a=b",
        ];
        assert_eq!(who.run(&no_copy, "app", "ls -A /srv/data"), "");
        assert_eq!(
            who.ok(&["volume", "ls", "-q", "--filter", "label=a=b"]),
            "none2\n"
        );
    });
}

#[test]
fn first_users_at_once_fill_it_once() {
    let who = Who::root();
    let files = "FROM busybox\nRUN mkdir /d && for n in $(seq 500); do echo $n > /d/$n; done\n";
    who.build(files, "many");
    let line = "ls /d | wc -l; stat -c %i /d/1";
    let start = |_| {
        let mut command = who.run_command(&["-v", "data:/d"], "many", line);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<_> = (0..6).map(start).collect();
    let told: Vec<String> = all
        .into_iter()
        .map(|child| success(child.wait_with_output().unwrap()))
        .collect();
    assert!(told[0].starts_with("500\n"), "{told:?}");
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
}

#[test]
fn what_is_in_use_is_not_removed() {
    as_both(|who| {
        let started = who.directory("started");
        let bind = format!("{}:/s", started.display());
        let line = "echo > /s/up; until [ -e /s/end ]; do sleep 0.05; done";
        let mut running = who
            .run_command(
                &["-v", "data:/data", "-v", &bind, "-v", "/anonymous"],
                "busybox",
                line,
            )
            .spawn()
            .unwrap();
        while !started.join("up").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let refused = who.output(&["volume", "rm", "data"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("in use by a running container; stop that first"));
        assert!(
            who.ok(&["volume", "prune", "-a", "-f"])
                .contains("reclaimed space: 0B")
        );
        assert_eq!(who.ok(&["volume", "ls", "-q", "--filter", "dangling=true"]), "");
        assert_eq!(who.volumes().lines().count(), 2);
        // Nor does a collection touch it.
        who.ok(&["gc", "--wait", "1"]);
        fs::write(started.join("end"), "").unwrap();
        assert!(running.wait().unwrap().success());
        assert_eq!(
            who.volumes(),
            "data\n",
            "what nobody named went with its container"
        );
        assert_eq!(who.ok(&["volume", "prune", "-f"]), "Total reclaimed space: 0B\n");
        assert!(
            who.ok(&["volume", "prune", "-a", "-f"])
                .starts_with("Deleted Volumes:\ndata\n")
        );
        assert_eq!(who.volumes(), "");
    });
}

#[test]
fn volumes_on_the_command_line() {
    let who = Who::root();
    assert_eq!(who.ok(&["volume", "create", "--label", "a=b", "data"]), "data\n");
    assert_eq!(
        who.ok(&["volume", "create", "data"]),
        "data\n",
        "it is there already"
    );
    let random = who.ok(&["volume", "create"]);
    assert_eq!(random.trim().len(), 64);
    let shown: serde_json::Value = serde_json::from_str(&who.ok(&["volume", "inspect", "data"])).unwrap();
    let place = who.store().canonicalize().unwrap().join("volumes/data/data");
    assert_eq!(shown[0]["Name"], "data");
    assert_eq!(shown[0]["Driver"], "local");
    assert_eq!(shown[0]["Scope"], "local");
    assert_eq!(shown[0]["Labels"]["a"], "b");
    assert_eq!(shown[0]["Mountpoint"], place.to_str().unwrap());
    assert!(shown[0]["CreatedAt"].as_str().unwrap().ends_with('Z'));
    let listed: serde_json::Value =
        serde_json::from_str(&who.ok(&["volume", "ls", "--format", "json", "--filter", "name=dat"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(who.ok(&["volume", "ls"]).starts_with("DRIVER   VOLUME NAME\n"));
    let check = |args: &[&str], code: i32, expected: &str| {
        let output = who.output(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(
            text(&output.stderr).contains(expected),
            "{}",
            text(&output.stderr)
        );
    };
    check(&["volume", "create", "../x"], 1, "can't name a volume");
    check(
        &["volume", "create", "--label", "a=c", "data"],
        1,
        "with other labels",
    );
    check(
        &["volume", "create", "-d", "nfs", "x1"],
        125,
        "[possible values: local]",
    );
    check(&["volume", "inspect", "none"], 1, "`box volume ls` lists them");
    check(&["volume", "rm", "none"], 1, "there is no volume none");
    check(&["volume", "rm", "-f", "none"], 0, "");
    check(
        &["volume", "ls", "--filter", "size=1"],
        125,
        "there are dangling, name",
    );
    check(&["volume", "prune", "-f", "--filter", "label!=a"], 0, "");
    assert_eq!(who.volumes(), "data\n");
    assert_eq!(who.ok(&["volume", "rm", "data"]), "data\n");
    assert!(!who.bench.path("x").exists());
}

#[test]
fn volumes_that_nobody_named_go_with_their_container() {
    as_both(|who| {
        let line =
            "cat /srv/data/file; echo x > /srv/data/x; echo y > /more/y; grep -c ' /srv/data ' /proc/mounts";
        assert_eq!(who.run(&["-v", "/more"], "app", line), "of the image\n1\n");
        assert_eq!(who.volumes(), "");
        // Each has its own.
        assert_eq!(who.run(&[], "app", "ls /srv/data"), "file\nsub\nsymbolic\n");
        // What is asked for comes before the image's VOLUME.
        let line = "stat -c %a /srv/data; ls /srv/data";
        assert_eq!(who.run(&["--tmpfs", "/srv/data:mode=700"], "app", line), "700\n");
        assert_eq!(fs::read_dir(who.store().join("volumes")).unwrap().count(), 0);
    });
}

#[test]
fn a_kill_leaves_nothing() {
    let who = Who::root();
    let before = Traces::of(&who.bench);
    let started = who.directory("started");
    let bind = format!("{}:/s", started.display());
    let options = ["-v", "/own", "-v", &bind, "--mount", "type=image,src=app,dst=/i"];
    let mut running = who
        .run_command(&options, "app", "echo > /s/up; sleep 100")
        .spawn()
        .unwrap();
    while !started.join("up").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let left = || fs::read_dir(who.store().join("volumes")).unwrap().count();
    // Whatever the next command is.
    while left() > 0 || Traces::of(&who.bench) != before {
        who.ok(&["images"]);
        assert!(Instant::now() < end, "{} {:?}", left(), Traces::of(&who.bench));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn directories_of_the_host() {
    as_both(|who| {
        let dir = who.directory("host");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("file"), "of the host\n").unwrap();
        let owner = dir.metadata().unwrap().uid();
        sh(&format!("chown -R {owner}:{owner} {}", dir.display()));
        let at = |options: &str| format!("{}:/h{options}", dir.display());
        // Changes are thrown away.
        let line = "cat /h/file; echo changed > /h/file; rm -r /h/sub; touch /h/new; cat /h/file; ls /h";
        let told = who.run(&["-v", &at(":O")], "busybox", line);
        assert_eq!(told, "of the host\nchanged\nfile\nnew\n");
        assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "of the host\n");
        assert!(dir.join("sub").exists() && !dir.join("new").exists());
        let line = "cat /h/file; touch /h/new || echo refused";
        assert_eq!(
            who.run(&["-v", &at(":ro")], "busybox", line),
            "of the host\nrefused\n"
        );
        assert_eq!(
            who.run(&["-v", &at(":O,ro")], "busybox", line),
            "of the host\nrefused\n"
        );
        let mount = format!("type=bind,src={},dst=/h,bind-nonrecursive,noexec", dir.display());
        let line = "grep ' /h ' /proc/mounts | grep -o noexec; echo made > /h/made";
        assert_eq!(who.run(&["--mount", &mount], "busybox", line), "noexec\n");
        assert_eq!(fs::read_to_string(dir.join("made")).unwrap(), "made\n");
        who.refused(&["-v", "/none/such:/h"], "busybox", &["/none/such", "mkdir -p"]);
        who.refused(
            &["-v", &format!("{}/file:/h:O", dir.display())],
            "busybox",
            &["no directory", ":ro"],
        );
    });
}

/// Where there is no SELinux, its labels mean nothing.
#[test]
fn labels_of_selinux() {
    let who = Who::root();
    if Path::new("/sys/fs/selinux/enforce").exists() {
        who.refused(&["-v", "data:/d:z"], "busybox", &["chcon"]);
    } else {
        assert_eq!(who.run(&["-v", "data:/d:Z"], "busybox", "ls /d"), "");
    }
}

#[test]
fn images_as_mounts() {
    as_both(|who| {
        let line = "cat /i/srv/data/file; stat -c %u:%g /i/srv/data/file; echo x > /i/x || echo refused";
        let told = who.run(&["--mount", "type=image,src=app,dst=/i"], "busybox", line);
        assert_eq!(told, "of the image\n7:8\nrefused\n");
        let mount = "type=image,src=app,dst=/i,image-subpath=srv/data,rw";
        let line = "ls /i; echo x > /i/file; cat /i/file";
        assert_eq!(
            who.run(&["--mount", mount], "busybox", line),
            "file\nsub\nsymbolic\nx\n"
        );
        assert_eq!(
            who.run(&["--mount", mount], "busybox", "cat /i/file"),
            "of the image\n"
        );
        who.refused(
            &["--mount", "type=image,src=none,dst=/i"],
            "busybox",
            &["no image named", "`box images`"],
        );
        let missing = "type=image,src=app,dst=/i,image-subpath=none";
        who.refused(
            &["--mount", missing],
            "busybox",
            &["the image app has no none", "image-subpath names"],
        );
    });
}

#[test]
fn a_read_only_root_with_mounts() {
    as_both(|who| {
        let line = "echo v > /data/v && echo t > /tmp/t && echo n > /deep/er/n && cat /data/v /tmp/t /deep/er/n; \
                    echo r > /r || echo refused";
        let options = [
            "--read-only",
            "-v",
            "data:/data",
            "--tmpfs",
            "/tmp",
            "-v",
            "/deep/er",
        ];
        assert_eq!(who.run(&options, "busybox", line), "v\nt\nn\nrefused\n");
    });
}

#[test]
fn options_of_tmpfs() {
    as_both(|who| {
        let line = "stat -c %a:%u:%g /t; cp /bin/busybox /t/true && /t/true && echo ran; \
                    grep ' /t ' /proc/mounts | grep -o 'nosuid,nodev'; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2";
        let options = ["--tmpfs", "/t:size=4m,mode=0751,uid=7,gid=8,exec"];
        assert_eq!(
            who.run(&options, "busybox", line),
            "751:7:8\nran\nnosuid,nodev\n4096\n"
        );
        let line = "cp /bin/busybox /t/true; /t/true 2>/dev/null || echo refused; for n in 1 2 3; do touch /t/$n; done 2>&1";
        let told = who.run(
            &["--tmpfs", "/t:nr_inodes=4"],
            "busybox",
            &format!("{line}; true"),
        );
        assert!(
            told.starts_with("refused\n") && told.contains("No space left"),
            "{told}"
        );
        let told = who.run(
            &["--mount", "type=tmpfs,dst=/t,tmpfs-mode=700,tmpfs-size=1m"],
            "busybox",
            "stat -c %a /t",
        );
        assert_eq!(told, "700\n");
    });
}

#[test]
fn secrets() {
    as_both(|who| {
        let dir = who.directory("secrets");
        fs::write(dir.join("token"), SECRET).unwrap();
        let given = format!("src={}/token,uid=7,gid=8,mode=440", dir.display());
        let line = "cat /run/secrets/token; stat -c :%u:%g:%a /run/secrets/token; echo x > /run/secrets/token || echo refused; \
                    grep ' /run/secrets/token ' /proc/mounts | cut -d' ' -f1; cat /run/app/two";
        let mut command = who.run_command(
            &[
                "--secret",
                &given,
                "--secret",
                "id=two,env=VALUE,target=/run/app/two",
            ],
            "busybox",
            line,
        );
        let told = success(command.env("VALUE", "of a variable").output().unwrap());
        assert_eq!(told, format!("{SECRET}:7:8:440\nrefused\ntmpfs\nof a variable"));
        let missing = format!("id=x,src={}/none", dir.display());
        who.refused(&["--secret", &missing], "busybox", &["cannot read the secret x"]);
        who.refused(
            &["--secret", "id=../x,src=/f"],
            "busybox",
            &["plain name, or target=/ABSOLUTE/PATH"],
        );
    });
}

/// While the container runs, nothing below the store holds it.
#[test]
fn a_secret_is_on_no_disk() {
    let who = Who::root();
    let dir = who.directory("started");
    fs::write(dir.join("token"), SECRET).unwrap();
    let (bind, secret) = (
        format!("{}:/s", dir.display()),
        format!("id=token,src={}/token", dir.display()),
    );
    let line = "cat /run/secrets/token > /dev/null; echo > /s/up; until [ -e /s/end ]; do sleep 0.05; done";
    let mut running = who
        .run_command(&["-v", &bind, "--secret", &secret], "busybox", line)
        .spawn()
        .unwrap();
    while !dir.join("up").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = Command::new("grep")
        .args(["-rl", SECRET])
        .arg(who.store())
        .output()
        .unwrap();
    fs::write(dir.join("end"), "").unwrap();
    assert!(running.wait().unwrap().success());
    assert_eq!(text(&found.stdout), "");
}

#[test]
fn devices_for_root() {
    let who = Who::root();
    let line = "stat -c %t:%T:%u:%g /dev/given; head -c 3 /dev/given | wc -c";
    assert_eq!(
        who.run(&["--device", "/dev/zero:/dev/given"], "busybox", line),
        "1:5:0:0\n3\n"
    );
    if Path::new("/sys/fs/cgroup/devices/devices.deny").exists() {
        let line = "head -c 3 /dev/given | wc -c; echo x > /dev/given || echo refused; echo x > /dev/null && echo fine";
        let told = who.run(&["--device", "/dev/zero:/dev/given:r"], "busybox", line);
        assert_eq!(told, "3\nrefused\nfine\n");
    }
    // A node of a file system that box mounts is none.
    let dir = who.directory("nodes");
    sh(&format!("mknod -m 666 {}/zero c 1 5", dir.display()));
    let bind = format!("{}:/nodes", dir.display());
    let line = "head -c 1 /nodes/zero || echo closed";
    assert_eq!(who.run(&["-v", &bind], "busybox", line), "closed\n");
    who.refused(&["--device", "/etc/passwd"], "busybox", &["is no device", "-v"]);
    who.refused(&["--device", "/dev/none"], "busybox", &["/dev/none", "ls /dev"]);
    who.refused(&["--device", "zero"], "busybox", &["/dev/fuse"]);
}

#[test]
fn devices_for_an_ordinary_user() {
    let who = Who::ordinary();
    // That of everybody is given; what the user can't open is told before anything starts.
    let line = "head -c 3 /dev/given | wc -c";
    assert_eq!(
        who.run(&["--device", "/dev/zero:/dev/given"], "busybox", line),
        "3\n"
    );
    who.refused(
        &["--device", "/dev/loop0"],
        "busybox",
        &["/dev/loop0", "run box as root"],
    );
    who.refused(
        &["--device", "/dev/zero:/dev/given:r"],
        "busybox",
        &["can't be limited", "leave the access away"],
    );
}

#[test]
fn names_that_are_paths() {
    let who = Who::root();
    for name in ["../x", "..", "a/../../x", "x", "-x", ".x1"] {
        let path = ["/", ".", "-"].iter().any(|start| name.starts_with(start));
        if !path {
            who.refused(
                &["-v", &format!("{name}:/d")],
                "busybox",
                &["can't name a volume", "begins with / or ."],
            );
        }
        who.refused(
            &["--mount", &format!("src={name},dst=/d")],
            "busybox",
            &["can't name a volume"],
        );
    }
    assert!(!who.bench.path("x").exists() && !who.store().join("x").exists());
}

/// An image whose VOLUME is a link: out, into the kernel's file systems, in a circle.
#[test]
fn hostile_images() {
    let who = Who::root();
    let canary = who.bench.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "CANARY").unwrap();
    let out = format!(
        "FROM busybox\nRUN ln -s ../../../../../..{} /data\nVOLUME /data\n",
        canary.display()
    );
    who.build(&out, "out");
    // The link leads nowhere but into the root, where nothing is.
    let line = "ls /data; echo x > /data/x; cat /data/x";
    assert_eq!(who.run(&[], "out", line), "x\n");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
    who.build("FROM busybox\nRUN ln -s /proc /data\nVOLUME /data\n", "proc");
    who.refused(&[], "proc", &["/data leads into /proc"]);
    who.build(
        "FROM busybox\nRUN ln -s /proc/self/root/etc /data\nVOLUME /data/x\n",
        "magic",
    );
    let told = who.run_command(&[], "magic", "echo started").output().unwrap();
    assert_eq!(told.status.code(), Some(125), "{told:?}");
    who.build("FROM busybox\nRUN ln -s loop /loop\nVOLUME /loop/data\n", "loop");
    who.refused(&[], "loop", &["/loop"]);
    for place in ["/proc/sys", "/sys", "/dev", "/"] {
        who.build(&format!("FROM busybox\nVOLUME {place}\n"), "kernel");
        who.refused(&[], "kernel", &["VOLUME", "build the image anew"]);
    }
    assert_eq!(
        who.volumes(),
        "",
        "nothing is left of a container that never started"
    );
    // A volume named by the user, where the image has a link that leads out.
    assert_eq!(
        who.run(&["-v", "mine:/data"], "out", "echo y > /data/y; cat /data/y"),
        "y\n"
    );
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
    assert_eq!(
        fs::read_dir(who.store().join("volumes/mine/data"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn subpaths_lead_nowhere_else() {
    let who = Who::root();
    let line = "mkdir -p /d/sub; echo inside > /d/sub/file; ln -s sub /d/in; ln -s /etc /d/absolute; ln -s ../../.. /d/up; \
                ln -s /proc/self/root /d/magic";
    who.run(&["-v", "data:/d"], "busybox", line);
    let mount = |part: &str| format!("src=data,dst=/m,volume-subpath={part}");
    for part in ["sub", "in", "./sub/."] {
        assert_eq!(
            who.run(&["--mount", &mount(part)], "busybox", "cat /m/file"),
            "inside\n",
            "{part}"
        );
    }
    for part in ["absolute", "up", "magic", "none", "sub/none"] {
        who.refused(
            &["--mount", &mount(part)],
            "busybox",
            &["a subpath must be there"],
        );
    }
    for part in ["../x", "sub/../../x", "/sub"] {
        who.refused(&["--mount", &mount(part)], "busybox", &["no '..'"]);
    }
    // In an image links lead inside of it, as in a container.
    who.build(
        "FROM busybox\nRUN ln -s /etc /link && ln -s ../../../../root /up\n",
        "links",
    );
    let told = who.run(
        &["--mount", "type=image,src=links,dst=/m,image-subpath=link"],
        "busybox",
        "cat /m/passwd",
    );
    assert_eq!(told, who.run(&[], "links", "cat /etc/passwd"));
}

/// A container exchanges the directory that another one is given a part of.
#[test]
fn cve_2024_23651_a_subpath_that_is_exchanged() {
    let who = Who::root();
    let line = "mkdir /d/sub; echo inside > /d/sub/passwd; ln -s /etc /d/out";
    who.run(&["-v", "data:/d"], "busybox", line);
    let data = who.store().join("volumes/data/data");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(&data.join("sub"), &data.join("out"), &stop));
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            let options = ["--mount", "src=data,dst=/m,volume-subpath=sub"];
            let told = who
                .run_command(&options, "busybox", "cat /m/passwd")
                .output()
                .unwrap();
            assert!(
                ["", "inside\n"].contains(&text(&told.stdout).as_str()),
                "{told:?}"
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// The source of a bind is a directory, and then a link to another one: the container has the one or the other, never
/// something that was looked at and is not there any more.
#[test]
fn cve_2024_1753_a_source_that_is_exchanged() {
    let who = Who::root();
    let base = who.directory("binds");
    for name in ["one", "two"] {
        fs::create_dir(base.join(name)).unwrap();
        fs::write(base.join(name).join("file"), format!("{name}\n")).unwrap();
    }
    symlink("two", base.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let mut seen = std::collections::BTreeSet::new();
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(&base.join("one"), &base.join("link"), &stop));
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            let bind = format!("{}/one:/m:ro", base.display());
            let line = "cat /m/file; echo x > /m/file";
            let told = who.run_command(&["-v", &bind], "busybox", line).output().unwrap();
            seen.insert(text(&told.stdout));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // An exchange in the middle of the kernel's look-up is an error at most.
    seen.remove("");
    let expected = ["one\n".to_owned(), "two\n".to_owned()];
    assert!(seen.iter().all(|told| expected.contains(told)), "{seen:?}");
    assert_eq!(fs::read_to_string(base.join("two/file")).unwrap(), "two\n");
}

fn exchange(a: &Path, b: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        nix::fcntl::renameat2(
            nix::fcntl::AT_FDCWD,
            a,
            nix::fcntl::AT_FDCWD,
            b,
            nix::fcntl::RenameFlags::RENAME_EXCHANGE,
        )
        .unwrap();
    }
}

#[test]
fn mistakes_are_told_with_their_cure() {
    let who = Who::root();
    for (options, expected) in [
        (
            &["-v", "data:/d", "--tmpfs", "/d/"][..],
            "two mounts were asked for on /d",
        ),
        (&["-v", "data:/d:rslave"], "leave it away (rprivate)"),
        (&["-v", "data:/d:dev"], "--device gives one"),
        (&["-v", "/tmp:/d:x"], "ro, rw, O"),
        (&["--mount", "src=data,dst=/d,what=1"], "takes type, source"),
        (
            &["--mount", "type=tmpfs,dst=/d,volume-nocopy"],
            "is of type=volume",
        ),
        (&["-v", "data:/proc/x"], "inside /proc"),
        (
            &["-v", "data:/etc/passwd"],
            "not a directory; a directory needs another target",
        ),
        (
            &["-v", "/etc/passwd:/etc"],
            "a directory; a file needs a file's name",
        ),
        (&["--tmpfs", "/t:uid=4000000000"], "tmpfs"),
    ] {
        let output = who.run_command(options, "busybox", "true").output().unwrap();
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{options:?}: {told}");
        assert!(told.contains(expected), "{options:?}: {told}");
    }
}

/// box is killed at moments spread over all that it does before the container runs; the next run finds the volume whole.
#[test]
fn a_kill_while_a_volume_is_filled() {
    let who = Who::root();
    who.build(
        "FROM busybox\nRUN mkdir /d && for n in $(seq 300); do echo $n > /d/$n; done\n",
        "many",
    );
    let before = Traces::of(&who.bench);
    let mut killed = 0;
    for number in 0..40 {
        let mount = format!("data{}:/d", number / 4);
        let mut running = who
            .run_command(&["-v", &mount], "many", "sleep 5")
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(1500 * (number % 20)));
        running.kill().unwrap();
        running.wait().unwrap();
        killed += 1;
        if number % 4 == 3 {
            let told = who.run(&["-v", &mount], "many", "ls /d | wc -l; cat /d/300");
            assert_eq!(told, "300\n300\n", "after {killed} kills");
        }
    }
    let end = Instant::now() + Duration::from_secs(10);
    while Traces::of(&who.bench) != before {
        who.ok(&["images"]);
        assert!(Instant::now() < end, "{:?}", Traces::of(&who.bench));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(who.ok(&["fsck"]).contains("all is well"));
    assert_eq!(fs::read_dir(who.store().join("tmp")).unwrap().count(), 0);
}

/// A running container holds the layers of the images that it has mounted.
#[test]
fn a_collection_leaves_mounted_images() {
    let who = Who::root();
    let started = who.directory("started");
    let bind = format!("{}:/s", started.display());
    let line = "echo > /s/up; until [ -e /s/end ]; do sleep 0.05; done; cat /i/srv/data/file";
    let options = ["-v", &bind, "--mount", "type=image,src=app,dst=/i"];
    let mut command = who.run_command(&options, "busybox", line);
    let running = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    while !started.join("up").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    who.ok(&["rmi", "app"]);
    who.ok(&["prune", "--wait", "5"]);
    fs::write(started.join("end"), "").unwrap();
    assert_eq!(success(running.wait_with_output().unwrap()), "of the image\n");
    let left = who.ok(&["prune", "--wait", "5"]);
    assert!(left.contains(" 1 layers") || left.contains(" 2 layers"), "{left}");
}

/// In a mount namespace of its own: a disk on which an image fits, but not a volume with the same in it.
const FULL_DISK: &str = r#"set -u
mount -t tmpfs -o size=40m none "$DISK"
export BOX_ROOT="$DISK/store"
"$BOX" load -q -i "$IMAGE"
left=$(df -k --output=avail "$DISK" | tail -1); head -c $((left - 3000))k /dev/zero > "$DISK/most"
"$BOX" run --rm --network none -v data:/d big true; echo "run $?"
find "$BOX_ROOT/volumes/data" -mindepth 1 | wc -l; find "$BOX_ROOT/tmp" -mindepth 1 | wc -l
"$BOX" run --rm --network none -v data:/d:nocopy big ls -A /d; echo "run $?"
cat /dev/zero > "$DISK/rest" 2>/dev/null
"$BOX" volume create more >/dev/null; echo "create $?"
"$BOX" volume rm data; echo "rm $?"
"$BOX" volume ls -q
rm "$DISK/rest"
"$BOX" fsck
"#;

#[test]
fn a_full_disk() {
    let who = Who::root();
    who.build(
        "FROM busybox\nRUN mkdir /d && head -c 6000000 /dev/urandom > /d/big && touch /d/small\n",
        "big",
    );
    let image = who.bench.path("big.tar");
    who.ok(&["save", "-o", image.to_str().unwrap(), "big"]);
    let disk = who.directory("disk");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", FULL_DISK])
        .env("DISK", disk)
        .env("IMAGE", image)
        .env("BOX", Path::new(common::BOX))
        .output()
        .unwrap();
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    let lines: Vec<&str> = out.lines().collect();
    let start = lines.iter().position(|line| line.starts_with("run")).unwrap();
    let lines = &lines[start..];
    let expected = ["run 125", "3", "0", "run 0", "create 125", "data", "rm 0"];
    assert!(lines.starts_with(&expected), "{out}\n{told}");
    assert!(out.contains("all is well"), "{out}\n{told}");
    assert!(
        told.contains("cannot fill the volume data with the image's /d"),
        "{told}"
    );
    assert!(
        told.contains("the disk of the store is full; free some space"),
        "{told}"
    );
}

/// What is thrown away with a container, its volumes and its images are there each time it starts.
#[test]
fn a_container_that_starts_again() {
    as_both(|who| {
        let dir = who.directory("host");
        fs::write(dir.join("file"), "host\n").unwrap();
        let line = "cat /h/file /i/srv/data/file >> /d/log; echo x >> /own/lines; wc -l < /own/lines >> /d/log; exit 3";
        let discarded = format!("{}:/h:O", dir.display());
        let mut args = vec![
            "run",
            "-d",
            "--name",
            "again",
            "--network",
            "none",
            "--restart",
            "on-failure:2",
        ];
        args.extend([
            "-v",
            "data:/d",
            "-v",
            "/own",
            "-v",
            &discarded,
            "--mount",
            "type=image,src=app,dst=/i",
        ]);
        args.extend(["busybox", "sh", "-c", line]);
        who.ok(&args);
        assert_eq!(who.ok(&["wait", "again"]), "3\n");
        let one = |number: i32| format!("host\nof the image\n{number}\n");
        let log = || who.run(&["-v", "data:/d"], "busybox", "cat /d/log");
        assert_eq!(log(), [one(1), one(2), one(3)].concat());
        // It does not run, but needs what it has.
        let refused = who.output(&["volume", "rm", "data"]);
        assert!(text(&refused.stderr).contains("belongs to again; remove them first (box rm)"));
        who.ok(&["volume", "prune", "-a", "-f"]);
        assert_eq!(who.volumes().lines().count(), 2);
        who.ok(&["rm", "-v", "again"]);
        assert_eq!(who.volumes(), "data\n");
        assert_eq!(who.ok(&["volume", "rm", "data"]), "data\n");
    });
}

#[test]
fn a_shared_volume_stays_with_the_container_it_was_made_for() {
    let bench = Bench::with_busybox();
    let run = ["run", "--network", "none"];
    bench.ok([
        &run[..],
        &[
            "--name",
            "data",
            "-v",
            "/data",
            "busybox",
            "sh",
            "-c",
            "echo kept > /data/file",
        ],
    ]
    .concat());
    let read = ["--volumes-from", "data:ro", "busybox", "cat", "/data/file"];
    for _ in 0..2 {
        assert_eq!(bench.ok([&run[..], &["--rm"], &read[..]].concat()), "kept\n");
    }
    bench.ok([&run[..], &["--name", "other"], &read[..]].concat());
    bench.ok(["rm", "-v", "other"]);
    assert_eq!(bench.ok([&run[..], &["--rm"], &read[..]].concat()), "kept\n");
    bench.ok(["rm", "-v", "data"]);
    assert_eq!(bench.ok(["volume", "ls", "-q"]), "");
}
