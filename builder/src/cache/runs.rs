//! Where earlier runs of a step are found: by what it says, and by where it stands.
//!
//! A record of kind `runs` holds the keys of the latest steps that were done with one text, or at one place of a Boxfile, the
//! latest first. It is a help for explanations alone: of two builds that write it at once one is forgotten, and nothing is
//! ever looked up by it but what differs.

use box_store::Store;
use box_store::digest::Digest;
use box_store::error::StoreError;
use box_store::record::RecordKind;
use serde::{Deserialize, Serialize};

use super::{KeyId, StepKind};

/// How many are remembered.
const MOST: usize = 8;
const VERSION: u32 = 1;

/// Under what a step's runs are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whence {
    text: Digest,
    place: Digest,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// What its context is told from others by.
    pub context: Option<Digest>,
    /// Its Boxfile.
    pub file: &'a str,
    /// Its stage, by name or number.
    pub stage: &'a str,
    /// Its place in the stage.
    pub index: usize,
}

impl Whence {
    /// A step of this kind with this text, standing there.
    pub fn new(kind: StepKind, text: &str, standing: &Standing<'_>) -> Whence {
        let context = standing
            .context
            .map_or_else(String::new, |context| context.to_string());
        let index = standing.index.to_string();
        let digest = |words: &[&str]| {
            // Strings can always be written.
            let words = serde_json::to_vec(&(kind, words)).unwrap_or_default();
            Digest::of(&[b"box runs 1\n", words.as_slice()].concat())
        };
        Whence {
            text: digest(&["text", text]),
            place: digest(&["place", &context, standing.file, standing.stage, &index]),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Runs {
    version: u32,
    keys: Vec<Digest>,
}

/// Remembers a step that was done.
pub(super) fn remember(store: &Store, whence: &Whence, key: KeyId) -> Result<(), StoreError> {
    for at in [whence.text, whence.place] {
        let mut keys = read(store, &at)?;
        keys.retain(|known| *known != key.0);
        keys.insert(0, key.0);
        keys.truncate(MOST);
        let runs = Runs {
            version: VERSION,
            keys,
        };
        let bytes = serde_json::to_vec(&runs).unwrap_or_default();
        store.put_record(&RecordKind::new("runs")?, &at, &bytes, &[])?;
    }
    Ok(())
}

/// The keys of earlier runs: those with its text first, each once.
pub(super) fn known(store: &Store, whence: &Whence) -> Result<Vec<KeyId>, StoreError> {
    let mut keys = read(store, &whence.text)?;
    for key in read(store, &whence.place)? {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys.into_iter().map(KeyId).collect())
}

fn read(store: &Store, at: &Digest) -> Result<Vec<Digest>, StoreError> {
    let record = store.get_record(&RecordKind::new("runs")?, at)?;
    let runs = record.and_then(|record| serde_json::from_slice::<Runs>(&record.bytes).ok());
    let mut keys = runs
        .filter(|runs| runs.version == VERSION)
        .map_or_else(Vec::new, |runs| runs.keys);
    // Whoever wrote it.
    keys.truncate(MOST);
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_known_by_its_text_and_by_its_place() {
        let standing = Standing {
            context: None,
            file: "Boxfile",
            stage: "build",
            index: 3,
        };
        let one = Whence::new(StepKind::Run, "RUN a", &standing);
        let other_text = Whence::new(StepKind::Run, "RUN b", &standing);
        assert!(one.text != other_text.text && one.place == other_text.place);
        let elsewhere = Standing { index: 4, ..standing };
        let other_place = Whence::new(StepKind::Run, "RUN a", &elsewhere);
        assert!(one.text == other_place.text && one.place != other_place.place);
    }
}
