//! Caches that travel: one machine builds and exports, another one imports.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use box_store::Digest;
use common::bucket::Bucket;
use common::registry::Registry;
use common::{Bench, OrdinaryUser, USER_ID, sh, success, text};

/// Two stages; the final one is a small part of the first one.
const BOXFILE: &str = "FROM busybox AS build\n\
    WORKDIR /src\n\
    COPY main.c lib.c ./\n\
    RUN --network=none cat main.c lib.c > /src/app && seq 1 300000 > /src/objects\n\
    FROM busybox\n\
    COPY --from=build /src/app /usr/bin/app\n\
    RUN --network=none true\n\
    RUN --network=none sha256sum /usr/bin/app > /sum\n";
const FILES: [(&str, &str); 2] = [("main.c", "int main;\n"), ("lib.c", "int lib;\n")];
const STEPS: usize = 6;

/// A cache in a directory.
struct Cache(PathBuf);

impl Cache {
    fn to(&self, more: &str) -> String {
        format!("--cache-to=type=local,dest={}{more}", self.0.display())
    }

    fn from(&self, more: &str) -> String {
        format!("--cache-from=type=local,src={}{more}", self.0.display())
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join(kind)).unwrap();
        let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }

    fn size(&self) -> u64 {
        let files = ["packs", "indexes"].into_iter().flat_map(|kind| self.files(kind));
        files.map(|file| file.metadata().unwrap().len()).sum()
    }

    /// A copy of it that is changed.
    fn changed(&self, to: &Path, change: impl FnOnce(&Cache)) -> Cache {
        let _ = fs::remove_dir_all(to);
        sh(&format!("cp -a {} {}", self.0.display(), to.display()));
        let copy = Cache(to.to_owned());
        change(&copy);
        copy
    }

    /// Changes the document of the only index, as somebody does who knows how, but for the key.
    fn rewrite(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.files("indexes").pop().unwrap();
        let sealed = fs::read(&path).unwrap();
        let mut lines = sealed.splitn(4, |byte| *byte == b'\n');
        let (magic, _, signature, packed) = (
            lines.next().unwrap(),
            lines.next().unwrap(),
            lines.next().unwrap(),
            lines.next().unwrap(),
        );
        let mut index: serde_json::Value =
            serde_json::from_slice(&zstd::decode_all(packed).unwrap()).unwrap();
        change(&mut index);
        let packed = zstd::encode_all(index.to_string().as_bytes(), 3).unwrap();
        let body = [signature, b"\n", packed.as_slice()].concat();
        let sealed = [
            magic,
            b"\n",
            Digest::of(&body).to_string().as_bytes(),
            b"\n",
            &body,
        ]
        .concat();
        fs::remove_file(&path).unwrap();
        fs::write(path.with_file_name(Digest::of(&sealed).hex()), sealed).unwrap();
    }
}

/// How many steps were found, and how many done.
fn counts(progress: &str) -> (usize, usize) {
    let count = |word: &str| progress.lines().filter(|line| line.contains(word)).count();
    (count(" CACHED "), count(" DONE "))
}

fn layers(bench: &Bench) -> usize {
    fs::read_dir(bench.store().join("layers")).unwrap().count()
}

#[track_caller]
fn check_clean(bench: &Bench) {
    bench.ok(["fsck"]);
    let left = fs::read_dir(bench.store().join("tmp"))
        .unwrap()
        .map(|e| e.unwrap().path());
    assert_eq!(left.collect::<Vec<_>>(), [] as [PathBuf; 0]);
}

/// Another machine: a store of its own with the same base.
fn another(a: &Bench) -> Bench {
    let b = Bench::new();
    fs::copy(a.busybox_tar(), b.path("rootfs.tar")).unwrap();
    b.ok([
        "import",
        "--progress",
        "quiet",
        b.path("rootfs.tar").to_str().unwrap(),
        "busybox",
    ]);
    b
}

/// One that has built and exported, and the image's id.
fn exported(more: &str) -> (Bench, Cache, String) {
    let a = Bench::with_busybox();
    let cache = Cache(a.path("cache"));
    let context = a.context("ctx", &FILES);
    let id = a.build(&context, BOXFILE, &[&cache.to(more)]);
    (a, cache, id)
}

