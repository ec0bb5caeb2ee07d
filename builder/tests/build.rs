//! Builds with a real store and an executor that writes the upper directory itself.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use box_builder::error::{BuildError, StepError};
use box_builder::exec::NetworkMode;
use common::World;

/// Runs after `FROM scratch`, each as RUN.
fn boxfile(runs: &[&str]) -> String {
    runs.iter().fold("FROM scratch\n".to_owned(), |text, run| {
        format!("{text}RUN {run}\n")
    })
}

#[test]
fn a_second_build_runs_nothing_and_writes_nothing() {
    let world = World::new();
    world.file("a", "A");
    // Older than the tick of the clock, so that its digest is kept.
    std::thread::sleep(Duration::from_millis(150));
    let text =
        "FROM scratch\nWORKDIR /w\nCOPY a .\nENV X=1\nRUN put /b B; echo hello\nRUN true\nCMD [\"/b\"]\n";
    let (first, ran) = world.build(text);
    assert_eq!(ran, ["put /b B; echo hello", "true"]);
    assert!(world.events.told("output hello"));
    let before = world.store_state();
    let (second, ran) = world.build(text);
    assert!(ran.is_empty());
    assert_eq!(second.id, first.id);
    assert_eq!(world.store_state(), before);
    assert_eq!(world.list(&first), ["b", "w", "w/a"]);
}

#[test]
fn equal_builds_are_equal_anywhere() {
    let text =
        "FROM scratch\nCOPY . /src\nRUN copy /src/a /b; var /epoch SOURCE_DATE_EPOCH\nCOPY --chown=5 a /c\n";
    let one = World::new();
    one.file("a", "A");
    one.file("d/e", "E");
    let (first, _) = one.build(text);
    std::thread::sleep(Duration::from_millis(1100));
    let two = World::new();
    two.file("d/e", "E");
    two.file("a", "A");
    let (second, _) = two.build(text);
    assert_eq!(first.config, second.config);
    assert_eq!(first.id, second.id);
    assert_eq!(first.config.rootfs.diff_ids.len(), 3);
}

#[test]
fn a_changed_step_reruns_it_and_what_follows() {
    let world = World::new();
    world.build(&boxfile(&["put /a 1", "put /b 1", "put /c 1"]));
    let (_, ran) = world.build(&boxfile(&["put /a 1", "put /b 2", "put /c 1"]));
    assert_eq!(ran, ["put /b 2", "put /c 1"]);
    let (_, ran) = world.build(&boxfile(&["put /a 1", "put /b 1", "put /c 1"]));
    assert!(ran.is_empty());
}

#[test]
fn equal_layers_are_equal_parents() {
    let world = World::new();
    let (first, _) = world.build(&boxfile(&["put /a same", "put /b 1"]));
    let (second, ran) = world.build(&boxfile(&["put /a same; true", "put /b 1"]));
    assert_eq!(ran, ["put /a same; true"]);
    assert_eq!(first.config.rootfs, second.config.rootfs);
    // What changes nothing is no parent at all.
    let (third, ran) = world.build(&boxfile(&["put /a same", "true", "put /b 1"]));
    assert_eq!(ran, ["true"]);
    assert_eq!(first.config.rootfs, third.config.rootfs);
}

#[test]
fn early_cutoff_waits_for_digests_that_are_on_their_way() {
    let world = World::new();
    // Too large to be hashed at once.
    let large = format!("put /a {}", "x".repeat(3 << 20));
    world.build(&boxfile(&[&large, "put /b 1"]));
    let (_, ran) = world.build(&boxfile(&[&format!("{large}; true"), "put /b 1"]));
    assert_eq!(ran.len(), 1);
}

#[test]
fn every_declared_arg_is_in_the_key_of_later_runs() {
    let world = World::new();
    let text = "FROM scratch\nRUN put /a\nARG V=1\nRUN put /b\nARG W\n";
    world.build(text);
    let with = |name: &str, value: &str| {
        let mut request = world.request(text);
        request.build_args.insert(name.to_owned(), value.to_owned());
        world.run(&request).unwrap();
        world.executor.ran()
    };
    assert_eq!(with("V", "2"), ["put /b"]);
    assert!(with("V", "1").is_empty());
    assert!(with("W", "later").is_empty());
    assert!(with("HTTP_PROXY", "http://x").is_empty());
    assert!(with("OTHER", "x").is_empty());
    assert!(world.events.told("OTHER"));
}

