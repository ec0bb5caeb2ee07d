//! The lock of a Boxfile: what its names stood for when they were last asked for.
//!
//! ```json
//! {
//!   "version": 1,
//!   "images": { "docker.io/library/debian:12": { "linux/amd64": "sha256:…" } },
//!   "urls": { "https://host/file": "sha256:…" },
//!   "commits": { "https://host/repo.git#main": "…" }
//! }
//! ```
//!
//! An image is locked to its manifest, for each platform; one that no registry gave, to its id (`id:sha256:…`). Equal locks are equal bytes.
//! Addresses are without credentials.

use std::collections::BTreeMap;
use std::fmt;

use box_store::digest::{Digest, ImageId};
use box_store::reference::Reference;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::git_ref::{GitRef, is_commit};
use crate::source::Source;
use crate::url::without_credentials;

/// The version that is read and written.
const VERSION: u32 = 1;

/// What is added to a Boxfile's name.
pub const SUFFIX: &str = ".lock";

/// What names are locked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// By their whole name, then by platform.
    #[serde(default, deserialize_with = "images")]
    images: BTreeMap<String, BTreeMap<String, LockedImage>>,
    #[serde(default, deserialize_with = "unique")]
    urls: BTreeMap<String, Digest>,
    #[serde(default, deserialize_with = "unique")]
    commits: BTreeMap<String, Commit>,
}

/// What an image's name is locked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockedImage {
    /// The manifest of its registry.
    Manifest(Digest),
    /// Its id: no registry gave it.
    Id(ImageId),
}

/// A lock that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// It is damaged.
    #[error("{file}:{line}:{column}: {message}")]
    Damaged {
        /// Its name.
        file: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It has another version.
    #[error("{file}: this lock has version {version}; this box reads version {VERSION}")]
    Version {
        /// Its name.
        file: String,
        /// As it says.
        version: u64,
    },
}

/// All hex digits of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Commit(String);

impl Default for Lock {
    fn default() -> Lock {
        Lock {
            version: VERSION,
            images: BTreeMap::new(),
            urls: BTreeMap::new(),
            commits: BTreeMap::new(),
        }
    }
}

impl Lock {
    /// Reads a lock.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(source: &Source) -> Result<Lock, LockError> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let damaged = |error: &serde_json::Error| damaged(source.name(), error);
        let head: Head = serde_json::from_slice(source.bytes()).map_err(|error| damaged(&error))?;
        if head.version != u64::from(VERSION) {
            return Err(LockError::Version {
                file: source.name().to_owned(),
                version: head.version,
            });
        }
        serde_json::from_slice(source.bytes()).map_err(|error| damaged(&error))
    }

    /// The text of its file.
    pub fn render(&self) -> String {
        // Maps of strings can be written.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// What an image is locked to on a platform.
    pub fn image(&self, name: &Reference, platform: &str) -> Option<LockedImage> {
        self.images.get(&name.full())?.get(platform).copied()
    }

    /// The same on the first platform for which it is locked.
    pub fn image_anywhere(&self, name: &Reference) -> Option<LockedImage> {
        self.images.get(&name.full())?.values().next().copied()
    }

    /// Locks an image.
    pub fn set_image(&mut self, name: &Reference, platform: &str, image: LockedImage) {
        let platforms = self.images.entry(name.full()).or_default();
        platforms.insert(platform.to_owned(), image);
    }

    /// What a URL's content must hash to.
    pub fn url(&self, url: &str) -> Option<Digest> {
        self.urls.get(&without_credentials(url)).copied()
    }

    /// Locks a URL.
    pub fn set_url(&mut self, url: &str, digest: Digest) {
        self.urls.insert(without_credentials(url), digest);
    }

    /// The commit that a git address is locked to.
    pub fn commit(&self, address: &GitRef) -> Option<&str> {
        let commit = self.commits.get(&git_key(address))?;
        Some(commit.0.as_str())
    }

    /// Locks a git address; what is no whole commit id is not taken.
    pub fn set_commit(&mut self, address: &GitRef, commit: &str) {
        if is_commit(commit) {
            self.commits
                .insert(git_key(address), Commit(commit.to_ascii_lowercase()));
        }
    }
}

impl fmt::Display for Lock {
    /// How much there is, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images: usize = self.images.values().map(BTreeMap::len).sum();
        let (urls, commits) = (self.urls.len(), self.commits.len());
        write!(f, "{images} image(s), {urls} URL(s), {commits} commit(s)")
    }
}

/// Whether an image can be locked: its name holds no digest. (An id is no name.)
pub fn lockable_image(name: &str) -> Option<Reference> {
    let name = Reference::parse(name).ok()?;
    name.digest().is_none().then_some(name)
}

/// Whether the commit of an address is to be locked: it does not say it itself.
pub fn is_lockable(address: &GitRef) -> bool {
    let is_pinned = address.reference.as_deref().is_some_and(is_commit);
    !is_pinned && address.checksum.is_none()
}

/// How a git address is called in the lock.
pub fn git_key(address: &GitRef) -> String {
    without_credentials(&address.with_fragment(false))
}

fn damaged(file: &str, error: &serde_json::Error) -> LockError {
    let text = error.to_string();
    let message = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    LockError::Damaged {
        file: file.to_owned(),
        line: error.line().max(1),
        column: error.column().max(1),
        message: format!("the lock is damaged: {message}"),
    }
}