#[test]
fn another_machine_does_nothing_again() {
    let (a, cache, id) = exported(",mode=max");
    let b = another(&a);
    let context = b.context("elsewhere", &FILES);
    let base = layers(&b);
    let told = b.build_plain(&context, BOXFILE, &[&cache.from(""), "-t", "app"]);
    assert_eq!(counts(&told), (STEPS, 0), "{told}");
    assert_eq!(b.ok(["images", "-q", "--no-trunc", "app"]).trim(), id);
    // Of the first stage nothing was fetched: what the copy reads is known.
    assert_eq!(layers(&b) - base, 2, "{told}");
    assert_eq!(b.sh("app", "cat /usr/bin/app"), "int main;\nint lib;\n");
    // What is here now is found without a cache.
    let told = b.build_plain(
        &context,
        "FROM busybox\nCOPY --from=app /usr/bin/app /usr/bin/app\n",
        &[],
    );
    assert_eq!(counts(&told).1, 1, "{told}");
    // A step of the first stage that is done anew needs what is below it, and no more.
    let changed = BOXFILE.replace("> /src/objects", "> /src/others");
    let told = b.build_plain(&context, &changed, &[&cache.from("")]);
    assert_eq!(counts(&told).1, 1, "{told}");
    check_clean(&a);
    check_clean(&b);
}

#[test]
fn min_holds_what_the_result_is_made_of() {
    let (a, cache, _) = exported("");
    let b = another(&a);
    let context = b.context("ctx", &FILES);
    let told = b.build_plain(&context, BOXFILE, &[&cache.from("")]);
    assert_eq!(counts(&told), (3, 3), "{told}");
}

#[test]
fn a_small_change_moves_little() {
    let a = Bench::with_busybox();
    let cache = Cache(a.path("cache"));
    let boxfile = "FROM busybox\nCOPY . /src/\nRUN --network=none cat /src/a /src/main.c /src/b > /app\n";
    let context = a.context("ctx", &FILES);
    for name in ["a", "b"] {
        sh(&format!(
            "head -c 12m /dev/urandom > {}/{name}",
            context.display()
        ));
    }
    a.build(&context, boxfile, &[&cache.to("")]);
    let first = cache.size();
    // What the second layer holds of the first one is not there twice.
    assert!((24 << 20..26 << 20).contains(&first), "{first}");
    let b = another(&a);
    sh(&format!(
        "cp -a {} {}",
        context.display(),
        b.path("ctx").display()
    ));
    fs::write(b.path("ctx/main.c"), "int main; // changed\n").unwrap();
    let told = b.build_plain(&b.path("ctx"), boxfile, &[&cache.from(""), &cache.to("")]);
    assert_eq!(counts(&told), (0, 2), "{told}");
    let moved = cache.size() - first;
    assert!(moved * 20 < first, "{moved} of {first}");
    // Once more the same: nothing but the index.
    let before = cache.files("packs");
    b.build(&b.path("ctx"), boxfile, &[&cache.from(""), &cache.to("")]);
    assert_eq!(cache.files("packs"), before);
    // Both states are there.
    let c = another(&a);
    let told = c.build_plain(&context, boxfile, &[&cache.from("")]);
    let more = c.build_plain(&b.path("ctx"), boxfile, &[&cache.from("")]);
    assert_eq!((counts(&told), counts(&more)), ((2, 0), (2, 0)), "{told}{more}");
}

/// One of several builds with a step of its own.
fn one_of_many(n: usize) -> String {
    format!("FROM busybox\nCOPY . /src/\nRUN --network=none seq 1 {n}00000 > /out\n")
}

/// Five builds on one machine, which all write.
fn write_at_once(a: &Bench, context: &Path, to: &str) {
    let start = |n: usize| {
        let file = a.path(&format!("Boxfile.{n}"));
        fs::write(&file, one_of_many(n)).unwrap();
        let mut command = a.command(["build", "--progress", "plain", "-f"]);
        command.arg(file).arg(to).arg(context);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (1..=5).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            !text(&output.stderr).contains("warning"),
            "{}",
            text(&output.stderr)
        );
        success(output);
    }
}

