//! SIGKILL of builds whose stages run side by side and that write or read a cache elsewhere, at seeded moments spread over the phases: the
//! store is whole, nothing is left, another machine finds in the cache what is right or nothing, and the next export mends it. 5 moments;
//! BOX_LONG=1 tries 100. BOX_KILL_SEED repeats a run.
#![allow(clippy::unwrap_used)] // a test that panics has failed
#![allow(clippy::print_stdout)] // which phases were met is worth knowing

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::bucket::Bucket;
use common::registry::Registry;
use common::{Bench, Random, Traces, sh, text};

/// A base that is pulled, and stages side by side on it. What the last one is made of fills several packs.
fn boxfile(base: &str) -> String {
    format!(
        "FROM {base} AS base\nCOPY files /files\n\
         FROM base AS a\nRUN seq 1 100 | while read n; do echo $n > /tmp/$n; done\nRUN echo a > /a\n\
         FROM base AS b\nRUN --mount=type=cache,target=/c echo b > /c/b; seq 1 60000 > /numbers\n\
         FROM base\nCOPY --from=a /a /\nCOPY --from=b /numbers /b\nRUN cat /a /files/1/1 > /both\n"
    )
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Export,
    Import,
}

/// A kind of cache, emptied for each moment.
enum Kind {
    Directory(PathBuf),
    Registry(String),
    Bucket(Bucket),
}

impl Kind {
    /// The options of a cache that nobody has written yet.
    fn fresh(&self, moment: usize) -> (String, String) {
        match self {
            Kind::Directory(dir) => {
                let dir = dir.join(moment.to_string());
                let dir = dir.display();
                (format!("type=local,dest={dir}"), format!("type=local,src={dir}"))
            }
            Kind::Registry(name) => {
                let place = format!("type=registry,ref={name}:{moment}");
                (place.clone(), place)
            }
            Kind::Bucket(bucket) => {
                bucket.objects.lock().unwrap().clear();
                (bucket.options(), bucket.options())
            }
        }
    }

    /// What a killed writer left that is of no use.
    fn left(&self, moment: usize) -> Vec<String> {
        let Kind::Directory(dir) = self else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(dir.join(moment.to_string()).join("tmp"));
        let entries = entries.into_iter().flatten();
        entries
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }
}

fn build(bench: &Bench, context: &Path, file: &Path, more: &[String]) -> std::process::Command {
    let mut command = bench.command([
        "build",
        "--progress",
        "json",
        "--network",
        "none",
        "-t",
        "result",
        "-f",
    ]);
    command.arg(file).args(more).arg(context);
    command
}

/// A build that must succeed: the image's id, how many steps were done, and what was told.
#[track_caller]
fn whole(bench: &Bench, context: &Path, file: &Path, more: &[String]) -> (String, usize, String) {
    let output = build(bench, context, file, more).output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    let id = bench
        .ok(["images", "-q", "--no-trunc", "result"])
        .trim()
        .to_owned();
    (id, told.matches("\"event\":\"step_finished\"").count(), told)
}

/// One event of a build: when it came, and what it is called.
type Heard = (Duration, String);

/// Runs a build and listens; with a moment (after how many events, and how long after that) it is killed then. Says whether it was.
fn listen(
    mut command: std::process::Command,
    kill: Option<(usize, Duration)>,
) -> (bool, Vec<Heard>, Duration) {
    let start = Instant::now();
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let (said, told) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            let name = event["event"].as_str().unwrap_or_default().to_owned();
            if name != "step_output" && said.send((start.elapsed(), name)).is_err() {
                return;
            }
        }
    });
    let mut heard: Vec<Heard> = Vec::new();
    let mut deadline = kill
        .filter(|(count, _)| *count == 0)
        .map(|(_, delay)| start + delay);
    let killed = loop {
        let patience = deadline.map_or(Duration::from_secs(60), |at| {
            at.saturating_duration_since(Instant::now())
        });
        match told.recv_timeout(patience) {
            Ok(event) => {
                heard.push(event);
                if let Some((count, delay)) = kill
                    && heard.len() == count
                {
                    deadline = Some(Instant::now() + delay);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                assert!(deadline.is_some(), "nothing happens any more after {heard:?}");
                child.kill().unwrap();
                break child.wait().unwrap().code().is_none();
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().unwrap();
                assert!(status.success(), "{status}: {heard:?}");
                break false;
            }
        }
    };
    let _ = child.wait();
    drop(told);
    reader.join().unwrap();
    (killed, heard, start.elapsed())
}

