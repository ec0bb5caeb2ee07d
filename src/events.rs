//! What happens to containers, images, volumes and networks: noted in the store's journal by whoever does it, in Docker's form.

use std::collections::BTreeMap;

use box_store::Store;
use serde::{Deserialize, Serialize};

use crate::clock::now;

/// What something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Container,
    Image,
    Volume,
    Network,
}

impl Kind {
    /// As it is written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "Type")]
    pub(crate) kind: Kind,
    #[serde(rename = "Action")]
    pub(crate) action: String,
    #[serde(rename = "Actor")]
    pub(crate) actor: Actor,
    scope: String,
    /// Seconds since 1970.
    time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub(crate) nanos: i64,
}

/// What it happened to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "Attributes")]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Notes that something happened. It has happened, whether that can be noted or not.
pub(crate) fn note(store: &Store, kind: Kind, action: &str, id: &str, attributes: &[(&str, &str)]) {
    let nanos = now();
    let owned = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let event = Event {
        kind,
        action: action.to_owned(),
        actor: Actor {
            id: id.to_owned(),
            attributes: owned.collect(),
        },
        scope: "local".to_owned(),
        time: nanos / 1_000_000_000,
        nanos,
    };
    // On a full disk, for example: nothing else fails for that.
    if let Ok(text) = serde_json::to_vec(&event) {
        let _ = store.note(&text);
    }
}
