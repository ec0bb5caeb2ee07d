//! What a step sees of times on disk: each layer is newer than those below it, also where an equal layer was made long before.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use common::Bench;

/// `made` differs each time, `y` over it is an equal layer each time; what is built last depends on which is newer.
const BOXFILE: &str = r#"
FROM busybox
WORKDIR /w
COPY x source
RUN cp source object && cat /proc/uptime /proc/sys/kernel/random/uuid > made
COPY y source
RUN if [ "$(stat -c %y source)" \> "$(stat -c %y object)" ]; then cp source object; fi
"#;

#[test]
fn an_equal_layer_over_one_made_anew_is_newer_than_it() {
    let bench = Bench::with_busybox();
    let context = bench.context("context", &[("Boxfile", BOXFILE), ("x", "old\n"), ("y", "new\n")]);
    let build = |extra: &[&str]| {
        let mut args = vec!["build", "-q", "--network", "none", "-t", "result"];
        args.extend(extra);
        args.push(context.to_str().unwrap());
        bench.ok(&args);
        bench.sh("result", "cat /w/object")
    };
    assert_eq!(build(&[]), "new\n");
    // All is made anew, and the COPY comes out as an equal layer: the store keeps the first one, with its older times.
    assert_eq!(build(&["--no-cache"]), "new\n");
    // The last step alone runs, on layers of the cache.
    let changed = BOXFILE.replace("RUN if", "RUN :; if");
    std::fs::write(context.join("Boxfile"), changed).unwrap();
    assert_eq!(build(&[]), "new\n");
    // And once more with a step after it: the layer above the one written anew is still newer.
    let further = BOXFILE.replace("RUN if", "RUN :; if")
        + "RUN [ \"$(stat -c %y object)\" \\> \"$(stat -c %y source)\" ]\n";
    std::fs::write(context.join("Boxfile"), further).unwrap();
    assert_eq!(build(&[]), "new\n");
}
