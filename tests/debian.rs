//! Real input: Debian as a base, apt-get, a compiler, two stages. Needs the distribution's mirror, and takes a minute or two.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Bench, sh, text};

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

/// A Debian root file system, made once for all tests of this build.
fn debian() -> std::path::PathBuf {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = std::fs::File::create(dir.join("debian.lock")).unwrap();
    lock.lock().unwrap();
    let tar = dir.join("debian.tar");
    if !tar.exists() {
        sh(&format!(
            "mmdebstrap --quiet --variant=minbase bookworm {0}.new.tar && mv {0}.new.tar {0}",
            tar.display()
        ));
    }
    tar
}

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
    std::fs::create_dir(&work).unwrap();
    std::fs::copy(debian(), work.join("debian.tar")).unwrap();
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

const SERVICE: &str = "\
FROM debian
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
RUN ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
HEALTHCHECK --interval=200ms --timeout=5s CMD bash -c 'exec 3<>/dev/tcp/127.0.0.1/80'
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD [\"nginx\", \"-g\", \"daemon off;\"]
";

/// The body of an answer; none if nobody answers.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "not within thirty seconds: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks for a page so many times, by four clients at once; how many answers were right.
fn load(address: &str, count: usize) -> usize {
    std::thread::scope(|scope| {
        let client = || {
            (0..count / 4)
                .filter(|_| get(address, "/page").as_deref() == Some("mine\n"))
                .count()
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

#[test]
fn a_service_runs_in_the_background() {
    let bench = Bench::with_busybox();
    bench.ok([
        "import",
        "--progress",
        "quiet",
        debian().to_str().unwrap(),
        "debian",
    ]);
    let context = bench.context("service", &[]);
    bench.build(&context, SERVICE, &["-t", "web"]);
    let options = [
        "-p",
        "127.0.0.1:0:80",
        "-v",
        "site:/var/www/html",
        "-m",
        "128m",
        "--pids-limit",
        "64",
    ];
    bench.ok([&["run", "-d", "--name", "web"], &options[..], &["web"]].concat());
    let address = bench.ok(["port", "web", "80"]).trim().to_owned();
    let is_healthy = || bench.ok(["ps"]).contains("(healthy)");
    eventually("it is healthy", is_healthy);
    // The volume has what the image had there.
    eventually("it answers", || {
        get(&address, "/").is_some_and(|page| page.contains("nginx"))
    });
    bench.ok(["exec", "web", "sh", "-c", "echo mine > /var/www/html/page"]);
    assert_eq!(load(&address, 10_000), 10_000);
    let logged = || {
        bench
            .ok(["logs", "web"])
            .lines()
            .filter(|line| line.contains("GET /page"))
            .count()
    };
    eventually("every request is in the log", || logged() == 10_000);
    assert_eq!(bench.ok(["logs", "--tail", "7", "web"]).lines().count(), 7);
    let mut following = bench
        .command(["logs", "-f", "--tail", "0", "web"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stats: serde_json::Value =
        serde_json::from_str(&bench.ok(["stats", "--no-stream", "--format", "json", "web"])).unwrap();
    assert!(stats[0]["NetworkReceived"].as_u64().unwrap() > 100_000, "{stats}");
    assert_eq!(stats[0]["MemoryLimit"], 128 << 20);
    assert!(bench.ok(["top", "web"]).contains("nginx: worker process"));
    assert_eq!(load(&address, 4), 4);
    bench.ok(["restart", "web"]);
    let address = bench.ok(["port", "web", "80"]).trim().to_owned();
    eventually("it answers again", || get(&address, "/page").is_some());
    bench.ok(["stop", "web"]);
    assert!(get(&address, "/page").is_none());
    assert!(
        bench.ok(["ps", "-a"]).contains("Exited (0)"),
        "it ends in order, by its image's signal"
    );
    let mut followed = Vec::new();
    following
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut followed)
        .unwrap();
    following.wait().unwrap();
    assert!(text(&followed).contains("GET /page"));
    bench.ok(["rm", "web"]);
    let kept = bench.ok([
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        "site:/site:ro",
        "busybox",
        "cat",
        "/site/page",
    ]);
    assert_eq!(kept, "mine\n", "the volume outlives the container");
}

/// The caches of `RUN --mount=type=cache` travel: the second machine downloads no package again.
#[test]
fn packages_are_downloaded_once_for_all_machines() {
    let boxfile = |word: &str| {
        format!(
            "FROM debian\nRUN --mount=type=cache,target=/var/cache/apt --mount=type=cache,target=/var/lib/apt/lists \
             rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y \
             --no-install-recommends -o Binary::apt-get::APT::Keep-Downloaded-Packages=true -o APT::Keep-Downloaded-Packages=true make && echo {word}\n"
        )
    };
    let [a, b] = [Bench::new(), Bench::new()];
    let cache = a.path("cache").display().to_string();
    let build = |bench: &Bench, word: &str| {
        let debian = debian();
        bench.ok([
            "import",
            "--progress",
            "quiet",
            debian.to_str().unwrap(),
            "debian",
        ]);
        let context = bench.context("context", &[]);
        let to = format!("--cache-to=type=local,dest={cache},cache-mounts=true");
        bench.build_plain(
            &context,
            &boxfile(word),
            &[&format!("--cache-from=type=local,src={cache}"), &to],
        )
    };
    let first = build(&a, "first");
    let need = |told: &str| {
        let line = told.lines().find(|line| line.contains("Need to get"));
        line.unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    assert!(!need(&first).contains("Need to get 0 B"), "{first}");
    let second = build(&b, "second");
    assert!(need(&second).contains("Need to get 0 B/"), "{second}");
    // The lists did not come anew, either.
    assert!(!second.contains("Get:"), "{second}");
}
