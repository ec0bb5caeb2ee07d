//! COPY: what is selected, what it depends on, and where it is put.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use box_builder::context::Context;
use box_builder::files::FileTree;
use box_builder::source::Source;
use common::World;

/// Whether building again ran the RUN that follows the copy.
fn is_rerun(world: &World, text: &str) -> bool {
    !world.build(text).1.is_empty()
}

#[test]
fn a_copy_depends_on_content_names_and_modes_and_on_no_time() {
    let world = World::new();
    let path = world.file("dir/a", "one");
    let text = "FROM scratch\nCOPY dir /d\nRUN put /x\n";
    assert!(is_rerun(&world, text));
    assert!(!is_rerun(&world, text));
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(50))
        .unwrap();
    assert!(!is_rerun(&world, text), "touched");
    fs::write(&path, "two").unwrap();
    assert!(is_rerun(&world, text), "content");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    assert!(is_rerun(&world, text), "mode");
    fs::rename(&path, world.context().join("dir/b")).unwrap();
    assert!(is_rerun(&world, text), "name");
    fs::rename(world.context().join("dir/b"), &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "one").unwrap();
    assert!(!is_rerun(&world, text), "as it was");
    world.file("other", "x");
    assert!(!is_rerun(&world, text), "not copied");
    symlink("a", world.context().join("dir/l")).unwrap();
    assert!(is_rerun(&world, text), "link");
    fs::remove_file(world.context().join("dir/l")).unwrap();
    symlink("b", world.context().join("dir/l")).unwrap();
    assert!(is_rerun(&world, text), "target of a link");
}

#[test]
fn a_file_with_the_size_and_time_of_another_is_another() {
    let world = World::new();
    let text = "FROM scratch\nCOPY a /\n";
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = |content: &str| {
        let path = world.file("a", content);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    for round in 0..5 {
        let content = format!("content {round}");
        write(&content);
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(150));
        }
        let (image, _) = world.build(text);
        assert_eq!(world.read(&image, "/a"), content);
        let (image, _) = world.build(text);
        assert_eq!(world.read(&image, "/a"), content);
    }
}

#[test]
fn directories_files_and_slashes_as_docker_has_them() {
    let world = World::new();
    world.file("a", "A");
    world.file("b", "B");
    world.file("dir/c", "C");
    world.file("dir/sub/d", "D");
    let check = |copy: &str, expected: &[&str]| {
        let (image, _) = world.build(&format!(
            "FROM scratch\nRUN mkdir /have\nWORKDIR /w\nCOPY {copy}\n"
        ));
        let found: Vec<_> = world
            .list(&image)
            .into_iter()
            .filter(|path| path != "have" && path != "w")
            .collect();
        assert_eq!(found, expected, "{copy}");
    };
    check("a /x", &["x"]);
    check("a /x/", &["x", "x/a"]);
    check("a /have", &["have/a"]);
    check("a .", &["w/a"]);
    check("a x", &["w/x"]);
    check("a ./x/y", &["w/x", "w/x/y"]);
    check("a b /x/", &["x", "x/a", "x/b"]);
    check("dir /x", &["x", "x/c", "x/sub", "x/sub/d"]);
    check("dir/ /", &["c", "sub", "sub/d"]);
    check("dir a /have/", &["have/a", "have/c", "have/sub", "have/sub/d"]);
    check("[\"a\", \"/x y\"]", &["x y"]);
    check("../../a /../x", &["x"]);
    check("? /x/", &["x", "x/a", "x/b"]);
    check("? /have", &["have/a", "have/b"]);
    check("dir/*/d /x", &["x"]);
    check("? /x", &["x"]);
    assert!(
        world
            .events
            .told("? matches 2 files, and only the last becomes /x")
    );
    check("none* /x", &[]);
    check("*/s* /x/", &["x", "x/d"]);
    check("<<E /x/\ntext\nE", &["x", "x/E"]);
    check("<<E a /x/\ntext\nE", &["x", "x/E", "x/a"]);
}

