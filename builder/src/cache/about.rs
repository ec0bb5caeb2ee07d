//! What a record says of its step besides the key: nothing is looked up by it, and no layer depends on it.

use std::collections::BTreeSet;

use box_store::digest::DiffId;
use serde::{Deserialize, Serialize};

/// The form of [`About`].
const VERSION: u32 = 1;

/// What else is known of a step that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The form; 0 where nothing is known.
    #[serde(default)]
    pub version: u32,
    /// The instruction as written, on one line.
    #[serde(default)]
    pub text: String,
    /// Which variables of its environment are ARGs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub args: BTreeSet<String>,
    /// What its stage's FROM names in the end, with its digest where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// How many of the layers below are the base's.
    #[serde(default)]
    pub base_layers: usize,
    /// The layers below, bottom first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<DiffId>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

impl About {
    /// Of the step with this text; the rest is to be filled in.
    pub fn of(text: &str) -> About {
        About {
            version: VERSION,
            text: text.to_owned(),
            ..About::default()
        }
    }

    /// Whether something is known, in a form that this version knows.
    pub fn is_known(&self) -> bool {
        self.version == VERSION
    }
}

/// What a step cost; none where that could not be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Milliseconds from its start to its layer.
    pub wall_ms: u64,
    /// Milliseconds of CPU time, in user space and kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// The most memory in use at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Bytes read from devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read: Option<u64>,
    /// Bytes written to devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_written: Option<u64>,
    /// Bytes of files in its layer.
    pub layer_size: u64,
    /// Entries of its layer.
    pub layer_entries: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use box_store::digest::Digest;

    /// Stores keep this text: what it lacks is taken for unknown, and another form needs another version.
    #[test]
    fn the_form_is_held() {
        let about = About {
            args: ["A".to_owned()].into(),
            base: "busybox".to_owned(),
            base_layers: 1,
            below: vec![DiffId(Digest::from_bytes([0; 32]))],
            figures: Some(Figures {
                wall_ms: 3,
                cpu_ms: Some(2),
                layer_size: 5,
                layer_entries: 1,
                ..Figures::default()
            }),
            ..About::of("RUN make")
        };
        let zeros = "0".repeat(64);
        let expected = format!(
            "{{\"version\":1,\"text\":\"RUN make\",\"args\":[\"A\"],\"base\":\"busybox\",\"base_layers\":1,\
             \"below\":[\"sha256:{zeros}\"],\"figures\":{{\"wall_ms\":3,\"cpu_ms\":2,\"layer_size\":5,\"layer_entries\":1}}}}"
        );
        assert_eq!(serde_json::to_string(&about).unwrap(), expected);
        assert_eq!(serde_json::from_str::<About>(&expected).unwrap(), about);
        let of_before: About = serde_json::from_str("{}").unwrap();
        assert!(!of_before.is_known() && about.is_known());
    }
}
