//! Stages side by side: how many, what waits for what, and what a failure does to the others.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use box_builder::build::build;
use box_builder::error::BuildError;
use box_builder::exec::{ExecError, ExecIo, ExecOutcome, ExecRequest, ExecStatus, Executor, Stream, Usage};
use box_builder::request::{ImagePuller, Platform, Pulling};
use box_store::{Image, Reference, Store};
use common::World;
use common::server::{Served, Server};

/// Long enough for every machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `meet NAME …` (ends when two have come to it), `hang` (ends when it is cancelled), `await NAME` (until `meet` or `hang` of that name was
/// begun), `write PATH TEXT` (on the
/// machine), and the commands of the other tests.
#[derive(Default)]
struct Meeting {
    inner: common::Scripted,
    begun: Mutex<Vec<String>>,
    changed: Condvar,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Meeting {
    fn begin(&self, name: &str) {
        self.begun.lock().unwrap().push(name.to_owned());
        self.changed.notify_all();
    }

    fn wait_for(&self, name: &str, count: usize) {
        let is_there = |begun: &mut Vec<String>| begun.iter().filter(|found| *found == name).count() < count;
        let begun = self.begun.lock().unwrap();
        let (_begun, result) = self
            .changed
            .wait_timeout_while(begun, PATIENCE, is_there)
            .unwrap();
        assert!(!result.timed_out(), "waited in vain for {count} of {name}");
    }
}

impl Executor for Meeting {
    fn run(&self, request: &ExecRequest<'_>, io: ExecIo<'_>) -> Result<ExecOutcome, ExecError> {
        self.most
            .fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let script = request.args.last().unwrap().to_str().unwrap().to_owned();
        let words: Vec<&str> = script.split_whitespace().collect();
        let result = match words[..] {
            ["meet", name, ..] => {
                self.begin(name);
                self.wait_for(name, 2);
                Ok(())
            }
            ["await", name] => {
                self.wait_for(name, 1);
                Ok(())
            }
            ["hang", name] => {
                self.begin(name);
                let start = std::time::Instant::now();
                while !io.cancel.is_cancelled() {
                    assert!(start.elapsed() < PATIENCE, "nobody cancelled it");
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(ExecError::Cancelled)
            }
            ["write", path, text] => {
                // So that it has been read ahead.
                std::thread::sleep(Duration::from_millis(200));
                std::fs::write(path, text).unwrap();
                Ok(())
            }
            ["fail-after", name] => {
                self.wait_for(name, 1);
                (io.output)(Stream::Stderr, b"why\n");
                self.now.fetch_sub(1, Ordering::SeqCst);
                return Ok(outcome(ExecStatus::Exited(3)));
            }
            _ => {
                // So that others have time to come.
                std::thread::sleep(Duration::from_millis(5));
                let result = self.inner.run(request, io);
                self.now.fetch_sub(1, Ordering::SeqCst);
                return result;
            }
        };
        self.now.fetch_sub(1, Ordering::SeqCst);
        result.map(|()| outcome(ExecStatus::Exited(0)))
    }
}

fn outcome(status: ExecStatus) -> ExecOutcome {
    ExecOutcome {
        status,
        oom_killed: false,
        timed_out: false,
        usage: Usage::default(),
    }
}

struct Run {
    world: World,
    executor: Arc<Meeting>,
}

impl Run {
    fn new() -> Run {
        Run {
            world: World::new(),
            executor: Arc::default(),
        }
    }