#[test]
fn what_is_wrong_is_said() {
    let world = World::new();
    world.file("a", "A");
    world.file("b", "B");
    world.file("dir/c", "C");
    world.file("hidden", "H");
    world.file(".dockerignore", "hidden\n");
    let check = |copy: &str, expected: &str| {
        let text =
            format!("FROM scratch\nRUN put /file; mkdir /full; put /full/c/x; put /l/sub\nCOPY {copy}\n");
        let error = world.fail(&text);
        assert!(
            error.contains(expected) && error.starts_with("Boxfile:3"),
            "{copy}: {error}"
        );
    };
    check("missing /x", "missing not found in the build context");
    check(
        "dir/missing* missing /x/",
        "missing not found in the build context",
    );
    check("hidden /x", "hidden not found in the build context");
    check("hidden /x", "the ignore file leaves it out");
    check("[ab /x", "not a valid pattern");
    check("a /file/x", "not a directory");
    check("a /file/", "not a directory");
    check("dir /file", "not a directory");
    check("dir /full", "/full/c is a directory in the image");
    check("--chown=who a /x", "user who is not in the image's /etc/passwd");
    check("--chown=1:who a /x", "group who is not in the image's /etc/group");
    check("--from=scratch a /x", "image scratch is not in the store");
}

#[test]
fn owners_and_modes() {
    let world = World::new();
    let a = world.file("dir/a", "A");
    std::os::unix::fs::chown(&a, Some(77), Some(78)).unwrap();
    fs::set_permissions(&a, Permissions::from_mode(0o4751)).unwrap();
    let base = "FROM scratch\nRUN put /etc/passwd me:x:70000:70:::\nRUN put /etc/group we:x:71:\n";
    let check = |copy: &str, path: &str, expected: (u32, u32, u32)| {
        let (image, _) = world.build(&format!("{base}COPY {copy}\n"));
        assert_eq!(world.attrs(&image, path), expected, "{copy}");
    };
    check("dir/a /x", "x", (0o4751, 0, 0));
    check("dir /x", "x", (0o755, 0, 0));
    check("--chown=1 dir/a /x", "x", (0o4751, 1, 1));
    check("--chown=1:2 dir/a /x", "x", (0o4751, 1, 2));
    check("--chown=me dir/a /x", "x", (0o4751, 70000, 70));
    check("--chown=me:we dir/a /x", "x", (0o4751, 70000, 71));
    check("--chown=:we dir/a /x", "x", (0o4751, 0, 71));
    check("--chown=me dir/a /new/x", "new", (0o755, 70000, 70));
    check("--chmod=640 dir/a /x", "x", (0o640, 0, 0));
    check("--chmod=u=rwX,go=rX dir/a /x", "x", (0o755, 0, 0));
    check("--chmod=700 dir /x", "x/a", (0o700, 0, 0));
    check("--chmod=705 dir/a /n/x", "n", (0o705, 0, 0));
    check("--chown=root:root dir/a /x", "x", (0o4751, 0, 0));
    check("<<E /x\ntext\nE", "x", (0o644, 0, 0));
}

#[test]
fn links_in_the_destination_stay_inside() {
    let world = World::new();
    world.file("a", "A");
    world.file("dir/b", "B");
    let canary = world.context().join("canary");
    let text = format!(
        "FROM scratch\nRUN mkdir /real; link /l /real; link /up ../../../../real; link /dangling gone/file; \
         link /abs {}\nCOPY a /l/\nCOPY a /up/b\nCOPY a /dangling\nCOPY dir /l\nCOPY a /abs/x\n",
        canary.display()
    );
    let (image, _) = world.build(&text);
    let list = world.list(&image);
    for path in ["real/a", "real/b", "gone/file", "l", "up"] {
        assert!(list.iter().any(|found| found == path), "{path} in {list:?}");
    }
    assert_eq!(world.read(&image, "/real/b"), "B");
    assert!(!canary.exists());
    let inside = canary.strip_prefix("/").unwrap().join("x");
    assert!(world.entry(&image, inside.to_str().unwrap()).is_some());
}

#[test]
fn links_in_the_context_stay_inside() {
    let world = World::new();
    world.file("dir/a", "A");
    let outside = world.context().parent().unwrap().join("secret");
    fs::write(&outside, "secret").unwrap();
    symlink("dir/a", world.context().join("file")).unwrap();
    symlink("/dir", world.context().join("absolute")).unwrap();
    symlink("../secret", world.context().join("out")).unwrap();
    symlink(&outside, world.context().join("far")).unwrap();
    symlink("loop", world.context().join("loop")).unwrap();
    let (image, _) = world.build("FROM scratch\nCOPY file /f\nCOPY absolute/a /g\nCOPY . /all/\n");
    assert_eq!([world.read(&image, "/f"), world.read(&image, "/g")], ["A", "A"]);
    let link = world.entry(&image, "/all/out").unwrap();
    assert_eq!(link.metadata.kind, box_store::beneath::Kind::Symlink);
    for name in ["out", "far"] {
        let error = world.fail(&format!("FROM scratch\nCOPY {name} /x\n"));
        assert!(error.contains("not found"), "{error}");
    }
    assert!(
        world
            .fail("FROM scratch\nCOPY loop /x\n")
            .contains("too many symbolic links")
    );
}

