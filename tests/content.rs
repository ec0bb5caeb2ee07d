//! `box cp` and `box diff`: what is in images, looked at without a container.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::{Bench, sh};

const BOXFILE: &str = "FROM busybox\n\
    COPY d /d\n\
    RUN chown 1000:1001 /d/file && chmod 4755 /d/file && ln /d/file /d/hard && ln -s file /d/link && ln -s /d /dir && mkdir -p /gone/deep && echo x > /gone/deep/x\n\
    RUN rm -r /gone && echo more >> /d/other && chmod 700 /d/sub && rm /d/sub/b && mkdir /new && touch /new/a\n";

fn bench() -> Bench {
    let bench = Bench::with_busybox();
    let context = bench.context(
        "c",
        &[("d/file", "text\n"), ("d/other", "other\n"), ("d/sub/b", "b")],
    );
    bench.build(&context, BOXFILE, &["--network", "none", "-t", "app:1"]);
    bench
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_and_directories_are_copied() {
    let bench = bench();
    let out = bench.path("out");
    fs::create_dir(&out).unwrap();
    let cp = |args: &[&str]| bench.ok([&["cp"], args].concat());
    let place = |name: &str| out.join(name).to_str().unwrap().to_owned();

    // Into a directory, under another name, over a file.
    cp(&["app:1:/d/file", &place("")]);
    cp(&["app:1:/d/file", &place("copy")]);
    fs::write(out.join("old"), "a longer old text").unwrap();
    cp(&["app:1:/d/../d/file", &place("old")]);
    for name in ["file", "copy", "old"] {
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), "text\n");
        let metadata = fs::metadata(out.join(name)).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid(), mode(&out.join(name))),
            (0, 0, 0o755),
            "{name}"
        );
    }
    cp(&["-a", "app:1:/d/file", &place("as-it-is")]);
    let metadata = fs::metadata(out.join("as-it-is")).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), mode(&out.join("as-it-is"))),
        (1000, 1001, 0o4755)
    );

    // A link is a link; with -L, and in the middle, it is followed in the image.
    cp(&["app:1:/d/link", &place("")]);
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("file"));
    cp(&["-L", "app:1:/d/link", &place("followed")]);
    assert_eq!(fs::read_to_string(out.join("followed")).unwrap(), "text\n");
    cp(&["app:1:/dir/file", &place("through")]);
    assert_eq!(fs::read_to_string(out.join("through")).unwrap(), "text\n");

    // A directory: into another, as another, its content alone; hard links stay some.
    cp(&["app:1:/d", &place("")]);
    cp(&["app:1:/d", &place("e")]);
    fs::create_dir(out.join("f")).unwrap();
    cp(&["app:1:/d/.", &place("f")]);
    for name in ["d", "e", "f"] {
        let dir = out.join(name);
        assert_eq!(
            fs::read_to_string(dir.join("other")).unwrap(),
            "other\nmore\n",
            "{name}"
        );
        assert_eq!(mode(&dir.join("sub")), 0o700);
        let inode = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
        assert_eq!(inode("file"), inode("hard"), "{name}");
    }
    let listing = sh(&format!(
        "BOX_ROOT={} {} cp app:1:/d - | tar t",
        bench.store().display(),
        common::BOX
    ));
    assert_eq!(listing, "d/\nd/file\nd/hard\nd/link\nd/other\nd/sub/\n");
}

#[test]
fn a_link_on_the_host_is_not_written_through() {
    let bench = bench();
    let out = bench.path("out");
    let outside = bench.path("outside");
    fs::create_dir_all(out.join("d")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "alive").unwrap();
    std::os::unix::fs::symlink(outside.join("canary"), out.join("file")).unwrap();
    std::os::unix::fs::symlink(&outside, out.join("d/sub")).unwrap();
    bench.ok(["cp", "app:1:/d/file", out.to_str().unwrap()]);
    // A link is no directory, and is left alone.
    let said = bench.fails(125, ["cp", "app:1:/d", out.to_str().unwrap()]);
    assert!(said.contains("that is no directory"), "{said}");
    assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "alive");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "text\n");
}