impl Serialize for LockedImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LockedImage::Manifest(digest) => serializer.collect_str(digest),
            LockedImage::Id(id) => serializer.collect_str(&format_args!("id:{id}")),
        }
    }
}

impl<'de> Deserialize<'de> for LockedImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LockedImage, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (text, is_id) = match text.strip_prefix("id:") {
            Some(id) => (id, true),
            None => (text.as_str(), false),
        };
        let digest: Digest = text
            .parse()
            .map_err(|_| D::Error::custom("expected sha256: and 64 hex digits, or id: before them"))?;
        Ok(match is_id {
            true => LockedImage::Id(ImageId(digest)),
            false => LockedImage::Manifest(digest),
        })
    }
}

impl<'de> Deserialize<'de> for Commit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Commit, D::Error> {
        let text = String::deserialize(deserializer)?;
        match is_commit(&text) {
            true => Ok(Commit(text.to_ascii_lowercase())),
            false => Err(D::Error::custom("expected all hex digits of a commit")),
        }
    }
}

/// A map in which no name stands twice, as after a merge.
struct Unique<V>(BTreeMap<String, V>);

impl<'de, V: DeserializeOwned> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique<V>, D::Error> {
        struct Names<V>(std::marker::PhantomData<V>);
        impl<'de, V: DeserializeOwned> Visitor<'de> for Names<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique<V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(name) = access.next_key::<String>()? {
                    if map.contains_key(&name) {
                        return Err(A::Error::custom(format!("{name:?} stands here twice")));
                    }
                    map.insert(name, access.next_value()?);
                }
                Ok(Unique(map))
            }
        }
        deserializer.deserialize_map(Names(std::marker::PhantomData))
    }
}

fn unique<'de, V: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, V>, D::Error> {
    Unique::deserialize(deserializer).map(|map| map.0)
}

fn images<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, BTreeMap<String, LockedImage>>, D::Error> {
    let names: Unique<Unique<LockedImage>> = Unique::deserialize(deserializer)?;
    let names = names.0.into_iter().map(|(name, platforms)| (name, platforms.0));
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Lock, String> {
        Lock::parse(&Source::new("Boxfile.lock", text.as_bytes())).map_err(|error| error.to_string())
    }

    fn example() -> Lock {
        let mut lock = Lock::default();
        let name = Reference::parse("debian:12").unwrap();
        lock.set_image(&name, "linux/arm64", LockedImage::Id(ImageId(Digest::of(b"b"))));
        lock.set_image(&name, "linux/amd64", LockedImage::Manifest(Digest::of(b"a")));
        lock.set_url("https://me:secret@host/z", Digest::of(b"z"));
        lock.set_url("https://host/a", Digest::of(b"a"));
        let git = GitRef::parse("https://me:secret@host/r.git#main:sub")
            .unwrap()
            .unwrap();
        lock.set_commit(&git, &"A".repeat(40));
        lock
    }

    #[test]
    fn what_is_written_is_read_again() {
        let lock = example();
        let text = lock.render();
        assert_eq!(parse(&text).as_ref(), Ok(&lock));
        assert_eq!(parse(&text).unwrap().render(), text);
        assert!(!text.contains("secret"), "{text}");
        assert!(
            text.starts_with(
                "{\n  \"version\": 1,\n  \"images\": {\n    \"docker.io/library/debian:12\": {\n"
            )
        );
        assert_eq!(lock.to_string(), "2 image(s), 2 URL(s), 1 commit(s)");
        let name = Reference::parse("docker.io/library/debian:12").unwrap();
        assert_eq!(
            lock.image(&name, "linux/amd64"),
            Some(LockedImage::Manifest(Digest::of(b"a")))
        );
        assert_eq!(lock.image(&name, "linux/386"), None);
        assert_eq!(lock.url("https://you:other@host/z"), Some(Digest::of(b"z")));
        let other = GitRef::parse("https://host/r.git#main:other").unwrap().unwrap();
        assert_eq!(lock.commit(&other), Some("a".repeat(40).as_str()));
        let branch = GitRef::parse("https://host/r.git#next").unwrap().unwrap();
        assert_eq!(lock.commit(&branch), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let check = |text: &str, want: &str| {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(want), "{error}\nnot: {want}");
        };
        let broken = example().render().replacen("sha256:", "sha255:", 1);
        check(&broken, "Boxfile.lock:5:");
        check("{", "Boxfile.lock:1:1: the lock is damaged: EOF");
        check(
            "<<<<<<< HEAD\n",
            "Boxfile.lock:1:1: the lock is damaged: expected",
        );
        check(
            "{}",
            "Boxfile.lock:1:2: the lock is damaged: missing field `version`",
        );
        check(
            "{\"version\": 2, \"new\": 1}",
            "Boxfile.lock: this lock has version 2; this box reads version 1",
        );
        check(
            "{\"version\": 1,\n\"new\": 1}",
            "Boxfile.lock:2:5: the lock is damaged: unknown field",
        );
        let digest = Digest::of(b"a");
        let twice = format!("{{\"version\": 1, \"urls\": {{\n\"u\": \"{digest}\",\n\"u\": \"{digest}\"}}}}");
        check(
            &twice,
            "Boxfile.lock:3:3: the lock is damaged: \"u\" stands here twice",
        );
        check(
            "{\"version\": 1, \"commits\": {\"r\": \"--upload-pack=x\"}}",
            "Boxfile.lock:1:50: the lock is damaged: expected all hex digits",
        );
    }
}