#[test]
fn args_and_env_reach_the_step() {
    let world = World::new();
    let text = "ARG G=global\nFROM scratch\nARG G\nARG A=1\nENV A=2 B=${G}x\nENV B=new C=$B\nARG D=$A\n\
                RUN var /a A; var /b B; var /c C; var /d D; var /p PATH; var /g G; var /proxy http_proxy; var /PROXY HTTP_PROXY\n";
    let mut request = world.request(text);
    request
        .build_args
        .insert("http_proxy".to_owned(), "http://proxy".to_owned());
    let image = world.run(&request).unwrap().image;
    let read = |path: &str| world.read(&image, path);
    assert_eq!(
        [read("/a"), read("/b"), read("/c"), read("/d")],
        ["2", "new", "globalx", "2"]
    );
    assert_eq!(
        read("/p"),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    assert_eq!(
        [read("/g"), read("/proxy"), read("/PROXY")],
        ["global", "http://proxy", "http://proxy"]
    );
    let env = &image.config.config.env;
    assert_eq!(env[1..], ["A=2", "B=new", "C=globalx"]);
}

#[test]
fn an_arg_in_a_key_is_undeclared_before_it() {
    let world = World::new();
    let text = "FROM scratch\nARG A=1\nENV A=2\nRUN put /x\n";
    world.build(text);
    let mut request = world.request(text);
    request.build_args.insert("A".to_owned(), "9".to_owned());
    world.run(&request).unwrap();
    assert!(world.executor.ran().is_empty(), "ENV beats an earlier ARG");
}

#[test]
fn user_workdir_and_network_are_in_the_key() {
    let world = World::new();
    let (image, _) = world.build("FROM scratch\nUSER 7:8\nWORKDIR /a\nWORKDIR b\nRUN where /w\n");
    assert_eq!(world.read(&image, "/w"), "7:8 \"/a/b\"");
    assert_eq!(world.attrs(&image, "/a/b"), (0o755, 7, 8));
    assert_eq!(world.attrs(&image, "/a"), (0o755, 7, 8));
    assert_eq!(image.config.config.working_dir, "/a/b");
    let text = boxfile(&["put /x"]);
    world.build(&text);
    let mut request = world.request(&text);
    request.network = NetworkMode::None;
    world.run(&request).unwrap();
    assert_eq!(world.executor.ran().len(), 1);
    let (_, ran) = world.build("FROM scratch\nUSER 7\nRUN put /x\n");
    assert_eq!(ran.len(), 1);
}

#[test]
fn limits_are_in_no_key_and_reach_the_step() {
    let world = World::new();
    let text = |limit: &str| format!("FROM scratch\n{limit}RUN put /x\n");
    world.build(&text(""));
    let (_, ran) = world.build(&text("LIMIT memory=64M\n"));
    assert!(ran.is_empty());
    world.build("FROM scratch\nLIMIT memory=64M pids=5\nRUN --memory=32M put /y\n");
    let limits = world.executor.limits.lock().unwrap().last().copied().unwrap();
    assert_eq!((limits.memory, limits.pids), (Some(32 << 20), Some(5)));
}

#[test]
fn failures_say_what_where_and_how() {
    let world = World::new();
    let check = |run: &str, expected: &str| {
        let text = format!("FROM scratch\nRUN put /a\nLIMIT memory=64M time=2s\nRUN {run}\n");
        assert_eq!(world.fail(&text), format!("Boxfile:4: RUN {run}: {expected}"));
    };
    check("exit 3", "exit code 3");
    check("kill 11", "killed by signal 11 (SIGSEGV)");
    check(
        "put /b; oom",
        "out of memory: the limit is 64 MiB, the peak was 60 MiB",
    );
    check("late", "stopped after its time limit of 2s");
    // What came before is kept; of the failed step there is nothing.
    let (image, ran) = world.build("FROM scratch\nRUN put /a\nRUN true\n");
    assert_eq!(ran, ["true"]);
    assert_eq!(world.list(&image), ["a"]);
    let tmp = std::fs::read_dir(world.store_root().join("tmp")).unwrap();
    for owner in tmp
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        assert_eq!(std::fs::read_dir(owner).unwrap().count(), 0);
    }
}

