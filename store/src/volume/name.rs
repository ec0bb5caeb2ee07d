//! What volumes are called: by Docker's grammar, so that a name is never a path.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::VolumeError;
use crate::error::{IoContext, StoreError};

/// The longest name of a file.
const LONGEST: usize = 255;

/// The name of a volume: 2 to 255 letters, digits, `_`, `.` and `-`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// 64 random hex digits, for a volume that nobody names.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<VolumeName, StoreError> {
        let source = Path::new("/dev/urandom");
        let mut bytes = [0; 32];
        File::open(source)
            .and_then(|mut file| file.read_exact(&mut bytes))
            .at("read", source)?;
        Ok(VolumeName(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// Whether it looks as one that nobody chose.
    pub(super) fn is_random(&self) -> bool {
        self.0.len() == 64 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<VolumeName, VolumeError> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match first && (2..=LONGEST).contains(&text.len()) && text.bytes().all(is_good) {
            true => Ok(VolumeName(text.to_owned())),
            false => Err(VolumeError::BadName {
                name: text.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = VolumeError;

    fn try_from(text: String) -> Result<VolumeName, VolumeError> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> String {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        let long = "a".repeat(255);
        for good in ["ab", "A.b_c-1", "0x", "a..", &long] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        let longer = "a".repeat(256);
        for bad in [
            "", "a", ".", "..", "../x", "/x", ".ab", "-ab", "_ab", "a/b", "a b", "a\0b", "a\n", "ä1", &longer,
        ] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
        let random = VolumeName::random().unwrap();
        assert_eq!(random.as_str().len(), 64);
        assert!(random.as_str().parse::<VolumeName>().is_ok());
        assert_ne!(random, VolumeName::random().unwrap());
    }
}
