//! What an answer's headers say.

use std::time::Duration;

use reqwest::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
    RETRY_AFTER,
};

use super::options::Validators;

/// Of a whole file.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) url: String,
    pub(super) length: Option<u64>,
    pub(super) validators: Validators,
    /// Whether the server says, or does not deny, that it can send parts.
    pub(super) ranges: bool,
}

impl Head {
    pub(super) fn of(url: String, headers: &HeaderMap) -> Head {
        let validators = Validators {
            etag: text(headers, ETAG),
            last_modified: text(headers, LAST_MODIFIED),
            is_at_rest: age(headers).is_some_and(|age| age >= AT_REST),
        };
        let ranges = text(headers, ACCEPT_RANGES).as_deref() != Some("none");
        let length = text(headers, CONTENT_LENGTH).and_then(|t| t.parse().ok());
        Head {
            url,
            length,
            validators,
            ranges,
        }
    }

    /// Whether another answer does not say that it is of another version.
    pub(super) fn is_same_file(&self, headers: &HeaderMap) -> bool {
        text(headers, ETAG).is_none_or(|tag| Some(tag) == self.validators.etag)
    }
}

/// How old a file's time must be to be its own alone.
const AT_REST: Duration = Duration::from_secs(60);

/// How old the file was when the answer was made, by the server's clock alone.
fn age(headers: &HeaderMap) -> Option<Duration> {
    let time = |name| httpdate::parse_http_date(&text(headers, name)?).ok();
    time(DATE)?.duration_since(time(LAST_MODIFIED)?).ok()
}

/// Whether an answer that nothing changed is to be believed. One that goes by the time must name the same: many servers say so of
/// every older file, too.
pub(super) fn is_unchanged(validators: &Validators, headers: &HeaderMap) -> bool {
    validators.etag.is_some() || text(headers, LAST_MODIFIED) == validators.last_modified
}

/// Short, printable values only; anything else is as if it was not sent.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    const LONGEST: usize = 1024;
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= LONGEST).then(|| value.to_owned())
}

/// First byte and total length of `Content-Range: bytes FIRST-LAST/TOTAL`.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = text(headers, CONTENT_RANGE)?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let sound = first <= last && total.is_none_or(|total: u64| last < total);
    sound.then_some((first, total))
}

/// Seconds only; the form with a date depends on two clocks.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, RETRY_AFTER)?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_make_sense() {
        let parse = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, value.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(parse("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse("bytes 5-9/*"), Some((5, None)));
        for bad in [
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes */10",
            "items 5-9/10",
            "bytes 5-9",
            "bytes x-9/10",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
