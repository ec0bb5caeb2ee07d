//! `--device HOST[:CONTAINER][:rwm]`.

use std::path::PathBuf;
use std::str::FromStr;

use box_runner::DeviceAccess;

use super::mount::clean_target;

/// `--device`: a device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceArg {
    /// Its node on the host, absolute.
    pub(crate) source: PathBuf,
    /// An absolute path of the container.
    pub(crate) target: PathBuf,
    /// What may be done with it.
    pub(crate) access: DeviceAccess,
}

/// `r`, `w` and `m` in any order, each once.
fn access(text: &str) -> Option<DeviceAccess> {
    let mut access = DeviceAccess {
        read: false,
        write: false,
        make: false,
    };
    for letter in text.chars() {
        let flag = match letter {
            'r' => &mut access.read,
            'w' => &mut access.write,
            'm' => &mut access.make,
            _ => return None,
        };
        if std::mem::replace(flag, true) {
            return None;
        }
    }
    (access.read || access.write).then_some(access)
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no HOST[:CONTAINER][:rwm]; write for example /dev/fuse or /dev/sdb:/dev/disk:r"
            )
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, letters) = match parts[..] {
            [source] => (source, source, "rwm"),
            [source, second] if second.starts_with('/') => (source, second, "rwm"),
            [source, second] => (source, source, second),
            [source, target, letters] => (source, target, letters),
            _ => return Err(wrong()),
        };
        if !source.starts_with('/') {
            return Err(wrong());
        }
        Ok(Self {
            source: source.into(),
            target: clean_target(target)?,
            access: access(letters).ok_or_else(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let check = |text: &str, expected: Option<(&str, &str, bool, bool)>| {
            let parsed = text.parse::<DeviceArg>().ok();
            let found = parsed.as_ref().map(|d| {
                let (source, target) = (d.source.to_str().unwrap(), d.target.to_str().unwrap());
                (source, target, d.access.read, d.access.write)
            });
            assert_eq!(found, expected, "{text}");
        };
        check("/dev/fuse", Some(("/dev/fuse", "/dev/fuse", true, true)));
        check("/dev/a:/dev/b", Some(("/dev/a", "/dev/b", true, true)));
        check("/dev/a:r", Some(("/dev/a", "/dev/a", true, false)));
        check("/dev/a:/dev/b:mw", Some(("/dev/a", "/dev/b", false, true)));
        for wrong in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/dev/a:/dev/b:rr",
            "/dev/a:m",
            "/a:/b:r:w",
            "/dev/a:/",
        ] {
            check(wrong, None);
        }
    }
}
