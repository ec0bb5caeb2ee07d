//! What of an address may be shown.

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
}
