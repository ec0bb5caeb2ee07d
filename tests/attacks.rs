//! Attacks on what the program builds and runs: each was tried, those that worked once are here so that they never do again.

mod common;

use common::{Bench, sh, text};

/// A privileged container: the caller's choice, and still a container.
const SYS_ADMIN: [&str; 4] = [
    "--cap-add",
    "SYS_ADMIN",
    "--security-opt",
    "no-new-privileges=false",
];

/// Runs a shell line in a container of this image with CAP_SYS_ADMIN and these further options.
fn privileged(bench: &Bench, image: &str, options: &[&str], line: &str) -> String {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(SYS_ADMIN);
    args.extend(options);
    args.extend([image, "sh", "-c", line]);
    text(&bench.run(args).stdout)
}

/// What a mount forbids stays forbidden: CAP_SYS_ADMIN of the container can neither make a read-only bind writable, nor the
/// device nodes of a layer usable, nor show what another mount hides below a bind.
#[test]
fn mounts_from_outside_are_locked() {
    let bench = Bench::with_busybox();
    let shared = bench.context("shared", &[("file", "untouched"), ("covered/secret", "")]);
    let volume = format!("{}:/m:ro", shared.display());
    let attempts = [
        "mount -o remount,bind,rw /m; echo x > /m/file",
        "mount -o remount,bind,dev,rw / && echo unlocked",
        "mount -o remount,bind,exec,suid,dev /dev/null && echo unlocked",
        "mount -o remount,bind,rw /proc/sys && echo x > /proc/sys/kernel/core_pattern && echo unlocked",
    ];
    for line in attempts {
        let output = privileged(&bench, "busybox", &["-v", &volume], &format!("{line}; true"));
        assert!(!output.contains("unlocked"), "{line}: {output}");
        assert_eq!(
            std::fs::read_to_string(shared.join("file")).unwrap(),
            "untouched",
            "{line}"
        );
    }
    // The covering mount is in a namespace of this test's own.
    let line = format!(
        "mount -t tmpfs covering {0}/covered; {1} run --rm --network none {2} -v {3} busybox \
         sh -c 'umount /m/covered; umount /m; ls /m/covered /m'",
        shared.display(),
        common::BOX,
        SYS_ADMIN.join(" "),
        volume
    );
    let script = format!(
        "export BOX_ROOT={}; unshare -m sh -c \"{line}\"",
        bench.store().display()
    );
    assert!(!sh(&script).contains("secret"));
}

/// What a caller leaves behind: ignored signals, a mask that forbids everything, open files.
#[test]
fn the_callers_state_is_undone() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("file", "")]);
    let boxfile = bench.path("Boxfile.mask");
    std::fs::write(&boxfile, "FROM busybox\nCOPY file /a/b/\nRUN touch /c && umask\n").unwrap();
    let (program, store) = (common::BOX, bench.store());
    let run = format!("{program} run --rm --network none busybox sh -c 'exit 3'");
    let ignored = format!(
        "export BOX_ROOT={}; python3 -c 'import os,signal,sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); \
         os.execv(sys.argv[1], sys.argv[1:])' {run}; [ $? = 3 ]",
        store.display()
    );
    sh(&format!("set +e; {ignored}"));
    let build = |mask: &str| {
        let (file, context) = (boxfile.display(), context.display());
        let store = store.display();
        sh(&format!(
            "umask {mask}; BOX_ROOT={store} {program} build --no-cache -q -f {file} {context}"
        ))
    };
    let (open, shut) = (build("0"), build("777"));
    assert_eq!(open, shut);
    let loose = format!("find {} -maxdepth 1 -type d -not -perm 700", store.display());
    assert_eq!(sh(&loose), "", "only the owner gets at the store");
}

