//! An ordinary user without subordinate ids: one id is mapped, owners are recorded, and images are the same as root's.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use common::{Bench, OrdinaryUser, sh, text};

/// Files, directories, links and a FIFO of several owners.
fn owned_tar(bench: &Bench) -> std::path::PathBuf {
    let (root, tar) = (bench.path("owned"), bench.path("owned.tar"));
    let busybox = bench.busybox_tar();
    sh(&format!(
        "mkdir {root} && tar -C {root} -xf {busybox} && cd {root} && mkdir -p var/lib/db/deep home/ann && echo data >var/lib/db/file \
         && echo other >var/lib/db/deep/other && ln -s file var/lib/db/link && ln -s link var/lib/db/second && mkfifo var/lib/db/pipe \
         && ln var/lib/db/file var/lib/db/hard && chown -R -h 33:44 var/lib/db && chown -h 70000:5 var/lib/db/second && chown 0:7 var/lib/db/deep \
         && chown 1000:1000 home/ann && chmod 2750 var/lib/db/deep && chmod 4755 var/lib/db/file \
         && tar --sort=name --mtime=@1704067200 --numeric-owner -cf {tar} .",
        root = root.display(),
        tar = tar.display(),
        busybox = busybox.display()
    ));
    tar
}

const BOXFILE: &str = "\
FROM owned
COPY --chown=33:44 file /srv/copied
COPY --chown=12:0 tree /srv/tree
RUN --network=none echo more >>/var/lib/db/file && echo new >/var/lib/db/new && rm /var/lib/db/pipe && touch /var/lib/db/deep/other
RUN --network=none mv /srv/copied /srv/moved && cp -p /etc/passwd /etc/copy
WORKDIR /srv/tree
";

#[test]
fn images_of_a_single_id_are_roots() {
    let bench = Bench::new();
    let tar = owned_tar(&bench);
    let context = bench.context(
        "context",
        &[("file", "copied"), ("tree/a", "a"), ("tree/b/c", "c")],
    );
    sh(&format!("ln -s a {}/tree/link", context.display()));
    bench.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "owned"]);
    let roots = bench.build(&context, BOXFILE, &["-t", "app"]);

    let user = OrdinaryUser::without_subids(&bench);
    let (file, archive) = (bench.path("Boxfile.under-test"), bench.path("app.tar"));
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "owned"]);
    let build = [
        "build",
        "-q",
        "-t",
        "app",
        "-f",
        file.to_str().unwrap(),
        context.to_str().unwrap(),
    ];
    assert_eq!(
        user.ok(build).trim(),
        roots,
        "owners, modes and digests are root's"
    );
    // Everything is read and made into its tar once more.
    user.ok(["fsck"]);

    // What root saves is loaded as the same image, with every owner in place.
    bench.ok(["save", "-o", archive.to_str().unwrap(), "app"]);
    sh(&format!("chmod 644 {}", archive.display()));
    user.ok(["rmi", "app", "owned"]);
    user.ok(["prune"]);
    user.ok(["load", "-i", archive.to_str().unwrap()]);
    user.ok(["fsck"]);
    let listed = |output: std::process::Output| {
        let out = bench.path("exported.tar");
        std::fs::write(&out, output.stdout).unwrap();
        sh(&format!(
            "tar --numeric-owner -tvf {} | awk '{{ print $1, $2, $6, $7, $8 }}'",
            out.display()
        ))
    };
    let (users, roots) = (
        listed(user.command(["export", "app"]).output().unwrap()),
        listed(bench.run(["export", "app"])),
    );
    for owner in ["33/44", "70000/5", "0/7", "1000/1000", "12/0"] {
        assert!(roots.contains(owner), "{owner}: {roots}");
    }
    assert_eq!(users, roots);
}

#[test]
fn what_needs_another_id_is_refused_with_the_cure() {
    let bench = Bench::new();
    let tar = bench.busybox_tar();
    let user = OrdinaryUser::without_subids(&bench);
    user.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
    assert_eq!(
        user.ok(["run", "--rm", "--network", "none", "busybox", "id", "-u"])
            .trim(),
        "0"
    );
    let refused = |args: &[&str]| {
        let output = user.command(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    };
    let message = refused(&["run", "--rm", "--network", "none", "-u", "33", "busybox", "id"]);
    assert!(message.contains("--add-subuids"), "{message}");
    let message = refused(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--group-add",
        "5",
        "busybox",
        "id",
    ]);
    assert!(message.contains("--add-subuids"), "{message}");
    let (file, context) = (bench.path("Boxfile"), bench.context("empty", &[]));
    std::fs::write(&file, "FROM busybox\nRUN --network=none chown 33 /etc/passwd\n").unwrap();
    let message = refused(&["build", "-f", file.to_str().unwrap(), context.to_str().unwrap()]);
    assert!(
        message.contains("chown") && message.contains("--add-subuids"),
        "{message}"
    );

    // With more ids its store means another thing, and is refused by name.
    let richer = OrdinaryUser::new(&bench);
    let output = richer.command(["images"]).output().unwrap();
    let message = text(&output.stderr);
    assert!(
        !output.status.success() && message.contains("without subordinate ids") && message.contains("--root"),
        "{message}"
    );
}
