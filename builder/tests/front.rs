//! What is read before anything is done: ONBUILD triggers, INCLUDEd files.

#![allow(clippy::unwrap_used)]

mod common;

use box_store::image::Image;
use common::World;

fn triggers(image: &Image) -> Vec<String> {
    image.config.config.on_build.clone().unwrap_or_default()
}

fn history(image: &Image) -> Vec<String> {
    let all = image.config.history.iter();
    all.map(|entry| entry.created_by.clone().unwrap()).collect()
}

#[test]
fn triggers_are_kept_run_once_and_not_inherited() {
    let world = World::new();
    world.file("a", "text");
    let boxfile = "FROM scratch\nONBUILD COPY a /copied\nonbuild run put /ran yes\nONBUILD ENV E=1\nONBUILD LIMIT pids=9\n";
    let (parent, ran) = world.build(boxfile);
    assert!(ran.is_empty(), "{ran:?}");
    let kept = ["COPY a /copied", "run put /ran yes", "ENV E=1", "LIMIT pids=9"];
    assert_eq!(triggers(&parent), kept);
    assert_eq!(history(&parent)[0], "ONBUILD COPY a /copied");
    world.tag(&parent, "parent");
    let (child, ran) = world.build("FROM parent\nRUN put /own $E\n");
    assert_eq!(ran, ["put /ran yes", "put /own $E"]);
    assert_eq!(world.read(&child, "/copied"), "text");
    assert!(triggers(&child).is_empty());
    assert!(child.config.config.env.contains(&"E=1".to_owned()));
    let done = &history(&child)[history(&parent).len()..];
    assert_eq!(done[0], "COPY a /copied");
    assert!(
        done[1].starts_with("RUN ") && done[1].ends_with("put /ran yes"),
        "{done:?}"
    );
    assert_eq!(done[2], "ENV E=1");
    world.tag(&child, "child");
    let (_, ran) = world.build("FROM child\nRUN put /grandchild\n");
    assert_eq!(ran, ["put /grandchild"]);
}

#[test]
fn a_stage_has_triggers_too() {
    let world = World::new();
    let boxfile = "FROM scratch AS a\nRUN put /from-a a\n\
                   FROM scratch AS parent\nONBUILD COPY --from=a /from-a /b\nONBUILD COPY <<X /c\nbody\nX\n\
                   FROM parent AS child\nONBUILD RUN put /own own\nFROM child\n";
    let (image, ran) = world.build(boxfile);
    assert_eq!(ran, ["put /from-a a", "put /own own"]);
    assert_eq!(world.read(&image, "/b"), "a");
    assert_eq!(world.read(&image, "/c"), "body\n");
    assert!(triggers(&image).is_empty());
}

#[test]
fn a_trigger_finds_the_stages_of_the_child() {
    let world = World::new();
    let (parent, _) =
        world.build("FROM scratch\nONBUILD COPY --from=made /x /y\nONBUILD COPY --from=2 /z /\n");
    world.tag(&parent, "parent");
    let boxfile = "FROM scratch AS unused\nRUN put /u\nFROM scratch AS made\nRUN put /x 1\nFROM scratch\nRUN put /z 2\nFROM parent\n";
    let (image, ran) = world.build(boxfile);
    assert_eq!(ran, ["put /x 1", "put /z 2"]);
    assert_eq!(world.list(&image), ["y", "z"]);
}

