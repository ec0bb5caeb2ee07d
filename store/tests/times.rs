//! The rule that makes digests equal: real times on disk, logical times in the canonical tar.

#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]

mod common;

use box_store::layer::EPOCH;
use box_store::{Layer, Mtimes, PrepareOptions, Stamp};
use common::*;

const L1: i64 = EPOCH;
const L2: i64 = EPOCH + 1;
const L3: i64 = EPOCH + 2;
const OLD: Stamp = Stamp::new(1_600_000_000, 123_456_789);

fn now() -> Stamp {
    Stamp::now()
}

/// A base of foreign, kept times: every time is older than its threshold.
fn base(fixture: &Fixture, time: Stamp) -> Layer {
    let upper = fixture.prepare_with(
        &[],
        &PrepareOptions {
            mtimes: Mtimes::Real,
            ..PrepareOptions::default()
        },
    );
    upper
        .dir("etc")
        .file_at("etc/old", "old", time)
        .file_at("etc/other", "other", time);
    upper.touch("etc", time);
    upper.commit()
}

#[test]
fn what_a_step_writes_gets_one_logical_time() {
    let fixture = Fixture::new();
    let upper = fixture.prepare(&[]);
    upper
        .file("a/b", "now")
        .file_at("a/minute", "lag", Stamp::new(now().sec - 59, 5));
    upper.file_at("a/future", "later", Stamp::new(now().sec + 1_000_000, 0));
    upper
        .file_at("a/whole", "second", Stamp::new(now().sec, 0))
        .file_at("a/old", "set", OLD);
    assert_eq!(upper.0.logical_time(), L1);
    let layer = upper.commit();
    for path in ["a", "a/b", "a/minute", "a/future", "a/whole"] {
        assert_eq!(time(&layer, path), L1, "{path}");
    }
    assert_eq!(time(&layer, "a/old"), OLD.sec, "a tool set it on purpose");
    assert_eq!(mtime(&layer.path().join("a/old")), OLD, "times on disk are real");
    assert_eq!(layer.logical_time(), L1);
    assert_eq!(layer.newest_time(), Some(OLD.sec));
}

#[test]
fn layers_are_in_order() {
    let fixture = Fixture::new();
    let first = fixture.written(&[], &[("a", "1")]);
    let second = fixture.written(&[first.clone()], &[("b", "1")]);
    assert_eq!((first.logical_time(), second.logical_time()), (L1, L2));
    let base = base(&fixture, OLD);
    let third = fixture.written(&[base.clone(), first], &[("c", "1")]);
    assert_eq!(third.logical_time(), OLD.sec + 1);
    let limited = base.with_kept_limit(Some(OLD.sec - 1));
    assert_eq!(
        fixture.written(&[limited], &[("c", "1")]).logical_time(),
        L1,
        "later than the base's own created"
    );
}

#[test]
fn equal_steps_are_equal_whenever_they_run() {
    let make = |offset: i64| {
        let fixture = Fixture::with(clock(offset));
        let copied = fixture.written(&[], &[("src/main.c", "int main;")]);
        let upper = fixture.prepare(&[copied.clone()]);
        let time = now().plus(offset);
        upper.file_at("out/main.o", "object", time).touch("out", time);
        let built = upper.commit();
        (copied.diff_id().unwrap(), built.diff_id().unwrap())
    };
    let today = make(0);
    for offset in [1, 86_400, 315_360_000, -315_360_000] {
        assert_eq!(make(offset), today, "{offset} seconds away");
    }
}

