//! Equal inputs give equal digests, whenever, wherever and by whomever they are built; and the logical times in the layers
//! neither hide a change from a build tool nor make one rebuild.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::path::{Path, PathBuf};

use common::{Bench, OrdinaryUser, sh};

const BOXFILE: &str = r#"
FROM base AS work
RUN mkdir /d && for i in 1 2 3; do echo $i > /d/$i; done && ln /d/1 /d/hard && ln -s 1 /d/soft
COPY src/ /src/
RUN cp -p /src/a /src/a-kept && chown 7:8 /d/2 && chmod 4755 /d/3
RUN rm /d/1 && rm -rf /usr/old && mkdir /usr/old && echo new > /usr/old/new
RUN setcap cap_net_raw+ep /usr/tool && getcap /usr/tool
RUN mark /d/2 && mark /usr/old
RUN mkfifo /d/pipe && dd if=/dev/zero of=/d/sparse bs=1 count=1 seek=1M 2>/dev/null
RUN chmod 700 /usr/kept
FROM base
LABEL b=2 a=1 c=3
COPY --from=work /d /d
COPY --from=work --chown=3:4 --chmod=0750 /src /s
RUN cp -p /s/a /s/b && touch -d '2020-01-02 03:04:05' /s/dated && date +%s > /dev/null
CMD ["cat", "/s/b"]
"#;

/// A tar of busybox, with `setcap` (and its libraries), `mark` (sets `user.overlay.opaque`) and files that are one second old.
fn base_tar(bench: &Bench) -> PathBuf {
    bench.busybox_tar();
    let rootfs = bench.path("rootfs");
    let root = rootfs.display();
    let mark = bench.path("mark.c");
    std::fs::write(
        &mark,
        "#include <sys/xattr.h>\nint main(int c, char **v) { return setxattr(v[1], \"user.overlay.opaque\", \"y\", 1, 0); }\n",
    )
    .unwrap();
    sh(&format!("gcc -static -o {root}/bin/mark {}", mark.display()));
    sh(&format!(
        "mkdir -p {root}/usr/old {root}/usr/bin && echo old > {root}/usr/old/gone && echo kept > {root}/usr/kept && cp {root}/bin/busybox {root}/usr/tool
         for program in setcap getcap; do
             file=$(PATH=$PATH:/sbin:/usr/sbin command -v $program); cp $file {root}/usr/bin/
             for lib in $(ldd $file | grep -o '/[^ ]*'); do mkdir -p {root}$(dirname $lib); cp -L $lib {root}$lib; done
         done"
    ));
    let tar = bench.path("base.tar");
    // The whole base is one second old: younger than the margin by which a step's files are told from older ones.
    sh(&format!(
        "tar -C {root} --sort=name --mtime=@$(($(date +%s) - 1)) --owner=0 --group=0 --numeric-owner -cf {} .",
        tar.display()
    ));
    tar
}

fn context(bench: &Bench) -> PathBuf {
    let context = bench.context(
        "context",
        &[
            ("Boxfile", BOXFILE),
            ("src/a", "alpha\n"),
            ("src/sub/b", "beta\n"),
        ],
    );
    sh(&format!(
        "chmod 755 {0}/src/a && ln -s a {0}/src/link",
        context.display()
    ));
    context
}

#[track_caller]
fn build_and_save(bench: &Bench, context: &Path, base: &Path, extra: &[&str]) -> (String, Vec<u8>) {
    bench.ok(["import", "--progress", "quiet", base.to_str().unwrap(), "base"]);
    let mut args = vec!["build", "-q", "--network", "none", "-t", "result"];
    args.extend(extra);
    args.push(context.to_str().unwrap());
    let id = bench.ok(&args).trim().to_owned();
    let archive = bench.path("saved.tar");
    bench.ok(["save", "-o", archive.to_str().unwrap(), "result"]);
    (id, std::fs::read(archive).unwrap())
}

