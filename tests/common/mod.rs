//! What the tests of the whole program share: a store of their own, a busybox base, contexts, an ordinary user, and the
//! comparison of the machine before and after.
#![allow(clippy::unwrap_used)] // a test that panics has failed
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod bucket;
pub mod machines;
pub mod pty;
pub mod registry;
pub mod server;
#[cfg(target_arch = "x86_64")]
pub mod tracer;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The program under test.
pub const BOX: &str = env!("CARGO_BIN_EXE_box");

/// A store of its own, removed at the end.
pub struct Bench {
    /// A directory for whatever the test needs.
    pub dir: TempDir,
}

impl Bench {
    /// An empty store.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("box-test-").tempdir().unwrap();
        // An ordinary user must get at what lies here.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// A store that holds the image `busybox`.
    pub fn with_busybox() -> Self {
        let bench = Self::new();
        let tar = bench.busybox_tar();
        bench.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
        bench
    }

    /// A path below the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store's root.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A tar of a busybox root file system, every time set to the same second of 2024.
    pub fn busybox_tar(&self) -> PathBuf {
        let tar = self.path("rootfs.tar");
        if !tar.exists() {
            let rootfs = self.path("rootfs");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/busybox-rootfs.sh");
            sh(&format!("bash {} {}", script.display(), rootfs.display()));
            let (rootfs, tar) = (rootfs.display(), tar.display());
            sh(&format!(
                "tar -C {rootfs} --sort=name --mtime=@1704067200 --owner=0 --group=0 --numeric-owner -cf {tar} ."
            ));
        }
        tar
    }

    /// A build context with these files (path, content).
    pub fn context(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let base = self.path(name);
        for (path, content) in files {
            let path = base.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::create_dir_all(&base).unwrap();
        base
    }

    /// box, with this test's store.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(BOX);
        command
            .env("BOX_ROOT", self.store())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs box to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs box, which must succeed; returns its standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        success(self.run(args))
    }

    /// Runs box, which must end with this code; returns its standard error.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        let text = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{text}\n{}",
            self::text(&output.stdout)
        );
        text
    }

    /// Builds this Boxfile over the context directory; returns the image's id.
    #[track_caller]
    pub fn build(&self, context: &Path, boxfile: &str, extra: &[&str]) -> String {
        success(self.try_build(context, boxfile, extra)).trim().to_owned()
    }

    /// Builds this Boxfile, successfully or not.
    pub fn try_build(&self, context: &Path, boxfile: &str, extra: &[&str]) -> Output {
        let file = self.path("Boxfile.under-test");
        std::fs::write(&file, boxfile).unwrap();
        let mut command = self.command(["build", "-q", "-f"]);
        command.arg(file).args(extra).arg(context).output().unwrap()
    }

    /// Builds with plain progress; returns what it said (standard error), the build having succeeded.
    #[track_caller]
    pub fn build_plain(&self, context: &Path, boxfile: &str, extra: &[&str]) -> String {
        let file = self.path("Boxfile.under-test");
        std::fs::write(&file, boxfile).unwrap();
        let mut command = self.command(["build", "--progress", "plain", "-f"]);
        let output = command.arg(file).args(extra).arg(context).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    }

    /// Runs a shell line in a container without network; returns its standard output.
    #[track_caller]
    pub fn sh(&self, image: &str, line: &str) -> String {
        self.ok(["run", "--rm", "--network", "none", image, "sh", "-c", line])
    }
}

impl Drop for Bench {
    /// Containers in the background outlive the commands that made them, but not the test.
    fn drop(&mut self) {
        let there =
            std::fs::read_dir(self.store().join("containers")).is_ok_and(|mut found| found.next().is_some());
        if there {
            let ids = text(&self.run(["ps", "-aq"]).stdout);
            self.run(["rm", "-f"].into_iter().chain(ids.split_whitespace()));
        }
    }
}

/// Text of bytes.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The output of a command that must have succeeded.
#[track_caller]
pub fn success(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        text(&output.stderr),
        text(&output.stdout)
    );
    text(&output.stdout)
}

/// Runs a shell line of the host, which must succeed.
#[track_caller]
pub fn sh(line: &str) -> String {
    success(
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", line])
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    )
}

/// An ordinary user with subordinate ids, known only inside a mount namespace of the test's own: nothing of the machine's
/// user data is changed.
pub struct OrdinaryUser {
    pub home: PathBuf,
    subids: bool,
}

/// The user's number.
pub const USER_ID: u32 = 42_420;

impl OrdinaryUser {
    /// A user whose home (and store) is below the bench's directory.
    pub fn new(bench: &Bench) -> Self {
        Self::make(bench, true)
    }

    /// The same without subordinate ids.
    pub fn without_subids(bench: &Bench) -> Self {
        Self::make(bench, false)
    }

