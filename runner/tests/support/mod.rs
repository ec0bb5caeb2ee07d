//! A small root file system and a way to run something in a container of it.
#![allow(dead_code, unreachable_pub, unsafe_code, clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use box_runner::*;

pub const PROBE: &str = env!("CARGO_BIN_EXE_box-runner-probe");

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A temporary directory with a root file system in `lower`; removed when dropped.
pub struct Fixture {
    pub dir: PathBuf,
    pub runtime: Runtime,
    pub user: UserNamespace,
    pub owner: String,
}

pub struct Ran {
    pub outcome: Outcome,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn code(&self) -> i32 {
        self.outcome.status.code()
    }
}

pub fn fresh_dir() -> PathBuf {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = PathBuf::from(format!("/tmp/box-runner-test-{}-{number}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A root file system with busybox and the probe with the libraries it needs.
pub fn make_root(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    fs::copy(busybox.expect("install busybox-static"), root.join("bin/busybox")).unwrap();
    let applets = "sh echo true false cat ls id sleep mount hostname ps chown mkdir touch stat ln kill env head tr grep tty stty wc";
    for applet in applets.split(' ') {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/tmp:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:5:web\n").unwrap();
    for stub in ["resolv.conf", "hosts", "hostname"] {
        fs::write(root.join("etc").join(stub), "").unwrap();
    }
    fs::copy(PROBE, root.join("bin/probe")).unwrap();
    let listed = Command::new("ldd").arg(PROBE).output().expect("ldd");
    for word in String::from_utf8_lossy(&listed.stdout)
        .split_whitespace()
        .filter(|w| w.starts_with('/'))
    {
        let to = root.join(word.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(word, to).unwrap();
    }
}

impl Fixture {
    pub fn new() -> Fixture {
        assert_eq!(unsafe { libc::geteuid() }, 0, "these tests need root");
        let dir = fresh_dir();
        make_root(&dir.join("lower"));
        let owner = format!(
            "test{}x{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let runtime = Runtime::new(RuntimeConfig {
            program: PROBE.into(),
            owner: owner.clone(),
            rootless: false,
            cgroup_parent: None,
            systemd: None,
            is_keeping: false,
        })
        .unwrap();
        let user = runtime.user_namespace(&IdMap::range(2_000_000, 65_536)).unwrap();
        Fixture {
            dir,
            runtime,
            user,
            owner,
        }
    }

    pub fn lower(&self) -> PathBuf {
        self.dir.join("lower")
    }

    /// A fresh pair of upper and work directories.
    pub fn rootfs(&self) -> RootFs {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("active{number}"));
        fs::create_dir_all(dir.join("upper")).unwrap();
        fs::create_dir_all(dir.join("work")).unwrap();
        RootFs {
            lower: vec![self.lower()],
            upper: dir.join("upper"),
            work: dir.join("work"),
            userxattr: false,
            volatile: true,
            read_only: false,
        }
    }

    pub fn spec(&self, args: &[&str]) -> ContainerSpec {
        let process = Process {
            args: args.iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/".into(),
            user: String::new(),
        };
        let id = format!("c{}", COUNT.fetch_add(1, Ordering::Relaxed));
        ContainerSpec::new(id, self.rootfs(), process)
    }

    pub fn try_run(&self, spec: &ContainerSpec) -> Result<Ran> {
        let mut running = self.runtime.spawn(spec, &self.user, Stdio::captured())?;
        let (mut out, mut err) = (running.take_stdout().unwrap(), running.take_stderr().unwrap());
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).unwrap();
            text
        });
        let output = std::thread::spawn(move || {
            let mut text = Vec::new();
            out.read_to_end(&mut text).unwrap();
            text
        });
        let outcome = running.wait()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran {
            outcome,
            stdout: text(output.join().unwrap()),
            stderr: text(errors.join().unwrap()),
        })
    }

    pub fn run(&self, spec: &ContainerSpec) -> Ran {
        self.try_run(spec).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Runs a shell line in the default container.
    pub fn sh(&self, line: &str) -> Ran {
        self.run(&self.spec(&["sh", "-c", line]))
    }

    /// The output of a shell line that must succeed.
    pub fn out(&self, line: &str) -> String {
        let ran = self.sh(line);
        assert_eq!(ran.code(), 0, "{line}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The cgroups of an owner that exist.
pub fn cgroups_of(owner: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    dirs.extend(
        fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|e| e.path()),
    );
    for dir in dirs {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("box-{owner}-"))
            {
                found.push(entry.path());
            }
        }
    }
    found
}
