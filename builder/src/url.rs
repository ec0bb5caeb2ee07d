//! URLs as text: what of them may be shown, and what they call a file.

/// A URL, or a text with URLs, as it may be shown and kept: without users and passwords.
pub fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        // Quotes may stand in a password.
        let is_end = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#');
        let end = after.find(is_end).unwrap_or(after.len());
        rest = after[..end].rfind('@').map_or(after, |at| &after[at + 1..]);
    }
    shown.push_str(rest);
    shown
}

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
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
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
    fn credentials_are_not_shown() {
        let cases = [
            ("https://u:p@host/a@b", "https://host/a@b"),
            ("https://u:p@x@host", "https://host"),
            ("https://u:pa'ss\"wo@host/a", "https://host/a"),
            ("https://host/a@b", "https://host/a@b"),
            ("https://host?x=a@b", "https://host?x=a@b"),
            (
                "ADD [\"http://u:p@host/a\", \"ssh://git@host:a\"] /",
                "ADD [\"http://host/a\", \"ssh://host:a\"] /",
            ),
            ("ADD http://host b@c", "ADD http://host b@c"),
        ];
        for (url, expected) in cases {
            assert_eq!(without_credentials(url), expected);
        }
    }

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
