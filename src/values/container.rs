//! Values of options for containers: signals, times, keys.

use std::str::FromStr;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// A signal by name (with or without SIG) or number.
pub(crate) fn signal_number(text: &str) -> Result<i32, String> {
    let wrong = || format!("'{text}' is no signal; write for example TERM, SIGHUP or 9");
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(|n| (1..=64).contains(n)).ok_or_else(wrong);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // Those of real time, counted from either end.
    let real_time = |rest: &str, sign: i32| {
        rest.parse::<i32>()
            .ok()
            .filter(|n| (0..=30).contains(n))
            .map(|n| sign * n)
    };
    match (name, name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        ("RTMIN", ..) => return Ok(34),
        ("RTMAX", ..) => return Ok(64),
        (_, Some(rest), _) => {
            let offset = rest.strip_prefix('+').and_then(|rest| real_time(rest, 1));
            return offset.map(|n| 34 + n).ok_or_else(wrong);
        }
        (_, _, Some(rest)) => {
            let offset = rest.strip_prefix('-').and_then(|rest| real_time(rest, -1));
            return offset.map(|n| 64 + n).ok_or_else(wrong);
        }
        _ => {}
    }
    Signal::from_str(&format!("SIG{name}"))
        .map(|signal| signal as i32)
        .map_err(|_| wrong())
}

/// `--signal` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignalArg(pub(crate) i32);

impl FromStr for SignalArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        signal_number(text).map(Self)
    }
}

/// A time in nanoseconds as Docker writes it: `1m30s`, `500ms`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoDuration(pub(crate) u64);

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no time; write for example 30s, 1m30s or 500ms");
        if text == "0" {
            return Ok(Self(0));
        }
        let mut total = 0f64;
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(wrong)?;
            let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
            let after = &rest[end..];
            let unit_end = after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len());
            let factor = match &after[..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(wrong()),
            };
            total += number * factor;
            rest = &after[unit_end..];
        }
        match text.is_empty() || total > 1e18 {
            true => Err(wrong()),
            false => Ok(Self(total as u64)),
        }
    }
}

/// The keys that detach: bytes, as the terminal sends them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(pub(crate) Vec<u8>);

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' are no keys; write for example ctrl-p,ctrl-q");
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let key = |key: &str| match (
            key.strip_prefix("ctrl-").unwrap_or_default().as_bytes(),
            key.as_bytes(),
        ) {
            ([letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')], _) => {
                Ok(letter.to_ascii_uppercase() & 0x1f)
            }
            (_, [one]) => Ok(*one),
            _ => Err(wrong()),
        };
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// When it is started again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Restart {
    #[default]
    No,
    /// When it failed; at most so many times, 0 for any number.
    OnFailure(u32),
    Always,
    UnlessStopped,
}

/// What is kept of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogOptions {
    /// Nothing at all.
    pub(crate) none: bool,
    /// Bytes of one file.
    pub(crate) max_size: u64,
    /// Files.
    pub(crate) max_files: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            none: false,
            max_size: 64 << 20,
            max_files: 2,
        }
    }
}

impl std::str::FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = text.split_once(':').map_or((text, None), |(n, c)| (n, Some(c)));
        match (name, count) {
            ("no", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            ("on-failure", None) => Ok(Self::OnFailure(0)),
            ("on-failure", Some(count)) if count.parse::<u32>().is_ok() => {
                Ok(Self::OnFailure(count.parse().unwrap_or(0)))
            }
            _ => Err(format!(
                "'{text}' is no restart policy; write no, on-failure[:N], always or unless-stopped"
            )),
        }
    }
}

impl std::fmt::Display for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, expect) in [
            ("TERM", Some(15)),
            ("sigkill", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("64", Some(64)),
            ("0", None),
            ("65", None),
            ("NO", None),
            ("RTMIN+99", None),
            ("", None),
        ] {
            assert_eq!(signal_number(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, expect) in [
            ("1m30s", Some(90_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("1x", None),
        ] {
            assert_eq!(text.parse::<GoDuration>().ok().map(|t| t.0), expect, "{text}");
        }
    }

    #[test]
    fn keys() {
        let check = |text: &str, expect: Option<&[u8]>| {
            assert_eq!(
                text.parse::<DetachKeys>().ok().map(|k| k.0).as_deref(),
                expect,
                "{text}"
            );
        };
        check("ctrl-p,ctrl-q", Some(&[16, 17]));
        check("a,ctrl-@", Some(&[b'a', 0]));
        check("ctrl-", None);
        check("", Some(&[]));
    }
}
