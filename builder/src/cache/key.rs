//! The key of a step: everything its layer is a function of, spelled out.
//!
//! ```text
//! KeyParts ──SHA-256──► PartsId ──with the parent's ChainId──► KeyId
//! ```
//!
//! The parts stand apart from the parent so that a step whose parts were never seen is known to be a miss before its
//! parent's digest is. Golden tests hold the digests: whoever changes a field changes [`VERSION`] too.

use std::collections::BTreeMap;

use box_store::digest::{ChainId, Digest, Hasher};
use serde::{Deserialize, Serialize};

/// The version of the key. A change of it makes every step a miss.
pub const VERSION: u32 = 3;

/// A step's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheKey {
    /// The layers below; none for nothing.
    pub parent: Option<ChainId>,
    /// All the rest.
    pub parts: KeyParts,
}

/// A step's key without its parent. Never in it: limits, values of proxies, times of files, the contents of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParts {
    /// [`VERSION`]
    pub version: u32,
    /// What kind of step it is.
    pub kind: StepKind,
    /// `linux/amd64`
    pub platform: String,
    /// The instruction in canonical form, expanded: words as a list, so that spelling does not matter.
    pub instruction: Vec<String>,
    /// The environment that the step sees: the image's, and every ARG declared so far that has a value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The user it runs as, as written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The directory it runs in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workdir: String,
    /// Its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What it finds in `/etc/hosts` besides its own names: `NAME ADDRESS`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// What it reads, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// How a layer's files are owned and timed.
    pub layer: LayerMode,
}

/// What kind of step a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // each is named after its instruction
pub enum StepKind {
    Run,
    Copy,
    Workdir,
}

/// One thing that a step reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is called in the instruction.
    pub name: String,
    /// Its content, names, modes, links and attributes; ids where they are kept.
    pub digest: Digest,
}

/// What holds for every layer of a build and changes its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMode {
    /// How owners are kept: `ids`, on the files themselves.
    pub ownership: String,
    /// `logical` or `real`
    pub mtimes: String,
    /// SOURCE_DATE_EPOCH as the caller gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_date_epoch: Option<i64>,
    /// When the base says it was made; times below that are later don't count for the layer's logical time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_created: Option<i64>,
}

/// The digest of [`KeyParts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartsId(pub Digest);

/// The digest of a [`CacheKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub Digest);

impl KeyParts {
    /// The digest of these parts.
    pub fn id(&self) -> PartsId {
        let mut hasher = Hasher::new();
        hasher.update(b"box key parts\n");
        // Strings, numbers and maps with string keys can always be written; a hasher takes every byte.
        let _ = serde_json::to_writer(&mut hasher, self);
        PartsId(hasher.finish())
    }
}

impl KeyId {
    /// The key of these parts on that parent.
    pub fn new(parent: Option<ChainId>, parts: PartsId) -> KeyId {
        let parent = parent.map_or_else(|| "nothing".to_owned(), |chain| chain.to_string());
        KeyId(Digest::of(format!("box key\n{parent}\n{}\n", parts.0).as_bytes()))
    }
}

/// What identifies a step before its parent's digest is known: its own parts on its parent's recipe, down to the base.
/// Equal builds have equal recipes, so it is what they lock; the cache never looks by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recipe(pub Digest);

impl Recipe {
    /// The recipe of a base that is these layers.
    pub fn of_base(chain: Option<ChainId>) -> Recipe {
        Recipe(KeyId::new(chain, PartsId(Digest::of(b"base"))).0)
    }

    /// The recipe of a step with these parts on this one.
    #[must_use]
    pub fn then(self, parts: PartsId) -> Recipe {
        Recipe(Digest::of(
            format!("box recipe\n{}\n{}\n", self.0, parts.0).as_bytes(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> KeyParts {
        KeyParts {
            version: VERSION,
            kind: StepKind::Run,
            platform: "linux/amd64".to_owned(),
            instruction: ["/bin/sh", "-c", "make"].map(str::to_owned).into(),
            env: [("PATH".to_owned(), "/bin".to_owned())].into(),
            user: "nobody".to_owned(),
            workdir: "/src".to_owned(),
            network: Some("none".to_owned()),
            hosts: Vec::new(),
            inputs: vec![Input {
                name: "a".to_owned(),
                digest: Digest::of(b"a"),
            }],
            layer: LayerMode {
                ownership: "ids".to_owned(),
                mtimes: "logical".to_owned(),
                source_date_epoch: None,
                base_created: None,
            },
        }
    }

    /// Stores keep these digests: a change here throws every user's cache away and needs a new VERSION.
    #[test]
    fn golden_keys() {
        let chain = ChainId::of(&[box_store::digest::DiffId(Digest::of(b"layer"))]);
        let id = parts().id();
        assert_eq!(
            id.0.hex(),
            "2265255317d3ec1f399e8669813fb8191c65dbd0820900ac8df9113ff50feabd"
        );
        assert_eq!(
            KeyId::new(chain, id).0.hex(),
            "630b7e1dc5bd47cd967e2910b515e98d1e8dc3b384a605a307bc5309cb312380"
        );
        assert_eq!(
            KeyId::new(None, id).0.hex(),
            "fb6dc340667d5e222ea7fd13839781b41d5f35e847e44de291c722ff502c3b9e"
        );
    }

    #[test]
    fn every_part_counts() {
        let mut all = vec![parts()];
        let mut change = |alter: fn(&mut KeyParts)| {
            let mut changed = parts();
            alter(&mut changed);
            all.push(changed);
        };
        change(|p| p.version += 1);
        change(|p| p.kind = StepKind::Copy);
        change(|p| p.platform.push('x'));
        change(|p| p.instruction = ["/bin/sh", "-c ", "make"].map(str::to_owned).into());
        change(|p| drop(p.env.insert("A".to_owned(), String::new())));
        change(|p| p.user.clear());
        change(|p| p.workdir.clear());
        change(|p| p.network = None);
        change(|p| p.inputs[0].digest = Digest::of(b"b"));
        change(|p| p.inputs[0].name.push('b'));
        change(|p| p.layer.mtimes = "real".to_owned());
        change(|p| p.layer.source_date_epoch = Some(0));
        change(|p| p.layer.base_created = Some(0));
        let ids: std::collections::BTreeSet<_> = all.iter().map(KeyParts::id).collect();
        assert_eq!(ids.len(), all.len());
    }

    #[test]
    fn parts_come_back_from_a_record() {
        let text = serde_json::to_string(&parts()).unwrap();
        assert_eq!(serde_json::from_str::<KeyParts>(&text).unwrap(), parts());
    }

    #[test]
    fn recipes_follow_the_chain() {
        let base = Recipe::of_base(None);
        let (a, b) = (parts().id(), PartsId(Digest::of(b"other")));
        assert_eq!(base.then(a).then(b), base.then(a).then(b));
        assert_ne!(base.then(a).then(b), base.then(b).then(a));
    }
}
