//! Records: opaque bytes under a key, with the digests they keep alive.
//!
//! The build cache lives in them; the store does not understand it and needn't, since a record says itself what the
//! garbage collector must keep for it. Every record is checksummed; a damaged one reads as absent and is dropped.
//!
//! The same envelope seals layer records and names:
//!
//! ```text
//! box-record 1 <class>\n
//! sha256:<of all that follows this line>\n
//! <one line of JSON: {"key":…,"keeps":[…],"length":N}>\n
//! <N bytes>
//! ```

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::disk::Durability;
use crate::error::Result;
use crate::lock;
use crate::root::{Root, entries};

/// The largest record that is read.
const LIMIT: u64 = 256 << 20;

/// A kind of records: a short word (`a-z`, `0-9`, `-`; at most 32) that is a directory's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKind(String);

impl RecordKind {
    /// Checks the name.
    pub fn new(name: &str) -> Result<RecordKind> {
        lock::check_kind(name)?;
        Ok(RecordKind(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The bytes as they were given.
    pub bytes: Vec<u8>,
    /// The digests (of blobs and layers) that this record keeps alive.
    pub keeps: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keeps: Vec<Digest>,
    length: usize,
}

/// Seals bytes into an envelope.
pub(crate) fn seal(class: &str, key: &str, keeps: &[Digest], bytes: &[u8]) -> Vec<u8> {
    let header = Header {
        key: key.to_owned(),
        keeps: keeps.to_vec(),
        length: bytes.len(),
    };
    // Serialising strings and numbers into memory can't fail.
    let mut body = serde_json::to_vec(&header).unwrap_or_default();
    body.push(b'\n');
    body.extend_from_slice(bytes);
    let mut out = format!("box-record 1 {class}\n{}\n", Digest::of(&body)).into_bytes();
    out.append(&mut body);
    out
}

/// Opens an envelope; none if it is damaged, of another class or for another key.
pub(crate) fn open(class: &str, key: &str, sealed: &[u8]) -> Option<Record> {
    let rest = sealed.strip_prefix(format!("box-record 1 {class}\n").as_bytes())?;
    let (checksum, body) = split_line(rest)?;
    let checksum: Digest = std::str::from_utf8(checksum).ok()?.parse().ok()?;
    if Digest::of(body) != checksum {
        return None;
    }
    let (header, bytes) = split_line(body)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    (header.key == key && header.length == bytes.len()).then(|| Record {
        bytes: bytes.to_vec(),
        keeps: header.keeps,
    })
}

/// The key that an envelope says it is for; not verified.
pub(crate) fn key(class: &str, sealed: &[u8]) -> Option<String> {
    let rest = sealed.strip_prefix(format!("box-record 1 {class}\n").as_bytes())?;
    let (header, _) = split_line(split_line(rest)?.1)?;
    serde_json::from_slice::<Header>(header)
        .ok()
        .map(|header| header.key)
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Reads a record; a damaged one is dropped.
pub(crate) fn get(root: &Root, kind: &RecordKind, key: &Digest) -> Result<Option<Record>> {
    let path = root.layout.record(kind.as_str(), key);
    let Some(sealed) = root.disk.read(&path, LIMIT)? else {
        return Ok(None);
    };
    let record = open(kind.as_str(), &key.hex(), &sealed);
    if record.is_none() {
        root.disk.remove_file(&path)?;
    }
    Ok(record)
}

/// All records of a kind, sorted by key; damaged ones are left out.
pub(crate) fn all(root: &Root, kind: &RecordKind) -> Result<Vec<(Digest, Record)>> {
    let mut found = Vec::new();
    for (_, shard) in entries(&root.layout.records(kind.as_str()))? {
        for (name, path) in entries(&shard)? {
            let Ok(key) = Digest::from_hex(&name) else {
                continue;
            };
            let sealed = root.disk.read(&path, LIMIT)?;
            let record = sealed.and_then(|sealed| open(kind.as_str(), &name, &sealed));
            found.extend(record.map(|record| (key, record)));
        }
    }
    Ok(found)
}

/// Writes a record unless an equal one is there; durable with the next sync.
pub(crate) fn put(
    root: &Root,
    kind: &RecordKind,
    key: &Digest,
    bytes: &[u8],
    keeps: &[Digest],
) -> Result<()> {
    let path = root.layout.record(kind.as_str(), key);
    let sealed = seal(kind.as_str(), &key.hex(), keeps, bytes);
    if root
        .disk
        .read(&path, LIMIT)
        .is_ok_and(|old| old.as_deref() == Some(&sealed))
    {
        return Ok(());
    }
    root.replace(&path, &sealed, Durability::Later)
}

/// Removes a record; says whether it was there.
pub(crate) fn remove(root: &Root, kind: &RecordKind, key: &Digest) -> Result<bool> {
    root.disk.remove_file(&root.layout.record(kind.as_str(), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_opens_only_whole_and_for_its_key() {
        let keeps = [Digest::of(b"layer")];
        let sealed = seal("step", "k", &keeps, b"some\nbytes");
        let record = open("step", "k", &sealed).unwrap();
        assert_eq!(
            (record.bytes.as_slice(), record.keeps.as_slice()),
            (&b"some\nbytes"[..], &keeps[..])
        );
        assert_eq!(open("step", "other", &sealed), None);
        assert_eq!(open("stat", "k", &sealed), None);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(open("step", "k", &damaged), None, "bit at {at}");
            assert_eq!(open("step", "k", &sealed[..at]), None, "cut at {at}");
        }
        assert_eq!(open("step", "k", &[sealed, vec![0]].concat()), None);
    }

    #[test]
    fn kinds_are_plain_words() {
        assert!(RecordKind::new("step").is_ok());
        for name in ["", "../x", "Step", "a/b", "a.b", &"x".repeat(33)] {
            assert!(RecordKind::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_format_is_held() {
        let expected = "box-record 1 step\n\
            sha256:c0ffee\n\
            {\"key\":\"k\",\"keeps\":[\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"],\"length\":1}\nx";
        let body = expected.splitn(3, '\n').nth(2).unwrap();
        let expected = expected.replace("sha256:c0ffee", &Digest::of(body.as_bytes()).to_string());
        assert_eq!(
            String::from_utf8(seal("step", "k", &[Digest::of(b"")], b"x")).unwrap(),
            expected
        );
    }
}
