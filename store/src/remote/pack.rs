//! Packs: chunks one after another, and the lists that say which chunks a stream is made of.
//!
//! A list lies in the pack that is being written when its stream ends; that pack's digest is not known then, so the list calls it
//! [`HERE`]. Numbers are little-endian:
//!
//! ```text
//! u32 packs    { 32 bytes digest, u32 size }
//! u32 chunks   { 32 bytes digest of the plain bytes, u32 pack, u32 at, u32 length packed, u32 length plain }
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};

use super::backend::Object;
use super::chunk::{self, Chunker};
use super::error::RemoteError;
use super::seal::unpack;
use crate::digest::{Digest, Hasher};

/// Packs become this long, or a little longer, in bytes.
const PACK: usize = 2 << 20;
/// The pack that a list itself lies in.
const HERE: u32 = u32::MAX;
/// What a piece may have packed: what can't be compressed becomes a little longer.
const MAX_PACKED: usize = chunk::MAX + (64 << 10);
/// The longest list that is read, in bytes: of a stream of about 80 GiB.
const LIST_LIMIT: u32 = 64 << 20;
const LEVEL: i32 = 3;

/// A piece of a pack, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Of the plain bytes.
    pub(super) digest: Digest,
    pub(super) pack: Object,
    pub(super) at: u32,
    pub(super) packed: u32,
    pub(super) plain: u32,
}

impl Chunk {
    /// Whether it may be read as a list.
    pub(super) fn is_list(&self) -> bool {
        self.plain <= LIST_LIMIT && self.packed <= LIST_LIMIT
    }

    /// Unpacks it, verified.
    pub(super) fn open(&self, bytes: &[u8]) -> Result<Vec<u8>, RemoteError> {
        let damaged = |reason: &str| RemoteError::damaged(format!("pack {}", self.pack.digest), reason);
        let plain =
            unpack(bytes, u64::from(self.plain)).ok_or_else(|| damaged("a chunk can't be decompressed"))?;
        match Digest::of(&plain) == self.digest {
            true => Ok(plain),
            false => Err(damaged("a chunk has another digest")),
        }
    }
}

/// A stream that was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Where its list is.
    pub(super) list: Chunk,
    /// All packs that it needs, that of the list included.
    pub(super) packs: BTreeSet<Object>,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// Reads a list; `list` is where it lay. Its chunks add up to no more than `limit` bytes.
pub(super) fn read_list(list: &Chunk, bytes: &[u8], limit: u64) -> Result<Vec<Chunk>, RemoteError> {
    let wrong = || {
        RemoteError::damaged(
            format!("a list in pack {}", list.pack.digest),
            "it makes no sense",
        )
    };
    let plain = list.open(bytes)?;
    let mut rest = Fields(&plain);
    let mut packs = Vec::new();
    for _ in 0..rest.number().ok_or_else(wrong)? {
        let (digest, size) = rest.digest().zip(rest.number()).ok_or_else(wrong)?;
        packs.push(Object {
            digest,
            size: u64::from(size),
        });
    }
    let (mut chunks, mut total) = (Vec::new(), 0);
    for _ in 0..rest.number().ok_or_else(wrong)? {
        let digest = rest.digest().ok_or_else(wrong)?;
        let mut number = || rest.number().ok_or_else(wrong);
        let (pack, at, packed, plain) = (number()?, number()?, number()?, number()?);
        let pack = match pack {
            HERE => list.pack,
            pack => *packs.get(pack as usize).ok_or_else(wrong)?,
        };
        let is_inside = u64::from(at) + u64::from(packed) <= pack.size;
        total += u64::from(plain);
        if plain as usize > chunk::MAX || packed as usize > MAX_PACKED || !is_inside || total > limit {
            return Err(wrong());
        }
        chunks.push(Chunk {
            digest,
            pack,
            at,
            packed,
            plain,
        });
    }
    match rest.0.is_empty() {
        true => Ok(chunks),
        false => Err(wrong()),
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn digest(&mut self) -> Option<Digest> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(Digest::from_bytes(*bytes))
    }
}

/// Where a chunk is while packs are being written: in a pack by its number.
#[derive(Debug, Clone, Copy)]
struct Place {
    pack: usize,
    at: u32,
    packed: u32,
    plain: u32,
}