    fn make(bench: &Bench, subids: bool) -> Self {
        let home = bench.path("home");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::copy(BOX, home.join("box")).unwrap();
        std::os::unix::fs::chown(&home, Some(USER_ID), Some(USER_ID)).unwrap();
        let etc = bench.path("etc");
        std::fs::create_dir_all(&etc).unwrap();
        let add = |file: &str, line: &str| {
            let old = std::fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            std::fs::write(etc.join(file), format!("{old}{line}\n")).unwrap();
        };
        add(
            "passwd",
            &format!("boxer:x:{USER_ID}:{USER_ID}::{}:/bin/sh", home.display()),
        );
        add("group", &format!("boxer:x:{USER_ID}:"));
        for file in ["subuid", "subgid"] {
            add(file, if subids { "boxer:700000000:65536" } else { "" });
        }
        Self { home, subids }
    }

    /// The user's home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A script that enters the namespace and runs its arguments as this user.
    fn enter(&self) -> String {
        let etc = self.home.parent().unwrap().join("etc");
        let etc = etc.display();
        // Where udev is at work every user may open it.
        format!(
            "[ -e {etc}/tun ] || mknod -m 666 {etc}/tun c 10 200; mount --bind {etc}/tun /dev/net/tun; \
             for f in passwd group subuid subgid; do [ -e /etc/$f ] || : >/etc/$f; mount --bind {etc}/$f /etc/$f; done; \
             cd \"$HOME\"; umask ${{TEST_UMASK:-022}}; exec setpriv --reuid {USER_ID} --regid {USER_ID} --clear-groups \"$@\""
        )
    }

    /// box as this user, as a program that others can start; its store is where `BOX_ROOT` says.
    pub fn script(&self) -> PathBuf {
        let path = self.home.join("box-as-user");
        let enter = self.enter().replace('\'', "'\\''");
        let (home, program) = (self.home.display(), self.home.join("box"));
        let text = format!(
            "#!/bin/sh\nexport HOME={home}; unset XDG_DATA_HOME\nexec unshare -m --propagation private sh -c '{enter}' sh {} \"$@\"\n",
            program.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// box, as this user; its store is in its home.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command_of(&[self.home.join("box")]);
        command.args(args);
        command
    }

    /// Any command as this user.
    pub fn command_of<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let enter = self.enter();
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &enter, "sh"]);
        command.args(words).stdin(Stdio::null());
        command
            .env("HOME", &self.home)
            .env("BOX_ROOT", self.home.join("store"))
            .env_remove("XDG_DATA_HOME");
        command
    }

    /// Runs box as this user, which must succeed.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        success(self.command(args).output().unwrap())
    }
}

impl Drop for OrdinaryUser {
    /// As the bench's.
    fn drop(&mut self) {
        let there = std::fs::read_dir(self.home.join("store/containers"));
        if there.is_ok_and(|mut found| found.next().is_some())
            && let Ok(listed) = self.command(["ps", "-aq"]).output()
        {
            let ids = text(&listed.stdout);
            let _ = self
                .command(["rm", "-f"].into_iter().chain(ids.split_whitespace()))
                .output();
        }
    }
}

/// What a run must not leave behind on the machine: mounts, cgroups of box, and processes of box.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    processes: BTreeSet<String>,
}

impl Traces {
    /// What is there now that has to do with this bench.
    pub fn of(bench: &Bench) -> Self {
        let marker = bench.dir.path().to_str().unwrap().to_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts
            .lines()
            .filter(|l| l.contains(&marker))
            .map(str::to_owned)
            .collect();
        Self {
            mounts,
            cgroups: cgroups(&bench.store()),
            processes: processes(&marker),
        }
    }
}

/// The cgroups of a store's containers: their names begin with `box-` and the store's mark (see `src/app.rs`).
fn cgroups(store: &Path) -> BTreeSet<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let Ok(place) = store.metadata() else {
        return BTreeSet::new();
    };
    let mark = sh(&format!(
        "printf %s {}:{} | sha256sum | cut -c1-8",
        place.dev(),
        place.ino()
    ));
    let prefix = format!("box-{}", mark.trim());
    let all = walkdir::WalkDir::new("/sys/fs/cgroup")
        .into_iter()
        .filter_map(Result::ok);
    let ours = all.filter(|e| e.file_type().is_dir() && e.file_name().to_string_lossy().starts_with(&prefix));
    ours.map(walkdir::DirEntry::into_path).collect()
}

/// Processes whose command line, environment or root says that they belong to this bench.
fn processes(marker: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        let read = |file| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let holds = |bytes: &[u8]| bytes.windows(marker.len()).any(|w| w == marker.as_bytes());
        if holds(&read("environ")) || holds(&read("cmdline")) || holds(&read("mountinfo")) {
            found.insert(format!("{name} {}", text(&read("cmdline")).replace('\0', " ")));
        }
    }
    found
}

/// splitmix64: the moments are the same for the same seed.
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