#[test]
fn what_is_there_is_not_lost() {
    let bench = bench();
    let context = bench.path("c");
    let boxfile = "FROM app:1\nRUN mkdir -p /v/conf && ln -s /d /v/data && echo new > /v/file && echo x > /v/conf/x && dd if=/dev/zero of=/big bs=1k count=600\n";
    bench.build(&context, boxfile, &["--network", "none", "-t", "v"]);
    let out = bench.path("out");
    let check = |source: &str, dest: &Path, expect: &str| {
        let said = bench.fails(125, ["cp", source, dest.to_str().unwrap()]);
        assert!(said.contains(expect), "{source}: {said}");
    };
    // A directory of the user's where the image has a link or a file, and a file where it has a directory.
    fs::create_dir_all(out.join("data")).unwrap();
    fs::create_dir_all(out.join("v/file")).unwrap();
    fs::write(out.join("data/precious"), "p").unwrap();
    fs::write(out.join("v/file/precious"), "p").unwrap();
    check("v:/v/data", &out, "there is a directory of this name");
    check("v:/v", &out, "there is a directory of this name");
    fs::remove_dir_all(out.join("v")).unwrap();
    fs::create_dir(out.join("v")).unwrap();
    fs::write(out.join("v/conf"), "a file").unwrap();
    check("v:/v", &out, "that is no directory");
    assert_eq!(fs::read_to_string(out.join("data/precious")).unwrap(), "p");
    assert_eq!(fs::read_to_string(out.join("v/conf")).unwrap(), "a file");

    // A device, a pipe, and a link to one of them are written to.
    let device = out.join("null");
    sh(&format!("mknod {} c 1 3", device.display()));
    bench.ok(["cp", "v:/v/file", device.to_str().unwrap()]);
    for command in ["save", "export"] {
        bench.ok([command, "-o", device.to_str().unwrap(), "v"]);
    }
    assert!(!fs::metadata(&device).unwrap().is_file());
    std::os::unix::fs::symlink("/dev/fd/1", out.join("stdout")).unwrap();
    let place = out.join("stdout");
    assert_eq!(bench.ok(["cp", "v:/v/file", place.to_str().unwrap()]), "new\n");
    let tar = bench.run(["export", "-o", place.to_str().unwrap(), "v"]);
    assert_eq!(tar.stdout, bench.run(["export", "v"]).stdout);
    assert!(fs::symlink_metadata(&place).unwrap().is_symlink());

    // A file stays as it was when there is no room for the new one.
    let script = format!(
        "mount -t tmpfs -o size=300k none {0} && echo old > {0}/big && ! {1} cp v:/big {0} 2>{0}/said && cat {0}/big && ls -A {0} && cat {0}/said",
        out.display(),
        common::BOX
    );
    let told = common::success(
        std::process::Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .env("BOX_ROOT", bench.store())
            .output()
            .unwrap(),
    );
    assert!(told.starts_with("old\nbig\nsaid\n"), "{told}");
    assert!(
        told.contains("No space left") && !told.contains("--root"),
        "{told}"
    );
}

#[test]
fn what_cannot_be_copied_is_said() {
    let bench = bench();
    let out = bench.path("out");
    fs::write(&out, "a file").unwrap();
    let check = |code, args: &[&str], expect: &str| {
        let said = bench.fails(code, [&["cp"], args].concat());
        assert!(said.contains(expect), "{args:?}: {said}");
    };
    let out = out.to_str().unwrap();
    check(1, &["app:1:/nothing", out], "there is no app:1:/nothing");
    check(1, &["app:1:/d/file/", out], "app:1:/d/file/ is no directory");
    check(1, &["app:2:/d", out], "no image named \"app:2\"");
    check(125, &["app:1:/d", out], "can't be copied over it");
    check(
        125,
        &["app:1:/d/file", "/no/such/place"],
        "cannot copy to /no/such/place",
    );
    check(1, &[out, "app:1:/d"], "no container named \"app:1\"");
    check(125, &[out, out], "write CONTAINER:PATH or IMAGE:/PATH");
    assert_eq!(fs::read_to_string(out).unwrap(), "a file");
}