/// A moment: after how many events, how long after, and what comes before it.
fn moments(heard: &[Heard], end: Duration, wanted: usize, random: &mut Random) -> Vec<(usize, Duration)> {
    let times: Vec<Duration> = std::iter::once(Duration::ZERO)
        .chain(heard.iter().map(|(at, _)| *at))
        .chain([end])
        .collect();
    // What follows the last step is the image, its name, and the cache.
    let is_step = |(_, name): &Heard| name.starts_with("step_");
    let built = heard.iter().rposition(is_step).unwrap_or(heard.len() - 1);
    let within = |part: usize, random: &mut Random, from: f64, share: f64| {
        let length = times[part + 1].saturating_sub(times[part]);
        let unit = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (part, length.mul_f64(from + unit * share))
    };
    // Each second one when the image is there: while the cache is written. The others are spread over what comes before.
    let late = wanted.div_ceil(2);
    let early = wanted - late;
    let mut all: Vec<_> = (0..early)
        .map(|n| within(n * (built + 1) / early.max(1), random, 0.0, 1.0))
        .collect();
    let share = 1.0 / late.max(1) as f64;
    all.extend((0..late).map(|n| within(built + 1, random, n as f64 * share, share)));
    all
}

fn temporary(bench: &Bench) -> Vec<String> {
    let entries = std::fs::read_dir(bench.store().join("tmp")).into_iter().flatten();
    entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// The store is whole, and nothing is left of who was killed.
#[track_caller]
fn check_clean(bench: &Bench, before: &Traces, what: &str) {
    let checked = bench.ok(["fsck"]);
    assert!(checked.contains("all is well"), "{what}: {checked}");
    let deadline = Instant::now() + Duration::from_secs(5);
    while Traces::of(bench) != *before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(&Traces::of(bench), before, "{what}");
    assert_eq!(temporary(bench), [] as [String; 0], "{what}");
}

/// A machine that has pushed the base, its context and Boxfile.
fn home(registry: &Registry) -> (Bench, PathBuf, PathBuf) {
    let home = Bench::with_busybox();
    let base = registry.name("base:1");
    home.ok(["tag", "busybox", &base]);
    home.ok(["push", "-q", &base]);
    let names: Vec<(String, String)> = (0..60)
        .map(|n| (format!("files/{}/{n}", n % 10), n.to_string()))
        .collect();
    let files: Vec<(&str, &str)> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let context = home.context("context", &files);
    sh(&format!(
        "head -c 5m /dev/urandom > {}/files/large",
        context.display()
    ));
    let file = home.path("Boxfile");
    std::fs::write(&file, boxfile(&base)).unwrap();
    (home, context, file)
}

/// Kills builds with this cache at so many moments; tells in which phases.
fn campaign(kind: &Kind, what: What, registry: &Registry, wanted: usize) {
    let seed = std::env::var("BOX_KILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_261_129);
    let mut random = Random(seed);
    let (home, context, file) = home(registry);
    let options = |(to, from): (String, String)| {
        (
            format!("--cache-to={to},mode=max,cache-mounts=true,ignore-error=false"),
            format!("--cache-from={from}"),
        )
    };

    // How it goes when nothing is killed.
    let (to, from) = options(kind.fresh(1_000_000));
    let (killed, mut heard, mut end) = listen(
        build(&home, &context, &file, &["--no-cache".into(), to.clone()]),
        None,
    );
    assert!(!killed);
    let id = home
        .ok(["images", "-q", "--no-trunc", "result"])
        .trim()
        .to_owned();
    if what == What::Import {
        (_, heard, end) = listen(build(&Bench::new(), &context, &file, &[from]), None);
    }
    let mut phases: BTreeMap<String, u32> = BTreeMap::new();
    for (number, (after, delay)) in moments(&heard, end, wanted, &mut random).into_iter().enumerate() {
        let (to, from) = options(kind.fresh(number));
        let a = Bench::new();
        a.ok(["images"]);
        let before = Traces::of(&a);
        let args = match what {
            What::Export => [to.clone()],
            What::Import => {
                whole(&home, &context, &file, std::slice::from_ref(&to));
                [from.clone()]
            }
        };
        let (killed, met, _) = listen(build(&a, &context, &file, &args), Some((after, delay)));
        let phase = met.last().map_or("start", |(_, name)| name.as_str());
        let phase = if killed { phase } else { "ended before" };
        *phases.entry(phase.to_owned()).or_default() += 1;
        let moment =
            format!("{what:?}, seed {seed}, moment {number}: {delay:?} after {after} events ({phase})");
        check_clean(&a, &before, &moment);

        // Another machine finds what is right, or nothing.
        let b = Bench::new();
        let (found, _, told) = whole(&b, &context, &file, std::slice::from_ref(&from));
        assert_eq!(found, id, "{moment}: {told}");
        assert!(!told.contains("warning"), "{moment}: {told}");
        check_clean(&b, &Traces::of(&b), &moment);
        // The next one writes it whole.
        let (again, _, told) = whole(&a, &context, &file, std::slice::from_ref(&to));
        assert_eq!(again, id, "{moment}: {told}");
        assert!(!told.contains("warning"), "{moment}: {told}");
        assert_eq!(kind.left(number), [] as [String; 0], "{moment}");
        check_clean(&a, &before, &moment);
        let c = Bench::new();
        let (found, done, told) = whole(&c, &context, &file, &[from]);
        assert_eq!((found, done), (id.clone(), 0), "{moment}: {told}");
        if let Kind::Directory(dir) = kind {
            sh(&format!("rm -rf {}/{number}", dir.display()));
        }
    }
    let told: Vec<_> = phases
        .iter()
        .map(|(phase, count)| format!("{phase} {count}"))
        .collect();
    println!("killed at {wanted} moments (seed {seed}): {}", told.join(", "));
    let killed: u32 = phases
        .iter()
        .filter(|(phase, _)| *phase != "ended before")
        .map(|(_, n)| n)
        .sum();
    // Of a few moments all may come too late.
    assert!(wanted < 10 || killed as usize * 2 >= wanted, "{phases:?}");
}

/// So many in CI, and in the long form.
fn count(short: usize, long: usize) -> usize {
    match std::env::var_os("BOX_LONG").is_some() {
        true => long,
        false => short,
    }
}

#[test]
fn a_killed_export_to_a_directory() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    campaign(
        &Kind::Directory(dir.path().to_owned()),
        What::Export,
        &registry,
        count(2, 40),
    );
}

#[test]
fn a_killed_export_to_a_registry() {
    let registry = Registry::start();
    campaign(
        &Kind::Registry(registry.name("cache")),
        What::Export,
        &registry,
        count(1, 20),
    );
}

#[test]
fn a_killed_export_to_a_bucket() {
    let registry = Registry::start();
    campaign(
        &Kind::Bucket(Bucket::start()),
        What::Export,
        &registry,
        count(1, 25),
    );
}

#[test]
fn a_killed_import() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    campaign(
        &Kind::Directory(dir.path().to_owned()),
        What::Import,
        &registry,
        count(1, 15),
    );
}
