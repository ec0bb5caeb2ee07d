//! Commands that are killed at a system call, or have one fail: the store stays whole, the same command then works and gives
//! the same, and no failure passes for a success. In CI a spread of the moments; BOX_LONG=1 tries every one.
#![allow(clippy::unwrap_used)] // a test that panics has failed
#![allow(clippy::print_stdout)] // how much was met
#![cfg(target_arch = "x86_64")] // the tracer knows its registers alone

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::tracer::{self, Call, Fault, Kind, Traced};
use common::{Bench, Traces, sh};
use nix::errno::Errno;

/// A command, and the store that it begins with.
struct Case<'a> {
    name: &'static str,
    args: Vec<String>,
    bench: &'a Bench,
    base: PathBuf,
    /// What the store holds when it is done.
    expected: BTreeSet<String>,
    before: Traces,
}

/// What of a store is named by its content, and so must be the same each time. Of the blobs, fsck asks for those that images need;
/// a pulled layer's archive may be missing.
fn contents(store: &Path) -> BTreeSet<String> {
    let places = ["layers", "meta", "synced", "images", "names"];
    let entries = places.iter().flat_map(|place| {
        let entries = std::fs::read_dir(store.join(place)).into_iter().flatten();
        entries.map(move |entry| format!("{place}/{}", entry.unwrap().file_name().to_string_lossy()))
    });
    entries.collect()
}

