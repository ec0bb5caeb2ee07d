//! The buildable cases of the corpus, driven through the whole program: see `tests/corpus.py`.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{BOX, Bench};

/// The corpus; without it a notice, and in CI a failure.
#[allow(clippy::print_stderr)] // a notice by name: nothing is skipped silently
fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("BOX_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var_os("CI").is_none(), "BOX_CORPUS must be set in CI");
        eprintln!("NOTICE: BOX_CORPUS is not set: the build cases of the corpus were not tried");
    }
    folder
}

#[test]
fn the_build_cases_of_the_corpus_come_out_as_they_should() {
    let Some(corpus) = corpus() else { return };
    let bench = Bench::new();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut command = Command::new("python3");
    command.arg(tests.join("corpus.py")).args(["--box", BOX]);
    command.arg("--corpus").arg(corpus);
    command.arg("--known").arg(tests.join("corpus-known.txt"));
    command.arg("--work").arg(bench.dir.path());
    // The table is printed as it comes; what failed is in it.
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "corpus cases failed: see the table above");
}
