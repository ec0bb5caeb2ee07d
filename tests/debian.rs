//! Real input: Debian as a base, apt-get, a compiler, two stages. Needs the distribution's mirror, and takes a minute or two.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use common::{Bench, sh};

const BOXFILE: &str = "\
FROM ./rootfs.tar.ARCHIVE AS build
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev make >/dev/null
WORKDIR /src
COPY hello.c Makefile ./
RUN make hello
FROM scratch
COPY --from=build /src/hello /hello
CMD [\"/hello\"]
";

#[test]
fn a_program_is_compiled_in_debian_and_run_from_scratch() {
    let bench = Bench::new();
    let work = bench.path("work");
    let context = bench.context(
        "context",
        &[
            (
                "hello.c",
                "#include <stdio.h>\nint main(void) { puts(\"hello from a small image\"); return 0; }\n",
            ),
            ("Makefile", "hello: hello.c\n\tgcc -static -o $@ $<\n"),
        ],
    );
    sh(&format!(
        "mkdir {0}; mmdebstrap --quiet --variant=minbase bookworm {0}/debian.tar",
        work.display()
    ));
    // The mirror and its trust travel with the rootfs as mmdebstrap configured them; the resolver is box's.
    sh(&format!(
        "cd {} && gzip -1 <debian.tar >{1}/rootfs.tar.gz && xz -0 -T2 <debian.tar >{1}/rootfs.tar.xz && zstd -q -1 <debian.tar >{1}/rootfs.tar.zst",
        work.display(),
        context.display()
    ));
    let build =
        |archive: &str| bench.build_plain(&context, &BOXFILE.replace("ARCHIVE", archive), &["-t", "hello"]);

    let log = build("xz");
    assert!(!log.contains("CACHED"), "{log}");
    assert_eq!(
        bench.ok(["run", "--rm", "--network", "none", "hello"]).trim(),
        "hello from a small image"
    );

    // The same rootfs in another wrapping is the same base.
    for archive in ["gz", "zst"] {
        assert_all_cached(&build(archive));
    }
    // Touched: nothing changed.
    sh(&format!("touch {}/hello.c", context.display()));
    assert_all_cached(&build("xz"));
    // Cloned elsewhere: nothing changed.
    let clone = bench.path("clone");
    sh(&format!(
        "cd {0} && git init -q . && git add hello.c Makefile && git -c user.name=t -c user.email=t@t commit -qm t \
         && git clone -q {0} {1} && cp -l rootfs.tar.xz {1}/",
        context.display(),
        clone.display()
    ));
    assert_all_cached(&bench.build_plain(&clone, &BOXFILE.replace("ARCHIVE", "xz"), &["-t", "hello"]));
    // One source changed: the packages are not installed again.
    sh(&format!(
        "sed -i 's/small/changed/' {}/hello.c",
        context.display()
    ));
    let log = build("xz");
    assert!(
        log.contains("CACHED RUN apt-get") && !log.contains("CACHED RUN make"),
        "{log}"
    );
    assert_eq!(
        bench.ok(["run", "--rm", "--network", "none", "hello"]).trim(),
        "hello from a changed image"
    );
}

#[track_caller]
fn assert_all_cached(log: &str) {
    let count = |mark: &str| {
        log.lines()
            .filter(|l| l.contains(&format!("{mark}RUN ")) || l.contains(&format!("{mark}COPY ")))
            .count()
    };
    assert!(count("] ") > 3, "{log}");
    assert_eq!(count("] "), count("] CACHED "), "a step ran again:\n{log}");
}
