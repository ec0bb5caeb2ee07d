//! Images to and from a real registry, beside the tools that others use.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::registry::Registry;
use common::{Bench, OrdinaryUser, sh, success, text};

/// An image with a file, a link, a removed file and one with an attribute.
fn image(bench: &Bench, name: &str) -> String {
    let context = bench.context("context", &[("a", "a\n")]);
    let boxfile = "FROM busybox\nCOPY a /a\nRUN ln -s a /link && echo x > /gone && mkdir /d && echo y > /d/y\nRUN rm /gone && echo z > /d/z\nCMD [\"cat\", \"/a\"]\n";
    bench.build(&context, boxfile, &["-t", name])
}

fn id(bench: &Bench, name: &str) -> String {
    let shown: serde_json::Value = serde_json::from_str(&bench.ok(["inspect", name])).unwrap();
    let shown = shown.get(0).unwrap_or(&shown);
    shown["Id"].as_str().unwrap().to_owned()
}

fn pushed(bench: &Bench, args: &[&str]) -> (String, String) {
    let output = bench.run([&["push"], args].concat());
    let told = text(&output.stderr);
    (success(output).trim().to_owned(), told)
}

#[test]
fn what_is_pushed_is_pulled() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let name = registry.name("team/app:1");
    image(&bench, &name);
    let (digest, told) = pushed(&bench, &[&name]);
    assert!(told.contains("5 sent"), "{told}");
    // A second time nothing is sent; to another repository it is mounted.
    let (again, told) = pushed(&bench, &[&name]);
    assert!(told.contains("0 sent") && again == digest, "{told}");
    let other = registry.name("other/app:2");
    let (again, told) = pushed(&bench, &[&name, &other]);
    assert!(told.contains("0 sent, 5 mounted") && again == digest, "{told}");
    // By tag and by digest, in another store, by root and by an ordinary user.
    let far = Bench::new();
    let pulled = far.run(["pull", &other]);
    assert!(text(&pulled.stderr).contains(&digest), "{pulled:?}");
    assert_eq!(success(pulled).trim(), id(&bench, &name));
    let by_digest = registry.name(&format!("team/app@{digest}"));
    let told = far.run(["pull", &by_digest]);
    assert!(text(&told.stderr).contains("is up to date"), "{told:?}");
    assert_eq!(
        far.sh(&other, "cat /a /d/y /d/z; readlink /link; ls /gone 2>&1 || true")
            .lines()
            .count(),
        5
    );
    let user = OrdinaryUser::new(&far);
    user.ok(["pull", "-q", &other]);
    assert_eq!(user.ok(["run", "--rm", "--network", "none", &other]), "a\n");
    // What was pulled is pushed back byte for byte.
    let (back, told) = pushed(&far, &[&other, &registry.name("third/app:3")]);
    assert_eq!(back, digest, "{told}");
    let missing = far.fails(1, ["pull", &registry.name("team/none:1")]);
    assert!(missing.contains("is not in the registry"), "{missing}");
    let wrong = registry.name(&format!("team/app@sha256:{}", "0".repeat(64)));
    assert!(far.fails(1, ["pull", &wrong]).contains("is not in the registry"));
}

fn flip(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_pull_mends_what_was_damaged() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let name = registry.name("app:1");
    image(&bench, &name);
    let (digest, _) = pushed(&bench, &[&name]);
    let far = Bench::new();
    far.ok(["pull", &name]);
    let manifest: serde_json::Value = serde_json::from_str(&skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{name}"),
    ]))
    .unwrap();
    let blob = |n: usize| manifest["layers"][n]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let shown: serde_json::Value = serde_json::from_str(&far.ok(["inspect", &name])).unwrap();
    let layer = shown[0]["RootFS"]["Layers"][2].as_str().unwrap()["sha256:".len()..].to_owned();
    // A layer's tree, and another layer's blob.
    flip(&far.store().join("layers").join(&layer).join("d/y"));
    flip(&far.store().join("blobs/sha256").join(blob(1)));
    let found = text(&far.run(["fsck"]).stdout);
    assert!(found.contains(&layer) && found.contains(&blob(1)), "{found}");
    far.run(["fsck", "--repair"]);
    let pulled = far.run(["pull", &name]);
    assert!(text(&pulled.stderr).contains("2 layers fetched"), "{pulled:?}");
    success(pulled);
    assert!(far.ok(["fsck"]).contains("all is well"));
    assert_eq!(far.sh(&name, "cat /d/y"), "y\n");
    let (back, _) = pushed(&far, &[&name, &registry.name("back:1")]);
    assert_eq!(back, digest);
}