fn check_all_written(b: &Bench, context: &Path, from: &str) {
    for n in 1..=5 {
        let told = b.build_plain(context, &one_of_many(n), &[from]);
        assert_eq!(counts(&told), (2, 0), "{told}");
    }
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let a = Bench::with_busybox();
    let cache = Cache(a.path("cache"));
    let context = a.context("ctx", &FILES);
    write_at_once(&a, &context, &cache.to(""));
    check_all_written(&another(&a), &context, &cache.from(""));
}

#[test]
fn damage_costs_a_miss() {
    let (a, cache, id) = exported(",mode=max");
    let flip = |path: &Path, at: u64| {
        let file = fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    };
    let check = |what: &str, expected: Option<usize>, change: &dyn Fn(&Cache)| {
        let copy = cache.changed(&a.path("copy"), change);
        let b = another(&a);
        let context = b.context("ctx", &FILES);
        let told = b.build_plain(&context, BOXFILE, &[&copy.from(""), "-t", "app"]);
        assert!(told.contains("warning: cache "), "{what}: {told}");
        assert_eq!(b.ok(["images", "-q", "--no-trunc", "app"]).trim(), id, "{what}");
        assert!(
            expected.is_none_or(|done| counts(&told).1 == done),
            "{what}: {told}"
        );
        check_clean(&b);
        // Who writes the same cache mends it.
        let again = b.build_plain(&context, BOXFILE, &[&copy.from(""), &copy.to(",mode=max")]);
        assert!(!again.contains(" DONE "), "{what}: {again}");
    };
    check("an index with another bit", Some(STEPS), &|copy| {
        flip(&copy.files("indexes")[0], 200)
    });
    check("an index that is cut off", Some(STEPS), &|copy| {
        let file = fs::File::options()
            .write(true)
            .open(&copy.files("indexes")[0])
            .unwrap();
        file.set_len(100).unwrap();
    });
    check("packs that are gone", None, &|copy| {
        copy.files("packs")
            .iter()
            .for_each(|pack| fs::remove_file(pack).unwrap());
    });
    check("packs that are cut off", None, &|copy| {
        for pack in copy.files("packs") {
            fs::File::options()
                .write(true)
                .open(pack)
                .unwrap()
                .set_len(10)
                .unwrap();
        }
    });
    check("packs with other bits", None, &|copy| {
        for pack in copy.files("packs") {
            (0..pack.metadata().unwrap().len())
                .step_by(50)
                .for_each(|at| flip(&pack, at));
        }
    });
    check("a pipe in the place of a pack", None, &|copy| {
        for pack in copy.files("packs") {
            fs::remove_file(&pack).unwrap();
            sh(&format!("mkfifo {}", pack.display()));
        }
    });
}

#[test]
fn a_damaged_pack_is_written_anew() {
    let (a, cache, id) = exported(",mode=max");
    // As long as before, so that its length tells nothing.
    for pack in cache.files("packs") {
        let mut bytes = fs::read(&pack).unwrap();
        bytes.iter_mut().step_by(50).for_each(|byte| *byte ^= 4);
        fs::write(&pack, bytes).unwrap();
    }
    let context = a.context("ctx", &FILES);
    let b = another(&a);
    let told = b.build_plain(&context, BOXFILE, &[&cache.from(""), &cache.to(",mode=max")]);
    assert!(
        told.contains("packs are damaged; what they held is sent again"),
        "{told}"
    );
    let c = another(&a);
    let told = c.build_plain(&context, BOXFILE, &[&cache.from(""), "-t", "app"]);
    assert!(counts(&told) == (STEPS, 0) && !told.contains("warning"), "{told}");
    assert_eq!(c.ok(["images", "-q", "--no-trunc", "app"]).trim(), id);
    for pack in cache.files("packs") {
        assert!(pack.ends_with(Digest::of(&fs::read(&pack).unwrap()).hex()));
    }
}