#[test]
fn builds_at_other_times_in_other_places_and_by_an_ordinary_user_are_equal() {
    let here = Bench::new();
    let (base, context) = (base_tar(&here), context(&here));
    let (id, archive) = build_and_save(&here, &context, &base, &[]);
    assert_eq!(here.sh("result", "cat /s/b").trim(), "alpha");

    // Another store, another place, other times.
    let there = Bench::new();
    let copy = there.path("elsewhere/context");
    sh(&format!(
        "mkdir -p {0} && cp -r {1}/. {0}/ && find {0} -exec touch -h -d 2001-02-03 {{}} +",
        copy.display(),
        context.display()
    ));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let (second_id, second_archive) = build_and_save(&there, &copy, &base, &[]);
    assert_eq!(id, second_id);
    assert!(archive == second_archive, "the saved archives differ");

    // An ordinary user.
    let user = OrdinaryUser::new(&there);
    sh(&format!("chmod 644 {}", base.display()));
    user.ok(["import", "--progress", "quiet", base.to_str().unwrap(), "base"]);
    let built = user.ok([
        "build",
        "-q",
        "--network",
        "none",
        "-t",
        "result",
        copy.to_str().unwrap(),
    ]);
    assert_eq!(id, built.trim(), "an ordinary user's build");
    let saved = user.home().join("saved.tar");
    user.ok(["save", "-o", saved.to_str().unwrap(), "result"]);
    assert!(
        archive == std::fs::read(saved).unwrap(),
        "the ordinary user's archive differs"
    );
}

#[test]
fn a_cold_build_in_the_same_store_is_equal() {
    let bench = Bench::new();
    let (base, context) = (base_tar(&bench), context(&bench));
    let (id, _) = build_and_save(&bench, &context, &base, &[]);
    let (again, _) = build_and_save(&bench, &context, &base, &["--no-cache"]);
    assert_eq!(id, again);
}

