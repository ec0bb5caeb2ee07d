//! Any bytes as an ignore file (up to the last line) and a path (the last line).
#![no_main]

#[path = "../../builder/tests/any_bytes/check.rs"]
#[allow(dead_code)]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let at = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let (file, path) = bytes.split_at(at);
    check::ignore(file, path.strip_prefix(b"\n").unwrap_or(path));
});