/// What stays in `tmp/`.
fn temporary(store: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.join("tmp")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// In words; empty if there is none.
fn difference(now: &BTreeSet<String>, expected: &BTreeSet<String>) -> String {
    let more = now.difference(expected).map(|name| format!("has {name}"));
    let less = expected.difference(now).map(|name| format!("lacks {name}"));
    more.chain(less).collect::<Vec<_>>().join(", ")
}

impl<'a> Case<'a> {
    /// The store as it is now is what each run begins with.
    fn new(bench: &'a Bench, name: &'static str, args: &[&str]) -> Self {
        let base = bench.path(&format!("{name}.base"));
        sh(&format!("cp -a {} {}", bench.store().display(), base.display()));
        let before = Traces::of(bench);
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        bench.ok(&args);
        let expected = contents(&bench.store());
        let case = Self {
            name,
            args,
            bench,
            base,
            expected,
            before,
        };
        case.begin();
        case
    }

    fn begin(&self) {
        let (base, store) = (self.base.display(), self.bench.store());
        sh(&format!("rm -rf {0}; cp -a {base} {0}", store.display()));
    }

    fn run(&self, at: usize, fault: Fault) -> Traced {
        let everywhere = Path::new("/");
        let store = self.bench.store();
        let places = match fault {
            Fault::Kill => [everywhere],
            _ => [store.as_path()],
        };
        self.begin();
        tracer::run(self.bench, &self.args, &places, Some((at, fault)))
    }

    /// The calls of a run in which nothing fails.
    fn calls(&self, fault: Fault) -> Vec<Call> {
        let traced = self.run(usize::MAX, fault);
        assert_eq!(traced.code, Some(0), "{}: {}", self.name, traced.stderr);
        assert_eq!(contents(&self.bench.store()), self.expected, "{}", self.name);
        traced.calls
    }

    /// After a fault: the store is whole, the command works, and nothing stays.
    fn recovers(&self, moment: &str) {
        let store = self.bench.store();
        let checked = self.bench.run(["fsck"]);
        let told = common::text(&checked.stdout) + &common::text(&checked.stderr);
        assert!(
            checked.status.success() && told.contains("all is well"),
            "{moment}: fsck: {told}"
        );
        let again = self.bench.run(&self.args);
        assert!(
            again.status.success(),
            "{moment}: the same command again: {}",
            common::text(&again.stderr)
        );
        let now = contents(&store);
        assert_eq!(difference(&now, &self.expected), "", "{moment}: the store then");
        let left = temporary(&store);
        assert!(left.is_empty(), "{moment}: {left:?} stays");
        let deadline = Instant::now() + Duration::from_secs(5);
        while Traces::of(self.bench) != self.before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(Traces::of(self.bench), self.before, "{moment}");
    }
}

fn is_long() -> bool {
    std::env::var_os("BOX_LONG").is_some()
}

/// So many numbers below `total`, evenly spread; all of them in the long form.
fn spread(total: usize, wanted: usize) -> Vec<usize> {
    match is_long() || total <= wanted {
        true => (0..total).collect(),
        false => (0..wanted).map(|n| n * total / wanted).collect(),
    }
}

/// How often what was met.
#[derive(Default)]
struct Met(BTreeMap<&'static str, u32>);

impl Met {
    fn add(&mut self, call: &Call) {
        *self.0.entry(call.name).or_default() += 1;
    }

    fn tell(&self, what: &str, begun: Instant) {
        let total: u32 = self.0.values().sum();
        let each: Vec<String> = self
            .0
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        println!(
            "{what}: {total} moments in {:.1?}: {}",
            begun.elapsed(),
            each.join(", ")
        );
    }
}

/// Kills the command at a spread of its calls.
fn killed(case: &Case<'_>, wanted: usize) {
    let begun = Instant::now();
    let total = case.calls(Fault::Kill).len();
    let mut met = Met::default();
    let moments = spread(total, wanted);
    for &at in &moments {
        let traced = case.run(at, Fault::Kill);
        // Threads come in another order each time: this run may have had fewer calls.
        let Some(call) = traced.calls.get(at) else {
            assert_eq!(traced.code, Some(0), "{}: {}", case.name, traced.stderr);
            continue;
        };
        assert_eq!(traced.code, None, "{}: killed at call {at}, {call}", case.name);
        met.add(call);
        case.recovers(&format!("{} killed at call {at} of {total}, {call}", case.name));
    }
    met.tell(&format!("{} killed", case.name), begun);
    let count: u32 = met.0.values().sum();
    assert!(
        count as usize * 10 >= moments.len() * 9,
        "{}: {count} of {} met",
        case.name,
        moments.len()
    );
}

/// Lets one call after the other fail; from a full disk on, all that need room.
fn failed(case: &Case<'_>, wanted: usize) {
    for fault in [Fault::Error(Errno::EIO), Fault::Lasting(Errno::ENOSPC)] {
        let begun = Instant::now();
        let calls = case.calls(fault);
        let concerned: Vec<usize> = (0..calls.len())
            .filter(|&at| fault == Fault::Error(Errno::EIO) || calls[at].kind == Kind::Grow)
            .collect();
        let mut met = Met::default();
        let mut refused = 0;
        for n in spread(concerned.len(), wanted) {
            let at = concerned[n];
            let traced = case.run(at, fault);
            let Some(call) = traced.calls.get(at) else {
                continue;
            };
            let moment = format!("{} with {fault:?} at call {at}, {call}", case.name);
            met.add(call);
            refused += u32::from(traced.code != Some(0));
            judge(case, &traced, fault, &moment);
            case.recovers(&moment);
        }
        met.tell(
            &format!("{} with {fault:?} ({refused} refused)", case.name),
            begun,
        );
    }
}

/// It fails and says what and where, or has done all it should.
fn judge(case: &Case<'_>, traced: &Traced, fault: Fault, moment: &str) {
    let told = &traced.stderr;
    assert!(!told.contains("panicked"), "{moment}: {told}");
    if traced.code == Some(0) {
        let now = contents(&case.bench.store());
        let wrong = difference(&now, &case.expected);
        assert_eq!(wrong, "", "{moment}: it says that it is done, but the store");
        return;
    }
    assert!(
        matches!(traced.code, Some(1 | 125)),
        "{moment}: {:?}: {told}",
        traced.code
    );
    let (reason, cure) = match fault {
        Fault::Lasting(_) => ("No space left on device", "the disk of the store is full"),
        _ => ("Input/output error", ""),
    };
    let is_clear = told.contains("error") && told.contains(reason) && told.contains(cure);
    assert!(is_clear, "{moment}: {told}");
    // Where it was: in the store, in a layer, or by the line that made it.
    let store = case.bench.store();
    let is_placed = [store.to_str().unwrap(), "sha256:", "Boxfile:"]
        .iter()
        .any(|place| told.contains(place));
    assert!(is_placed && !told.contains(" : "), "{moment}: no path in: {told}");
}

/// A store with an image of a few files.
fn small() -> Bench {
    let bench = Bench::new();
    let files = [("a", "a\n"), ("d/b", "bb\n"), ("d/c", "ccc\n")];
    let context = bench.context("context", &files);
    let boxfile = "FROM scratch\nCOPY . /files/\nONBUILD COPY e /triggered\n";
    bench.build(&context, boxfile, &["-t", "small"]);
    bench
}

/// A context whose build is a base and one more layer.
fn context(bench: &Bench, boxfile: &str) -> String {
    let files = [("e", "e\n"), ("f/g", "gg\n"), ("Boxfile", boxfile)];
    let context = bench.context("context2", &files);
    sh(&format!("ln -s g {}/f/link", context.display()));
    context.to_str().unwrap().to_owned()
}

const BUILD: [&str; 6] = ["build", "-q", "--network", "none", "-t", "result"];

#[test]
fn a_killed_tag_leaves_the_store_whole() {
    let bench = small();
    killed(&Case::new(&bench, "tag", &["tag", "small", "again"]), usize::MAX);
}

#[test]
fn a_killed_commit_leaves_the_store_whole() {
    let bench = small();
    let context = context(&bench, "FROM small\nCOPY . /more/\n");
    let args = [&BUILD[..], &[&context]].concat();
    killed(&Case::new(&bench, "copy", &args), 24);
}

/// A large layer is used while it is hashed, and moves under its users.
#[test]
fn a_killed_large_commit_leaves_the_store_whole() {
    let bench = small();
    let context = context(&bench, "FROM small\nCOPY . /more/\nCOPY e /again\n");
    std::fs::write(Path::new(&context).join("large"), vec![b'x'; 600_000]).unwrap();
    let args = [&BUILD[..], &[&context]].concat();
    killed(&Case::new(&bench, "large", &args), 14);
}

#[test]
fn a_killed_step_leaves_the_store_whole() {
    let bench = Bench::with_busybox();
    let context = context(
        &bench,
        "FROM busybox\nRUN mkdir /d && echo a > /d/a && rm /bin/vi\n",
    );
    let args = [&BUILD[..], &[&context]].concat();
    killed(&Case::new(&bench, "run", &args), 20);
}

#[test]
fn a_tag_with_a_failing_disk() {
    let bench = small();
    failed(&Case::new(&bench, "tag", &["tag", "small", "again"]), 24);
}

#[test]
fn a_commit_with_a_failing_disk() {
    let bench = small();
    let context = context(&bench, "FROM small\nCOPY . /more/\n");
    let args = [&BUILD[..], &[&context]].concat();
    failed(&Case::new(&bench, "copy", &args), 14);
}

/// A store without images, beside one with an image of a few layers.
fn two() -> (Bench, Bench) {
    let (near, far) = (small(), Bench::new());
    let context = context(&near, "FROM small\nCOPY . /more/\nCOPY e /again\n");
    near.ok([&BUILD[..], &[&context]].concat());
    far.ok(["images"]);
    (near, far)
}

#[test]
fn a_load_with_a_failing_disk() {
    let (near, far) = two();
    let saved = near.path("saved.tar").display().to_string();
    near.ok(["save", "-o", &saved, "result"]);
    failed(&Case::new(&far, "load", &["load", "-i", &saved]), 12);
}

#[test]
fn a_pull_with_a_failing_disk() {
    let registry = common::registry::Registry::start();
    let (near, far) = two();
    let name = registry.name("app:1");
    near.ok(["push", "-q", "result", &name]);
    failed(&Case::new(&far, "pull", &["pull", "-q", &name]), 8);
}

#[test]
fn collecting_with_a_failing_disk() {
    let (near, _) = two();
    near.ok(["rmi", "result"]);
    failed(&Case::new(&near, "prune", &["prune"]), 14);
    failed(&Case::new(&near, "gc", &["gc"]), 8);
}
