//! `--device-read-bps DEVICE:RATE` and its like.

use std::path::PathBuf;
use std::str::FromStr;

use super::Memory;

/// A block device and how many bytes a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceBytes(pub(crate) PathBuf, pub(crate) u64);

/// A block device and how many operations a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceOperations(pub(crate) PathBuf, pub(crate) u64);

/// A path may hold colons, a rate none.
fn parts<'a>(text: &'a str, example: &str) -> Result<(PathBuf, &'a str), String> {
    match text.rsplit_once(':') {
        Some((path, rate)) if path.starts_with('/') => Ok((PathBuf::from(path), rate)),
        _ => Err(format!("'{text}' is no DEVICE:RATE; write for example {example}")),
    }
}

impl FromStr for DeviceBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, rate) = parts(text, "/dev/sda:1mb")?;
        Ok(Self(path, rate.parse::<Memory>()?.0))
    }
}

impl FromStr for DeviceOperations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, rate) = parts(text, "/dev/sda:1000")?;
        match rate.parse() {
            Ok(rate) if rate > 0 => Ok(Self(path, rate)),
            _ => Err(format!("'{rate}' is no number of operations a second")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_rates() {
        let bytes = |text: &str| text.parse::<DeviceBytes>().ok().map(|rate| (rate.0, rate.1));
        assert_eq!(bytes("/dev/sda:1mb"), Some(("/dev/sda".into(), 1 << 20)));
        assert_eq!(bytes("/dev/a:b:10"), Some(("/dev/a:b".into(), 10)));
        for wrong in ["/dev/sda", "sda:1mb", "/dev/sda:0", "/dev/sda:much", ""] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        let operations = |text: &str| text.parse::<DeviceOperations>().ok().map(|rate| rate.1);
        assert_eq!(operations("/dev/sda:100"), Some(100));
        assert_eq!(operations("/dev/sda:1k"), None);
    }
}