    fn build(&self, boxfile: &str, jobs: usize) -> Result<box_store::ImageId, BuildError> {
        let mut request = self.world.request(boxfile);
        request.jobs = jobs;
        let built = build(&self.world.store, &*self.executor, &request, &self.world.events);
        built.map(|outcome| outcome.image.id)
    }
}

/// So many stages with a step of their own, and one that copies from all.
fn fan(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        text.push_str(&format!(
            "FROM scratch AS s{n}\nRUN put /{n} {n}\nRUN put /more{n} {n}\n"
        ));
    }
    text.push_str("FROM scratch\n");
    for n in 0..count {
        text.push_str(&format!("COPY --from=s{n} /{n} /more{n} /all/\n"));
    }
    text
}

#[test]
fn stages_that_need_nothing_of_each_other_run_at_the_same_time() {
    let run = Run::new();
    let text = "FROM scratch AS a\nRUN meet x\nRUN put /a 1\nFROM scratch AS b\nRUN put /b 1\nRUN meet x\n\
                FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    run.build(text, 2).unwrap();
}

#[test]
fn a_stage_waits_for_another_only_where_it_needs_it() {
    let run = Run::new();
    // The last one's first step ends only when a step of the first stage has begun, which goes on until then.
    let text = "FROM scratch AS top\nRUN meet x\nRUN put /top 1\nFROM top AS left\nRUN put /l 1\nFROM top AS right\nRUN put /r 1\n\
                FROM scratch\nRUN meet x too\nCOPY --from=left /l /\nRUN --mount=from=right,source=/r,target=/r true\n";
    run.build(text, 2).unwrap();
}

#[test]
fn no_more_steps_work_at_once_than_were_asked_for() {
    for jobs in [2, 3] {
        let run = Run::new();
        run.build(&fan(8), jobs).unwrap();
        let most = run.executor.most.load(Ordering::SeqCst);
        assert!((2..=jobs).contains(&most), "{most} of {jobs}");
    }
}

#[test]
fn one_job_is_one_after_another() {
    let run = Run::new();
    run.build(&fan(4), 1).unwrap();
    assert_eq!(run.executor.most.load(Ordering::SeqCst), 1);
    let expected: Vec<String> = (0..4)
        .flat_map(|n| [format!("put /{n} {n}"), format!("put /more{n} {n}")])
        .collect();
    assert_eq!(run.executor.inner.ran(), expected);
}

#[test]
fn however_many_jobs_the_image_is_the_same() {
    let text = format!("{}RUN copy /all/0 /last\n", fan(6));
    let ids: Vec<_> = [1, 2, 8]
        .map(|jobs| Run::new().build(&text, jobs).unwrap())
        .into();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_failure_stops_the_others_and_is_the_one_that_is_told() {
    let run = Run::new();
    let text = "FROM scratch AS a\nRUN put /kept 1\nRUN hang x\nFROM scratch AS b\nRUN fail-after x\n\
                FROM scratch AS c\nCOPY --from=a /kept /\nRUN put /never 1\n\
                FROM scratch\nCOPY --from=b / /\nCOPY --from=c / /\n";
    let error = run.build(text, 4).unwrap_err().to_string();
    assert_eq!(error, "Boxfile:5: RUN fail-after x: exit code 3");
    let events = &run.world.events;
    assert_eq!(
        (events.count("StepFailed"), events.count("StepCancelled")),
        (1, 1)
    );
    assert_eq!(run.executor.inner.ran(), ["put /kept 1"]);
    // What was done before is kept.
    let again = run.build("FROM scratch AS a\nRUN put /kept 1\n", 4);
    again.unwrap();
    assert_eq!(run.executor.inner.ran(), ["put /kept 1"]);
    let tmp = std::fs::read_dir(run.world.store_root().join("tmp")).unwrap();
    for owner in tmp
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        assert_eq!(std::fs::read_dir(owner).unwrap().count(), 0);
    }
}

#[test]
fn a_cancelled_build_ends_whoever_waits() {
    let run = Run::new();
    let text = "FROM scratch AS a\nRUN hang x\nFROM scratch AS b\nRUN put /b 1\n\
                FROM scratch\nCOPY --from=b /b /\nCOPY --from=a / /\n";
    let mut request = run.world.request(text);
    // The one turn is taken by the one that hangs: the others wait for it, or for a stage.
    request.jobs = 2;
    let result = std::thread::scope(|scope| {
        let built = scope.spawn(|| build(&run.world.store, &*run.executor, &request, &run.world.events));
        run.executor.wait_for("x", 1);
        request.cancel.cancel();
        built.join().unwrap()
    });
    assert!(matches!(result, Err(BuildError::Cancelled)));
    assert_eq!(run.world.events.count("StepFailed"), 0);
}

#[test]
fn a_step_of_two_stages_is_done_once() {
    let run = Run::new();
    let text = "FROM scratch AS a\nRUN put /same 1\nRUN put /a 1\nFROM scratch AS b\nRUN put /same 1\nRUN put /b 1\n\
                FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";
    run.build(text, 4).unwrap();
    let ran = run.executor.inner.ran();
    assert_eq!(ran.iter().filter(|script| *script == "put /same 1").count(), 1);
    assert_eq!(ran.len(), 3);
}

#[test]
fn a_large_layer_at_the_end_of_a_stage_holds_up_nobody() {
    let run = Run::new();
    // Too large to be hashed at once: its step is recorded, and its lock free, only when its digest is known.
    let large = format!("put /same {}", "x".repeat(3 << 20));
    let text = format!(
        "FROM scratch AS a\nRUN {large}\nFROM scratch AS b\nRUN {large}\nRUN put /b 1\n\
         FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n"
    );
    run.build(&text, 2).unwrap();
    assert_eq!(run.executor.inner.ran().len(), 2);
}

#[test]
fn what_is_fetched_comes_beside_the_steps_before_it() {
    let run = Run::new();
    let server = Server::start(Served::new(b"fetched"));
    let text = format!(
        "FROM scratch\nRUN await asked\nADD {} /a\nADD {} /b\nCOPY file /c\n",
        server.url("one"),
        server.url("two")
    );
    run.world.file("file", "c");
    let built = std::thread::scope(|scope| {
        let built = scope.spawn(|| run.build(&text, 2));
        let start = std::time::Instant::now();
        while server.asked().len() < 2 {
            assert!(start.elapsed() < PATIENCE, "nothing was asked for");
            std::thread::sleep(Duration::from_millis(1));
        }
        run.executor.begin("asked");
        built.join().unwrap()
    });
    built.unwrap();
    let mut asked = server.asked();
    asked.sort();
    assert_eq!(asked, ["/one", "/two"], "each once");
    assert_eq!(run.world.events.count("StepAhead"), 2);
}

#[test]
fn the_same_url_is_fetched_once_for_all_who_want_it() {
    let run = Run::new();
    let server = Server::start(Served::new(b"fetched").etag("1"));
    let url = server.url("one");
    let text = format!(
        "FROM scratch AS a\nADD {url} /a\nFROM scratch AS b\nRUN put /x 1\nADD {url} /b\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    );
    run.build(&text, 4).unwrap();
    assert_eq!(server.asked(), ["/one", "/one unchanged"]);
}

#[test]
fn what_can_not_be_had_is_told_before_its_turn() {
    let run = Run::new();
    let text = "FROM scratch\nRUN put /kept 1\nRUN hang x\nCOPY missing /\n";
    let error = run.build(text, 2).unwrap_err().to_string();
    assert!(error.starts_with("Boxfile:4: COPY missing /: "), "{error}");
    let events = &run.world.events;
    assert_eq!(events.count("StepFailed"), 1);
    // One after another it is told when its turn comes.
    let run = Run::new();
    let error = run.build(&text.replace("hang x", "exit 2"), 1).unwrap_err();
    assert!(error.to_string().starts_with("Boxfile:3: RUN exit 2"), "{error}");
}

#[test]
fn a_context_that_is_written_to_meanwhile_is_read_as_it_is_then() {
    let run = Run::new();
    let path = run.world.file("a", "old");
    let text = format!("FROM scratch\nRUN write {} newer\nCOPY a /a\n", path.display());
    let mut request = run.world.request(&text);
    request.jobs = 2;
    let silent = box_builder::progress::Silent;
    let built = build(&run.world.store, &*run.executor, &request, &silent).unwrap();
    assert_eq!(run.world.read(&built.image, "/a"), "newer");
    // And its key is that of what was copied.
    let again = Run {
        world: run.world.beside(),
        executor: Arc::default(),
    };
    again.world.file("a", "newer");
    let text = "FROM scratch\nCOPY a /a\n";
    let image = build(
        &again.world.store,
        &*again.executor,
        &again.world.request(text),
        &silent,
    )
    .unwrap();
    assert_eq!(again.world.read(&image.image, "/a"), "newer");
}

/// Says what the image is, and has its layers only when a step has begun.
struct Late {
    image: Image,
    executor: Arc<Meeting>,
    is_broken: bool,
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Late")
    }
}

impl ImagePuller for Late {
    fn asks_always(&self) -> bool {
        false
    }

