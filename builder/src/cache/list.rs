//! Which files an input was, so that a miss can name the one that changed.
//!
//! A list is kept apart from the step's record, under the digest of the input that it spells out, in parts: where a part
//! ends is decided by the names in it, so that two lists which differ in one file share all parts but one. Nothing is decided
//! by a list: what it says of a content are eight bytes of its digest, enough to tell that it is another.
//!
//! ```text
//! record `files`, key: the input's digest      box files 1\n, then the digests of its parts, 32 bytes each
//! record `files-part`, key: SHA-256 of its bytes
//!   entries: u16 bytes shared with the path before, u16 length of the rest, the rest, u8 kind, u16 mode, u8 flags,
//!            then what the flags say is there: owner (u32, u32), content (8), attributes (8), first name (8); little-endian
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use box_store::Store;
use box_store::digest::{Digest, Hasher};
use box_store::error::StoreError;
use box_store::record::RecordKind;

use crate::files::{Content, Entry, EntryKind, Selection, Xattr};

const MAGIC: &[u8] = b"box files 1\n";
/// A part ends after a path whose hash has these bits unset: after 512 entries on average.
const BOUNDARY: u32 = 511;
/// The longest part, in entries.
const LONGEST: usize = 4096;

const HAS_OWNER: u8 = 1;
const HAS_CONTENT: u8 = 2;
const HAS_XATTRS: u8 = 4;
const HAS_TWIN: u8 = 8;

/// The beginning of a digest: enough to see that two things differ.
pub type Short = [u8; 8];

/// What a list says of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFact {
    /// Its type: `d`, `f`, `l`, `p`, `c`, `b`.
    pub kind: u8,
    /// Permission bits.
    pub mode: u16,
    /// User and group, where they are kept.
    pub owner: Option<(u32, u32)>,
    /// A file's content, a link's target, a device's number.
    pub content: Option<Short>,
    /// Its attributes.
    pub xattrs: Option<Short>,
    /// The name that stands for the same file, if it is a hard link.
    pub twin: Option<Short>,
}

/// Files by path.
pub type FileFacts = BTreeMap<Vec<u8>, FileFact>;

/// The files of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileList {
    parts: Vec<(Digest, Vec<u8>)>,
}

impl FileList {
    /// The list of what was selected, with owners and hard links where they count.
    pub fn of<'a>(selections: impl IntoIterator<Item = &'a Selection>, owners: bool) -> FileList {
        let mut writer = Writer::default();
        for selection in selections {
            let mut first: HashMap<(u64, u64), Short> = HashMap::new();
            for entry in &selection.entries {
                let path = match entry.relative.as_os_str().is_empty() {
                    true => selection.root.clone(),
                    false => selection.root.join(&entry.relative),
                };
                let twin = owners.then(|| twin(&mut first, entry, &path)).flatten();
                writer.push(&path, &fact(entry, owners, twin));
            }
        }
        writer.finish()
    }

    /// Keeps it, under the digest of its input.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn keep(&self, store: &Store, input: &Digest) -> Result<(), StoreError> {
        let (list, part) = kinds()?;
        if store.get_record(&list, input)?.is_some() {
            return Ok(());
        }
        let mut bytes = MAGIC.to_vec();
        for (digest, content) in &self.parts {
            store.put_record(&part, digest, content, &[])?;
            bytes.extend_from_slice(digest.as_bytes());
        }
        store.put_record(&list, input, &bytes, &[])
    }

    /// What is only in the one and only in the other; none if what the store has of the older one is incomplete. Files that both
    /// have alike may be in both.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn compare(
        &self,
        store: &Store,
        older: &Digest,
    ) -> Result<Option<(FileFacts, FileFacts)>, StoreError> {
        let Some(old) = part_ids(store, older)? else {
            return Ok(None);
        };
        let own: BTreeSet<Digest> = self.parts.iter().map(|(digest, _)| *digest).collect();
        let shared: BTreeSet<Digest> = old
            .iter()
            .filter(|digest| own.contains(digest))
            .copied()
            .collect();
        let (mut before, mut after) = (FileFacts::new(), FileFacts::new());
        let (_, kind) = kinds()?;
        for digest in old.iter().filter(|digest| !shared.contains(digest)) {
            let record = store.get_record(&kind, digest)?;
            let Some(()) = record.and_then(|record| read_part(&record.bytes, &mut before)) else {
                return Ok(None);
            };
        }
        for (_, bytes) in self.parts.iter().filter(|(digest, _)| !shared.contains(digest)) {
            let _ = read_part(bytes, &mut after);
        }
        Ok(Some((before, after)))
    }

    /// The list that the store has of this input.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn kept(store: &Store, input: &Digest) -> Result<Option<FileList>, StoreError> {
        let Some(ids) = part_ids(store, input)? else {
            return Ok(None);
        };
        let (_, kind) = kinds()?;
        let mut parts = Vec::with_capacity(ids.len());
        for digest in ids {
            let Some(record) = store.get_record(&kind, &digest)? else {
                return Ok(None);
            };
            parts.push((digest, record.bytes));
        }
        Ok(Some(FileList { parts }))
    }
}

