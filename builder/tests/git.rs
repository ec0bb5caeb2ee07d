//! ADD of git repositories, from a git daemon of the test's own.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use box_store::image::Image;
use common::World;

/// Repositories that are served on the loopback interface.
struct Hub {
    dir: tempfile::TempDir,
    port: u16,
    daemon: Option<Child>,
}

impl Hub {
    fn start() -> Hub {
        let dir = tempfile::TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        // Not `git daemon`, so that what is ended is the daemon itself.
        let programs = Command::new("git").arg("--exec-path").output().unwrap().stdout;
        let programs = PathBuf::from(String::from_utf8(programs).unwrap().trim());
        let daemon = Command::new(programs.join("git-daemon"))
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", dir.path().display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let hub = Hub {
            dir,
            port,
            daemon: Some(daemon),
        };
        let is_up = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(is_up, "no git daemon");
        hub
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// A repository with one commit of what `make` makes.
    fn repository(&self, name: &str, make: impl FnOnce(&Path)) -> Repository {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        let repository = Repository { path };
        repository.git(&["init", "-q", "-b", "trunk"]);
        make(&repository.path);
        repository.commit("first");
        repository
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Repository {
    path: PathBuf,
}

impl Repository {
    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(args)
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@example.com")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@example.com")
            .env("GIT_AUTHOR_DATE", "1000000000 +0000")
            .env("GIT_COMMITTER_DATE", "1000000000 +0000")
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// Two files, one to be run, a link and a directory.
fn some_files(dir: &Path) {
    fs::write(dir.join("file"), "one").unwrap();
    fs::write(dir.join("run"), "#!").unwrap();
    fs::set_permissions(dir.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/deep"), "two").unwrap();
    symlink("file", dir.join("link")).unwrap();
    symlink("/etc", dir.join("out")).unwrap();
}

fn added(world: &World, what: &str) -> (Image, Vec<String>) {
    world.build(&format!("FROM scratch\nADD {what} /src\nRUN put /x\n"))
}

#[test]
fn a_branch_is_its_newest_commit() {
    let (world, hub) = (World::new(), Hub::start());
    let repository = hub.repository("r", some_files);
    let url = hub.url("r");
    let (first, ran) = added(&world, &url);
    assert_eq!(ran.len(), 1);
    let expected = [
        "src",
        "src/file",
        "src/link",
        "src/out",
        "src/run",
        "src/sub",
        "src/sub/deep",
        "x",
    ];
    assert_eq!(world.list(&first), expected);
    assert_eq!(world.attrs(&first, "src/file"), (0o644, 0, 0));
    assert_eq!(world.attrs(&first, "src/run"), (0o755, 0, 0));
    let (again, ran) = added(&world, &url);
    assert!(ran.is_empty());
    assert_eq!(again.id, first.id);
    fs::write(repository.path.join("file"), "new").unwrap();
    repository.commit("second");
    let (second, ran) = added(&world, &url);
    assert_eq!(ran.len(), 1);
    assert_eq!(world.read(&second, "src/file"), "new");
    // Equal files of another commit are equal inputs.
    repository.commit("nothing");
    assert!(added(&world, &url).1.is_empty());
}

#[test]
fn branches_tags_and_commits_can_be_named() {
    let (world, mut hub) = (World::new(), Hub::start());
    let repository = hub.repository("r", some_files);
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "-a", "-m", "a tag", "v1"]);
    repository.git(&["checkout", "-q", "-b", "side"]);
    fs::write(repository.path.join("file"), "side").unwrap();
    let side = repository.commit("side");
    repository.git(&["checkout", "-q", "trunk"]);
    let url = hub.url("r");
    let read = |what: &str| {
        let (image, _) = added(&world, what);
        world.read(&image, "src/file")
    };
    assert_eq!(read(&format!("{url}#side")), "side");
    assert_eq!(read(&format!("{url}#v1")), "one");
    assert_eq!(read(&format!("{url}?branch=side&commit={}", &side[..10])), "side");
    assert_eq!(read(&format!("--checksum={first} {url}?tag=v1")), "one");
    assert_eq!(read(&format!("{url}#{side}")), "side");
    // A directory alone, and a commit's time.
    let (image, _) = added(&world, &format!("{url}?mtime=commit#:sub"));
    assert_eq!(world.list(&image), ["src", "src/deep", "x"]);
    assert_eq!(
        world.entry(&image, "src/deep").unwrap().canonical_mtime(),
        1_000_000_000
    );
    for (what, expected) in [
        (format!("{url}#none"), "has no none"),
        (format!("{url}#--upload-pack=x"), "has no --upload-pack=x"),
        (format!("{url}#:none"), "has no directory none"),
        (format!("{url}#:out"), "has no directory out"),
        (format!("{url}#:../r"), "has no directory"),
        (format!("{url}#:.git"), "has no directory"),
        (format!("--checksum={side} {url}#v1"), "expected the commit"),
        (format!("--checksum=xyz {url}#v1"), "invalid commit"),
        (hub.url("none"), "git ls-remote failed"),
        (format!("{url}#{}", "0".repeat(40)), "git fetch failed"),
    ] {
        let error = world.fail(&format!("FROM scratch\nADD {what} /\n"));
        assert!(
            error.contains(expected) && error.contains("Boxfile:2"),
            "{what}: {error}"
        );
    }
    // A commit that is here is not asked for.
    hub.stop();
    assert_eq!(read(&format!("{url}#{side}")), "side");
    assert!(
        world
            .fail(&format!("FROM scratch\nADD {url} /\n"))
            .contains("ls-remote failed")
    );
    let left = fs::read_dir(world.store_root().join("tmp")).unwrap();
    let left = left.flat_map(|owner| fs::read_dir(owner.unwrap().path()).into_iter().flatten());
    assert_eq!(left.count(), 0);
}

#[test]
fn the_repository_may_be_kept() {
    let (world, hub) = (World::new(), Hub::start());
    let repository = hub.repository("r", some_files);
    repository.git(&["tag", "v1"]);
    let what = format!("--keep-git-dir=true {}#v1", hub.url("r"));
    let (image, _) = added(&world, &what);
    assert!(world.entry(&image, "src/.git/HEAD").is_some());
    let layers = world.store.image_layers(&image).unwrap();
    let copy = tempfile::TempDir::new().unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(layers[0].path().join("src/."))
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let copied = Repository {
        path: copy.path().to_owned(),
    };
    assert_eq!(copied.git(&["status", "--porcelain"]), "");
    assert_eq!(copied.git(&["describe", "--tags"]), "v1");
    assert_eq!(copied.git(&["log", "--format=%s"]), "first");
    assert_eq!(copied.git(&["config", "remote.origin.url"]), hub.url("r"));
    let other = World::new();
    let (again, _) = added(&other, &what);
    assert_eq!(again.config.rootfs, image.config.rootfs);
    // A tag object with other words is another thing, though the commit is the same.
    repository.git(&["tag", "-a", "-m", "ONE", "v2"]);
    let tagged = format!("--keep-git-dir=true {}#v2", hub.url("r"));
    let (one, _) = added(&world, &tagged);
    repository.git(&["tag", "-f", "-a", "-m", "TWO", "v2"]);
    let (two, _) = added(&world, &tagged);
    assert_ne!(one.config.rootfs, two.config.rootfs);
    // The same without is another thing.
    let (image, _) = added(&world, &format!("{}#v1", hub.url("r")));
    assert!(world.entry(&image, "src/.git").is_none());
}

#[test]
fn submodules_come_along_by_safe_ways_alone() {
    let (world, hub) = (World::new(), Hub::start());
    hub.repository("inner", some_files);
    let outer = hub.repository("outer", |_| {});
    let (url, path) = (hub.url("inner"), hub.dir.path().join("inner"));
    outer.git(&["submodule", "--quiet", "add", &url, "sub"]);
    outer.commit("with");
    let (image, _) = added(&world, &hub.url("outer"));
    assert_eq!(world.read(&image, "src/sub/file"), "one");
    assert!(world.entry(&image, "src/sub/.git").is_none());
    // What is kept of them is the same everywhere, and says nothing of this machine.
    let kept = format!("--keep-git-dir=true {}", hub.url("outer"));
    let (image, _) = added(&world, &kept);
    for path in ["hooks", "logs"] {
        assert!(
            world
                .entry(&image, &format!("src/.git/modules/sub/{path}"))
                .is_none(),
            "{path}"
        );
    }
    assert!(world.entry(&image, "src/.git/modules/sub/index").is_some());
    let (again, _) = added(&World::new(), &kept);
    assert_eq!(again.config.rootfs, image.config.rootfs);
    let (image, _) = added(&world, &format!("{}?submodules=false", hub.url("outer")));
    assert!(world.entry(&image, "src/sub/file").is_none());
    // Files of this machine are none of the repository's.
    let modules = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {}\n", path.display());
    fs::write(outer.path.join(".gitmodules"), modules).unwrap();
    outer.commit("a path");
    let error = world.fail(&format!("FROM scratch\nADD {} /\n", hub.url("outer")));
    assert!(error.contains("not allowed"), "{error}");
}

#[test]
fn what_is_excluded_is_not_copied() {
    let (world, hub) = (World::new(), Hub::start());
    hub.repository("r", some_files);
    let (image, _) = added(
        &world,
        &format!("--exclude=sub --exclude=l* --chown=3:4 {}", hub.url("r")),
    );
    assert_eq!(world.list(&image), ["src", "src/file", "src/out", "src/run", "x"]);
    assert_eq!(world.attrs(&image, "src/file"), (0o644, 3, 4));
}
