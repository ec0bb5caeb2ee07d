//! The wall clock does not matter: builds with the machine's clock ten years later and earlier give the same digest.
//!
//! This moves the clock of the whole machine for some seconds, so it must run alone: `scripts/test.sh` (and so `make test`) runs it
//! after everything else, by `cargo test --test clock -- --ignored`.
#![allow(clippy::unwrap_used)] // a test that panics has failed

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Bench, sh};

/// Puts the clock back when dropped, by what a clock that nobody moves says has passed.
struct MovedClock {
    real: SystemTime,
    since: Instant,
}

impl MovedClock {
    fn now() -> Self {
        Self {
            real: SystemTime::now(),
            since: Instant::now(),
        }
    }

    fn set(&self, years: i64) {
        let now = (self.real + self.since.elapsed())
            .duration_since(UNIX_EPOCH)
            .unwrap();
        let seconds = now.as_secs() as i64 + years * 365 * 86_400;
        sh(&format!(
            "date -s @{seconds}.{:09} >/dev/null",
            now.subsec_nanos()
        ));
    }
}

impl Drop for MovedClock {
    fn drop(&mut self) {
        self.set(0);
    }
}

const BOXFILE: &str =
    "FROM busybox\nCOPY a /a\nRUN cp -p /a /b && echo x > /c && date > /dev/null\nRUN rm /c && touch /d\n";

#[test]
#[ignore = "moves the machine's clock: run alone, as scripts/test.sh does with `cargo test --test clock -- --ignored`"]
fn builds_ten_years_off_are_equal() {
    let context_bench = Bench::new();
    let context = context_bench.context("context", &[("a", "a"), ("Boxfile", BOXFILE)]);
    let tar = context_bench.busybox_tar();
    let build = || {
        let bench = Bench::new();
        bench.ok(["import", "--progress", "quiet", tar.to_str().unwrap(), "busybox"]);
        bench.ok(["build", "-q", "--network", "none", context.to_str().unwrap()])
    };
    let id = build();
    let shared = Bench::with_busybox();
    let cached = |no_cache: &[&str]| {
        let mut args = vec!["build", "-q", "--network", "none"];
        args.extend(no_cache);
        args.push(context.to_str().unwrap());
        shared.ok(&args)
    };
    assert_eq!(cached(&[]), id);
    let clock = MovedClock::now();
    for years in [10, -10] {
        clock.set(years);
        assert_eq!(build(), id, "{years} years");
        assert_eq!(cached(&[]), id, "{years} years, from the cache");
        assert_eq!(
            cached(&["--no-cache"]),
            id,
            "{years} years, again in a store that knew another time"
        );
    }
    drop(clock);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(cached(&["--no-cache"]), id, "with the clock back");
}
