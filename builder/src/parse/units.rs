//! Sizes, durations and CPU shares as people write them.

use std::time::Duration;

/// Bytes: `512M`, `1.5g`, `64KiB`, `1000`; multiples of 1024, as Docker's `--memory` has them.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let power = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    scaled(number, 1024u64.pow(power))
}

/// Thousandths of a CPU: `1.5` is 1500; at least 1.
pub fn parse_cpus(text: &str) -> Option<u64> {
    scaled(text, 1000).filter(|n| *n > 0)
}

/// Go's duration syntax: `1h30m`, `1.5s`, `250ms`, `0`; not negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        total = total.checked_add(scaled(number, nanoseconds(unit)?)?)?;
        rest = tail;
    }
    let fits = !text.is_empty() && i64::try_from(total).is_ok();
    fits.then(|| Duration::from_nanos(total))
}

fn nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A decimal number times `factor`, cut off; `None` where it is none or too large.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(18)];
    let part: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let part = part * u128::from(factor) / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, want: Option<u64>| assert_eq!(parse_size(text), want, "{text}");
        check("1000", Some(1000));
        check("512M", Some(512 << 20));
        check("512mb", Some(512 << 20));
        check("64KiB", Some(64 << 10));
        check("1.5g", Some(3 << 29));
        check(".5k", Some(512));
        check("", None);
        check(".", None);
        check("M", None);
        check("-1", None);
        check("1x", None);
        check("1.2.3k", None);
        check("99999999999999999999", None);
        check("99999999p", None);
    }

    #[test]
    fn durations() {
        let check = |text: &str, want: Option<u64>| {
            assert_eq!(parse_duration(text), want.map(Duration::from_millis), "{text}");
        };
        check("0", Some(0));
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1500));
        check("250ms", Some(250));
        check("1s500ms", Some(1500));
        check("10", None);
        check("", None);
        check("s", None);
        check("-1s", None);
        check("1d", None);
        check("9999999h", None);
    }

    #[test]
    fn cpus() {
        let check = |text: &str, want: Option<u64>| assert_eq!(parse_cpus(text), want, "{text}");
        check("1.5", Some(1500));
        check("0.001", Some(1));
        check("0", None);
        check("two", None);
    }
}