/// Packs streams; what is known already is not packed again. The same streams in the same order, with the same things known, give the
/// same packs.
pub(super) struct Packer<'a> {
    /// Those that are finished, by number; the one after them is being written.
    packs: Vec<Object>,
    numbers: HashMap<Object, usize>,
    known: HashMap<Digest, Place>,
    current: Vec<u8>,
    /// Takes a finished pack.
    finished: &'a mut dyn FnMut(Object, Vec<u8>) -> Result<(), RemoteError>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        known: impl IntoIterator<Item = Chunk>,
        finished: &'a mut dyn FnMut(Object, Vec<u8>) -> Result<(), RemoteError>,
    ) -> Packer<'a> {
        let mut packer = Packer {
            packs: Vec::new(),
            numbers: HashMap::new(),
            known: HashMap::new(),
            current: Vec::new(),
            finished,
        };
        for chunk in known {
            let pack = packer.number(chunk.pack);
            packer.known.entry(chunk.digest).or_insert(Place {
                pack,
                at: chunk.at,
                packed: chunk.packed,
                plain: chunk.plain,
            });
        }
        packer
    }

    fn number(&mut self, pack: Object) -> usize {
        let next = self.packs.len();
        let number = *self.numbers.entry(pack).or_insert(next);
        if number == next {
            self.packs.push(pack);
        }
        number
    }

    /// Packs what `write` writes; gives where it is when its pack is finished, and the digest of the stream.
    pub(super) fn add<E: From<RemoteError>>(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(Pending, Digest), E> {
        let (mut places, mut size, mut hasher) = (Vec::new(), 0, Hasher::new());
        let mut failed = None;
        let mut chunker = Chunker::new(|piece| {
            hasher.update(piece);
            size += piece.len() as u64;
            match self.chunk(piece) {
                Ok(place) => places.push(place),
                Err(error) => {
                    failed = Some(error);
                    return Err(io::Error::other("the pack can't be written"));
                }
            }
            Ok(())
        });
        let written = write(&mut chunker);
        let ended = chunker.finish();
        match (failed, written, ended) {
            // Why it failed, rather than that it did.
            (Some(error), ..) => return Err(error.into()),
            (None, Err(error), _) => return Err(error),
            (None, Ok(()), Err(error)) => {
                return Err(RemoteError::damaged("a stream", error.to_string()).into());
            }
            (None, Ok(()), Ok(())) => {}
        }
        Ok((self.list(&places, size)?, hasher.finish()))
    }

    fn chunk(&mut self, piece: &[u8]) -> Result<(Digest, Place), RemoteError> {
        let digest = Digest::of(piece);
        if let Some(&place) = self.known.get(&digest) {
            return Ok((digest, place));
        }
        if self.current.len() >= PACK {
            self.end_pack()?;
        }
        let place = self.append(piece)?;
        self.known.insert(digest, place);
        Ok((digest, place))
    }

    fn append(&mut self, plain: &[u8]) -> Result<Place, RemoteError> {
        let packed =
            zstd::bulk::compress(plain, LEVEL).map_err(|e| RemoteError::damaged("a chunk", e.to_string()))?;
        let number = |length: usize| {
            u32::try_from(length).map_err(|_| RemoteError::damaged("a pack", "it becomes too long"))
        };
        let place = Place {
            pack: self.packs.len(),
            at: number(self.current.len())?,
            packed: number(packed.len())?,
            plain: number(plain.len())?,
        };
        self.current.extend_from_slice(&packed);
        Ok(place)
    }

    fn list(&mut self, places: &[(Digest, Place)], size: u64) -> Result<Pending, RemoteError> {
        let here = self.packs.len();
        let used: BTreeSet<usize> = places
            .iter()
            .map(|(_, place)| place.pack)
            .filter(|&pack| pack != here)
            .collect();
        let order: BTreeMap<usize, u32> = used.iter().copied().zip(0..).collect();
        let mut bytes = Vec::with_capacity(48 * (places.len() + 1));
        let number = |bytes: &mut Vec<u8>, number: u32| bytes.extend_from_slice(&number.to_le_bytes());
        number(&mut bytes, u32::try_from(used.len()).unwrap_or(u32::MAX));
        for &pack in &used {
            let pack = self.packs[pack];
            bytes.extend_from_slice(pack.digest.as_bytes());
            number(&mut bytes, u32::try_from(pack.size).unwrap_or(u32::MAX));
        }
        number(&mut bytes, u32::try_from(places.len()).unwrap_or(u32::MAX));
        for (digest, place) in places {
            bytes.extend_from_slice(digest.as_bytes());
            let pack = order.get(&place.pack).copied().unwrap_or(HERE);
            [pack, place.at, place.packed, place.plain]
                .into_iter()
                .for_each(|field| number(&mut bytes, field));
        }
        let digest = Digest::of(&bytes);
        let place = self.append(&bytes)?;
        Ok(Pending {
            digest,
            place,
            packs: used,
            size,
        })
    }

    fn end_pack(&mut self) -> Result<(), RemoteError> {
        let bytes = std::mem::take(&mut self.current);
        let pack = Object {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        self.numbers.insert(pack, self.packs.len());
        self.packs.push(pack);
        (self.finished)(pack, bytes)
    }

    /// Ends the last pack; the streams are where they say from then on.
    pub(super) fn finish(mut self) -> Result<Finished, RemoteError> {
        if !self.current.is_empty() {
            self.end_pack()?;
        }
        Ok(Finished(self.packs))
    }
}

/// A stream that is packed, in packs that may not be finished.
pub(super) struct Pending {
    digest: Digest,
    place: Place,
    packs: BTreeSet<usize>,
    size: u64,
}

/// All packs by number.
pub(super) struct Finished(Vec<Object>);

impl Finished {
    /// Where a stream is.
    pub(super) fn stored(&self, pending: &Pending) -> Option<Stored> {
        let Place {
            pack,
            at,
            packed,
            plain,
        } = pending.place;
        let list = Chunk {
            digest: pending.digest,
            pack: *self.0.get(pack)?,
            at,
            packed,
            plain,
        };
        let others = pending.packs.iter().filter_map(|&pack| self.0.get(pack).copied());
        Some(Stored {
            list,
            packs: others.chain([list.pack]).collect(),
            size: pending.size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Packs = HashMap<Digest, Vec<u8>>;

    fn pack(streams: &[Vec<u8>], known: Vec<Chunk>, packs: &mut Packs) -> Vec<Stored> {
        let mut finished = |object: Object, bytes: Vec<u8>| {
            assert_eq!(Digest::of(&bytes), object.digest);
            packs.insert(object.digest, bytes);
            Ok(())
        };
        let mut packer = Packer::new(known, &mut finished);
        let mut pending = Vec::new();
        for stream in streams {
            let added = packer.add(|out| {
                out.write_all(stream)
                    .map_err(|e| RemoteError::damaged("", e.to_string()))
            });
            let (added, digest) = added.unwrap();
            assert_eq!(digest, Digest::of(stream));
            pending.push(added);
        }
        let finished = packer.finish().unwrap();
        pending.iter().map(|p| finished.stored(p).unwrap()).collect()
    }

    fn bytes<'a>(packs: &'a Packs, chunk: &Chunk) -> &'a [u8] {
        &packs[&chunk.pack.digest][chunk.at as usize..(chunk.at + chunk.packed) as usize]
    }

    fn unpacked(packs: &Packs, stored: &Stored) -> (Vec<u8>, Vec<Chunk>) {
        let chunks = read_list(&stored.list, bytes(packs, &stored.list), 1 << 30).unwrap();
        let plain = chunks
            .iter()
            .flat_map(|chunk| chunk.open(bytes(packs, chunk)).unwrap());
        assert!(chunks.iter().all(|chunk| stored.packs.contains(&chunk.pack)));
        (plain.collect(), chunks.clone())
    }

    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn streams_come_back() {
        let streams = [
            noise(10 << 20, 1),
            b"small".to_vec(),
            Vec::new(),
            noise(10 << 20, 1),
            noise(1 << 20, 2),
        ];
        let mut packs = Packs::new();
        let stored = pack(&streams, Vec::new(), &mut packs);
        assert!(packs.len() > 2);
        for (stream, stored) in streams.iter().zip(&stored) {
            assert_eq!(unpacked(&packs, stored).0, *stream);
            assert_eq!(stored.size, stream.len() as u64);
        }
        let sum: usize = packs.values().map(Vec::len).sum();
        assert!(sum < 12 << 20, "the second one was packed again");
        // The same once more is the same packs; a change of one byte is a small one.
        let mut again = Packs::new();
        assert_eq!(pack(&streams, Vec::new(), &mut again), stored);
        let known = stored
            .iter()
            .flat_map(|stored| unpacked(&packs, stored).1)
            .collect();
        let mut changed = streams[0].clone();
        changed[5 << 20] ^= 1;
        let mut delta = Packs::new();
        let stored = pack(&[changed.clone()], known, &mut delta);
        let sum: usize = delta.values().map(Vec::len).sum();
        assert!(sum < 600 << 10, "{sum}");
        packs.extend(delta);
        assert_eq!(unpacked(&packs, &stored[0]).0, changed);
    }

    #[test]
    fn lists_that_lie_are_refused() {
        let mut packs = Packs::new();
        let stored = pack(&[noise(1 << 20, 1)], Vec::new(), &mut packs).remove(0);
        let list = bytes(&packs, &stored.list).to_vec();
        assert!(read_list(&stored.list, &list, 1 << 20).is_ok());
        assert!(read_list(&stored.list, &list, (1 << 20) - 1).is_err());
        for at in 0..list.len() {
            let mut damaged = list.clone();
            damaged[at] ^= 1;
            // Some bits of a zstd frame mean nothing.
            let read = read_list(&stored.list, &damaged, 1 << 30);
            assert!(
                read.is_err() || read.ok() == read_list(&stored.list, &list, 1 << 30).ok(),
                "bit at {at}"
            );
        }
        // With a right digest, but senseless.
        for plain in [
            vec![],
            vec![0; 3],
            vec![0, 0, 0, 0, 255, 255, 255, 255],
            vec![255; 8],
            vec![0; 9],
        ] {
            let packed = zstd::bulk::compress(&plain, 1).unwrap();
            let lying = Chunk {
                digest: Digest::of(&plain),
                packed: packed.len() as u32,
                plain: plain.len() as u32,
                ..stored.list
            };
            assert!(read_list(&lying, &packed, 1 << 30).is_err(), "{plain:?}");
        }
    }
}
