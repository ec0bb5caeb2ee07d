//! `box lock`, builds that hold to a lock, and builds that look at no network.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::registry::Registry;
use common::server::{Server, repository};
use common::{Bench, sh, success, text};
use serde_json::Value;

/// A registry, a server of files with a repository, and the context of a Boxfile that needs all of them.
struct World {
    maker: Bench,
    registry: Registry,
    server: Option<Server>,
    context: PathBuf,
}

impl World {
    fn new() -> World {
        let (maker, registry) = (Bench::with_busybox(), Registry::start());
        let served = maker.path("served");
        fs::create_dir(&served).unwrap();
        let server = Server::start(&served);
        let boxfile = format!(
            "FROM {base}\nCOPY --from={tools} /v /tools\nADD {file} /file\nADD {git}#main /git\nCOPY . /c\n\
             RUN --mount=type=bind,target=/m echo saw $(cat /v /tools /file /git/word) $(ls /c /m)\n",
            base = registry.name("base:1"),
            tools = registry.name("tools:1"),
            file = server.url("file"),
            git = server.url("r.git"),
        );
        let context = maker.context("context", &[("Boxfile", &boxfile), ("own", "x")]);
        let world = World {
            maker,
            registry,
            server: Some(server),
            context,
        };
        world.publish("one");
        world
    }

    /// Gives everything a new content under its old name.
    fn publish(&self, word: &str) {
        for name in ["base:1", "tools:1"] {
            let name = self.registry.name(name);
            let context = self.maker.context("image", &[("v", &format!("{name}={word}\n"))]);
            self.maker
                .build(&context, "FROM busybox\nCOPY v /v\n", &["-t", &name]);
            self.maker.ok(["push", &name]);
        }
        self.publish_url(word);
        let bare = self.maker.path("served/r.git");
        let files = self.maker.context("files", &[("word", &format!("git={word}\n"))]);
        if !bare.exists() {
            return repository(&files, &bare);
        }
        let work = self.maker.path("work");
        sh(&format!(
            "export GIT_CONFIG_GLOBAL=/dev/null; rm -rf {work}; git clone -q {bare} {work}; cp {files}/word {work}; cd {work}; \
             git -c user.name=a -c user.email=a@b commit -qam {word}; git push -q origin main; cd {bare}; git update-server-info",
            work = work.display(),
            bare = bare.display(),
            files = files.display(),
        ));
    }

    fn publish_url(&self, word: &str) {
        fs::write(self.maker.path("served/file"), format!("url={word}\n")).unwrap();
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.context.join("Boxfile.lock")).unwrap()
    }

    /// Builds in a store; what the RUN saw.
    #[track_caller]
    fn saw(&self, bench: &Bench, extra: &[&str]) -> String {
        let (said, is_done) = self.build(bench, extra);
        assert!(is_done, "{said}");
        let saw = said.lines().find_map(|line| line.split_once("| saw "));
        saw.unwrap_or_else(|| panic!("{said}")).1.trim().to_owned()
    }

    fn build(&self, bench: &Bench, extra: &[&str]) -> (String, bool) {
        let options = ["build", "--progress", "plain", "--network", "none"];
        let mut command = bench.command(options.iter().chain(extra));
        let output = command.arg(&self.context).output().unwrap();
        (text(&output.stderr), output.status.success())
    }

    fn values(&self, word: &str) -> String {
        let (base, tools) = (self.registry.name("base:1"), self.registry.name("tools:1"));
        format!("{base}={word} {tools}={word} url={word} git={word} /c: Boxfile own /m: Boxfile own")
    }
}

fn locked(bench: &Bench, context: &Path, extra: &[&str]) -> String {
    let mut command = bench.command(["lock", "--progress", "plain"].iter().chain(extra));
    success(command.arg(context).output().unwrap())
}

