//! `WWW-Authenticate` (RFC 9110, section 11.6.1), as registries use it.

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token from this server.
    Bearer { realm: String, service: Option<String> },
}

/// The first challenge of these header values that is known; a token goes before a password.
pub(super) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut found = None;
    for value in values {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let fields = fields(rest);
            let get = |name: &str| {
                let mut all = fields.iter();
                all.find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer {
                    realm,
                    service: get("service"),
                });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    found
}

/// `name="value",name=value`
fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        fields.push((name.trim().to_owned(), value));
        rest = after.trim_start_matches([' ', ',']);
    }
    fields
}

fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        let check = |values: &[&str], expected: Option<Challenge>| {
            assert_eq!(parse(values.iter().copied()), expected, "{values:?}");
        };
        check(
            &[r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#],
            Some(bearer("https://a/t", Some("s"))),
        );
        check(
            &[r#"bearer service=s , realm="a\"b""#],
            Some(bearer("a\"b", Some("s"))),
        );
        check(&["Basic realm=\"x\""], Some(Challenge::Basic));
        check(
            &["Basic", "Bearer realm=\"https://a\""],
            Some(bearer("https://a", None)),
        );
        check(&["Bearer service=\"s\"", "Negotiate"], None);
        check(&["Bearer realm=\"open"], Some(bearer("open", None)));
        check(&["", "Bearer ="], None);
    }
}
