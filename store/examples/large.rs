//! What the store adds to a step that writes one large file, beside writing and syncing it.
//!
//! `cargo run --release -p box-store --example large -- DIRECTORY [MIB]`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use box_store::{PrepareOptions, Store, StoreOptions};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap();
    let mebibytes: usize = arguments.next().map_or(1024, |text| text.parse().unwrap());
    let root = std::path::Path::new(&directory).join(format!("large-{}", std::process::id()));
    let store = Store::open(&root, StoreOptions::default()).unwrap();
    let block = vec![0; 1 << 20];
    let write = |path: &std::path::Path| {
        let mut file = File::create(path).unwrap();
        (0..mebibytes).for_each(|_| file.write_all(&block).unwrap());
        file
    };
    let start = Instant::now();
    let file = write(&root.join("bare"));
    println!("written in {:?}", start.elapsed());
    file.sync_all().unwrap();
    println!("and synced in {:?}", start.elapsed());
    drop(file);
    std::fs::remove_file(root.join("bare")).unwrap();
    File::open(&root).unwrap().sync_all().unwrap();
    let start = Instant::now();
    let active = store.prepare(&[], &PrepareOptions::default()).unwrap();
    drop(write(&active.dirs().upper.join("large")));
    println!("a step: written in {:?}", start.elapsed());
    let layer = active.commit().unwrap();
    println!("committed in {:?}", start.elapsed());
    layer.diff_id().unwrap();
    println!("digest known in {:?}", start.elapsed());
    store.sync().unwrap();
    println!("synced in {:?}", start.elapsed());
    drop((layer, store));
    std::fs::remove_dir_all(&root).unwrap();
}