#[test]
fn copies_out_of_a_mount_are_the_same_whether_it_was_made_here_or_elsewhere() {
    // What is copied up keeps its time to the nanosecond; busybox' cp cuts it off.
    const COPIES: &str = "FROM old AS build\n\
        COPY main.c lib.c /out/\n\
        RUN --network=none chmod 700 /out/main.c && touch -d @1200000000 /out/dated\n\
        RUN --network=none sleep 1 && touch /out/late\n\
        FROM old\n\
        WORKDIR /a\n\
        WORKDIR /b\n\
        WORKDIR /c\n\
        RUN --network=none --mount=from=build,source=/out,target=/m cp -a /m/. /x && cp -p /m/main.c /y\n";
    let a = Bench::with_busybox();
    let old = a.path("old.tar");
    let retimed = format!(
        "mkdir r && tar -C r -xf {} && tar --mtime=@1000000000 -C r -cf {} .",
        a.busybox_tar().display(),
        old.display()
    );
    sh(&format!("cd {} && {retimed}", a.path("").display()));
    let (cache, context, b) = (Cache(a.path("cache")), a.context("ctx", &FILES), another(&a));
    for bench in [&a, &b] {
        bench.ok(["import", "--progress", "quiet", old.to_str().unwrap(), "old"]);
    }
    a.build(&context, COPIES, &[&cache.to(",mode=max"), "-t", "app"]);
    let id = a.ok(["images", "-q", "--no-trunc", "app"]);
    let (from, again) = (cache.from(""), "--no-cache-filter=1");
    let told = b.build_plain(&context, COPIES, &[&from, again, "-t", "app"]);
    assert_eq!(counts(&told).0, 3, "{told}");
    assert_eq!(b.ok(["images", "-q", "--no-trunc", "app"]), id);
}

#[test]
fn what_a_killed_writer_left_half_goes_with_the_next_export() {
    let a = Bench::with_busybox();
    let (cache, context) = (Cache(a.path("cache")), a.context("ctx", &FILES));
    let tmp = cache.0.join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let half = |name: &str| tmp.join(format!("{}-1-0", Digest::of(name.as_bytes()).hex()));
    fs::write(half("dead"), "x").unwrap();
    fs::write(half("alive"), "x").unwrap();
    let alive = fs::File::open(half("alive")).unwrap();
    alive.lock().unwrap();
    a.build(&context, BOXFILE, &[&cache.to("")]);
    assert_eq!(cache.files("tmp"), [half("alive")]);
}

#[test]
fn an_attacker_gets_no_layer_in() {
    let (a, cache, id) = exported(",mode=max");
    let check = |what: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let copy = cache.changed(&a.path("copy"), |copy| copy.rewrite(change));
        let b = another(&a);
        let context = b.context("ctx", &FILES);
        let told = b.build_plain(&context, BOXFILE, &[&copy.from(""), "-t", "app"]);
        assert!(told.contains("warning: cache "), "{what}: {told}");
        assert!(counts(&told).1 > 0, "{what}: {told}");
        assert_eq!(b.ok(["images", "-q", "--no-trunc", "app"]).trim(), id, "{what}");
        check_clean(&b);
    };
    let steps = |index: &mut serde_json::Value, change: &dyn Fn(&mut [serde_json::Value])| {
        let records = index["records"].as_array_mut().unwrap();
        records.sort_by_key(|record| record["kind"] != "step");
        let count = records.iter().filter(|record| record["kind"] == "step").count();
        change(&mut records[..count]);
    };
    check("records under each other's keys", &|index| {
        steps(index, &|steps| {
            let keys: Vec<_> = steps.iter().map(|step| step["key"].clone()).collect();
            let others = keys.iter().cycle().skip(1);
            steps
                .iter_mut()
                .zip(others)
                .for_each(|(step, key)| step["key"] = key.clone());
        });
    });
    check("records that point at another layer", &|index| {
        let layer = index["layers"][0]["diff_id"].clone();
        steps(index, &|steps| {
            for step in steps {
                let mut record: serde_json::Value =
                    serde_json::from_str(step["text"].as_str().unwrap()).unwrap();
                record["layer"] = layer.clone();
                step["text"] = record.to_string().into();
            }
        });
    });
    check("layers that are others", &|index| {
        let layers = index["layers"].as_array_mut().unwrap();
        let ids: Vec<_> = layers.iter().map(|layer| layer["diff_id"].clone()).collect();
        let others = ids.iter().cycle().skip(1);
        layers
            .iter_mut()
            .zip(others)
            .for_each(|(layer, id)| layer["diff_id"] = id.clone());
    });
    check("times that are not the layers'", &|index| {
        for layer in index["layers"].as_array_mut().unwrap() {
            layer["newest"] = 4_000_000_000_u64.into();
        }
    });
    check("lists outside of their packs", &|index| {
        for layer in index["layers"].as_array_mut().unwrap() {
            layer["list"][1] = u32::MAX.into();
        }
    });
    check("another version", &|index| index["version"] = 2.into());
}

