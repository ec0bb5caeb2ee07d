//! Names that promise a secret.

const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
/// Parts that say it is none, just what stands for it.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether a variable's name has a part, between underscores, that means a secret.
pub(crate) fn looks_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let has = |among: &[&str]| lower.split('_').any(|part| among.contains(&part));
    has(&SECRET) && !has(&HARMLESS)
}