#[test]
fn special_files_do_not_block() {
    let world = World::new();
    world.file("dir/a", "A");
    let make = |name: &str| {
        let path = world.context().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
    };
    make("dir/fifo");
    make("fifo");
    drop(std::os::unix::net::UnixListener::bind(world.context().join("dir/socket")).unwrap());
    let (image, _) = world.build("FROM scratch\nCOPY dir /d\nCOPY fifo /f\n");
    assert_eq!(world.list(&image), ["d", "d/a", "d/fifo", "f"]);
    assert_eq!(
        world.entry(&image, "/f").unwrap().metadata.kind,
        box_store::beneath::Kind::Fifo
    );
    make(".dockerignore");
    assert!(world.fail("FROM ./fifo\n").contains("not a regular file"));
    // What is left out can't be read: that is not nothing.
    let error = world.fail("FROM scratch\nCOPY dir /d\n");
    assert!(error.contains("must be a regular file"), "{error}");
}

#[test]
fn ignored_files_are_not_there() {
    let world = World::new();
    for path in ["a.log", "sub/b.log", "sub/c", "keep/x", "keep/y", "gone/z"] {
        world.file(path, path);
    }
    world.file(".dockerignore", "*.log\nkeep\n!keep/x\ngone\n.dockerignore\n");
    let (image, _) = world.build("FROM scratch\nCOPY . /\n");
    assert_eq!(
        world.list(&image),
        ["keep", "keep/x", "sub", "sub/b.log", "sub/c"]
    );
    let (image, _) = world.build("FROM scratch\nCOPY * /x/\n");
    assert_eq!(world.list(&image), ["x", "x/b.log", "x/c", "x/x"]);
    let (image, _) = world.build("FROM scratch\nCOPY keep /x/\n");
    assert_eq!(world.list(&image), ["x", "x/x"]);
    world.file(".boxignore", "*\n!sub/c\n");
    let (image, _) = world.build("FROM scratch\nCOPY . /\n");
    assert_eq!(world.list(&image), ["sub", "sub/c"]);
    assert!(world.events.told(".boxignore is used, .dockerignore is not"));
    let mut request = world.request("FROM scratch\nCOPY . /\n");
    request.ignore = Some(Source::new("Boxfile.dockerignore", "*\n!a.log".as_bytes()));
    let image = world.run(&request).unwrap().image;
    assert_eq!(world.list(&image), ["a.log"]);
    request.ignore = Some(Source::new("Boxfile.dockerignore", "[".as_bytes()));
    let error = world.run(&request).unwrap_err().to_string();
    assert!(error.contains("Boxfile.dockerignore"), "{error}");
}

#[test]
fn hard_links_and_owners_survive_between_stages() {
    let world = World::new();
    let text = "FROM scratch AS a\nRUN put /d/one text; hard /d/two /d/one; own /d/one 9; mode /d/one 4755; link /d/l one\n\
                FROM scratch\nCOPY --from=a /d /e\nCOPY --from=a --chown=3 /d/* /f/\n";
    let (image, _) = world.build(text);
    let inode = |path: &str| world.entry(&image, path).unwrap().metadata.inode;
    assert_eq!(inode("/e/one"), inode("/e/two"));
    assert_eq!(world.attrs(&image, "/e/two"), (0o4755, 9, 9));
    assert_eq!(world.attrs(&image, "/f/two"), (0o4755, 3, 3));
    assert_eq!(world.tree(&image).read_link(Path::new("/e/l")).unwrap(), "one");
    assert_eq!(world.read(&image, "/f/l"), "text");
}

#[test]
fn a_directory_takes_the_place_of_a_link() {
    let world = World::new();
    world.file("one/real/a", "A");
    symlink("real", world.context().join("one/sub")).unwrap();
    world.file("two/sub/b", "B");
    let (image, _) = world.build("FROM scratch\nCOPY one /t\nCOPY two /t\n");
    assert_eq!(
        world.list(&image),
        ["t", "t/real", "t/real/a", "t/sub", "t/sub/b"]
    );
}