/// Of a mounted layer the key of a step may hold contents alone: whatever its files' times on disk and in its tar, a copy has the step's.
#[test]
fn a_preserving_copy_out_of_a_mount_at_once_and_long_after_mean_the_same() {
    let copy = |offset: i64, is_on_another: bool| {
        let fixture = Fixture::new();
        let below = match is_on_another {
            true => vec![fixture.written(&[], &[("other", "layer")])],
            false => Vec::new(),
        };
        let first = fixture.prepare(&below);
        first.file("src", "text").file_at("dated", "set", OLD);
        let mounted = first.commit();
        let kept = fixture.prepare(&[mounted.clone()]);
        let stamp = mtime(&mounted.path().join("src"));
        kept.file_at("kept", "copied within", stamp);
        let again = kept.commit();
        let diff_ids = [mounted, again].map(|layer| layer.diff_id().unwrap());
        let later = Fixture {
            store: fixture.reopen(clock(offset)),
            dir: fixture.dir,
        };
        let layers = diff_ids.map(|diff_id| later.store.layer(&diff_id).unwrap().unwrap());
        let mut upper = later.prepare(&[]);
        upper.0.sees(&layers);
        let cut = Stamp::new(stamp.sec, 0);
        upper
            .file_at("copy", "text", stamp)
            .file_at("cut", "text", cut)
            .file_at("dated", "set", OLD)
            .file_at("new", "x", now().plus(offset));
        let layer = upper.commit();
        for path in ["copy", "cut", "dated", "new"] {
            assert_eq!(time(&layer, path), L1, "{path}, {offset} seconds later");
        }
        layer.diff_id().unwrap()
    };
    let at_once = copy(0, false);
    for (offset, is_on_another) in [(86_400, false), (86_400, true), (0, true), (315_360_000, true)] {
        assert_eq!(copy(offset, is_on_another), at_once, "{offset} seconds later");
    }
}

/// What busybox' `cp -a` cuts off must mean the same whether two steps come to copy in the same second or not.
#[test]
fn copies_with_times_cut_off_are_equal_in_one_second_and_in_two() {
    let make = |apart: i64| {
        let fixture = Fixture::new();
        let source = fixture.written(&[], &[("src/file", "text"), ("other/file", "more")]);
        let second = Stamp::new(mtime(&source.path().join("src/file")).sec, 0);
        let one = fixture.prepare(&[source.clone()]);
        one.file_at("copy/one", "text", second).touch("copy", second);
        let one = one.commit();
        let later = Stamp::new(second.sec + apart, 0);
        let two = fixture.prepare(&[source.clone(), one.clone()]);
        two.file_at("copy/two", "more", later).touch("copy", later);
        let two = two.commit();
        let three = fixture.prepare(&[source.clone(), one.clone(), two.clone()]);
        // Copied up as it is: nothing of it was changed but, say, its mode.
        let kept = mtime(&two.path().join("copy/two"));
        three.file_at("copy/two", "more", kept);
        let three = three.commit();
        assert_eq!(time(&three, "copy/two"), two.logical_time());
        [source, one, two, three].map(|layer| layer.diff_id().unwrap())
    };
    let same = make(0);
    for apart in [1, 2, -1] {
        assert_eq!(make(apart), same, "{apart} seconds apart");
    }
}

#[test]
fn a_preserving_copy_at_once_and_long_after_mean_the_same() {
    let copy = |offset: i64| {
        let fixture = Fixture::new();
        let copied = fixture.written(&[], &[("src", "text")]);
        let diff_id = copied.diff_id().unwrap();
        let stamp = mtime(&copied.path().join("src"));
        drop(copied);
        let later = Fixture {
            store: fixture.reopen(clock(offset)),
            dir: fixture.dir,
        };
        let lower = later.store.layer(&diff_id).unwrap().unwrap();
        let upper = later.prepare(&[lower]);
        upper
            .file_at("copy", "text", stamp)
            .file_at("new", "x", now().plus(offset));
        let layer = upper.commit();
        assert_eq!(
            (time(&layer, "copy"), time(&layer, "new")),
            (L1, L2),
            "{offset} seconds after"
        );
        layer.diff_id().unwrap()
    };
    let at_once = copy(0);
    for offset in [1, 59, 60, 61, 3600, 315_360_000] {
        assert_eq!(copy(offset), at_once, "{offset} seconds after");
    }
}

#[test]
fn a_copy_of_a_copy_is_still_the_first() {
    let fixture = Fixture::new();
    let first = fixture.written(&[], &[("src", "text")]);
    let stamp = mtime(&first.path().join("src"));
    let upper = fixture.prepare(&[first.clone()]);
    upper.file_at("copy", "text", stamp).file("own", "x");
    let second = upper.commit();
    // Only the second layer below: what it recorded is enough.
    let upper = fixture.prepare(&[second]);
    upper.file_at("again", "text", stamp);
    assert_eq!(time(&upper.commit(), "again"), L1);
}