#[test]
fn differences_are_told() {
    let bench = bench();
    let last = bench.ok(["diff", "app:1"]);
    assert_eq!(
        last,
        "C /d/other (content)\nC /d/sub (mode)\nD /d/sub/b\nD /gone\nA /new\nA /new/a\n"
    );
    let whole = bench.ok(["diff", "busybox", "app:1"]);
    let expect = "A /d\nA /d/file\nA /d/hard\nA /d/link\nA /d/other\nA /d/sub\nA /dir\nA /new\nA /new/a\n";
    assert_eq!(whole, expect);
    assert_eq!(bench.ok(["diff", "app:1", "app:1"]), "");
    let back: serde_json::Value =
        serde_json::from_str(&bench.ok(["diff", "--format", "json", "app:1", "busybox"])).unwrap();
    assert_eq!(
        back[0],
        serde_json::json!({"path": "/d", "change": "removed", "what": []})
    );
    assert_eq!(back.as_array().unwrap().len(), 3, "{back}");

    let image: serde_json::Value = serde_json::from_str(&bench.ok(["inspect", "app:1"])).unwrap();
    let layers = image[0]["RootFS"]["Layers"].as_array().unwrap().clone();
    let layer = |n: usize| layers[n].as_str().unwrap().to_owned();
    let between = bench.ok(["diff", &layer(1), &layer(2)]);
    assert!(
        between.contains("C /d/file (mode, owner)") && between.contains("A /dir\n"),
        "{between}"
    );
    let said = bench.fails(1, ["diff", "app:1", "nothing"]);
    assert!(said.contains("no image named \"nothing\""), "{said}");

    // An image made of the same in another way differs in times alone.
    let context = bench.path("c");
    bench.build(&context, "FROM busybox\nCOPY d /d\n", &["-t", "one"]);
    bench.build(
        &context,
        "FROM busybox\nRUN touch /x\nCOPY d /d\nRUN rm /x\n",
        &["--network", "none", "-t", "two"],
    );
    assert_eq!(bench.ok(["diff", "one", "two"]), "");
    assert!(
        bench
            .ok(["diff", "--times", "one", "two"])
            .contains("C /d/file (time)")
    );
}

