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
