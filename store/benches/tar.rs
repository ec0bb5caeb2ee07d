//! The canonical tar of a layer into SHA-256, and an archive into a layer.

#![allow(missing_docs, clippy::unwrap_used)]

use box_store::snapshot::{Attrs, PrepareOptions};
use box_store::{ApplyOptions, Hasher, Layer, Store, StoreOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A layer of `count` files of `size` bytes each.
fn layer(store: &Store, count: usize, size: usize) -> Layer {
    let mut writer = store.layer_writer(&[], &PrepareOptions::default()).unwrap();
    let attrs = |mode| Attrs {
        mode,
        ..Attrs::default()
    };
    for n in 0..count {
        let directory = format!("d{}", n % 20);
        writer.directory(directory.as_ref(), &attrs(0o755)).unwrap();
        let bytes: Vec<u8> = (0..size).map(|at| (at * (n + 7) % 251) as u8).collect();
        let path = format!("{directory}/f{n}");
        writer
            .file(path.as_ref(), &attrs(0o644), &mut &bytes[..])
            .unwrap();
    }
    writer.commit().unwrap()
}

fn tar(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let mut group = criterion.benchmark_group("tar");
    group.sample_size(20);
    for (count, size) in [(1000, 4096), (8, 8 << 20)] {
        let layer = layer(&store, count, size);
        layer.diff_id().unwrap();
        group.throughput(Throughput::Bytes((count * size) as u64));
        group.bench_function(format!("digest of {count} files of {size} bytes"), |bencher| {
            bencher.iter(|| {
                let mut hasher = Hasher::new();
                layer.write_tar(&mut hasher).unwrap();
                hasher.finish()
            });
        });
        let mut archive = Vec::new();
        layer.write_tar(&mut archive).unwrap();
        group.bench_function(format!("unpacking {count} files of {size} bytes"), |bencher| {
            bencher.iter(|| {
                store
                    .apply_archive(&archive[..], &ApplyOptions::default())
                    .unwrap()
                    .diff_id()
                    .unwrap()
            });
        });
    }
}

criterion_group!(benches, tar);
criterion_main!(benches);