#[test]
fn a_pull_brings_every_blob() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let name = registry.name("app:1");
    image(&bench, &name);
    let (digest, _) = pushed(&bench, &["--compression", "zstd", &name]);
    // A layer that came another way is fetched too, so that the image can be passed on as it is.
    let far = Bench::with_busybox();
    far.ok(["pull", &name]);
    let listed = || {
        fs::read_to_string(far.store().join("index.json"))
            .unwrap()
            .contains(&digest)
    };
    assert!(listed());
    far.ok(["gc"]);
    assert!(listed() && far.ok(["fsck"]).contains("all is well"));
    let (back, _) = pushed(&far, &[&name, &registry.name("back:1")]);
    assert_eq!(back, digest);
    // What says which blob stands for a layer is lost, and the blob with the next collection: nothing lists it then, and a pull brings it again.
    let far = Bench::new();
    far.ok(["pull", &name]);
    let records = far.store().join("records");
    sh(&format!("rm -r {0}/packed {0}/manifest", records.display()));
    far.ok(["gc"]);
    let text = fs::read_to_string(far.store().join("index.json")).unwrap();
    assert!(
        text.contains(r#""manifests":[]"#) && far.ok(["fsck"]).contains("all is well"),
        "{text}"
    );
    far.ok(["pull", &name]);
    assert!(
        fs::read_to_string(far.store().join("index.json"))
            .unwrap()
            .contains(&digest)
    );
    assert!(far.ok(["fsck"]).contains("all is well"));
}

#[test]
fn others_read_the_store_in_place() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let name = registry.name("app:1");
    image(&bench, &name);
    bench.ok(["tag", &name, "local:2"]);
    let (digest, _) = pushed(&bench, &[&name]);
    let store = bench.store();
    for name in [name.as_str(), "docker.io/library/local:2"] {
        let shown = skopeo(&["inspect", &format!("oci:{}:{name}", store.display())]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["Digest"], digest.as_str());
        let copy = bench.path("copy");
        skopeo(&[
            "copy",
            "-q",
            &format!("oci:{}:{name}", store.display()),
            &format!("dir:{}", copy.display()),
        ]);
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 2 + 1 + 4, "{name}");
        fs::remove_dir_all(&copy).unwrap();
    }
    bench.ok(["rmi", "local:2"]);
    let gone = Command::new("skopeo")
        .args([
            "inspect",
            &format!("oci:{}:docker.io/library/local:2", store.display()),
        ])
        .output()
        .unwrap();
    assert!(!gone.status.success());
}

fn skopeo(args: &[&str]) -> String {
    success(Command::new("skopeo").args(args).output().unwrap())
}

#[test]
fn others_read_what_box_pushes_and_box_what_they_push() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let name = registry.name("app:1");
    image(&bench, &name);
    let (digest, _) = pushed(&bench, &[&name]);
    let there = format!("docker://{name}");
    assert!(skopeo(&["inspect", "--tls-verify=false", &there]).contains(&digest));
    // Podman pulls it and has the same id.
    let root = format!("--root={}", bench.path("podman").display());
    let run_root = format!("--runroot={}", bench.path("podman-run").display());
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command.args([root.as_str(), run_root.as_str(), "--storage-driver=vfs"]);
        success(command.args(args).output().unwrap()).trim().to_owned()
    };
    let podmans = podman(&["pull", "-q", "--tls-verify=false", &name]);
    assert_eq!(format!("sha256:{podmans}"), id(&bench, &name));
    // Pushed by others: Docker's format, zstd, no compression.
    let copies: [(&str, &[&str]); 3] = [
        ("v2s2", &["--format=v2s2"]),
        ("zstd", &["--format=oci", "--dest-compress-format=zstd"]),
        ("oci", &["--format=oci"]),
    ];
    let far = Bench::new();
    for (tag, how) in copies {
        let to = registry.name(&format!("copy:{tag}"));
        let (from, dest) = (there.as_str(), format!("docker://{to}"));
        let args = [
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            from,
            dest.as_str(),
        ];
        skopeo(&[&args, how].concat());
        far.ok(["pull", "-q", &to]);
        assert_eq!(
            far.sh(&to, "cat /a; ls /gone 2>&1 || true").lines().count(),
            2,
            "{tag}"
        );
    }
    podman(&[
        "push",
        "-q",
        "--tls-verify=false",
        &name,
        &registry.name("podman:1"),
    ]);
    far.ok(["pull", "-q", &registry.name("podman:1")]);
    assert_eq!(id(&far, &registry.name("podman:1")), id(&bench, &name));
}

