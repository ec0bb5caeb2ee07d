//! Any bytes as a Boxfile, and as the values in it.
#![no_main]

#[path = "../../builder/tests/any_bytes/check.rs"]
#[allow(dead_code)]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::boxfile(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        check::values(text);
    }
});
