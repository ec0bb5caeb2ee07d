//! Tables of cases from other tools' suites, read from `$BOX_CORPUS` (tests only).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// The folder of the open cases; without it a notice, and in CI a failure.
pub(crate) fn folder() -> Option<PathBuf> {
    match std::env::var_os("BOX_CORPUS") {
        Some(root) => Some(PathBuf::from(root).join("corpus/open")),
        None => {
            assert!(std::env::var_os("CI").is_none(), "BOX_CORPUS must be set in CI");
            eprintln!("NOTICE: BOX_CORPUS is not set: the corpus cases were not tried");
            None
        }
    }
}

/// Tries every case of a table. `differences` are the cases whose expectation we don't share, with the
/// reason; one that has come to agree is an error, too.
pub(crate) fn check(
    table: &str,
    differences: &[(&str, &str)],
    try_case: impl Fn(&Value) -> Result<(), String>,
) {
    let Some(folder) = folder() else { return };
    let path = folder.join("tables").join(format!("{table}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let table_json: Value = serde_json::from_slice(&text).unwrap();
    let differences: BTreeMap<&str, &str> = differences.iter().copied().collect();
    let (mut passed, mut justified, mut failed) = (0, 0, Vec::new());
    for case in table_json["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        match (try_case(case), differences.get(id)) {
            (Ok(()), None) => passed += 1,
            (Err(_), Some(_)) => justified += 1,
            (Ok(()), Some(_)) => failed.push(format!("{id}: agrees, though a difference is listed")),
            (Err(why), None) => failed.push(format!("{id}: {why}\n  {case}")),
        }
    }
    eprintln!(
        "{table}: {passed} passed, {justified} justified, {} failed",
        failed.len()
    );
    assert!(failed.is_empty(), "{table}:\n{}", failed.join("\n"));
}

/// The strings of an array.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| v.as_str().unwrap().to_owned())
        .collect()
}

/// Compares, with words for the difference.
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Result<(), String> {
    if got == want {
        Ok(())
    } else {
        Err(format!("got {got:?}, want {want:?}"))
    }
}