#[test]
fn a_key_keeps_others_out() {
    let a = Bench::with_busybox();
    let keys = ["one", "two"].map(|name| {
        let path = a.path(name);
        fs::write(&path, format!("{name}-0123456789abcdef\n")).unwrap();
        format!(",key-file={}", path.display())
    });
    let cache = Cache(a.path("cache"));
    let context = a.context("ctx", &FILES);
    a.build(&context, BOXFILE, &[&cache.to(&format!(",mode=max{}", keys[0]))]);
    let b = another(&a);
    let told = b.build_plain(&context, BOXFILE, &[&cache.from(&keys[1])]);
    assert!(
        counts(&told) == (0, STEPS) && told.contains("not signed with the given key"),
        "{told}"
    );
    // Whoever has no key points a record at another layer, consistently: that is what a key is for.
    let changed = cache.changed(&a.path("copy"), |copy| {
        copy.rewrite(|index| index["layers"][0]["used"] = 1.into())
    });
    let b = another(&a);
    let told = b.build_plain(&context, BOXFILE, &[&changed.from(&keys[0])]);
    assert!(
        counts(&told) == (0, STEPS) && told.contains("not signed with the given key"),
        "{told}"
    );
    let b = another(&a);
    let told = b.build_plain(&context, BOXFILE, &[&cache.from(&keys[0])]);
    assert_eq!(counts(&told), (STEPS, 0), "{told}");
    fs::write(a.path("one"), "short").unwrap();
    let output = a.try_build(&context, BOXFILE, &[&cache.from(&keys[0])]);
    assert!(
        text(&output.stderr).contains("which is no key"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn cache_mounts_travel_when_asked() {
    let a = Bench::with_busybox();
    let (with, without) = (Cache(a.path("with")), Cache(a.path("without")));
    let context = a.context("ctx", &FILES);
    let boxfile = |word: &str| {
        format!(
            "FROM busybox\nRUN --network=none --mount=type=cache,target=/c ls /c > /found; \
             mkdir -p /c/d; echo {word} > /c/d/{word}; chown 7:8 /c/d/{word}; ln -s d /c/link; echo {word} > /word\n"
        )
    };
    let to = [with.to(",cache-mounts=true"), without.to("")];
    a.build(&context, &boxfile("first"), &[&to[0], &to[1]]);
    let check = |cache: &Cache, expected: &str| {
        let b = another(&a);
        let told = b.build_plain(&context, &boxfile("second"), &[&cache.from(""), "-t", "app"]);
        assert_eq!(counts(&told), (0, 1), "{told}");
        assert_eq!(b.sh("app", "cat /found"), expected);
        b
    };
    check(&without, "");
    let b = check(&with, "d\nlink\n");
    let owner = sh(&format!(
        "stat -c %u:%g {}/cache-mounts/*/0/data/d/first",
        b.store().display()
    ));
    assert_eq!(owner.trim(), "7:8");
    // One that is here is not touched.
    let told = b.build_plain(&context, &boxfile("third"), &[&with.from("")]);
    assert!(!told.contains("came from elsewhere"), "{told}");
    check_clean(&b);
}

#[test]
fn what_was_not_used_goes_when_there_is_no_room() {
    let a = Bench::with_busybox();
    let cache = Cache(a.path("cache"));
    let context = a.context("ctx", &FILES);
    let file = |name: &str| {
        sh(&format!("head -c 2m /dev/urandom > {}/{name}", context.display()));
        format!("FROM busybox\nCOPY {name} /\n")
    };
    let (one, two) = (file("one"), file("two"));
    let to = cache.to(",max-size=3m");
    a.build(&context, &one, &[&to]);
    sh(&format!("touch -d '2 hours ago' {}/packs/*", cache.0.display()));
    std::thread::sleep(Duration::from_millis(1100));
    a.build(&context, &two, &[&to]);
    assert!(cache.size() < 3 << 20, "{}", cache.size());
    let b = another(&a);
    let counted = [&one, &two].map(|boxfile| counts(&b.build_plain(&context, boxfile, &[&cache.from("")])));
    assert_eq!(counted, [(0, 1), (1, 0)]);
    let told = a.build_plain(&context, &two, &[&cache.to(",max-size=1m")]);
    assert!(told.contains("leaves no room"), "{told}");
}

#[test]
fn a_cache_that_fails_fails_no_build() {
    let a = Bench::with_busybox();
    let context = a.context("ctx", &FILES);
    let file = a.path("file");
    fs::write(&file, "no directory").unwrap();
    let cache = Cache(file);
    let told = a.build_plain(&context, BOXFILE, &[&cache.from(""), &cache.to("")]);
    assert!(
        told.contains("warning: cache ") && told.contains("warning: cannot write the cache"),
        "{told}"
    );
    let output = a.try_build(&context, BOXFILE, &[&cache.to(",ignore-error=false")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    // One that is not there yet is no reason for a word.
    let none = Cache(a.path("none"));
    let told = a.build_plain(&context, BOXFILE, &[&none.from("")]);
    assert!(!told.contains("warning"), "{told}");
}

#[test]
fn a_writer_that_is_killed_leaves_a_cache() {
    let a = Bench::with_busybox();
    let cache = Cache(a.path("cache"));
    let context = a.context("ctx", &FILES);
    a.build(&context, BOXFILE, &[&cache.to(",mode=max")]);
    sh(&format!("head -c 60m /dev/urandom > {}/large", context.display()));
    let large = format!("{BOXFILE}COPY large /\n");
    let file = a.path("Boxfile.large");
    fs::write(&file, &large).unwrap();
    for packs in [0, 3] {
        let before = cache.files("packs").len();
        let mut command = a.command(["build", "-q", "-f"]);
        command.arg(&file).arg(cache.to(",mode=max")).arg(&context);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while cache.files("packs").len() <= before + packs && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        assert!(!child.wait().unwrap().success(), "it was too fast to be killed");
        a.ok(["images"]);
        check_clean(&a);
        let b = another(&a);
        let told = b.build_plain(&b.context("ctx", &FILES), BOXFILE, &[&cache.from("")]);
        assert_eq!(counts(&told), (STEPS, 0), "{told}");
    }
    // What was sent whole is not sent again.
    let there = cache.files("packs").len();
    let told = a.build_plain(&context, &large, &[&cache.to(",mode=max")]);
    assert!(there > 4 && cache.size() < 62 << 20, "{told}");
    let b = another(&a);
    let told = b.build_plain(&context, &large, &[&cache.from("")]);
    assert_eq!(counts(&told), (STEPS + 1, 0), "{told}");
}

#[test]
fn an_ordinary_user_finds_what_root_has_made() {
    let (a, cache, id) = exported(",mode=max");
    let user = OrdinaryUser::new(&a);
    sh(&format!(
        "cp {} {}; chown -R {USER_ID}:{USER_ID} {}",
        a.busybox_tar().display(),
        user.home().display(),
        cache.0.display()
    ));
    user.ok([
        "import",
        "--progress",
        "quiet",
        user.home().join("rootfs.tar").to_str().unwrap(),
        "busybox",
    ]);
    let file = a.path("Boxfile.user");
    fs::write(&file, BOXFILE).unwrap();
    let build = |from: &str, to: &str| {
        let args = [
            "build",
            "--progress",
            "plain",
            "-f",
            file.to_str().unwrap(),
            from,
            to,
        ];
        let output = user.command(args).arg(a.path("ctx")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let own = Cache(user.home().join("cache"));
    let (found, told) = build(&cache.from(""), &own.to(""));
    assert_eq!((found.trim(), counts(&told)), (id.as_str(), (STEPS, 0)), "{told}");
    let b = another(&a);
    let told = b.build_plain(&a.path("ctx"), BOXFILE, &[&own.from("")]);
    assert_eq!(counts(&told).0, 3, "{told}");
    assert!(Command::new("test").arg("-O").arg(&own.0).status().is_ok());
}

/// A cache in a registry of the test's own.
fn in_registry(registry: &Registry, rest: &str) -> [String; 2] {
    let name = registry.name(rest);
    [
        format!("--cache-to=type=registry,ref={name},mode=max"),
        format!("--cache-from=type=registry,ref={name}"),
    ]
}

#[test]
fn a_registry_keeps_a_cache() {
    let registry = Registry::start();
    let a = Bench::with_busybox();
    let context = a.context("ctx", &FILES);
    let [to, from] = in_registry(&registry, "team/app:cache");
    let told = a.build_plain(&context, BOXFILE, &[&from, &to]);
    assert!(!told.contains("warning"), "{told}");
    let b = another(&a);
    let base = layers(&b);
    // A name alone is that of a registry.
    let short = format!("--cache-from={}", registry.name("team/app:cache"));
    let told = b.build_plain(&context, BOXFILE, &[&short]);
    assert_eq!((counts(&told), layers(&b) - base), ((STEPS, 0), 2), "{told}");
    check_clean(&b);
    // What is something else is neither read nor replaced.
    let name = registry.name("team/image:1");
    a.build(&context, BOXFILE, &["-t", &name]);
    a.ok(["push", &name]);
    let [to, from] = in_registry(&registry, "team/image:1");
    let told = a.build_plain(&context, BOXFILE, &[&from, &to]);
    assert!(told.contains("the name is that of something else"), "{told}");
    a.ok(["rmi", &name]);
    a.ok(["pull", &name]);
    // A registry that is gone is told of, and fails no build.
    drop(registry);
    let c = another(&a);
    let told = c.build_plain(&context, BOXFILE, &[&short, &to]);
    assert!(
        counts(&told) == (0, STEPS) && told.contains("warning: cannot write the cache"),
        "{told}"
    );
}

#[test]
fn writers_of_a_registry_at_the_same_time_lose_nothing() {
    let registry = Registry::start();
    let a = Bench::with_busybox();
    let [to, from] = in_registry(&registry, "app:cache");
    let context = a.context("ctx", &FILES);
    write_at_once(&a, &context, &to);
    let b = another(&a);
    check_all_written(&b, &context, &from);
}

#[test]
fn a_bucket_keeps_a_cache() {
    let bucket = Bucket::start();
    let a = Bench::with_busybox();
    let context = a.context("ctx", &FILES);
    let to = format!("--cache-to={},mode=max", bucket.options());
    let from = format!("--cache-from={}", bucket.options());
    let told = a.build_plain(&context, BOXFILE, &[&from, &to]);
    assert!(!told.contains("warning"), "{told}");
    assert!(
        bucket
            .objects
            .lock()
            .unwrap()
            .keys()
            .all(|key| key.starts_with("team/app/"))
    );
    let b = another(&a);
    let base = layers(&b);
    // A server that fails now and then is asked again.
    bucket.fails_every.store(5, Ordering::SeqCst);
    let told = b.build_plain(&context, BOXFILE, &[&from]);
    assert_eq!((counts(&told), layers(&b) - base), ((STEPS, 0), 2), "{told}");
    check_clean(&b);
    bucket.fails_every.store(0, Ordering::SeqCst);
    // As the environment says who one is; a wrong name is told, and costs the cache alone.
    let anonymous = from.replace(",access_key_id=KEY,secret_access_key=SECRET", "");
    let build = |key: &str| {
        let machine = another(&a);
        let file = machine.path("Boxfile");
        fs::write(&file, BOXFILE).unwrap();
        let mut command = machine.command(["build", "--progress", "plain", "-f"]);
        command.arg(&file).arg(&anonymous).arg(&context);
        command
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", "SECRET");
        text(&command.output().unwrap().stderr)
    };
    let told = build("OTHER");
    assert!(
        counts(&told) == (0, STEPS) && told.contains("warning: cache s3://cache/team/app"),
        "{told}"
    );
    assert_eq!(counts(&build("KEY")), (STEPS, 0));
}

#[test]
fn writers_of_a_bucket_at_the_same_time_lose_nothing() {
    let bucket = Bucket::start();
    let a = Bench::with_busybox();
    let context = a.context("ctx", &FILES);
    write_at_once(&a, &context, &format!("--cache-to={}", bucket.options()));
    let b = another(&a);
    check_all_written(&b, &context, &format!("--cache-from={}", bucket.options()));
    // The next one makes one index of them.
    a.build(&context, BOXFILE, &[&format!("--cache-to={}", bucket.options())]);
    let objects = bucket.objects.lock().unwrap();
    assert_eq!(objects.keys().filter(|key| key.contains("/indexes/")).count(), 1);
}

#[test]
fn the_whole_cache_goes_out_and_comes_in() {
    let a = Bench::with_busybox();
    let cache = Cache(a.path("cache"));
    let context = a.context("ctx", &FILES);
    let mounted =
        "FROM busybox\nRUN --network=none --mount=type=cache,target=/c echo x > /c/x && echo y > /y\n";
    for boxfile in [BOXFILE, mounted] {
        a.build(&context, boxfile, &[]);
    }
    a.ok([
        "cache",
        "export",
        &format!("type=local,dest={},cache-mounts=true", cache.0.display()),
    ]);
    let from = format!("type=local,src={}", cache.0.display());
    let b = another(&a);
    let told = b.ok(["cache", "import", &from]);
    assert_eq!(told, format!("Imported: {} steps, 1 cache mounts\n", STEPS + 1));
    fs::rename(&cache.0, a.path("away")).unwrap();
    for (boxfile, steps) in [(BOXFILE, STEPS), (mounted, 1)] {
        let told = b.build_plain(&context, boxfile, &[]);
        assert_eq!(counts(&told), (steps, 0), "{told}");
    }
    assert!(b.ok(["cache", "ls"]).contains("/c"));
    check_clean(&b);
    b.fails(1, ["cache", "export", "type=local,dest=/proc/cache"]);
    let damaged = Cache(a.path("away"));
    damaged
        .files("packs")
        .iter()
        .for_each(|pack| fs::remove_file(pack).unwrap());
    let c = another(&a);
    let told = c.fails(
        1,
        [
            "cache",
            "import",
            &format!("type=local,src={}", damaged.0.display()),
        ],
    );
    assert!(told.contains("is missing"), "{told}");
    check_clean(&c);
}

#[test]
fn what_is_not_the_caches_is_left_alone() {
    let a = Bench::with_busybox();
    let context = a.context("ctx", &FILES);
    let (cache, others) = (Cache(a.path("cache")), a.path("others"));
    let hex = Digest::of(b"somebody's").hex();
    for place in ["packs", "indexes", "tmp"] {
        fs::create_dir_all(cache.0.join(place)).unwrap();
        fs::write(cache.0.join(place).join("notes.txt"), "kept").unwrap();
    }
    fs::create_dir_all(&others).unwrap();
    for path in [others.join(&hex), cache.0.join("packs").join(&hex)] {
        fs::write(path, "x").unwrap();
    }
    sh(&format!(
        "touch -d '2 days ago' {0}/*/* {1}/*",
        cache.0.display(),
        others.display()
    ));
    a.build(&context, BOXFILE, &[&cache.to("")]);
    let left = sh(&format!(
        "cd {}; ls packs/{hex} */notes.txt 2>/dev/null || true",
        cache.0.display()
    ));
    assert_eq!(left, "indexes/notes.txt\npacks/notes.txt\ntmp/notes.txt\n");
    // A directory that is a link to another one.
    sh(&format!(
        "rm -r {0}/packs; ln -s {1} {0}/packs",
        cache.0.display(),
        others.display()
    ));
    let told = a.build_plain(&context, BOXFILE, &[&cache.to("")]);
    assert!(told.contains("warning: cannot write the cache"), "{told}");
    assert_eq!(fs::read_dir(&others).unwrap().count(), 1);
    assert!(others.join(&hex).exists());
}