#[test]
fn wildcards_can_be_escaped() {
    let world = World::new();
    for path in ["a*b/x", "acb/x", "[y]/x"] {
        world.file(path, path);
    }
    let text = "FROM scratch\nCOPY a\\*b/x /one\nCOPY [\"a\\\\*b/x\", \"/two\"]\nCOPY [[]y]/x /three\nCOPY \"a\\*b\"/x /four\n";
    let (image, _) = world.build(text);
    assert_eq!(
        [world.read(&image, "/one"), world.read(&image, "/two")],
        ["a*b/x", "a*b/x"]
    );
    assert_eq!(
        [world.read(&image, "/three"), world.read(&image, "/four")],
        ["[y]/x", "a*b/x"]
    );
}

#[test]
fn an_equal_copy_makes_no_layer() {
    let world = World::new();
    world.file("a", "A");
    let (image, _) = world.build("FROM scratch\nCOPY a /a\nCOPY a /a\nCOPY none* /b\n");
    assert_eq!(image.config.rootfs.diff_ids.len(), 1);
    assert_eq!(image.config.history[1].empty_layer, Some(true));
}

#[test]
fn names_that_are_not_utf8_are_copied() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let name = std::ffi::OsStr::from_bytes(b"d\xff");
    fs::create_dir(world.context().join(name)).unwrap();
    fs::write(world.context().join(name).join(name), "x").unwrap();
    let (image, _) = world.build("FROM scratch\nCOPY . /\n");
    let path = Path::new(name).join(name);
    assert!(world.tree(&image).lookup(&path).unwrap().is_some());
}

#[test]
fn a_file_that_is_swapped_while_it_is_read_is_an_error() {
    let world = World::new();
    let path = world.file("a", "one");
    let context = Context::open(&world.store, &world.context(), None).unwrap();
    let name = Path::new("a");
    let seen = context.lookup(name).unwrap().unwrap();
    assert!(context.facts(name, &seen).is_ok());
    let check = |what: &str| {
        let error = context.open(name, &seen).expect_err(what).to_string();
        assert!(error.contains("changed while it was read"), "{what}: {error}");
        assert!(context.facts(name, &seen).is_err(), "{what}");
    };
    fs::write(&path, "two").unwrap();
    check("written");
    fs::remove_file(&path).unwrap();
    check("removed");
    symlink("/etc/passwd", &path).unwrap();
    assert!(context.open(name, &seen).is_err());
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    check("a FIFO");
}

/// What COPY --from and binds of a stage depend on, beyond names and bytes.
#[test]
fn a_stages_links_and_directories_are_inputs() {
    let world = World::new();
    let build = |stage: &str, rest: &str| {
        let text = format!("FROM scratch AS a\nRUN {stage}\nFROM scratch\n{rest}\n");
        world.build(&text)
    };
    // An inline file beside files of a stage.
    let inline = |text: &str| build("put /x", &format!("COPY --from=a /x <<E /d/\n{text}\nE"));
    let (one, _) = inline("one");
    let (two, _) = inline("two");
    assert_eq!(
        (world.read(&one, "d/E"), world.read(&two, "d/E")),
        ("one\n".to_owned(), "two\n".to_owned())
    );
    // Two names of one file, or two equal files.
    let copied = |stage: &str| build(stage, "COPY --from=a /d /d").0;
    let linked = copied("put /d/a same; hard /d/b /d/a");
    let apart = copied("put /d/a same; put /d/b same");
    let names = |image| world.entry(image, "d/a").unwrap().metadata.nlink;
    assert_eq!((names(&linked), names(&apart)), (2, 1));
    assert_ne!(
        linked.config.rootfs.diff_ids.last(),
        apart.config.rootfs.diff_ids.last()
    );
    // A mount shows the directory itself; a copy does not.
    let mounted = |mode: &str, what: &str| build(&format!("put /d/a; mode /d {mode}"), what).1.len();
    let mount = "RUN --mount=type=bind,from=a,source=/d,target=/m put /seen";
    assert_eq!(mounted("755", mount), 2);
    assert_eq!(mounted("700", mount), 2, "the stage, and what mounts it");
    assert_eq!(mounted("700", mount), 0);
}