/// As busybox' `cp -a` leaves it: the same, whether the layer below was made just now or long ago.
#[test]
fn a_copy_whose_time_was_cut_off() {
    let copy = |offset: i64| {
        let fixture = Fixture::new();
        let copied = fixture.written(&[], &[("src", "text")]);
        let diff_id = copied.diff_id().unwrap();
        let cut = Stamp::new(mtime(&copied.path().join("src")).sec, 0);
        drop(copied);
        let later = Fixture {
            store: fixture.reopen(clock(offset)),
            dir: fixture.dir,
        };
        let lower = later.store.layer(&diff_id).unwrap().unwrap();
        let upper = later.prepare(&[lower]);
        upper.file_at("copy", "text", cut).file_at("dated", "x", OLD);
        let layer = upper.commit();
        assert_eq!(time(&layer, "copy"), L2, "{offset} seconds after");
        assert_eq!(time(&layer, "dated"), OLD.sec, "set on purpose");
        layer.diff_id().unwrap()
    };
    let at_once = copy(0);
    for offset in [1, 59, 61, 3600, 315_360_000] {
        assert_eq!(copy(offset), at_once, "{offset} seconds after");
    }
}

#[test]
fn a_base_one_second_old() {
    let fixture = Fixture::new();
    let recent = Stamp::new(now().sec - 1, 0);
    let base = base(&fixture, recent);
    let upper = fixture.prepare(&[base]);
    assert_eq!(upper.0.logical_time(), recent.sec + 1);
    upper.file_at("copy", "old", recent).file_at("new", "x", now());
    let layer = upper.commit();
    assert_eq!(time(&layer, "copy"), recent.sec, "cp -p from the base");
    assert_eq!(time(&layer, "new"), recent.sec + 1);
}

#[test]
fn a_copy_up_that_did_not_touch_it_keeps_its_time() {
    let fixture = Fixture::new();
    let base = base(&fixture, OLD);
    let copied = fixture.written(&[base.clone()], &[("etc/conf", "x"), ("etc/other", "changed")]);
    let lowers = [base, copied.clone()];
    let upper = fixture.prepare(&lowers);
    let stamp = mtime(&copied.path().join("etc/conf"));
    upper
        .file_at("etc/conf", "x", stamp)
        .file_at("etc/old", "old", OLD)
        .touch("etc", mtime(&copied.path().join("etc")));
    let layer = upper.commit();
    assert_eq!(time(&layer, "etc/conf"), OLD.sec + 1);
    assert_eq!(time(&layer, "etc"), OLD.sec + 1);
    assert_eq!(time(&layer, "etc/old"), OLD.sec);
    assert_eq!(layer.logical_time(), OLD.sec + 2);
}

