//! Mounts of overlays and files.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use box_runner::*;
use support::Fixture;

/// An overlay of its own on one layer, with a symlink that leads out of what is mounted.
fn overlay(f: &Fixture, source: &str, target: &str, read_only: bool) -> Mount {
    let dir = f.dir.join("bound");
    for name in ["layer/dir", "active/upper", "active/work"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::write(dir.join("layer/dir/file"), "from the layer\n").unwrap();
    if !dir.join("layer/link").exists() {
        symlink("/dir/file", dir.join("layer/link")).unwrap();
    }
    let layers = RootFs {
        lower: vec![dir.join("layer")],
        upper: dir.join("active/upper"),
        work: dir.join("active/work"),
        ..f.rootfs()
    };
    let source = source.into();
    Mount {
        read_only,
        ..Mount::new(MountKind::Overlay { layers, source }, target)
    }
}

#[track_caller]
fn check(mount: impl FnOnce(&Fixture) -> Mount, line: &str, expected: &str) {
    let f = Fixture::new();
    let mut spec = f.spec(&["sh", "-c", line]);
    spec.mounts.push(mount(&f));
    assert_eq!(f.run(&spec).stdout, expected, "{line}");
}

#[test]
fn a_directory_of_an_overlay() {
    let line = "cat /m/file; echo x > /m/new 2>/dev/null || echo read-only; ls /m; stat -c %u:%g /m/file";
    check(
        |f| overlay(f, "dir", "/m", true),
        line,
        "from the layer\nread-only\nfile\n0:0\n",
    );
    check(
        |f| overlay(f, "dir", "/m", false),
        line,
        "from the layer\nfile\nnew\n0:0\n",
    );
    check(|f| overlay(f, "", "/m", true), "ls /m", "dir\nlink\n");
}

#[test]
fn a_file_of_an_overlay_also_by_a_link() {
    let line = "cat /etc/bound; grep -c ' /etc/bound ' /proc/self/mountinfo";
    check(
        |f| overlay(f, "dir/file", "/etc/bound", true),
        line,
        "from the layer\n1\n",
    );
    check(
        |f| overlay(f, "link", "/etc/bound", true),
        line,
        "from the layer\n1\n",
    );
}

#[test]
fn what_is_read_only_stays_so() {
    let line = "mount -o remount,bind,rw /m 2>/dev/null; echo x > /m/file 2>/dev/null || echo read-only";
    check(|f| overlay(f, "dir", "/m", true), line, "read-only\n");
}

#[test]
fn a_file_in_memory() {
    let file = |mode, target: &str| {
        let kind = MountKind::File {
            content: FileContent(b"#!/bin/sh\necho ran\n".to_vec()),
            mode,
            uid: 7,
            gid: 8,
        };
        Mount::new(kind, target)
    };
    let line = "stat -c %a:%u:%g /run/secrets/x; tail -n 1 /run/secrets/x; echo y > /run/secrets/x || echo no; \
                /run/secrets/x; echo $?";
    check(
        |_| file(0o400, "/run/secrets/x"),
        line,
        "400:7:8\necho ran\nno\n126\n",
    );
    check(|_| file(0o755, "/dev/pipes/x"), "/dev/pipes/x", "ran\n");
}

#[test]
fn a_secret_is_not_shown_by_debug() {
    let content = FileContent(b"hunter2".to_vec());
    assert_eq!(format!("{content:?}"), "7 bytes");
}

fn part_of(source: &std::path::Path, part: &str) -> Mount {
    let kind = MountKind::Bind {
        source: source.into(),
        part: part.into(),
        is_recursive: true,
    };
    Mount::new(kind, "/m")
}

/// A directory with things in it, and links that lead in and out.
fn tree(f: &Fixture) -> std::path::PathBuf {
    let (dir, canary) = (f.dir.join("data"), f.dir.join("canary"));
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::create_dir_all(&canary).unwrap();
    fs::write(dir.join("sub/file"), "inside\n").unwrap();
    fs::write(canary.join("file"), "CANARY\n").unwrap();
    symlink("sub", dir.join("in")).unwrap();
    symlink("../canary", dir.join("out")).unwrap();
    symlink("/etc", dir.join("absolute")).unwrap();
    symlink("/proc/self/root", dir.join("magic")).unwrap();
    dir
}

#[test]
fn a_part_of_a_bind_lies_in_it() {
    let f = Fixture::new();
    let dir = tree(&f);
    for (part, expected) in [
        ("sub", Some("inside\n")),
        ("in", Some("inside\n")),
        ("sub/../out", None),
        ("out", None),
        ("absolute", None),
        ("magic", None),
        ("missing", None),
    ] {
        let mut spec = f.spec(&["cat", "/m/file"]);
        spec.mounts.push(part_of(&dir, part));
        match expected {
            Some(expected) => assert_eq!(f.run(&spec).stdout, expected, "{part}"),
            None => {
                let error = f.try_run(&spec).err().unwrap();
                let is_told = matches!(
                    error,
                    RunnerError::MountPart { .. } | RunnerError::InvalidSpec { .. }
                );
                assert!(is_told, "{part}: {error}");
            }
        }
    }
    let mut spec = f.spec(&["cat", "/m"]);
    spec.mounts.push(part_of(&dir, "sub/file"));
    assert_eq!(f.run(&spec).stdout, "inside\n");
}

/// Somebody who may write below the source exchanges the part all the time (as CVE-2024-1753 and CVE-2021-30465 did with paths).
#[test]
fn a_part_that_is_exchanged_never_leads_out() {
    let f = Fixture::new();
    let dir = tree(&f);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    dir.join("sub"),
                    rustix::fs::CWD,
                    dir.join("out"),
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        });
        let started = std::time::Instant::now();
        while started.elapsed() < std::time::Duration::from_secs(2) {
            let mut spec = f.spec(&["cat", "/m/file"]);
            spec.mounts.push(part_of(&dir, "sub"));
            match f.try_run(&spec) {
                Ok(ran) => {
                    assert_eq!(ran.stdout, "inside\n");
                    inside += 1;
                }
                Err(RunnerError::MountPart { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused");
}

#[test]
fn limits_of_a_bind() {
    let script = |f: &Fixture, no_exec| {
        let dir = f.dir.join("programs");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("run");
        fs::write(&path, "#!/bin/sh\necho ran\n").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let limits = MountLimits {
            no_exec,
            no_suid: true,
        };
        Mount {
            limits,
            ..Mount::new(MountKind::bind(dir), "/m")
        }
    };
    let line = "/m/run 2>/dev/null || echo refused; grep ' /m ' /proc/mounts | grep -o nosuid,nodev";
    check(|f| script(f, false), line, "ran\nnosuid,nodev\n");
    check(|f| script(f, true), line, "refused\nnosuid,nodev\n");
}

fn device(source: &str, access: DeviceAccess) -> Mount {
    let kind = MountKind::Device {
        source: source.into(),
        access,
    };
    Mount::new(kind, "/dev/given")
}

#[test]
fn devices() {
    let only_read = DeviceAccess {
        write: false,
        ..DeviceAccess::ALL
    };
    let line = "stat -c %u:%g /dev/given; head -c 4 /dev/given | wc -c; echo x > /dev/given && echo written";
    check(
        |_| device("/dev/zero", DeviceAccess::ALL),
        line,
        "0:0\n4\nwritten\n",
    );
    check(|_| device("/dev/zero", only_read), line, "0:0\n4\n");
    let others = "echo x > /dev/null && head -c 1 /dev/urandom | wc -c; echo > /dev/tty || echo no terminal";
    check(|_| device("/dev/zero", only_read), others, "1\nno terminal\n");
    for path in ["/etc/passwd", "/dev"] {
        let f = Fixture::new();
        let mut spec = f.spec(&["true"]);
        spec.mounts.push(device(path, DeviceAccess::ALL));
        let error = f.try_run(&spec).err().unwrap();
        assert!(matches!(error, RunnerError::NotADevice { .. }), "{error}");
    }
}

#[test]
fn a_tmpfs_as_it_is_asked_for() {
    let tmpfs = |_: &Fixture| {
        let kind = MountKind::Tmpfs(Tmpfs {
            size: Some(1 << 20),
            inodes: Some(3),
            mode: 0o751,
            uid: 7,
            gid: 8,
            exec: true,
        });
        Mount::new(kind, "/m")
    };
    let line = "stat -c %a:%u:%g /m; touch /m/1 /m/2; touch /m/3 2>/dev/null || echo full; grep ' /m ' /proc/mounts | grep -c noexec";
    check(tmpfs, line, "751:7:8\nfull\n0\n");
}

/// A link of the root file system that leads to what is not there yet, relative, absolute, through another one, and in a circle.
#[test]
fn targets_behind_dangling_links() {
    let check = |target: &str, expected: Option<&str>| {
        let f = Fixture::new();
        symlink("made/here", f.lower().join("relative")).unwrap();
        symlink("/made/there", f.lower().join("absolute")).unwrap();
        symlink("../../../up", f.lower().join("out")).unwrap();
        symlink("absolute/more", f.lower().join("through")).unwrap();
        symlink("circle", f.lower().join("circle")).unwrap();
        let mut spec = f.spec(&[
            "sh",
            "-c",
            "grep ' tmpfs ' /proc/mounts | grep -o ' /[mu][a-z/]* '",
        ]);
        spec.mounts
            .push(Mount::new(MountKind::Tmpfs(Tmpfs::default()), target));
        match expected {
            Some(expected) => assert_eq!(f.run(&spec).stdout.trim(), expected, "{target}"),
            None => assert!(f.try_run(&spec).is_err(), "{target}"),
        }
    };
    check("/relative", Some("/made/here"));
    check("/absolute/sub", Some("/made/there/sub"));
    check("/out", Some("/up"));
    check("/through", Some("/made/there/more"));
    check("/circle/x", None);
}