#[test]
fn layers_are_packed_as_it_is_asked_for() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    image(&bench, "app");
    let far = Bench::new();
    for (how, media_type) in [
        ("gzip:1", "tar+gzip"),
        ("zstd", "tar+zstd"),
        ("zstd:9", "tar+zstd"),
        ("none", "layer.v1.tar\""),
    ] {
        let name = registry.name(&format!("packed:{}", how.replace(':', "-")));
        let push = |bench: &Bench| pushed(bench, &["--compression", how, "app", &name]);
        let (digest, _) = push(&bench);
        let (again, told) = push(&bench);
        assert!(told.contains("0 sent") && again == digest, "{how}: {told}");
        let raw = skopeo(&[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ]);
        assert!(raw.contains(media_type), "{how}: {raw}");
        far.ok(["pull", "-q", &name]);
        assert_eq!(id(&far, &name), id(&bench, "app"), "{how}");
        // Equal on another machine, whatever is there.
        let other = Bench::with_busybox();
        image(&other, "app");
        assert_eq!(push(&other).0, digest, "{how}");
        far.ok(["prune"]);
    }
    // What was pulled can be packed otherwise, too.
    let name = registry.name("packed:zstd");
    let back = registry.name("back:1");
    let (_, told) = pushed(&far, &["--compression", "gzip", &name, &back]);
    assert!(!told.contains(" 0 sent"), "{told}");
    let told = bench.fails(125, ["push", "--compression", "lzma", "app"]);
    assert!(told.contains("is no compression"), "{told}");
}

/// Puts a document, which box itself does not write.
fn put(registry: &Registry, path: &str, media_type: &str, body: &str) {
    let url = format!("http://{}/v2/{path}", registry.host);
    let header = format!("Content-Type: {media_type}");
    let output = Command::new("curl")
        .args([
            "-sS",
            "-f",
            "-X",
            "PUT",
            "-H",
            &header,
            "--data-binary",
            body,
            &url,
        ])
        .output()
        .unwrap();
    success(output);
}

#[test]
fn an_index_has_an_image_for_each_platform() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let context = bench.context("context", &[]);
    let mut manifests = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let name = registry.name(&format!("multi:{architecture}"));
        let boxfile = format!("FROM scratch\nLABEL for={architecture}\nWORKDIR /{architecture}\n");
        bench.build(
            &context,
            &boxfile,
            &["-t", &name, "--platform", &format!("linux/{architecture}")],
        );
        let (digest, _) = pushed(&bench, &[&name]);
        let size = fs::metadata(bench.store().join("blobs/sha256").join(&digest[7..]))
            .unwrap()
            .len();
        manifests.push(format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        ));
    }
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
        manifests.join(",")
    );
    put(
        &registry,
        "multi/manifests/all",
        "application/vnd.oci.image.index.v1+json",
        &index,
    );
    let far = Bench::new();
    let all = registry.name("multi:all");
    for (args, expected) in [(&[][..], "amd64"), (&["--platform", "linux/arm64"], "arm64")] {
        far.ok([&["pull", "-q"], args, &[all.as_str()]].concat());
        let told = far.ok(["inspect", &all]);
        assert!(told.contains(&format!("\"for\": \"{expected}\"")), "{told}");
    }
    let told = far.fails(1, ["pull", "--platform", "linux/s390x", &all]);
    assert!(told.contains("it has linux/arm64, linux/amd64"), "{told}");
}

