//! Why a step is done again: the nearest earlier run of it, and what differs.
//!
//! [`cause`] compares what a step is made from now with what the records say of earlier runs (`cache::Whence`), and says of the
//! nearest one what is another. It decides nothing: a step is a hit or a miss by its key alone. Values of secrets are in no key and
//! so can't be said; those of variables whose names promise a secret are left out.

mod compare;
mod files;
mod words;

use std::time::Duration;

use box_store::digest::{ChainId, DiffId, Digest};
use box_store::error::StoreError;
use serde::Serialize;

use crate::cache::{About, Cache, CacheKey, FileList, KeyId, KeyParts, Whence};

pub use words::since;

/// What becomes, or became, of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It changes the image's configuration alone: there is nothing to be done.
    Nothing,
    /// It is in the cache.
    Hit,
    /// It is done.
    Miss {
        /// Why.
        why: Cause,
    },
    /// That is not known before something else is.
    Depends {
        /// On what, in words.
        on: String,
    },
    /// It can't be done.
    Fails {
        /// Why not, in words.
        error: String,
    },
}

/// Why a step is not in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// No earlier run of it is recorded.
    New,
    /// `--no-cache`
    NoCache,
    /// `--no-cache-filter` names its stage.
    NoCacheFilter,
    /// It says itself that it is never taken from the cache.
    Never,
    /// Its record is older than it allows.
    Expired {
        /// How old it may be, in seconds.
        ttl: u64,
        /// How old it is, in seconds.
        age: u64,
    },
    /// It was done before exactly so, and the record of that is gone.
    Removed,
    /// It was done before exactly so, and its layer is gone.
    LayerGone,
    /// An archive that was not unpacked before.
    NotUnpacked,
    /// Something differs from the nearest earlier run.
    Differs {
        /// When that was, in seconds since 1970.
        since: i64,
        /// What differs. At least one.
        differences: Vec<Difference>,
    },
}

/// One thing that is another than in an earlier run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// The instruction is written otherwise.
    Instruction {
        /// As it was.
        from: String,
        /// As it is.
        to: String,
    },
    /// It is written as before, and means something else: variables in it, or a heredoc.
    Meaning {
        /// As it was.
        from: String,
        /// As it is.
        to: String,
    },
    /// An ARG or a variable of the environment.
    Variable {
        /// Its name.
        name: String,
        /// Whether it is an ARG, not an ENV.
        is_arg: bool,
        /// Its value before; none if it had none, or that is not shown.
        from: Option<String>,
        /// Its value now; none if it has none, or that is not shown.
        to: Option<String>,
        /// Whether the values are left out, since its name promises a secret.
        is_hidden: bool,
        /// Whether the instruction names it.
        is_mentioned: bool,
    },
    /// Something that holds for the step: its user, its network.
    Setting {
        /// Which.
        what: String,
        /// As it was.
        from: String,
        /// As it is.
        to: String,
    },
    /// A file that it reads.
    File {
        /// Its path, in the context or in what it is copied from.
        path: String,
        /// What of it.
        change: FileChange,
    },
    /// More files than are named.
    MoreFiles {
        /// How many.
        count: usize,
    },
    /// Something that it reads, whose files are not known one by one.
    Input {
        /// What, in words.
        what: String,
        /// `changed`, `new` or `gone`.
        change: &'static str,
    },
    /// What the stage is built on.
    Base {
        /// As it was.
        from: String,
        /// As it is.
        to: String,
    },
    /// A step below gave another layer.
    Below {
        /// The step.
        step: String,
    },
    /// There were more layers below.
    FewerBelow,
}

/// What of a file is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum FileChange {
    /// It was not there.
    New,
    /// It is not there any more.
    Gone,
    /// It has another name, and is the same otherwise.
    Renamed {
        /// Its name before.
        from: String,
    },
    /// What it holds, or where a link leads.
    Content,
    /// Its permissions.
    Mode {
        /// Before, octal.
        from: String,
        /// Now, octal.
        to: String,
    },
    /// User and group.
    Owner {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// Extended attributes.
    Attributes,
    /// Its type.
    Type {
        /// Before.
        from: &'static str,
        /// Now.
        to: &'static str,
    },
    /// Which names stand for one file.
    HardLink,
}

/// What lies below a step.
#[derive(Clone, Copy, Debug)]
pub struct Below<'a> {
    /// The layers, bottom first.
    pub layers: &'a [DiffId],
    /// The steps that gave them; empty for the base's.
    pub makers: &'a [String],
}

/// A step that is not in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What it is made from.
    pub parts: &'a KeyParts,
    /// What lies below; none if that is not known.
    pub below: Option<Below<'a>>,
    /// What else is known of it.
    pub about: &'a About,
    /// Where earlier runs are found.
    pub whence: &'a Whence,
    /// The files of its inputs, as far as they are known, by the inputs' digests.
    pub lists: &'a [(Digest, FileList)],
    /// How old its record may be.
    pub ttl: Option<Duration>,
}

/// Why the cache does not have a step.
///
/// # Errors
/// When the store can't be read.
pub fn cause(cache: &Cache<'_>, asked: &Asked<'_>) -> Result<Cause, StoreError> {
    let parts = asked.parts.id();
    let earlier = cache.earlier(asked.whence)?;
    if let Some(below) = &asked.below {
        let parent = ChainId::of(below.layers);
        if let Some(made) = cache.made(parent, parts)? {
            return Ok(match asked.ttl {
                Some(ttl) => Cause::Expired {
                    ttl: ttl.as_secs(),
                    age: u64::try_from(crate::cache::now().saturating_sub(made)).unwrap_or(0),
                },
                None => Cause::LayerGone,
            });
        }
        let own = KeyId::new(parent, parts);
        if earlier.iter().any(|run| run.key == own) {
            return Ok(Cause::Removed);
        }
    }
    let known = earlier.iter().filter_map(|run| run.record.as_ref());
    let nearest = known.min_by_key(|record| {
        let distance = compare::distance(asked, &record.key, &record.about);
        (distance, std::cmp::Reverse(record.made))
    });
    let Some(nearest) = nearest else {
        return Ok(Cause::New);
    };
    let differences = compare::differences(cache.store(), asked, &nearest.key, &nearest.about)?;
    Ok(match differences.is_empty() {
        // What differs is what is not known of the layers below.
        true => Cause::New,
        false => Cause::Differs {
            since: nearest.made,
            differences,
        },
    })
}

/// The key of another run, as far as it is compared.
type Other<'a> = (&'a CacheKey, &'a About);