fn kinds() -> Result<(RecordKind, RecordKind), StoreError> {
    Ok((RecordKind::new("files")?, RecordKind::new("files-part")?))
}

fn part_ids(store: &Store, input: &Digest) -> Result<Option<Vec<Digest>>, StoreError> {
    let record = store.get_record(&kinds()?.0, input)?;
    let Some(rest) = record
        .as_ref()
        .and_then(|record| record.bytes.strip_prefix(MAGIC))
    else {
        return Ok(None);
    };
    let ids = rest.chunks(32).map(|bytes| bytes.try_into().ok());
    let ids: Option<Vec<[u8; 32]>> = ids.collect();
    Ok(ids.map(|ids| ids.into_iter().map(Digest::from_bytes).collect()))
}

fn fact(entry: &Entry, owners: bool, twin: Option<Short>) -> FileFact {
    let (kind, number) = match entry.meta.kind {
        EntryKind::Directory => (b'd', None),
        EntryKind::File => (b'f', None),
        EntryKind::Symlink => (b'l', None),
        EntryKind::Fifo => (b'p', None),
        EntryKind::Socket => (b's', None),
        EntryKind::CharDevice(number) => (b'c', Some(number.to_le_bytes())),
        EntryKind::BlockDevice(number) => (b'b', Some(number.to_le_bytes())),
    };
    let content = match &entry.content {
        Content::File(digest) => Some(short(digest)),
        Content::Symlink(target) => Some(short_of(target)),
        Content::Nothing => number,
    };
    FileFact {
        kind,
        mode: u16::try_from(entry.meta.mode & 0o7777).unwrap_or(0),
        owner: owners.then_some((entry.meta.uid, entry.meta.gid)),
        content,
        xattrs: (!entry.xattrs.is_empty()).then(|| short_of_xattrs(&entry.xattrs)),
        twin,
    }
}

/// The first name of a hard link that was seen before.
fn twin(first: &mut HashMap<(u64, u64), Short>, entry: &Entry, path: &Path) -> Option<Short> {
    if entry.meta.links < 2 || entry.meta.kind != EntryKind::File {
        return None;
    }
    let own = short_of(path);
    let stamp = &entry.meta.stamp;
    let known = *first.entry((stamp.device, stamp.inode)).or_insert(own);
    (known != own).then_some(known)
}

fn short(digest: &Digest) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&digest.as_bytes()[..8]);
    short
}

fn short_of(path: &Path) -> Short {
    short(&Digest::of(path.as_os_str().as_bytes()))
}