#[test]
fn images_are_listed_by_name() {
    let bench = Bench::with_busybox();
    for name in ["app:1", "app:2", "host.example:5000/app:1", "other"] {
        bench.ok(["tag", "busybox", name]);
    }
    let check = |name: &str, expect: &[&str]| {
        let listed = bench.ok(["images", "--format", "json", name]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        let mut names: Vec<_> = listed.iter().map(|row| row["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, expect, "{name}");
    };
    check("app", &["docker.io/library/app:1", "docker.io/library/app:2"]);
    check("app:2", &["docker.io/library/app:2"]);
    check("docker.io/library/app:2", &["docker.io/library/app:2"]);
    check("host.example:5000/app", &["host.example:5000/app:1"]);
    check("other:latest", &["docker.io/library/other:latest"]);
    check("nothing", &[]);
    assert_eq!(bench.ok(["images", "-q"]).lines().count(), 1);
    assert!(bench.fails(125, ["images", "app*"]).contains("app*"));
}

#[test]
fn what_one_step_changed() {
    let bench = Bench::with_busybox();
    let context = bench.context("c", &[("file", "text\n"), ("other", "other\n")]);
    // 1 is the base's import, then come the stage's, after them those of the stage on it.
    let boxfile = "FROM busybox AS base\n\
        ENV A=1\n\
        COPY file other /d/\n\
        RUN chmod 700 /d/file && echo more >> /d/other && mkdir /new\n\
        FROM base\n\
        RUN rm -r /d && mkdir /d && touch /d/again\n\
        LABEL x=y\n\
        RUN true\n";
    bench.build(&context, boxfile, &["--network", "none", "-t", "steps"]);
    let step = |number: &str| bench.ok(["diff", "--step", number, "steps"]);
    let base = step("1");
    assert!(base.lines().all(|line| line.starts_with("A /")), "{base}");
    assert!(base.contains("A /bin/busybox\n"), "{base}");
    assert_eq!(step("3"), "A /d\nA /d/file\nA /d/other\n");
    assert_eq!(step("4"), "C /d/file (mode)\nC /d/other (content)\nA /new\n");
    assert_eq!(step("5"), "A /d/again\nD /d/file\nD /d/other\n");

    // The numbers are those of the history, newest first.
    let history = bench.ok(["history", "steps"]);
    let numbers: Vec<&str> = history
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(numbers, ["7", "6", "5", "4", "3", "2", "1"], "{history}");
    let entries: serde_json::Value =
        serde_json::from_str(&bench.ok(["history", "--format", "json", "steps"])).unwrap();
    assert_eq!(entries[4]["step"], 3);
    assert_eq!(entries[4]["created_by"], "COPY file other /d/");

    // What has no layer changed nothing, and that is said.
    for (number, text) in [("2", "ENV A=1"), ("6", "LABEL x=y"), ("7", "true")] {
        let output = bench.run(["diff", "--step", number, "steps"]);
        let said = common::text(&output.stderr);
        assert_eq!(common::success(output), "");
        assert!(said.contains("no layer") && said.contains(text), "{said}");
    }
    let json = |number: &str| -> serde_json::Value {
        serde_json::from_str(&bench.ok(["diff", "--format", "json", "--step", number, "steps"])).unwrap()
    };
    assert_eq!(json("2"), serde_json::json!([]));
    assert_eq!(
        json("5")[1],
        serde_json::json!({"path": "/d/file", "change": "removed", "what": []})
    );
    for (number, count) in [
        ("0", "it has 7"),
        ("8", "it has 7"),
        ("18446744073709551615", "it has 7"),
    ] {
        let said = bench.fails(1, ["diff", "--step", number, "steps"]);
        assert!(
            said.contains(&format!("no step {number}")) && said.contains(count),
            "{said}"
        );
    }
    bench.fails(125, ["diff", "--step", "1", "steps", "busybox"]);
    bench.fails(125, ["diff", "--step", "x", "steps"]);
    assert!(
        bench
            .fails(1, ["diff", "--step", "1", "nothing"])
            .contains("no image named")
    );
}

/// Other tools may leave the history out, or write what is not so.
#[test]
fn a_history_that_is_not_the_layers_is_believed_in_nothing() {
    let bench = Bench::with_busybox();
    let (saved, whole) = (bench.path("oci"), bench.path("whole.tar"));
    bench.ok(["save", "-o", whole.to_str().unwrap(), "busybox"]);
    // The config without history, named by its new digest wherever it is named.
    let script = "import hashlib, json, os, sys\n\
        root = sys.argv[1]\n\
        blob = lambda digest: os.path.join(root, 'blobs', *digest.split(':'))\n\
        def put(value):\n\
        \x20data = json.dumps(value).encode()\n\
        \x20digest = 'sha256:' + hashlib.sha256(data).hexdigest()\n\
        \x20open(blob(digest), 'wb').write(data)\n\
        \x20return dict(digest=digest, size=len(data))\n\
        index = json.load(open(root + '/index.json'))\n\
        manifest = json.load(open(blob(index['manifests'][0]['digest'])))\n\
        config = json.load(open(blob(manifest['config']['digest'])))\n\
        del config['history']\n\
        manifest['config'].update(put(config))\n\
        index['manifests'] = [dict(index['manifests'][0], **put(manifest))]\n\
        json.dump(index, open(root + '/index.json', 'w'))\n\
        os.path.exists(root + '/manifest.json') and os.remove(root + '/manifest.json')\n";
    let file = bench.path("bare.py");
    fs::write(&file, script).unwrap();
    let (file, whole, bare) = (file.display(), whole.display(), bench.path("bare.tar"));
    let saved = saved.display();
    sh(&format!(
        "mkdir {saved}; tar -C {saved} -xf {whole}; python3 {file} {saved}; tar -C {saved} -cf {} .",
        bare.display()
    ));
    bench.ok(["rmi", "busybox"]);
    bench.ok(["load", "-q", "-i", bare.to_str().unwrap()]);
    let said = bench.fails(1, ["diff", "--step", "1", "busybox"]);
    assert!(said.contains("does not say which layer"), "{said}");
}
