//! Long texts: every kind has an answer, and in a time that grows with its length alone. (The time decides nothing here; a text whose
//! time grew with the square of its length would not end. `make bench` measures 10 MB of each.)

#[path = "any_bytes/check.rs"]
#[allow(dead_code)]
mod check;
#[path = "any_bytes/long.rs"]
mod long;

const LONG: usize = 1_000_000;

#[test]
fn long_boxfiles() {
    for (name, text) in long::texts(LONG) {
        println!("{name}");
        check::boxfile(&text);
    }
}

#[test]
fn long_ignore_files() {
    for (name, text) in long::texts(LONG / 10) {
        println!("{name}");
        check::ignore(&text, b"a/b/c");
    }
}
