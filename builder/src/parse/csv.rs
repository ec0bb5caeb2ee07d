//! One line of comma-separated values, as `--mount` is written.

/// Fields of a line of CSV, with the length each had. Quotes are doubled inside quotes.
pub(super) fn csv_fields(text: &str) -> Vec<(String, usize)> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, len) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), end)
            }
        };
        fields.push((field, len));
        match rest.get(len + 1..) {
            Some(next) if len < rest.len() => rest = next,
            _ => return fields,
        }
    }
}

fn quoted_field(text: &str) -> (String, usize) {
    let mut field = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if chars.next_if(|(_, c)| *c == '"').is_some() => field.push('"'),
            '"' => {
                let tail = text[at + 1..].find(',').unwrap_or(text.len() - at - 1);
                field.push_str(&text[at + 1..at + 1 + tail]);
                return (field, at + 2 + tail);
            }
            _ => field.push(c),
        }
    }
    (field, text.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_fields() {
        let check = |text: &str, want: &[(&str, usize)]| {
            let got = csv_fields(text);
            let got: Vec<_> = got.iter().map(|(field, len)| (field.as_str(), *len)).collect();
            assert_eq!(got, want, "{text}");
        };
        check("", &[("", 0)]);
        check("a,b=c", &[("a", 1), ("b=c", 3)]);
        check("a,", &[("a", 1), ("", 0)]);
        check("\"a,b\",c", &[("a,b", 5), ("c", 1)]);
        check("\"a\"\"b\"", &[("a\"b", 6)]);
        check("\"a", &[("a", 2)]);
        check("\"a\"b,c", &[("ab", 4), ("c", 1)]);
    }
}