#[test]
fn layers_hold_no_overlay_attributes_and_the_capability_in_version_2() {
    let bench = Bench::new();
    let (base, context) = (base_tar(&bench), context(&bench));
    bench.ok(["import", "--progress", "quiet", base.to_str().unwrap(), "base"]);
    bench.ok([
        "build",
        "-q",
        "--network",
        "none",
        "--target",
        "work",
        "-t",
        "work",
        context.to_str().unwrap(),
    ]);
    let archive = bench.path("work.tar");
    bench.ok(["save", "-o", archive.to_str().unwrap(), "work"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layer_xattrs.py");
    let listed = sh(&format!("python3 {script} {}", archive.display()));
    assert!(!listed.contains("overlay"), "{listed}");
    // VFS_CAP_REVISION_2 with the effective bit: 01 00 00 02, then cap_net_raw (bit 13).
    assert!(
        listed.contains("usr/tool security.capability 0100000200200000"),
        "{listed}"
    );
    assert!(
        listed.contains("usr/old/.wh..wh..opq") || listed.contains("usr/old/.wh.gone"),
        "{listed}"
    );
    assert_eq!(
        bench.sh("work", "getcap /usr/tool").trim(),
        "/usr/tool cap_net_raw=ep"
    );
    assert_eq!(bench.sh("work", "ls /usr/old").trim(), "new");
}

#[test]
fn real_times_are_the_way_out() {
    let bench = Bench::new();
    let (base, context) = (base_tar(&bench), context(&bench));
    let (_, archive) = build_and_save(&bench, &context, &base, &["--mtimes", "real"]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let (_, again) = build_and_save(&bench, &context, &base, &["--mtimes", "real", "--no-cache"]);
    assert!(archive != again, "real times differ from build to build");
}

/// Builds `image`, saves it, and loads it into a fresh store: the same image, its layers come from an archive.
fn reload(bench: &Bench, image: &str) -> Bench {
    let archive = bench.path("moved.tar");
    bench.ok(["save", "-o", archive.to_str().unwrap(), image]);
    let other = Bench::new();
    other.ok(["load", "-q", "-i", archive.to_str().unwrap()]);
    other
}

/// A tree of the host's own programs: make, ninja, a compiler or an interpreter and all they need.
fn host_image(bench: &Bench, programs: &str, trees: &str) {
    bench.busybox_tar();
    let rootfs = bench.path("rootfs");
    let root = rootfs.display();
    sh(&format!(
        "mkdir -p {root}/usr/bin
         for program in {programs}; do
             file=$(readlink -f $(command -v $program)); cp $file {root}/usr/bin/$(basename $program)
             for lib in $(ldd $file | grep -o '/[^ ]*'); do mkdir -p {root}$(dirname $lib); cp -L $lib {root}$lib; done
         done
         for tree in {trees}; do mkdir -p {root}$(dirname $tree); cp -a $tree {root}$tree; done"
    ));
    let tar = bench.path("host.tar");
    sh(&format!(
        "tar -C {root} --sort=name --owner=0 --group=0 --numeric-owner -cf {} .",
        tar.display()
    ));
    bench.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "host"]);
}

const MAKEFILE: &str = "out: in\n\tcp in out; echo built >> log\n";
/// The restat rule: stamp does not change when its input says the same, and then what depends on it is not made.
const NINJA: &str = "rule keep\n  command = cmp -s $in $out || cp $in $out; echo keep >> nlog\n  restat = 1\n\
                     rule use\n  command = cp $in $out; echo use >> nlog\nbuild stamp: keep gen\nbuild final: use stamp\n";

fn project(bench: &Bench, name: &str, input: &str) -> PathBuf {
    bench.context(
        name,
        &[
            ("Makefile", MAKEFILE),
            ("build.ninja", NINJA),
            ("in", input),
            ("gen", "same"),
        ],
    )
}

fn made(extra: &[&str]) -> Bench {
    let bench = Bench::new();
    host_image(&bench, "make ninja", "");
    let context = project(&bench, "first", "one");
    let mut options = vec!["-t", "made"];
    options.extend(extra);
    bench.build(
        &context,
        "FROM host\nWORKDIR /w\nCOPY . .\nRUN make && ninja\n",
        &options,
    );
    bench
}

/// Runs both tools again on the image; returns what they did in all.
fn made_again(bench: &Bench) -> String {
    let empty = bench.context("empty", &[]);
    bench.build(&empty, "FROM made\nRUN make && ninja\n", &["-t", "again"]);
    bench.sh("again", "cat log nlog").trim().to_owned()
}

#[test]
fn make_and_ninja_see_each_change_and_rebuild_nothing_else() {
    let bench = made(&[]);
    assert_eq!(
        made_again(&bench),
        "built\nkeep\nuse",
        "nothing changed, nothing is made again"
    );
    let second = project(&bench, "second", "two");
    let boxfile = "FROM made\nCOPY in gen ./\nRUN make && ninja\n";
    bench.build(&second, boxfile, &["-t", "changed"]);
    let log = bench.sh("changed", "cat out log nlog");
    assert_eq!(
        log.trim(),
        "twobuilt\nbuilt\nkeep\nuse",
        "`in` is seen to change; `gen` is the same"
    );
}

#[test]
fn make_and_ninja_see_each_change_on_a_loaded_image() {
    let bench = made(&[]);
    let loaded = reload(&bench, "made");
    let again = made_again(&loaded);
    assert_eq!(
        again.matches("built").count(),
        1,
        "make makes nothing again: {again}"
    );
    // ninja's own log remembers times of the machine it ran on, so it may make everything once more; it hides nothing.
    let second = project(&loaded, "second", "two");
    loaded.build(
        &second,
        "FROM made\nCOPY in gen ./\nRUN make && ninja\n",
        &["-t", "changed"],
    );
    assert!(
        loaded.sh("changed", "cat out log").starts_with("twobuilt\nbuilt"),
        "`in` is seen to change"
    );
}

#[test]
fn real_times_keep_ninja_quiet_on_a_loaded_image() {
    let bench = made(&["--mtimes", "real"]);
    let loaded = reload(&bench, "made");
    // Whole seconds, as the archive has them, in whatever second they were made.
    let times = loaded.sh("made", "cd /w; stat -c %y in gen out stamp final log");
    assert!(times.lines().all(|time| time.contains(".000000000 ")), "{times}");
    assert_eq!(made_again(&loaded), "built\nkeep\nuse");
}

#[test]
fn a_source_changed_back_to_older_bytes_is_still_newer_than_its_object() {
    // As cargo sees it: an object is fresh while it is newer than its source.
    let bench = Bench::new();
    // busybox's own `test` compares whole seconds.
    host_image(&bench, "/usr/bin/test", "");
    let compile = "RUN ! /usr/bin/test o -nt s && { cat s > o; echo compiled >> log; } || true\n";
    let one = bench.context("one", &[("s", "1")]);
    let two = bench.context("two", &[("s", "2")]);
    bench.build(
        &one,
        &format!("FROM host\nWORKDIR /w\nCOPY s .\n{compile}{compile}"),
        &["-t", "one"],
    );
    assert_eq!(
        bench.sh("one", "cat log").trim(),
        "compiled",
        "the second step finds the object fresh"
    );
    for bench in [&bench, &reload(&bench, "one")] {
        bench.build(&two, &format!("FROM one\nCOPY s .\n{compile}"), &["-t", "two"]);
        assert_eq!(bench.sh("two", "cat o").trim(), "2");
        bench.build(&one, &format!("FROM two\nCOPY s .\n{compile}"), &["-t", "back"]);
        assert_eq!(bench.sh("back", "cat o").trim(), "1");
    }
}

#[test]
fn python_finds_its_compiled_files_valid() {
    let bench = Bench::new();
    let python = "/usr/bin/python3";
    let version = sh(&format!(
        "{python} -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'"
    ));
    host_image(&bench, python, &format!("/usr/lib/python{}", version.trim()));
    let context = bench.context("py", &[("m.py", "VALUE = 1\n")]);
    let boxfile = "FROM host\nWORKDIR /w\nCOPY m.py .\nRUN /usr/bin/python3 -m compileall -q m.py\n";
    bench.build(&context, boxfile, &["-t", "compiled"]);
    let valid = "/usr/bin/python3 -v -c 'import m' 2>&1 | grep -c 'matches /w/m.py' ";
    for bench in [&bench, &reload(&bench, "compiled")] {
        assert_eq!(bench.sh("compiled", valid).trim(), "1", "m.pyc is valid");
        let changed = bench.context("py2", &[("m.py", "VALUE = 2\n")]);
        bench.build(&changed, "FROM compiled\nCOPY m.py .\n", &["-t", "changed"]);
        assert_eq!(
            bench
                .sh("changed", "/usr/bin/python3 -c 'import m; print(m.VALUE)'")
                .trim(),
            "2"
        );
    }
}

/// The same for the cases of the corpus, each of which is small; all of them with `BOX_LONG=1`.
#[test]
#[allow(clippy::print_stderr)] // a notice by name: nothing is skipped silently
fn cold_builds_of_the_corpus_are_equal() {
    let Some(corpus) = std::env::var_os("BOX_CORPUS") else {
        assert!(std::env::var_os("CI").is_none(), "BOX_CORPUS must be set in CI");
        eprintln!("NOTICE: BOX_CORPUS is not set: the build cases of the corpus were not tried");
        return;
    };
    let bench = Bench::new();
    let user = OrdinaryUser::new(&bench);
    let script = user.script();
    let part = if std::env::var_os("BOX_LONG").is_some() {
        "1"
    } else {
        "12"
    };
    let work = bench.path("work");
    std::fs::create_dir(&work).unwrap();
    let mut command = std::process::Command::new("python3");
    command.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/reproducible_corpus.py"
    ));
    command.args([
        "--part",
        part,
        "--user",
        &common::USER_ID.to_string(),
        "--box",
        common::BOX,
    ]);
    command.arg("--user-box").arg(script).arg("--corpus").arg(corpus);
    command.arg("--work").arg(work).arg("--home").arg(user.home());
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    eprintln!("{}", common::text(&output.stdout));
    assert!(output.status.success(), "{}", common::text(&output.stderr));
}

