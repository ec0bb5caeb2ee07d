//! URLs as text: what of them may be shown, and what they call a file.

pub use box_store::transfer::http::without_credentials;

/// What a file is called that a URL gives: the last part of its path.
pub(crate) fn name_of(url: &str) -> String {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let name = path.split_once('/').map_or("", |(_, path)| path);
    let name = decoded(name.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
    match name.as_str() {
        "" | "." | ".." => "__unnamed__".to_owned(),
        _ => name.replace(['/', '\0'], "_"),
    }
}

/// A part of a URL without `%XX`; one that is no text then stays as it is.
pub(crate) fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let hex = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_the_last_part_of_their_url() {
        let cases = [
            ("https://host/a/b.tar.gz", "b.tar.gz"),
            ("https://host/a/b?x=/c#/d", "b"),
            ("https://host/a%20b/", "a b"),
            ("https://host", "__unnamed__"),
            ("https://host/..", "__unnamed__"),
            ("https://host/%2e%2e%2fx", ".._x"),
            ("https://host/%zz%ff", "%zz%ff"),
        ];
        for (url, expected) in cases {
            assert_eq!(name_of(url), expected, "{url}");
        }
    }
}