#[test]
fn whole_seconds_of_this_step_are_not_taken_for_copies() {
    let fixture = Fixture::new();
    // A lower layer wrote a whole second that this step's start falls into.
    let second = Stamp::new(now().sec + 1, 0);
    let upper = fixture.prepare(&[]);
    upper.file_at("a", "x", second);
    let lower = upper.commit();
    while now().sec < second.sec {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let upper = fixture.prepare(&[lower]);
    upper.file_at("b", "x", Stamp::new(second.sec, 0));
    assert_eq!(time(&upper.commit(), "b"), L2);
}

#[test]
fn a_kept_time_of_the_base_in_this_very_second_is_a_copy() {
    let fixture = Fixture::new();
    let second = Stamp::new(now().sec + 1, 0);
    let base = base(&fixture, second);
    let upper = fixture.prepare(&[base]);
    upper.file_at("copy", "x", second);
    assert_eq!(time(&upper.commit(), "copy"), second.sec);
}

#[test]
fn removals_and_opacity_have_the_logical_time() {
    let fixture = Fixture::new();
    let base = base(&fixture, OLD);
    let upper = fixture.prepare(&[base]);
    upper.dir("etc").whiteout("etc/old").touch("etc", OLD);
    let layer = upper.commit();
    assert_eq!(names(&layer), ["etc/", "etc/.wh.old"]);
    assert_eq!(time(&layer, "etc/.wh.old"), OLD.sec + 1);
    assert_eq!(time(&layer, "etc"), OLD.sec);
}

#[test]
fn nothing_is_later_than_source_date_epoch() {
    let fixture = Fixture::new();
    let options = |epoch| PrepareOptions {
        source_date_epoch: Some(epoch),
        ..PrepareOptions::default()
    };
    let base = base(&fixture, OLD);
    let upper = fixture.prepare_with(&[base.clone()], &options(OLD.sec - 5));
    assert_eq!(upper.0.logical_time(), OLD.sec - 5);
    upper
        .file("new", "x")
        .file_at("copy", "x", OLD)
        .file_at("older", "x", Stamp::new(1_000, 0));
    let layer = upper.commit();
    assert_eq!(
        [time(&layer, "new"), time(&layer, "copy"), time(&layer, "older")],
        [OLD.sec - 5, OLD.sec - 5, 1_000]
    );
    // A later step without it still sees the clamped time of a copy.
    let stamp = mtime(&layer.path().join("copy"));
    let upper = fixture.prepare(&[layer]);
    upper.file_at("again", "x", stamp);
    assert_eq!(time(&upper.commit(), "again"), OLD.sec - 5);
    let upper = fixture.prepare_with(&[base], &options(OLD.sec + 1_000));
    assert_eq!(upper.0.logical_time(), OLD.sec + 1, "only ever earlier");
}

#[test]
fn real_times_are_kept_whole() {
    let fixture = Fixture::new();
    let options = PrepareOptions {
        mtimes: Mtimes::Real,
        ..PrepareOptions::default()
    };
    let upper = fixture.prepare_with(&[], &options);
    let stamp = now();
    upper.file_at("new", "x", stamp).file_at("old", "x", OLD);
    let layer = upper.commit();
    assert_eq!((time(&layer, "new"), time(&layer, "old")), (stamp.sec, OLD.sec));
    assert_eq!(layer.newest_time(), Some(stamp.sec));
}

#[test]
fn a_written_entry_may_bring_its_own_time() {
    let fixture = Fixture::new();
    let mut writer = fixture
        .store
        .layer_writer(&[], &PrepareOptions::default())
        .unwrap();
    let recent = now().sec;
    for (path, mtime) in [("a", None), ("b", Some(1_000)), ("c", Some(recent))] {
        let attrs = box_store::Attrs {
            mtime,
            ..attrs(0o644)
        };
        writer.file(path.as_ref(), &attrs, &mut &b"x"[..]).unwrap();
    }
    let layer = writer.commit().unwrap();
    assert_eq!(
        [time(&layer, "a"), time(&layer, "b"), time(&layer, "c")],
        [L1, 1_000, recent]
    );
    assert_eq!(
        fixture.written(&[layer], &[("d", "x")]).logical_time(),
        recent + 1
    );
}

#[test]
fn a_file_written_after_prepare_is_newer_than_all_below() {
    let fixture = Fixture::new();
    let mut lowers = Vec::new();
    for round in 0..20 {
        let upper = fixture.prepare(&lowers);
        upper.file(&format!("f{round}"), "x");
        let newest = lowers
            .iter()
            .map(|layer: &Layer| layer.facts().window.unwrap().1)
            .max();
        assert!(newest < Some(mtime(&upper.path(&format!("f{round}")))));
        lowers.push(upper.commit());
        assert_eq!(time(&lowers[round as usize], &format!("f{round}")), EPOCH + round);
    }
    assert_eq!(lowers[2].logical_time(), L3);
}

#[test]
fn the_tar_can_be_made_again_from_tree_and_record() {
    let fixture = Fixture::new();
    let base = base(&fixture, Stamp::new(now().sec - 1, 7));
    let upper = fixture.prepare(&[base.clone()]);
    upper
        .file_at("copy", "x", mtime(&base.path().join("etc/old")))
        .file("new", "y");
    let layer = upper.commit();
    let diff_id = layer.diff_id().unwrap();
    let before = tar_of(&layer);
    drop((layer, base));
    let store = fixture.reopen(clock(1_000_000));
    let again = store.layer(&diff_id).unwrap().unwrap();
    assert_eq!(tar_of(&again), before);
    assert_eq!(box_store::Digest::of(&before), diff_id.0);
}