fn short_of_xattrs(xattrs: &[Xattr]) -> Short {
    let mut hasher = Hasher::new();
    for (name, value) in xattrs {
        for bytes in [name.as_bytes(), value.as_slice()] {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
    short(&hasher.finish())
}

#[derive(Default)]
struct Writer {
    done: Vec<(Digest, Vec<u8>)>,
    bytes: Vec<u8>,
    count: usize,
    last: Vec<u8>,
}

impl Writer {
    fn push(&mut self, path: &Path, fact: &FileFact) {
        let path = path.as_os_str().as_bytes();
        let limit = path.len().min(self.last.len()).min(usize::from(u16::MAX));
        let shared = (0..limit).find(|&at| path[at] != self.last[at]).unwrap_or(limit);
        let rest = &path[shared..];
        let number = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
        // The kernel has no path of 64 KiB.
        let rest = &rest[..rest.len().min(usize::from(u16::MAX))];
        self.bytes.extend_from_slice(&number(shared));
        self.bytes.extend_from_slice(&number(rest.len()));
        self.bytes.extend_from_slice(rest);
        write_fact(&mut self.bytes, fact);
        self.count += 1;
        if boundary(path) || self.count == LONGEST {
            self.end_part();
        } else {
            self.last.clear();
            self.last.extend_from_slice(path);
        }
    }

    fn end_part(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.done.push((Digest::of(&bytes), bytes));
        self.last.clear();
        self.count = 0;
    }

    fn finish(mut self) -> FileList {
        if self.count > 0 {
            self.end_part();
        }
        FileList { parts: self.done }
    }
}

/// FNV-1a: it need only be the same everywhere.
fn boundary(path: &[u8]) -> bool {
    let hash = path.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (hash ^ (hash >> 16)) & BOUNDARY == 0
}

fn write_fact(out: &mut Vec<u8>, fact: &FileFact) {
    out.push(fact.kind);
    out.extend_from_slice(&fact.mode.to_le_bytes());
    let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
    out.push(
        flag(fact.owner.is_some(), HAS_OWNER)
            | flag(fact.content.is_some(), HAS_CONTENT)
            | flag(fact.xattrs.is_some(), HAS_XATTRS)
            | flag(fact.twin.is_some(), HAS_TWIN),
    );
    if let Some((uid, gid)) = fact.owner {
        out.extend_from_slice(&uid.to_le_bytes());
        out.extend_from_slice(&gid.to_le_bytes());
    }
    for short in [fact.content, fact.xattrs, fact.twin].iter().flatten() {
        out.extend_from_slice(short);
    }
}

/// Adds the entries of a part; none if it is malformed.
fn read_part(bytes: &[u8], into: &mut FileFacts) -> Option<()> {
    let mut reader = Reader(bytes);
    let mut path: Vec<u8> = Vec::new();
    while !reader.0.is_empty() {
        let shared = usize::from(reader.u16()?);
        let length = usize::from(reader.u16()?);
        if shared > path.len() {
            return None;
        }
        path.truncate(shared);
        path.extend_from_slice(reader.take(length)?);
        let kind = reader.array::<1>()?[0];
        let mode = reader.u16()?;
        let flags = reader.array::<1>()?[0];
        let short = |flag: u8, reader: &mut Reader<'_>| match flags & flag {
            0 => Some(None),
            _ => reader.array::<8>().map(Some),
        };
        let owner = match flags & HAS_OWNER {
            0 => None,
            _ => Some((reader.u32()?, reader.u32()?)),
        };
        let fact = FileFact {
            kind,
            mode,
            owner,
            content: short(HAS_CONTENT, &mut reader)?,
            xattrs: short(HAS_XATTRS, &mut reader)?,
            twin: short(HAS_TWIN, &mut reader)?,
        };
        into.insert(path.clone(), fact);
    }
    Some(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Meta, Stamp};

    fn entry(relative: &str, mode: u32, content: &str) -> Entry {
        Entry {
            relative: relative.into(),
            meta: Meta {
                kind: EntryKind::File,
                mode,
                uid: 1,
                gid: 2,
                size: 0,
                links: 1,
                stamp: Stamp::default(),
            },
            content: Content::File(Digest::of(content.as_bytes())),
            xattrs: Vec::new(),
        }
    }

    fn selection(entries: Vec<Entry>) -> Selection {
        Selection {
            name: "src".into(),
            root: "src".into(),
            entries,
        }
    }

    fn all(list: &FileList) -> FileFacts {
        let mut facts = FileFacts::new();
        for (_, bytes) in &list.parts {
            read_part(bytes, &mut facts).unwrap();
        }
        facts
    }

    /// Stores keep these bytes: another form needs another first line.
    #[test]
    fn the_form_is_held() {
        let list = FileList::of(
            &[selection(vec![
                entry("ab", 0o644, "x"),
                entry("ac/d", 0o755, "y"),
            ])],
            true,
        );
        let hex: String = list.parts[0].1.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "000006007372632f616266a4010301000000020000002d711642b726b044\
             050003 00632f6466ed01030100000002000000a1fce4363854ff88"
                .replace(' ', "")
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let entries: Vec<Entry> = (0..5000)
            .map(|n| entry(&format!("d{}/f{n}", n % 7), 0o644, "x"))
            .collect();
        let list = FileList::of(&[selection(entries)], false);
        assert!(list.parts.len() > 3, "{}", list.parts.len());
        let facts = all(&list);
        assert_eq!(facts.len(), 5000);
        let fact = facts[&b"src/d0/f7"[..]];
        assert_eq!((fact.kind, fact.mode, fact.owner), (b'f', 0o644, None));
    }

    #[test]
    fn one_change_changes_one_part() {
        let entries = |changed: usize| -> Vec<Entry> {
            let content = |n| if n == changed { "new" } else { "old" };
            (0..20_000)
                .map(|n| entry(&format!("f{n:05}"), 0o644, content(n)))
                .collect()
        };
        let (one, two) = (
            FileList::of(&[selection(entries(20_001))], false),
            FileList::of(&[selection(entries(777))], false),
        );
        let differ = one.parts.iter().zip(&two.parts).filter(|(a, b)| a != b).count();
        assert_eq!((one.parts.len(), differ), (two.parts.len(), 1));
    }

    #[test]
    fn nonsense_is_none() {
        for bytes in [
            &b"\x05\0\0\0f\0\0\0"[..],
            b"\0\0\x09\0a",
            b"\0\0\x01\0af\0\0\x02xx",
        ] {
            assert!(read_part(bytes, &mut FileFacts::new()).is_none());
        }
    }
}
