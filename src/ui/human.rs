//! Numbers and times as people read them.

use std::time::Duration;

/// Bytes with a decimal unit, as Docker prints sizes: `1.2MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count}B"),
        _ if value < 9.995 => format!("{value:.2}{}", UNITS[unit]),
        _ if value < 99.95 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// A duration with three digits at most: `3.1ms`, `2.40s`, `3m12s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.0995 => format!("{:.1}ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0}ms", s * 1e3),
        s if s < 99.5 => format!("{s:.1}s"),
        s => format!("{}m{:02}s", s as u64 / 60, s as u64 % 60),
    }
}

/// How long ago a time was, as `box images` says it.
pub(crate) fn ago(seconds: i64) -> String {
    let (count, unit) = match seconds {
        s if s < 1 => return "just now".into(),
        s if s < 60 => (s, "second"),
        s if s < 3600 => (s / 60, "minute"),
        s if s < 86_400 => (s / 3600, "hour"),
        s if s < 14 * 86_400 => (s / 86_400, "day"),
        s if s < 60 * 86_400 => (s / (7 * 86_400), "week"),
        s if s < 730 * 86_400 => (s / (30 * 86_400), "month"),
        s => (s / (365 * 86_400), "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// The text cut to `width` characters, with an ellipsis where something was cut.
pub(crate) fn truncate(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Text in which no control character but the ends of lines can drive the terminal: names in errors are the images'.
pub(crate) fn printable(text: &str) -> String {
    let keep = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars()
        .map(|c| if keep(c) { c } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

/// One line of printable text: control characters (a terminal would obey them) become spaces.
pub(crate) fn one_line(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let check = |count, expect: &str| assert_eq!(bytes(count), expect);
        check(0, "0B");
        check(999, "999B");
        check(1_000, "1.00kB");
        check(12_345_678, "12.3MB");
        check(999_999, "1.00MB");
        check(u64::MAX, "18447PB");
    }

    #[test]
    fn durations_read_well() {
        let check = |ms, expect: &str| assert_eq!(duration(Duration::from_millis(ms)), expect);
        check(3, "3.0ms");
        check(250, "250ms");
        check(2_400, "2.4s");
        check(192_000, "3m12s");
    }

    #[test]
    fn text_is_tamed() {
        assert_eq!(one_line("a\n\tb\x1b[31mc"), "a b [31mc");
        assert_eq!(truncate("abcdef", 4), "abc…");
        assert_eq!(truncate("abcd", 4), "abcd");
    }

    #[test]
    fn ages() {
        assert_eq!(ago(1), "1 second ago");
        assert_eq!(ago(7200), "2 hours ago");
        assert_eq!(ago(-5), "just now");
    }
}
