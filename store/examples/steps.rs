//! What the store adds to each step of a build: prepare, a tiny diff, commit, digest; in microseconds.
//!
//! `cargo run --release -p box-store --example steps -- DIRECTORY [STEPS]`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use box_store::{PrepareOptions, RecordKind, Store, StoreOptions};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap();
    let steps: u32 = arguments.next().map_or(20, |text| text.parse().unwrap());
    let root = std::path::Path::new(&directory).join(format!("steps-{}", std::process::id()));
    let store = Store::open(&root, StoreOptions::default()).unwrap();
    let options = PrepareOptions {
        mount_stubs: PrepareOptions::standard_stubs(),
        ..PrepareOptions::default()
    };
    let kind = RecordKind::new("step").unwrap();
    let mut layers = Vec::new();
    let [mut prepare, mut commit, mut record] = [Duration::ZERO; 3];
    for step in 0..steps {
        // As long as a container takes, so that the file clock moves as it does in a build.
        std::thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        let active = store.prepare(&layers, &options).unwrap();
        prepare += start.elapsed();
        fs::create_dir(active.dirs().upper.join("work")).unwrap();
        fs::write(active.dirs().upper.join(format!("work/{step}")), "a line\n").unwrap();
        let start = Instant::now();
        let layer = active.commit().unwrap();
        let diff_id = layer.diff_id().unwrap();
        commit += start.elapsed();
        let start = Instant::now();
        store
            .put_record(&kind, &diff_id.0, b"a record", &[diff_id.0])
            .unwrap();
        record += start.elapsed();
        layers.push(layer);
    }
    let start = Instant::now();
    store.sync().unwrap();
    let sync = start.elapsed();
    println!(
        "prepare {:?}, commit {:?}, record {:?} a step; sync {sync:?}",
        prepare / steps,
        commit / steps,
        record / steps
    );
    let start = Instant::now();
    let again = Store::open(&root, StoreOptions::default()).unwrap();
    for layer in &layers {
        let diff_id = layer.diff_id().unwrap();
        again.get_record(&kind, &diff_id.0).unwrap().unwrap();
        again.layer(&diff_id).unwrap().unwrap();
    }
    println!("opened again, all found in {:?}", start.elapsed());
    drop((store, again));
    fs::remove_dir_all(&root).unwrap();
}
