//! Values of options: sizes, CPUs, variables, mounts. Each is parsed once, here, and is valid from then on.

mod cache;
mod container;
mod device;
mod host;
mod mount;
mod namespaces;
mod secret;
mod throttle;
mod tmpfs;
mod volume;

pub(crate) use cache::{CacheFrom, CacheMode, CachePlace, CacheTo};
pub(crate) use container::{DetachKeys, GoDuration, LogOptions, Restart, SignalArg, signal_number};

use std::str::FromStr;
use std::time::Duration;

pub(crate) use device::DeviceArg;
pub(crate) use host::HostArg;
pub(crate) use mount::{MountArg, MountFlag, MountSource, clean_target};
pub(crate) use namespaces::{CgroupNs, Ipc, NamespaceModes, Share, Userns, map_of};
pub(crate) use secret::RunSecretArg;
pub(crate) use throttle::{DeviceBytes, DeviceOperations};
pub(crate) use tmpfs::TmpfsArg;
pub(crate) use volume::VolumeArg;

/// A number of bytes: `64`, `64b`, `64k`, `64m`, `64g`, `64t`, with or without a trailing `b`, as Docker takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) u64);

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no size; write for example 512m or 2g");
        let lower = text.trim().to_ascii_lowercase();
        let number_end = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(number_end);
        let shift = match unit {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(1 << shift).ok_or_else(wrong)?,
            Err(_) => fraction(number, shift).ok_or_else(wrong)?,
        };
        if bytes == 0 { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

/// `1.5` with a unit: exact enough in floating point, since only people write it.
fn fraction(number: &str, shift: u32) -> Option<u64> {
    let value = number.parse::<f64>().ok()? * (1u64 << shift) as f64;
    (1.0..9.0e18).contains(&value).then_some(value as u64)
}

/// A time that has passed: `90s`, `15m`, `24h`, `30d`, `2w`, or several of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(pub(crate) Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no time; write for example 24h or 30d");
        let mut rest = text.trim();
        let mut seconds: u64 = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..end].parse().map_err(|_| wrong())?;
            let unit = rest[end..].chars().next().ok_or_else(wrong)?;
            let factor = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86_400,
                'w' => 604_800,
                _ => return Err(wrong()),
            };
            seconds = number
                .checked_mul(factor)
                .and_then(|more| seconds.checked_add(more))
                .ok_or_else(wrong)?;
            rest = &rest[end + unit.len_utf8()..];
        }
        match text.trim() {
            "" => Err(wrong()),
            _ => Ok(Self(Duration::from_secs(seconds))),
        }
    }
}

/// CPUs, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) u64);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = text
            .parse::<f64>()
            .ok()
            .filter(|v| v.is_finite() && *v >= 0.01 && *v <= 100_000.0);
        let value = value
            .ok_or_else(|| format!("'{text}' is no number of CPUs; write for example 1.5 (at least 0.01)"))?;
        Ok(Self((value * 1000.0).round() as u64))
    }
}

/// `NAME=VALUE`, or `NAME` whose value comes from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildArg {
    /// The variable's name, not empty.
    pub(crate) name: String,
    /// What stood after `=`.
    pub(crate) value: Option<String>,
}

impl FromStr for BuildArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(format!("'{text}' has no name before '='"));
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl BuildArg {
    /// The pair, empty where no value was given.
    pub(crate) fn pair(&self) -> (String, String) {
        (self.name.clone(), self.value.clone().unwrap_or_default())
    }

    /// The pair, its value taken from the environment where none was given; `None` when it is not set there either.
    pub(crate) fn resolved(&self) -> Option<(String, String)> {
        let value = self.value.clone().or_else(|| std::env::var(&self.name).ok())?;
        Some((self.name.clone(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(text.parse::<Memory>().ok().map(|m| m.0), expect, "{text}")
        };
        check("64", Some(64));
        check("64k", Some(65536));
        check("512M", Some(512 << 20));
        check("2gb", Some(2 << 30));
        check("1.5g", Some(3 << 29));
        check("0", None);
        check("-1", None);
        check("12x", None);
        check("", None);
        check("99999999999999999999t", None);
    }

    #[test]
    fn ages() {
        let check = |text: &str, expect: Option<u64>| {
            let expect = expect.map(Duration::from_secs);
            assert_eq!(text.parse::<Age>().ok().map(|age| age.0), expect, "{text}")
        };
        check("90s", Some(90));
        check("1h30m", Some(5400));
        check("30d", Some(2_592_000));
        check("2w", Some(1_209_600));
        for wrong in [
            "",
            "h",
            "5",
            "5x",
            "-1h",
            "1h5",
            "99999999999999999999d",
            "1\u{e9}",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn cpus() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(text.parse::<Cpus>().ok().map(|c| c.0), expect, "{text}")
        };
        check("1.5", Some(1500));
        check("0.5", Some(500));
        check("0", None);
        check("nan", None);
        check("-2", None);
    }

    #[test]
    fn variables() {
        let arg = "A=b=c".parse::<BuildArg>().unwrap();
        assert_eq!(arg.resolved(), Some(("A".into(), "b=c".into())));
        assert!("=x".parse::<BuildArg>().is_err());
    }
}