#[test]
fn what_is_wrong_with_a_trigger_is_said_of_the_from() {
    let world = World::new();
    let check = |text: &str, want: &str| {
        let (base, _) = world.build("FROM scratch\n");
        let mut config = base.config.clone();
        config.config.on_build = Some(vec![text.to_owned()]);
        let base = world.store.put_image(&config).unwrap();
        world.tag(&base, "base");
        let said = world.fail("FROM scratch AS x\nFROM base\n");
        let line = text.lines().next().unwrap_or_default();
        let trigger = format!("ONBUILD trigger `{line}`");
        assert!(said.starts_with("Boxfile:2:1: error: "), "{said}");
        assert!(said.contains(want) && said.contains(&trigger), "{text}: {said}");
        assert!(said.contains(" 2 | FROM base\n"), "{said}");
    };
    check("COPPY a b", "unknown instruction: COPPY");
    check("ONBUILD RUN x", "ONBUILD isn't allowed");
    check("FROM x", "FROM isn't allowed");
    check("MAINTAINER x", "MAINTAINER isn't allowed");
    check("INCLUDE x", "INCLUDE isn't allowed");
    check("RUN a\nRUN b", "not a single instruction");
    check("", "no instructions");
    check("COPY --from=7 a b", "invalid stage index 7");
    check("COPY --from=nowhere a b", "nowhere");
    check("ENV ${a:?no a}=1", "no a");
    world.file("Other", "x");
    let (parent, _) = world.build("FROM scratch\nONBUILD RUN exit 3\n");
    world.tag(&parent, "parent");
    let said = world.fail("FROM scratch\nFROM parent\n");
    assert_eq!(said, "Boxfile:2: ONBUILD RUN exit 3: exit code 3");
}

#[test]
fn included_instructions_stand_where_they_are_included() {
    let world = World::new();
    world.file(
        "parts/setup.box",
        "# escape=\\\nRUN put /a 1\nCOPY <<X /b\n2\nX\nINCLUDE parts/deep\n",
    );
    world.file("parts/deep", "\n# comment\nRUN put /c\n");
    // The ignore file says nothing of what is included.
    world.file(".boxignore", "*\n");
    let boxfile = "FROM scratch AS one\nINCLUDE parts/setup.box\nRUN put /d\n\
                   FROM scratch\ninclude \"./parts/../parts/deep\"\nCOPY --from=one /d /\n";
    let (image, ran) = world.build(boxfile);
    assert_eq!(ran, ["put /a 1", "put /c", "put /d", "put /c"]);
    assert_eq!(world.list(&image), ["c", "d"]);
}

#[test]
fn includes_that_cannot_be_are_refused_with_their_places() {
    let world = World::new();
    world.file("a", "RUN true\nINCLUDE b\n");
    world.file("b", "RUN true\nINCLUDE a\n");
    world.file("itself", "INCLUDE ./itself\n");
    world.file("bad", "RUN true\nCOPPY a b\n");
    world.file("tick", "# escape=`\nRUN true\n");
    world.file("dir/x", "");
    for number in 0..40 {
        world.file(
            &format!("chain{number}"),
            &format!("INCLUDE chain{}\n", number + 1),
        );
        world.file(
            &format!("two{number}"),
            &format!("INCLUDE two{0}\nINCLUDE two{0}\n", number + 1),
        );
    }
    world.file("two12", "");
    std::os::unix::fs::symlink("../store", world.context().join("out")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", world.context().join("passwd")).unwrap();
    let check = |path: &str, wants: &[&str]| {
        let said = world.fail(&format!("FROM scratch\nINCLUDE {path}\n"));
        for want in wants {
            assert!(said.contains(want), "{path}: no {want:?} in {said}");
        }
    };
    check(
        "a",
        &[
            "b:2:9: error: INCLUDE goes round in a circle: a → b → a",
            "a:2:9: note: b is included here",
            "Boxfile:2:9: note: a is included here\n 2 | INCLUDE a\n",
        ],
    );
    check("itself", &["itself → itself"]);
    check(
        "bad",
        &[
            "bad:2:1: error: unknown instruction: COPPY",
            "Boxfile:2:9: note: bad is included here",
        ],
    );
    check(
        "tick",
        &["tick:1:10: error: an included file has the escape character of the Boxfile"],
    );
    check(
        "none",
        &[
            "Boxfile:2:9: error: none is not in the build context",
            "INCLUDE none",
        ],
    );
    check("dir", &["not a regular file"]);
    check("../a", &["leads out of the build context"]);
    check("$a", &["takes no variables"]);
    check("out/format", &["not in the build context"]);
    check("passwd", &["not in the build context"]);
    check("chain0", &["more than 32 files include each other"]);
    check("two0", &["more than 1000 INCLUDEs"]);
    check("a b", &["INCLUDE requires exactly one argument"]);
}
