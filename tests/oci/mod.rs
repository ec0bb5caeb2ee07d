//! A bundle of a busybox, changed by the tests, and `box oci` over it.
#![allow(clippy::unwrap_used)] // a test that panics has failed
#![allow(unreachable_pub)] // one test file uses it

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::{self, BOX, Bench, sh, text};

/// Takes a terminal from a socket, starts the container, and prints what the terminal shows.
pub const CONSOLE: &str = r#"
import array, os, socket, subprocess, sys
path, create = sys.argv[1], sys.argv[2:]
listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen(1)
subprocess.run(create, check=True)
connection, _ = listener.accept()
_, control, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
fd = array.array('i', control[0][2])[0]
root = create[create.index('--root') + 1]
subprocess.run([create[0], 'oci', '--root', root, 'start', create[-1]], check=True)
seen = b''
while seen.count(b'\n') < 4:
    seen += os.read(fd, 1000)
os.write(fd, b'\n')
try:
    while data := os.read(fd, 1000):
        seen += data
except OSError:
    pass
sys.stdout.write(seen.decode())
"#;

/// A bundle and the state directory of its containers.
pub struct Bundle {
    bench: Bench,
    config: RefCell<Value>,
}

impl Bundle {
    /// One that does nothing.
    pub fn new() -> Self {
        let bench = Bench::new();
        let dir = bench.path("bundle");
        std::fs::create_dir(&dir).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/busybox-rootfs.sh");
        sh(&format!(
            "bash {script} {0} && mkdir -p {0}/proc {0}/sys {0}/dev",
            dir.join("rootfs").display()
        ));
        let bundle = Self {
            bench,
            config: RefCell::new(config()),
        };
        bundle.write();
        bundle
    }

    pub fn bench(&self) -> &Bench {
        &self.bench
    }

    pub fn dir(&self) -> PathBuf {
        self.path("bundle")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.bench.path(name)
    }

    pub fn rootfs(&self, name: &str) -> PathBuf {
        self.path("bundle/rootfs").join(name)
    }

    fn write(&self) {
        std::fs::write(self.dir().join("config.json"), self.config.borrow().to_string()).unwrap();
    }

    /// Sets what is at a place of config.json.
    pub fn set(&self, place: &str, value: Value) {
        let mut parts: Vec<&str> = place.split('/').skip(1).collect();
        let last = parts.pop().unwrap();
        {
            let mut config = self.config.borrow_mut();
            let mut at = &mut *config;
            for part in parts {
                if at.get(part).is_none() {
                    at[part] = json!({});
                }
                at = &mut at[part];
            }
            at[last] = value;
        }
        self.write();
    }

    pub fn remove(&self, place: &str) {
        let (above, last) = place.rsplit_once('/').unwrap();
        self.config
            .borrow_mut()
            .pointer_mut(above)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove(last);
        self.write();
    }

    pub fn mount(&self, mount: Value) {
        self.config.borrow_mut()["mounts"]
            .as_array_mut()
            .unwrap()
            .push(mount);
        self.write();
    }

    /// All that were added.
    pub fn remove_mounts(&self) {
        self.set("/mounts", config()["mounts"].clone());
    }

    pub fn namespace(&self, kind: &str) {
        self.config.borrow_mut()["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": kind}));
        self.write();
    }

    /// A line of the shell as its command.
    pub fn command(&self, line: &str) {
        self.set("/process/args", json!(["/bin/sh", "-c", line]));
    }

    /// `box oci` with further options before the command.
    pub fn with(&self, options: &[&str], args: &[&str]) -> Output {
        let mut command = Command::new(BOX);
        command
            .arg("oci")
            .arg("--root")
            .arg(self.path("state"))
            .args(options)
            .args(args);
        command.current_dir(self.dir()).stdin(Stdio::null());
        // The container keeps the streams of its `create`, so those are files: a pipe would be waited for.
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        let file = |path| std::fs::File::create(path).unwrap();
        let status = command.stdout(file(&out)).stderr(file(&err)).status().unwrap();
        Output {
            status,
            stdout: std::fs::read(out).unwrap(),
            stderr: std::fs::read(err).unwrap(),
        }
    }

    /// Starts `box oci` and does not wait for it.
    pub fn start(&self, args: &[&str]) -> std::process::Child {
        let mut command = Command::new(BOX);
        command
            .arg("oci")
            .arg("--root")
            .arg(self.path("state"))
            .args(args)
            .current_dir(self.dir());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Waits until no process of the bundle is left.
    #[track_caller]
    pub fn wait_gone(&self) {
        self.wait(|| self.processes().is_empty());
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.with(&[], args)
    }

    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        common::success(self.run(args))
    }

    /// It must fail; gives what is said.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
        message
    }

    /// Runs a line of the shell in a container, and gives what it prints.
    #[track_caller]
    pub fn output(&self, line: &str) -> String {
        self.command(line);
        self.ok(&["run", "c"])
    }

    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    #[track_caller]
    pub fn wait_stopped(&self, id: &str) {
        self.wait(|| self.state(id)["status"] == "stopped");
    }

    #[track_caller]
    pub fn wait_for(&self, file: &str) {
        self.wait(|| self.rootfs(file).exists());
    }

    #[track_caller]
    fn wait(&self, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Processes whose root lies in this bundle, or that are keepers of it.
    pub fn processes(&self) -> String {
        let marker = self.dir().display().to_string();
        sh(&format!(
            "(grep -l {marker} /proc/[0-9]*/mountinfo 2>/dev/null || true) | cut -d/ -f3 | while read p; do tr '\\0' ' ' < /proc/$p/cmdline; done; true"
        ))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for id in text(&self.run(&["list", "-q"]).stdout).lines() {
            self.run(&["delete", "--force", id]);
        }
    }
}

fn config() -> Value {
    let caps = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_KILL",
    ];
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "test",
        "process": {
            "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=64k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": namespaces,
        },
    })
}