#[test]
fn a_guarded_registry_wants_a_login() {
    let (bench, registry) = (Bench::with_busybox(), Registry::guarded());
    let name = registry.name("secret/app:1");
    image(&bench, &name);
    let auth = bench.path("auth.json");
    let cert = registry.dir.path().join("cert.pem");
    let cert = format!("--ca-cert={}", cert.display());
    let run = |args: &[&str], stdin: &str| -> Output {
        use std::io::Write;
        let mut command = bench.command(args);
        let mut child = command
            .env("REGISTRY_AUTH_FILE", &auth)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let fails = |args: &[&str], stdin: &str, expected: &str| {
        let output = run(args, stdin);
        assert!(!output.status.success(), "{args:?}");
        let told = text(&output.stderr);
        assert!(told.contains(expected), "{args:?}: {told}");
    };
    fails(&["push", &name], "", "certificate");
    fails(&["push", &cert, &name], "", "does not let you push to secret/app");
    let login = ["login", &cert, "-u", "user", "--password-stdin", &registry.host];
    fails(&login, "wrong\n", "the name or the password is wrong");
    assert!(!auth.exists());
    let told = success(run(&login, "secret\n"));
    assert_eq!(told, "");
    let kept = fs::read_to_string(&auth).unwrap();
    assert!(kept.contains("dXNlcjpzZWNyZXQ="), "{kept}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&auth).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    success(run(&["push", &cert, &name], ""));
    success(run(
        &[
            "push",
            "--tls-verify=false",
            &name,
            &registry.name("secret/other:1"),
        ],
        "",
    ));
    success(run(&["rmi", &name], ""));
    success(run(&["pull", &cert, &name], ""));
    // A helper goes before what the file has.
    let bin = bench.path("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    fs::write(
        &helper,
        "#!/bin/sh\ntest \"$1\" = get && cat >/dev/null && echo '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"secret\"}'\n",
    )
    .unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut fs::metadata(&helper).unwrap().permissions(), 0o755);
    sh(&format!("chmod 755 {}", helper.display()));
    success(run(&["logout", &registry.host], ""));
    fails(&["pull", &cert, &name], "", "does not let you pull");
    fs::write(&auth, r#"{"credsStore":"test"}"#).unwrap();
    let output = bench
        .command(["pull", &cert, &name])
        .env("REGISTRY_AUTH_FILE", &auth)
        .env(
            "PATH",
            format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
        )
        .output()
        .unwrap();
    success(output);
    fails(&["pull", &cert, &name], "", "cannot run docker-credential-test");
}

#[test]
fn what_is_missing_is_pulled() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let name = registry.name("base:1");
    image(&bench, &name);
    pushed(&bench, &[&name]);
    let far = Bench::new();
    assert_eq!(far.ok(["run", "--rm", "--network", "none", &name]), "a\n");
    let fresh = Bench::new();
    let never = fresh.run(["run", "--pull=never", &name]);
    assert_eq!(never.status.code(), Some(125));
    let context = fresh.context("context", &[]);
    let boxfile =
        format!("FROM {name} AS one\nFROM scratch\nCOPY --from={name} /a /b\nCOPY --from=one /a /c\n");
    let told = fresh.try_build(&context, &boxfile, &["--pull=never"]);
    assert!(text(&told.stderr).contains("is not in the store"), "{told:?}");
    let told = fresh.build_plain(&context, &boxfile, &[]);
    assert_eq!(told.matches("pulling ").count(), 1, "{told}");
    // A base that changed is found when it is asked for.
    let changed = bench.context("changed", &[("a", "b\n")]);
    bench.build(&changed, "FROM busybox\nCOPY a /a\n", &["-t", &name]);
    pushed(&bench, &[&name]);
    let build = |extra: &[&str]| fresh.build(&context, &boxfile, &[&["-t", "x"], extra].concat());
    let before = build(&[]);
    assert_ne!(build(&["--pull"]), before);
    let told = fresh.try_build(&context, &format!("FROM {}\n", registry.name("none:1")), &[]);
    let told = text(&told.stderr);
    assert!(
        told.contains(":1:6: error") && told.contains("is not in the registry"),
        "{told}"
    );
}

#[test]
fn nobody_there() {
    let bench = Bench::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let told = bench.fails(1, ["pull", &format!("127.0.0.1:{port}/x:1")]);
    assert!(told.contains("cannot connect to 127.0.0.1"), "{told}");
    let told = bench.fails(125, ["login", "-u", "x", "nowhere"]);
    assert!(told.contains("no terminal"), "{told}");
    let _: PathBuf = bench.store();
}