    fn pull(
        &self,
        store: &Store,
        name: &Reference,
        _platform: &Platform,
        pulling: Pulling<'_>,
    ) -> Result<(), String> {
        (pulling.found)(self.image.clone());
        self.executor.begin("beside");
        self.executor.wait_for("beside", 2);
        match self.is_broken {
            true => Err("its layer broke off".to_owned()),
            false => store.tag(name, &self.image.id).map_err(|error| error.to_string()),
        }
    }

    fn resolve(
        &self,
        _: &Reference,
        _: &Platform,
        _: &box_builder::exec::CancelToken,
    ) -> Result<(box_store::Digest, Image), String> {
        Err("a build asks nothing".to_owned())
    }
}

#[test]
fn layers_are_pulled_beside_the_steps_of_other_stages() {
    for is_broken in [false, true] {
        let run = Run::new();
        let (image, _) = run.world.build("FROM scratch\nENV OF=late\nRUN put /base 1\n");
        let mut request = run.world.request(
            "FROM late AS a\nRUN var /of OF\nFROM scratch AS b\nRUN meet beside\nRUN put /b 1\n\
             FROM scratch\nCOPY --from=b /b /\nCOPY --from=a /of /base /\nCOPY --from=late /base /again\n",
        );
        request.jobs = 2;
        request.puller = Some(Arc::new(Late {
            image,
            executor: Arc::clone(&run.executor),
            is_broken,
        }));
        let built = build(&run.world.store, &*run.executor, &request, &run.world.events);
        match is_broken {
            false => {
                let image = built.unwrap().image;
                assert_eq!(run.world.list(&image), ["again", "b", "base", "of"]);
                assert_eq!(
                    run.world.read(&image, "/of"),
                    "late",
                    "its config is known before its layers"
                );
            }
            true => {
                let error = built.unwrap_err().to_string();
                assert!(error.contains("cannot pull late: its layer broke off"), "{error}");
            }
        }
    }
}
