//! What a build does before its first step: reading the Boxfile, matching ignore rules, computing keys.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use box_builder::cache::{KeyId, KeyParts, LayerMode, StepKind, VERSION};
use box_builder::graph::{GraphOptions, StageGraph};
use box_builder::ignore::IgnoreRules;
use box_builder::parse::parse;
use box_builder::source::Source;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "../tests/any_bytes/long.rs"]
mod long;

const EXAMPLE: &str = include_str!("../../Boxfile.example");
const LONG: usize = 10_000_000;

fn boxfiles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("boxfile");
    let source = Source::new("Boxfile", EXAMPLE.as_bytes());
    group.throughput(Throughput::Bytes(EXAMPLE.len() as u64));
    group.bench_function("example", |bencher| {
        bencher.iter(|| {
            let file = parse(black_box(&source)).unwrap();
            StageGraph::new(&file, &GraphOptions::default()).map(drop)
        });
    });
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(1));
    for (name, text) in long::texts(LONG) {
        let source = Source::new("Boxfile", text);
        group.throughput(Throughput::Bytes(LONG as u64));
        group.bench_function(format!("10 MB of {name}"), |bencher| {
            bencher.iter(|| parse(black_box(&source)).map(drop));
        });
    }
}

fn ignore(criterion: &mut Criterion) {
    let patterns = "target\n**/*.o\n!keep.o\n.git\n**/node_modules\n*.log\n!important.log\ndoc/**/build\nsrc/*.tmp\n[a-c]*.bak\n";
    let rules = IgnoreRules::parse(patterns.as_bytes()).unwrap();
    let paths: Vec<PathBuf> = (0..1000)
        .map(|n| PathBuf::from(format!("src/module{}/part{n}/file{n}.rs", n % 17)))
        .collect();
    let mut group = criterion.benchmark_group("ignore");
    group.throughput(Throughput::Elements(paths.len() as u64));
    group.bench_function("1000 paths, 10 patterns", |bencher| {
        bencher.iter(|| {
            paths
                .iter()
                .filter(|path| rules.is_ignored(black_box(path)))
                .count()
        });
    });
}

fn key(criterion: &mut Criterion) {
    let parts = KeyParts {
        version: VERSION,
        kind: StepKind::Run,
        platform: "linux/amd64".to_owned(),
        instruction: ["/bin/sh", "-c", "make install"].map(str::to_owned).to_vec(),
        env: (0..20)
            .map(|n| (format!("NAME{n}"), format!("value {n}")))
            .collect::<BTreeMap<_, _>>(),
        user: String::new(),
        workdir: "/src".to_owned(),
        network: Some("host".to_owned()),
        hosts: Vec::new(),
        inputs: Vec::new(),
        layer: LayerMode {
            ownership: "ids".to_owned(),
            mtimes: "logical".to_owned(),
            source_date_epoch: None,
            base_created: None,
        },
    };
    criterion.bench_function("key", |bencher| {
        bencher.iter(|| KeyId::new(None, black_box(&parts).id()));
    });
}

criterion_group!(benches, boxfiles, ignore, key);
criterion_main!(benches);