#[test]
fn a_cancelled_build_stops_and_says_so() {
    let world = World::new();
    let request = world.request(&boxfile(&["put /a", "put /b"]));
    request.cancel.cancel();
    assert!(matches!(world.run(&request), Err(BuildError::Cancelled)));
    assert!(world.executor.ran().is_empty());
}

#[test]
fn stages_that_the_target_does_not_need_are_not_built() {
    let world = World::new();
    let text = "FROM scratch AS a\nRUN put /a 1\nFROM scratch AS unused\nRUN exit 1\nFROM a AS b\nRUN put /b 2\n\
                FROM scratch\nCOPY --from=b /b /from-b\nCOPY --from=0 a /from-a\n";
    let (image, ran) = world.build(text);
    assert_eq!(ran, ["put /a 1", "put /b 2"]);
    assert_eq!(world.list(&image), ["from-a", "from-b"]);
    assert_eq!(world.read(&image, "/from-b"), "2");
    let mut request = world.request(text);
    request.target = Some("a".to_owned());
    let target = world.run(&request).unwrap().image;
    assert!(world.executor.ran().is_empty());
    assert_eq!(world.list(&target), ["a"]);
}

#[test]
fn copies_from_stages_depend_on_what_they_copy_alone() {
    let world = World::new();
    let text = |other: &str| {
        format!(
            "FROM scratch AS a\nRUN put /dir/wanted W; own /dir/wanted 7; put /other {other}\n\
             FROM scratch\nCOPY --from=a /dir /d\nRUN put /late\n"
        )
    };
    let (image, _) = world.build(&text("1"));
    assert_eq!(world.attrs(&image, "/d/wanted"), (0o644, 7, 7));
    let (again, ran) = world.build(&text("2"));
    assert_eq!(ran.len(), 1);
    assert_eq!(again.id, image.id);
}

#[test]
fn an_arg_can_be_named_by_a_variable() {
    let world = World::new();
    let text = "FROM scratch\nENV which=A\nARG ${which}=1 B$which=2\nRUN var /a A; var /b BA\n";
    let mut request = world.request(text);
    request.build_args.insert("A".to_owned(), "given".to_owned());
    let image = world.run(&request).unwrap().image;
    assert_eq!(
        [world.read(&image, "/a"), world.read(&image, "/b")],
        ["given", "2"]
    );
}

#[test]
fn args_are_inherited_by_stages_on_top() {
    let world = World::new();
    let text =
        "FROM scratch AS a\nARG X=1\nFROM a\nRUN var /x X\nFROM scratch\nCOPY --from=1 /x /\nRUN var /y X\n";
    let (image, _) = world.build(text);
    assert_eq!(
        [world.read(&image, "/x"), world.read(&image, "/y")],
        ["1", "unset"]
    );
}

#[test]
fn images_of_the_store_are_bases() {
    let world = World::new();
    let (base, _) =
        world.build("FROM scratch\nENV A=1\nUSER 3\nCMD [\"/a\"]\nENTRYPOINT [\"/e\"]\nRUN put /a\n");
    world.tag(&base, "base:1");
    let (image, ran) = world.build("FROM base:1\nRUN put /b; var /env A\n");
    assert_eq!(ran.len(), 1);
    assert_eq!(world.read(&image, "/env"), "1");
    assert_eq!(image.config.config.user, "3");
    assert_eq!(image.config.config.cmd, Some(vec!["/a".to_owned()]));
    assert_eq!(image.config.history.len(), base.config.history.len() + 1);
    // An image and a stage with its layers are one parent.
    let (_, ran) = world.build(
        "FROM scratch\nENV A=1\nUSER 3\nCMD [\"/a\"]\nENTRYPOINT [\"/e\"]\nRUN put /a\nRUN put /b; var /env A\n",
    );
    assert!(ran.is_empty());
    let (same, _) = world.build("FROM base:1\n");
    assert_eq!(same.id, base.id);
    let (cleared, _) = world.build("FROM base:1\nENTRYPOINT [\"/f\"]\n");
    assert_eq!(cleared.config.config.cmd, None);
    let error = world.fail("FROM base:1\nCOPY --from=nothing:2 /a /b\n");
    assert!(
        error.contains("image nothing:2 is not in the store") && error.contains("Boxfile:2:13"),
        "{error}"
    );
    let error = world.fail("FROM bsae:1\n");
    assert!(error.contains("did you mean base:1?"), "{error}");
    let error = world.fail("FROM base:1 AS build\nFROM scratch\nCOPY --from=bulid /a /b\n");
    assert!(error.contains("did you mean build?"), "{error}");
}