/// Names that an image or a Boxfile brings reach the terminal as text alone.
#[test]
fn no_escape_sequence_reaches_the_terminal() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[]);
    let evil = "\x1b]0;title\x07\x1b[2J";
    let boxfiles = [
        format!("FROM busybox\nLABEL a=\"{evil}\"\n{evil} x\n"),
        format!("FROM {evil}\n"),
        "FROM busybox\nCOPY none\x1bc /\n".to_owned(),
        format!("FROM busybox\nRUN exit 3 # {evil}\n"),
        format!("FROM busybox\nRUN echo \"{evil}\" && exit 3\n"),
        format!("FROM busybox\nCMD [\"{evil}\", \"x\"]\nRUN [\"{evil}\"]\n"),
        format!("FROM busybox\nWORKDIR /etc/passwd/{evil}\n"),
        format!("FROM busybox\nUSER {evil}\nRUN true\n"),
    ];
    for boxfile in boxfiles {
        let file = bench.path("Boxfile.escape");
        std::fs::write(&file, &boxfile).unwrap();
        let mut command = bench.command(["build", "--progress", "plain", "-f"]);
        let output = command.arg(&file).arg(&context).output().unwrap();
        assert!(!output.status.success(), "{boxfile:?}");
        assert!(
            !output.stderr.contains(&0x1b),
            "{boxfile:?}: {:?}",
            text(&output.stderr)
        );
    }
    let image = format!("FROM busybox\nLABEL a=\"{evil}\"\nENTRYPOINT [\"/\\u001b[2J\"]\n");
    bench.build(&context, &image, &["-t", "evil"]);
    let attempts: [&[&str]; 4] = [
        &["run", "--rm", "--network", "none", "evil"],
        &["history", "evil"],
        &["inspect", "evil"],
        &["images"],
    ];
    for args in attempts {
        let output = bench.run(args);
        assert!(
            !output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b),
            "{args:?}"
        );
    }
}

/// The last id means "leave it" to the kernel: asked for, it would leave the process root.
#[test]
fn the_id_that_is_none_is_refused() {
    let bench = Bench::with_busybox();
    for user in ["4294967295", "0:4294967295", "4294967294", "-1", "99999999999"] {
        let output = bench.run(["run", "--rm", "--network", "none", "-u", user, "busybox", "id"]);
        assert_eq!(
            output.status.code(),
            Some(125),
            "{user}: {}",
            text(&output.stdout)
        );
        assert!(!text(&output.stderr).contains("panicked"), "{user}");
    }
}

/// CVE-2019-16884, CVE-2023-28642: a link of the image leads a mount of the caller into /proc.
#[test]
fn cve_2019_16884_by_a_link() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("file", "")]);
    let image = "FROM busybox\nRUN ln -s /proc /all && ln -s /proc/sys /part\n";
    bench.build(&context, image, &["-t", "links"]);
    for target in ["/all", "/part"] {
        let volume = format!("{}:{target}", context.display());
        for option in [["-v", &volume], ["--tmpfs", target]] {
            let mut args = vec!["run", "--rm", "--network", "none"];
            args.extend(option);
            let message = bench.fails(125, args.into_iter().chain(["links", "true"]));
            assert!(message.contains("/proc"), "{message}");
        }
    }
}

/// A step that leaves directories deeper than files may be open must not make the store unusable.
#[test]
fn no_depth_makes_the_store_unusable() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[]);
    let program = "#include <unistd.h>\n#include <sys/stat.h>\nint main(void) { chdir(\"/tmp\"); \
                   for (int i = 0; i < 2000; i++) { mkdir(\"d\", 0700); chdir(\"d\"); } return 0; }\n";
    std::fs::write(bench.path("deep.c"), program).unwrap();
    sh(&format!(
        "gcc -static -o {}/deep {}",
        context.display(),
        bench.path("deep.c").display()
    ));
    bench.build(&context, "FROM busybox\nCOPY deep /deep\n", &["-t", "deep"]);
    let file = bench.path("Boxfile.deep");
    std::fs::write(&file, "FROM deep\nRUN /deep\n").unwrap();
    let (store, program) = (bench.store(), common::BOX);
    let commands = [
        "run --rm --network none deep /deep".to_owned(),
        format!("build -q -f {} {}", file.display(), context.display()),
        "images".to_owned(),
    ];
    for command in commands {
        let store = store.display();
        let output = sh(&format!(
            "ulimit -n 256; BOX_ROOT={store} {program} {command} 2>&1 || true"
        ));
        assert!(
            !output.contains("cannot remove") && !output.contains("panicked"),
            "{command}: {output}"
        );
    }
    let left = sh(&format!("ls {}/tmp", store.display()));
    assert_eq!(left, "", "nothing is left to reap");
}

/// CVE-2025-62518's kind: a name that is a file here and a removal in the layer's tar would make two trees of one digest.
#[test]
fn names_that_mean_removal_are_refused() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("copied/.wh.bin", ""), ("copied/.wh..wh..opq", "")]);
    for step in [
        "RUN touch /.wh.usr",
        "RUN mkdir -p /a/.wh..wh..opq",
        "COPY copied/ /",
        "WORKDIR /.wh.a/b",
    ] {
        let output = bench.try_build(&context, &format!("FROM busybox\n{step}\n"), &[]);
        let message = text(&output.stderr);
        assert!(
            !output.status.success() && message.contains(".wh."),
            "{step}: {message}"
        );
    }
}