/// Builds twice with `--check-reproducible`; what was said, and whether it was found to be reproducible.
fn checked(bench: &Bench, boxfile: &str, extra: &[&str]) -> (String, bool) {
    let context = bench.context("checked", &[("Boxfile", boxfile), ("f", "1")]);
    let options = [
        "build",
        "--progress",
        "plain",
        "--check-reproducible",
        "--network",
        "none",
        "-t",
        "checked",
    ];
    let mut command = bench.command(options.iter().chain(extra));
    let output = command.arg(context).output().unwrap();
    let (said, id) = (common::text(&output.stderr), common::text(&output.stdout));
    // The image is there in either case.
    assert!(
        id.starts_with("sha256:") && bench.run(["inspect", id.trim()]).status.success(),
        "{said}"
    );
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    (said, output.status.success())
}

#[test]
fn what_is_not_reproducible_is_named_with_its_step() {
    let bench = Bench::with_busybox();
    let boxfile = "FROM busybox AS work\nRUN mkdir /d; echo same > /d/same; printf 0123456789 > /d/time; date +%s >> /d/time\n\
                   RUN t=$(date +%s); touch /m /o /f$t; chmod $(printf %o $((t & 511))) /m; chown $((t % 50000)) /o\n\
                   FROM busybox\nCOPY f /f\nCOPY --from=work /d/same /same\nRUN echo fine > /fine\n";
    let (both, is_fine) = checked(&bench, boxfile, &["--jobs", "2"]);
    assert!(!is_fine, "{both}");
    let report = both.split("not reproducible: ").nth(1).unwrap();
    assert!(report.starts_with("2 step(s)"), "{report}");
    assert!(report.contains("Boxfile:2: RUN mkdir /d"), "{report}");
    // Ten digits, then seconds since 1970, whose first digits are the same for long.
    assert!(
        report.contains("/d/time: content; the first byte that differs is at 1"),
        "{report}"
    );
    assert!(report.contains("Boxfile:3: RUN t="), "{report}");
    for line in [
        "/m: mode",
        "/o: owner",
        ": made in the second build alone",
        ": made in the first build alone",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
    for line in ["    /d/same", "    /fine", "Boxfile:5"] {
        assert!(!report.contains(line), "{line}\n{report}");
    }
}

#[test]
fn what_is_reproducible_is_said_to_be() {
    let bench = Bench::with_busybox();
    // The cache is empty in both builds, and what is cached elsewhere does not matter.
    let boxfile = "FROM busybox AS work\nRUN --mount=type=cache,target=/k echo x >> /k/n; cp /k/n /n\nFROM busybox\nCOPY f /f\nCOPY --from=work /n /n\n";
    let (said, is_fine) = checked(&bench, boxfile, &[]);
    assert!(
        is_fine && said.contains("reproducible: built twice, and all is equal"),
        "{said}"
    );
    assert_eq!(bench.sh("checked", "cat /n"), "x\n");
    assert!(!bench.ok(["cache", "ls"]).contains("check-reproducible"));
    let (said, is_fine) = checked(&bench, boxfile, &["--jobs", "1", "--mtimes", "real"]);
    assert!(!is_fine && said.contains("time"), "{said}");
}

#[test]
fn nothing_is_later_than_source_date_epoch() {
    const EPOCH: u64 = 1_600_000_000;
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("f", "1"), ("g.tar", "")]);
    sh(&format!(
        "cd {0} && touch -d 2031-02-03 f && tar -cf g.tar f",
        context.display()
    ));
    let boxfile = "FROM busybox\nARG SOURCE_DATE_EPOCH\nCOPY f /f\nADD g.tar /g\nRUN echo $SOURCE_DATE_EPOCH > /e; mkdir /d; touch -d '2033-01-01 00:00:00' /d/late; touch -d '2020-01-01 00:00:00' /d/early\n";
    let arg = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let id = bench.build(&context, boxfile, &["--build-arg", &arg, "-t", "dated"]);
    assert_eq!(bench.sh("dated", "cat /e").trim(), EPOCH.to_string());
    // The environment says it as well, and a build at another time is equal.
    let other = Bench::with_busybox();
    let file = bench.path("Boxfile.under-test");
    let mut command = other.command(["build", "-q", "-f"]);
    command
        .arg(&file)
        .args(["--build-arg", &arg])
        .arg(&context)
        .env("SOURCE_DATE_EPOCH", "1");
    assert_eq!(
        common::success(command.output().unwrap()).trim(),
        id,
        "the build argument goes first"
    );
    let mut command = other.command(["build", "-q", "--no-cache", "-t", "late", "-f"]);
    command
        .arg(&file)
        .arg(&context)
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string());
    common::success(command.output().unwrap());
    for (bench, image) in [(&bench, "dated"), (&other, "late")] {
        let archive = bench.path("dated.tar");
        bench.ok(["save", "-o", archive.to_str().unwrap(), image]);
        let script = "import io, json, sys, tarfile\n\
                      outer = tarfile.open(sys.argv[1]); own = 0\n\
                      manifest = json.load(outer.extractfile('manifest.json'))[0]\n\
                      config = json.load(outer.extractfile(manifest['Config']))\n\
                      made = [h for h in config['history'] if h.get('comment') == 'box' and not h.get('empty_layer')]\n\
                      for layer in manifest['Layers'][-len(made):]:\n\
                      \x20   for entry in tarfile.open(fileobj=io.BytesIO(outer.extractfile(layer).read())):\n\
                      \x20       own += 1; print(int(entry.mtime), entry.name)\n\
                      print(config['created'], 'created')\n\
                      for h in made: print(h['created'], 'history')\n";
        let told = common::success(
            std::process::Command::new("python3")
                .args(["-c", script])
                .arg(&archive)
                .output()
                .unwrap(),
        );
        let times: Vec<u64> = told
            .lines()
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect();
        assert!(
            times.len() >= 7 && times.iter().all(|time| *time <= EPOCH),
            "{told}"
        );
        assert!(told.contains("1577836800 d/early"), "an older time stays\n{told}");
        let dates: Vec<&str> = told.lines().filter(|line| line.starts_with("20")).collect();
        assert!(
            dates.len() >= 4 && dates.iter().all(|date| *date <= "2020-09-13T12:26:41"),
            "{told}"
        );
    }
}
