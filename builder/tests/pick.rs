//! COPY --exclude, --parents and --link: what is picked, what it depends on, and on what it does not.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::World;

/// A context with some files, some of them deep.
fn world() -> World {
    let world = World::new();
    for path in [
        "a.txt",
        "b.md",
        "dir/c.txt",
        "dir/sub/d.txt",
        "dir/sub/e.md",
        "x/y/a.txt",
        "x/z/a.txt",
        "x/z/b.txt",
    ] {
        world.file(path, path);
    }
    world
}

#[track_caller]
fn check(copy: &str, expected: &[&str]) {
    let (world, copy) = (world(), format!("FROM scratch\nCOPY {copy}\n"));
    let (image, _) = world.build(&copy);
    // As files alone: the directories follow from them.
    let tree = world.tree(&image);
    let is_file = |path: &String| {
        let entry = tree.lookup(path.as_ref()).unwrap().unwrap();
        entry.metadata.kind != box_store::beneath::Kind::Directory
    };
    let found: Vec<String> = world.list(&image).into_iter().filter(is_file).collect();
    assert_eq!(found, expected, "{copy}");
}

#[test]
fn what_is_excluded_is_relative_to_the_source() {
    check(
        "--exclude=*.txt . /",
        &[
            "b.md",
            "dir/c.txt",
            "dir/sub/d.txt",
            "dir/sub/e.md",
            "x/y/a.txt",
            "x/z/a.txt",
            "x/z/b.txt",
        ],
    );
    check("--exclude=**/*.txt . /", &["b.md", "dir/sub/e.md"]);
    check("--exclude=sub dir /", &["c.txt"]);
    check("--exclude=dir/sub dir /", &["c.txt", "sub/d.txt", "sub/e.md"]);
    check("--exclude=sub --exclude=!sub/e.md dir /", &["c.txt", "sub/e.md"]);
    check("--exclude=x --exclude=**/*.txt . /", &["b.md", "dir/sub/e.md"]);
    check("--exclude=*.md *.* /o/", &["o/a.txt"]);
    check("--exclude=a.txt a.txt /o/", &["o/a.txt"]);
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    check("--parents ./x/y/a.txt a.txt /o/", &["o/a.txt", "o/x/y/a.txt"]);
    check("--parents x/./z/*.txt /o/", &["o/z/a.txt", "o/z/b.txt"]);
    check("--parents ./x/./z/ /o/", &["o/z/a.txt", "o/z/b.txt"]);
    check("--parents x/./ /o/", &["o/y/a.txt", "o/z/a.txt", "o/z/b.txt"]);
    check("--parents x/*/a.txt /o/", &["o/x/y/a.txt", "o/x/z/a.txt"]);
    check(
        "--parents **/a.txt /o/",
        &["o/a.txt", "o/x/y/a.txt", "o/x/z/a.txt"],
    );
    check("--parents dir/sub/. /o/", &["o/dir/sub/d.txt", "o/dir/sub/e.md"]);
    check(
        "--parents --exclude=**/*.md dir /o/",
        &["o/dir/c.txt", "o/dir/sub/d.txt"],
    );
    check("--parents x/nothing*/a /o/", &[]);
}

#[test]
fn what_is_named_and_not_there_is_an_error() {
    let world = world();
    for copy in [
        "--parents x/none /o/",
        "--parents none/./x /o/",
        "--exclude=*.txt none /o/",
    ] {
        let error = world.fail(&format!("FROM scratch\nCOPY {copy}\n"));
        assert!(
            error.contains("not found in the build context"),
            "{copy}: {error}"
        );
    }
    let error = world.fail("FROM scratch\nCOPY --exclude=[ . /\n");
    assert!(error.contains("Boxfile:2:"), "{error}");
}

#[test]
fn directories_on_the_way_keep_their_modes_and_those_that_are_there_theirs() {
    let world = world();
    fs::set_permissions(world.context().join("x"), fs::Permissions::from_mode(0o750)).unwrap();
    let (image, _) = world.build("FROM scratch\nCOPY --parents x/y/a.txt /o/\n");
    assert_eq!(world.attrs(&image, "o/x").0, 0o750);
    let (image, _) = world.build("FROM scratch\nWORKDIR /o/x\nCOPY --parents x/y/a.txt /o/\n");
    assert_eq!(world.attrs(&image, "o/x").0, 0o755);
}

/// A miss for what is picked, a hit for what is not.
#[test]
fn only_what_is_picked_counts() {
    let is_rerun = |world: &World, text: &str| !world.build(text).1.is_empty();
    let world = world();
    let text = "FROM scratch\nCOPY --exclude=sub dir /d\nRUN put /x\n";
    assert!(is_rerun(&world, text));
    world.file("dir/sub/d.txt", "changed");
    assert!(!is_rerun(&world, text), "excluded");
    world.file("dir/c.txt", "changed");
    assert!(is_rerun(&world, text));
    let text = "FROM scratch\nCOPY --parents x/*/a.txt /d\nRUN put /x\n";
    assert!(is_rerun(&world, text));
    world.file("x/z/b.txt", "changed");
    assert!(!is_rerun(&world, text), "not picked");
    world.file("x/z/a.txt", "changed");
    assert!(is_rerun(&world, text));
    // The same sources of the same layers, other flags.
    let stages = |flags: &str| {
        format!("FROM scratch AS s\nCOPY dir /dir\nFROM scratch\nCOPY --from=s {flags} /dir /o/\n")
    };
    let built = |flags: &str| {
        let (image, _) = world.build(&stages(flags));
        world.list(&image)
    };
    assert!(built("").contains(&"o/sub/e.md".to_owned()));
    assert!(!built("--exclude=sub").contains(&"o/sub".to_owned()));
    assert!(built("--parents").contains(&"o/dir/sub/e.md".to_owned()));
}

#[test]
fn a_linked_copy_does_not_depend_on_what_is_below() {
    let world = world();
    let boxfile = |below: &str| format!("FROM scratch\nRUN put {below}\nCOPY --link a.txt /to/a\n");
    let top = |text: &str| {
        let (image, _) = world.build(text);
        image.config.rootfs.diff_ids.last().copied()
    };
    let first = top(&boxfile("/one"));
    let cached = |text: &str| {
        world.run(&world.request(text)).unwrap();
        let events = world.events.0.lock().unwrap();
        events
            .iter()
            .any(|event| event.starts_with("StepCached { id: StepId(2)"))
    };
    assert_eq!(top(&boxfile("/another")), first);
    assert!(cached(&boxfile("/a-third")));
    assert!(!cached(&boxfile("/a-third").replace("/to/a", "/to/b")));
}

#[test]
fn a_linked_copy_follows_no_link_and_knows_names_of_owners() {
    let world = world();
    symlink("elsewhere", world.context().join("to")).unwrap();
    fs::create_dir(world.context().join("elsewhere")).unwrap();
    world.file("etc/passwd", "joe:x:7:8::/:/bin/sh\n");
    let base = "FROM scratch\nCOPY etc /etc\nRUN mkdir /elsewhere\nRUN link /to elsewhere\n";
    let (image, _) = world.build(&format!("{base}COPY --link --chown=joe a.txt /to/a\n"));
    assert_eq!(world.attrs(&image, "to/a"), (0o644, 7, 8));
    assert!(world.entry(&image, "elsewhere/a").is_none());
    let (image, _) = world.build(&format!("{base}COPY --chown=joe a.txt /to/a\n"));
    assert!(world.entry(&image, "elsewhere/a").is_some());
}