#[test]
fn the_config_is_like_dockers() {
    let world = World::new();
    let text = "FROM scratch\nMAINTAINER me\nLABEL a=b c=\"d e\"\nEXPOSE 80 90-91/udp\nVOLUME /v\nSTOPSIGNAL SIGINT\n\
                SHELL [\"/bin/bash\", \"-c\"]\nRUN true\nCMD hello\nHEALTHCHECK --interval=5s CMD ok\nARG X=1\nRUN put /a\n";
    let (image, _) = world.build(text);
    let config = serde_json::to_value(&image.config).unwrap();
    let at = |pointer: &str| config.pointer(pointer).cloned().unwrap_or_default().to_string();
    assert_eq!(at("/author"), "\"me\"");
    assert_eq!(at("/config/Labels"), r#"{"a":"b","c":"d e"}"#);
    assert_eq!(
        at("/config/ExposedPorts"),
        r#"{"80/tcp":{},"90/udp":{},"91/udp":{}}"#
    );
    assert_eq!(at("/config/Volumes"), r#"{"/v":{}}"#);
    assert_eq!(at("/config/StopSignal"), "\"SIGINT\"");
    assert_eq!(at("/config/Cmd"), r#"["/bin/bash","-c","hello"]"#);
    assert_eq!(
        at("/config/Healthcheck"),
        r#"{"Interval":5000000000,"Test":["CMD-SHELL","ok"]}"#
    );
    assert_eq!(at("/rootfs/diff_ids").matches("sha256:").count(), 1);
    let history = image.config.history;
    assert_eq!(history.len(), 11);
    assert_eq!(
        history[10].created_by.as_deref(),
        Some("RUN |1 X=1 /bin/bash -c put /a")
    );
    assert_eq!(history[10].created, image.config.created);
    assert_eq!(
        (history[10].empty_layer, history[9].empty_layer),
        (None, Some(true))
    );
    assert_eq!(history[10].comment.as_deref(), Some("box"));
}

#[test]
fn labels_of_the_caller_go_before_those_of_the_boxfile() {
    let world = World::new();
    let text = "FROM scratch AS base\nFROM base\nLABEL a=1 b=2\nRUN put /a\n";
    let (plain, _) = world.build(text);
    let mut request = world.request(text);
    let labels = [("b", "own"), ("c", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    request.labels = labels.into();
    let image = world.run(&request).unwrap().image;
    assert!(world.executor.ran().is_empty(), "a label is in no step's key");
    let found: Vec<_> = image.config.config.labels.iter().collect();
    let expected =
        [("a", "1"), ("b", "own"), ("c", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        found,
        expected
            .iter()
            .map(|(name, value)| (name, value))
            .collect::<Vec<_>>()
    );
    assert_eq!(image.config.history, plain.config.history);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let world = World::new();
    let cases = [
        ("ADD --from=x a /", "--from"),
        ("ADD --checksum=sha256:00 https://example.com/a /", "sha256"),
        (
            "RUN --mount=type=cache,target=/c,source=x true",
            "source= without from= in RUN --mount=type=cache is not supported yet",
        ),
        (
            "RUN --mount=type=tmpfs,target=/c,tmpcopyup true",
            "tmpcopyup in RUN --mount=type=tmpfs is not supported yet",
        ),
        ("RUN --mount=type=bind true", "a mount can't take the place of /"),
        (
            "RUN --mount=type=bind,target=../.. true",
            "a mount can't take the place of /",
        ),
        (
            "RUN --security=insecure true",
            "RUN --security=insecure is refused: box runs no step outside its sandbox",
        ),
        ("COPY a b /c", "the destination must be a directory"),
        ("COPY --chmod=9 a /c", "octal"),
        ("EXPOSE 99999", "invalid port"),
        ("STOPSIGNAL SIGNOPE", "unknown signal"),
        ("ENV A=${", "${"),
    ];
    for (line, expected) in cases {
        let error = world.fail(&format!("FROM scratch\n{line}\n"));
        assert!(
            error.contains(expected) && error.contains("Boxfile:2:"),
            "{line}: {error}"
        );
    }
    // All at once.
    let error = world.fail("FROM scratch\nEXPOSE 99999\nRUN --mount=type=tmpfs,target=/c,tmpcopyup true\n");
    assert!(
        error.contains("invalid port") && error.contains("tmpcopyup in RUN"),
        "{error}"
    );
}

#[test]
fn a_step_can_be_told_to_run_again_after_a_time() {
    let world = World::new();
    let long = "FROM scratch\nRUN --cache=ttl:24h put /a\nRUN put /b\n";
    let short = long.replace("24h", "1s");
    assert_eq!(world.build(long).1.len(), 2);
    assert!(world.build(long).1.is_empty());
    std::thread::sleep(Duration::from_millis(2100));
    // How long it is good for is no input; what it makes is the same, so that the next step need not run.
    assert_eq!(world.build(&short).1, ["put /a"]);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(world.build(long).1.is_empty());
}

#[test]
fn hosts_are_inputs_of_run_alone() {
    let world = World::new();
    world.file("a", "a");
    let text = "FROM scratch\nCOPY a /\nRUN put /b\n";
    world.build(text);
    let mut request = world.request(text);
    request.hosts = vec![("db".to_owned(), [10, 0, 0, 7].into())];
    world.run(&request).unwrap();
    assert_eq!(world.executor.ran(), ["put /b"]);
    world.run(&request).unwrap();
    assert!(world.executor.ran().is_empty());
}

#[test]
fn a_step_can_be_told_to_run_again() {
    let world = World::new();
    let text = "FROM scratch\nRUN --cache=never put /a\nRUN put /b\n";
    world.build(text);
    assert_eq!(world.build(text).1, ["put /a"]);
    let mut request = world.request(text);
    request.no_cache = true;
    world.run(&request).unwrap();
    assert_eq!(world.executor.ran().len(), 2);
}

#[test]
fn equal_builds_at_once_do_a_step_once() {
    let mut world = World::new();
    world.executor.delay = Some(Duration::from_millis(100));
    let text = boxfile(&["put /a 1", "put /b 2"]);
    let ids: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let request = world.request(&text);
                    let silent = box_builder::progress::Silent;
                    box_builder::build::build(&world.store, &world.executor, &request, &silent)
                        .unwrap()
                        .image
                        .id
                })
            })
            .collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(world.executor.ran().len(), 2);
}

#[test]
fn times_can_be_real_or_limited() {
    let world = World::new();
    let text = boxfile(&["put /a 1; var /epoch SOURCE_DATE_EPOCH"]);
    let (logical, _) = world.build(&text);
    let mut request = world.request(&text);
    request.mtimes = box_builder::request::TimesMode::Real;
    let real = world.run(&request).unwrap().image;
    assert_eq!(world.executor.ran().len(), 1);
    assert_ne!(real.id, logical.id);
    let mut request = world.request(&text);
    request.source_date_epoch = Some(1000);
    let early = world.run(&request).unwrap().image;
    let by_arg = format!("ARG SOURCE_DATE_EPOCH=1000\n{text}");
    assert_eq!(world.build(&by_arg).0.id, early.id);
    // A directory has no time of its own.
    let of_context = format!("ARG SOURCE_DATE_EPOCH=context\n{text}");
    assert_eq!(world.build(&of_context).0.id, logical.id);
    let error = world.fail(&format!("ARG SOURCE_DATE_EPOCH=soon\n{text}"));
    assert!(
        error.contains("Boxfile:1:1") && error.contains("invalid SOURCE_DATE_EPOCH: soon"),
        "{error}"
    );
    assert_eq!(world.read(&early, "/epoch"), "1000");
    assert_eq!(early.config.created.as_deref(), Some("1970-01-01T00:16:40Z"));
}

#[test]
fn errors_are_typed() {
    let world = World::new();
    let error = world.run(&world.request(&boxfile(&["exit 9"]))).unwrap_err();
    assert!(
        matches!(error, BuildError::Step { ref source, .. } if matches!(**source, StepError::Exited { code: 9 }))
    );
    assert_eq!(world.events.count("StepFailed"), 1);
    assert_eq!(world.events.count("StepStarted"), 2);
    let error = world.run(&world.request("FRM scratch\n")).unwrap_err();
    assert!(matches!(error, BuildError::Boxfile { ref diagnostics, .. } if !diagnostics.is_empty()));
}