#[test]
fn what_is_locked_stays_what_it_is() {
    let world = World::new();
    let far = Bench::new();
    let said = locked(&far, &world.context, &[]);
    assert!(
        said.contains("Boxfile.lock: written: 2 image(s), 1 URL(s), 1 commit(s)"),
        "{said}"
    );
    assert_eq!(far.ok(["images", "-q"]), "", "a lock fetches no image");
    let first = world.lock();
    let lock: Value = serde_json::from_str(&first).unwrap();
    let base = world.registry.name("base:1");
    let platforms = lock["images"][&base].as_object().unwrap();
    let platform = platforms.keys().next().unwrap();
    assert!(platform.starts_with("linux/"));
    // It is the digest that the registry has.
    let digest = platforms[platform].as_str().unwrap();
    let by_digest = world.registry.name(&format!("base@{digest}"));
    assert_eq!(
        Bench::new().ok(["pull", "-q", &by_digest]),
        Bench::new().ok(["pull", "-q", &base])
    );
    assert!(locked(&far, &world.context, &[]).contains("Boxfile.lock: unchanged"));
    assert_eq!(world.saw(&far, &["--locked"]), world.values("one"));
    // The names now stand for others: a fresh store and the old one, with and without --locked, have the locked ones.
    world.publish("two");
    world.publish_url("one");
    assert_eq!(world.saw(&Bench::new(), &["--locked"]), world.values("one"));
    let fresh = Bench::new();
    let (said, is_done) = world.build(&fresh, &[]);
    assert!(
        is_done && said.contains("Boxfile.lock is honoured: 2 image(s), 1 URL(s), 1 commit(s)"),
        "{said}"
    );
    assert!(said.contains(&format!("saw {}", world.values("one"))), "{said}");
    assert_eq!(world.saw(&far, &["--no-cache", "--pull"]), world.values("one"));
    // A URL that gives something else is refused.
    world.publish_url("two");
    let (said, is_done) = world.build(&Bench::new(), &[]);
    let want = lock["urls"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .as_str()
        .unwrap();
    assert!(
        !is_done && said.contains(want) && said.contains("Boxfile:3"),
        "{said}"
    );
    assert!(said.contains("box lock --update"), "{said}");
    // Nothing changes a lock but --update.
    assert!(locked(&far, &world.context, &[]).contains("unchanged"));
    assert_eq!(world.lock(), first);
    assert!(locked(&far, &world.context, &["--update"]).contains("written"));
    assert_ne!(world.lock(), first);
    assert_eq!(world.saw(&far, &["--locked"]), world.values("two"));
    // An equal lock is made by another store, too.
    let second = world.lock();
    fs::remove_file(world.context.join("Boxfile.lock")).unwrap();
    locked(&Bench::new(), &world.context, &[]);
    assert_eq!(world.lock(), second);
}

#[test]
fn a_lock_is_no_part_of_the_context() {
    let bench = Bench::with_busybox();
    let boxfile = "FROM busybox\nCOPY . /c\nRUN --mount=type=bind,target=/m ls -A /c /m\n";
    let context = bench.context(
        "context",
        &[("Boxfile", boxfile), ("own", "x"), ("sub/Boxfile.lock", "theirs")],
    );
    let build = |extra: &[&str]| {
        let options = ["build", "--progress", "plain", "--explain", "--network", "none"];
        let mut command = bench.command(options.iter().chain(extra));
        let output = command.arg(&context).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (id, _) = build(&[]);
    // A base that no registry gave is locked to its id.
    assert!(locked(&bench, &context, &[]).contains("1 image(s)"));
    let lock = fs::read_to_string(context.join("Boxfile.lock")).unwrap();
    assert!(lock.contains("\": \"id:sha256:"), "{lock}");
    let hit = |said: &str| said.matches("] hit").count() == 2 && !said.contains("] miss");
    let (same, said) = build(&["--locked"]);
    assert!(same == id && hit(&said), "{said}");
    // Neither does what it says change a key.
    let spaced = lock.replace("  ", "\t");
    fs::write(context.join("Boxfile.lock"), spaced).unwrap();
    let (same, said) = build(&["--locked", "--offline"]);
    assert!(same == id && hit(&said), "{said}");
    let (_, said) = build(&["--no-cache"]);
    assert!(
        !said.lines().any(|line| line.ends_with(" Boxfile.lock")),
        "{said}"
    );
    let listed = bench.ok(["context", "ls", context.to_str().unwrap()]);
    let line = listed
        .lines()
        .find(|line| line.contains(" Boxfile.lock"))
        .unwrap();
    assert!(line.contains("no part of a context"), "{listed}");
    // Others of its name are files like any other.
    assert!(bench.sh(&id.trim()[..19], "ls /c/sub").contains("Boxfile.lock"));
    // Named by a COPY it is not there; and its base can be no other.
    let output = bench.try_build(&context, "FROM busybox\nCOPY Boxfile.lock /\n", &[]);
    assert!(
        output.status.success(),
        "the lock of another Boxfile is a file: {output:?}"
    );
    fs::write(context.join("Boxfile"), "FROM busybox\nCOPY Boxfile.lock /\n").unwrap();
    let said = bench.fails(1, ["build", context.to_str().unwrap()]);
    assert!(
        said.contains("Boxfile:2") && said.contains("Boxfile.lock"),
        "{said}"
    );
    let other = bench.build(&context, "FROM scratch\nCOPY own /\n", &[]);
    bench.ok(["tag", &other, "busybox"]);
    fs::write(context.join("Boxfile"), boxfile).unwrap();
    let (same, _) = build(&["--locked"]);
    assert_eq!(same, id, "the name has moved, the lock has not");
}

#[test]
fn what_a_lock_lacks_is_told() {
    let world = World::new();
    let bench = Bench::new();
    let (said, is_done) = world.build(&bench, &["--locked"]);
    assert!(
        !is_done && said.contains("Boxfile.lock") && said.contains("`box lock` writes it"),
        "{said}"
    );
    let lock = world.context.join("Boxfile.lock");
    fs::write(&lock, "{\"version\": 1}\n").unwrap();
    // Nobody is asked: the registry would be, before anything is said of URLs.
    let (said, is_done) = world.build(&bench, &["--locked"]);
    let base = format!("{} for linux/", world.registry.name("base:1"));
    assert!(
        !is_done && said.contains(&base) && said.contains("Boxfile:1:"),
        "{said}"
    );
    assert!(
        said.contains("is not in") && said.contains("--locked asks for it"),
        "{said}"
    );
    assert!(!said.contains("pulling"), "{said}");
    // With its base it is known what stands on it: all that is missing is told at once.
    locked(&bench, &world.context, &[]);
    let mut images: Value = serde_json::from_str(&world.lock()).unwrap();
    images["urls"] = serde_json::json!({});
    images["commits"] = serde_json::json!({});
    fs::write(&lock, images.to_string()).unwrap();
    let (said, is_done) = world.build(&bench, &["--locked"]);
    for (line, what) in [("Boxfile:3:", "file"), ("Boxfile:4:", "r.git#main")] {
        let what = format!("{} is not in ", world.server.as_ref().unwrap().url(what));
        assert!(
            !is_done && said.contains(&what) && said.contains(line),
            "{what}\n{said}"
        );
    }
    fs::write(&lock, "{\"version\": 1}\n").unwrap();
    // Without --locked it is a warning, with the cure, and built.
    let (said, is_done) = world.build(&bench, &[]);
    assert!(is_done, "{said}");
    assert_eq!(said.matches("is not in ").count(), 4, "{said}");
    assert!(
        said.contains("`box lock`, with the options of this build, adds it"),
        "{said}"
    );
    // Damaged, and of another version: told with its place, and nothing is built.
    for (written, want) in [
        ("{\"version\": 1,\n \"images\": 7}\n", "Boxfile.lock:2:"),
        ("{\"version\": 9}\n", "version 9"),
        ("", "Boxfile.lock:1:1"),
    ] {
        fs::write(&lock, written).unwrap();
        let (said, is_done) = world.build(&bench, &[]);
        assert!(
            !is_done && said.contains(want) && said.contains("box lock --update"),
            "{said}"
        );
    }
    assert!(locked(&bench, &world.context, &["--update"]).contains("written"));
    world.saw(&bench, &["--locked", "--no-cache"]);
}

#[test]
fn offline_nobody_is_asked() {
    let mut world = World::new();
    let bench = Bench::new();
    let (said, is_done) = world.build(&bench, &["--offline"]);
    let base = world.registry.name("base:1");
    assert!(
        !is_done
            && said.contains(&format!(
                "image {base} is not in the store, and --offline forbids to pull it"
            )),
        "{said}"
    );
    bench.ok(["pull", "-q", &base]);
    bench.ok(["pull", "-q", &world.registry.name("tools:1")]);
    let (said, is_done) = world.build(&bench, &["--offline", "--jobs", "1"]);
    let url = world.server.as_ref().unwrap().url("file");
    assert!(
        !is_done && said.contains(&format!("{url} is not here, and --offline forbids to fetch it")),
        "{said}"
    );
    locked(&bench, &world.context, &[]);
    assert_eq!(world.saw(&bench, &[]), world.values("one"));
    // All that is locked is here: the servers may be gone.
    world.publish("two");
    drop(world.server.take());
    world.registry.stop();
    assert_eq!(
        world.saw(&bench, &["--offline", "--locked", "--no-cache"]),
        world.values("one")
    );
    // Without a lock a branch must be asked for; a file is what it was.
    fs::remove_file(world.context.join("Boxfile.lock")).unwrap();
    let (said, is_done) = world.build(&bench, &["--offline", "--jobs", "1"]);
    assert!(
        !is_done && said.contains("the commit of main would have to be fetched, and --offline forbids it"),
        "{said}"
    );
    assert!(said.contains("is what it was when it was last fetched"), "{said}");
    let (said, is_done) = world.build(&bench, &["--offline", "--pull"]);
    assert!(!is_done && said.contains("--offline forbids it"), "{said}");
    let far = bench.fails(1, ["build", "--offline", &url]);
    assert!(
        far.contains("would have to be fetched, and --offline forbids it"),
        "{far}"
    );
}
