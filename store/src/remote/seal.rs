//! The envelope of an index: a checksum, and a signature where a key is given.
//!
//! ```text
//! box-cache 1\n
//! sha256:<of all that follows this line>\n
//! hmac-sha256:<of all that follows this line, HMAC-SHA-256 with the shared key>\n     or  -\n
//! <JSON, zstd>
//! ```

use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::error::RemoteError;
use crate::digest::Digest;

const MAGIC: &str = "box-cache 1\n";
/// The longest index that is read, packed, in bytes.
pub(super) const PACKED_LIMIT: u64 = 64 << 20;
const LEVEL: i32 = 9;
/// How much is read of all indexes of a cache, in bytes, and how many.
pub(super) const ALL_PACKED_LIMIT: u64 = 128 << 20;
pub(super) const MOST: usize = 256;
/// The block of SHA-256, in bytes.
const BLOCK: usize = 64;

/// A secret that writers and readers of a cache share: indexes of others are not believed.
#[derive(Clone, PartialEq, Eq)]
pub struct IndexKey(Vec<u8>);

impl std::fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexKey")
    }
}

impl IndexKey {
    /// The bytes of a key's file without the end of its line; none if there are fewer than 16.
    pub fn new(bytes: &[u8]) -> Option<IndexKey> {
        let key = bytes.trim_ascii_end();
        (key.len() >= 16).then(|| IndexKey(key.to_vec()))
    }

    /// HMAC-SHA-256 (RFC 2104).
    fn sign(&self, bytes: &[u8]) -> Digest {
        let mut key = [0; BLOCK];
        match self.0.len() <= BLOCK {
            true => key[..self.0.len()].copy_from_slice(&self.0),
            false => key[..32].copy_from_slice(&Sha256::digest(&self.0)),
        }
        let inner = Sha256::new()
            .chain_update(key.map(|byte| byte ^ 0x36))
            .chain_update(bytes)
            .finalize();
        let mut outer = key.map(|byte| byte ^ 0x5c).to_vec();
        outer.extend_from_slice(&inner);
        Digest::of(&outer)
    }
}

/// Seals a document.
pub(super) fn seal(json: &[u8], key: Option<&IndexKey>) -> Result<Vec<u8>, RemoteError> {
    let packed = zstd::encode_all(json, LEVEL).map_err(|e| RemoteError::damaged("index", e.to_string()))?;
    let signature = match key {
        Some(key) => format!("hmac-sha256:{}\n", key.sign(&packed).hex()),
        None => "-\n".to_owned(),
    };
    let mut body = signature.into_bytes();
    body.extend_from_slice(&packed);
    let mut out = format!("{MAGIC}{}\n", Digest::of(&body)).into_bytes();
    out.append(&mut body);
    Ok(out)
}

/// Opens an envelope of a document of at most so many bytes.
pub(super) fn open(sealed: &[u8], key: Option<&IndexKey>, limit: usize) -> Result<Vec<u8>, RemoteError> {
    let damaged = |reason: &str| RemoteError::damaged("index", reason);
    let rest = sealed
        .strip_prefix(MAGIC.as_bytes())
        .ok_or_else(|| damaged("it is none of this version of box"))?;
    let (checksum, body) = line(rest).ok_or_else(|| damaged("it is cut off"))?;
    if Digest::of(body).to_string().as_bytes() != checksum {
        return Err(damaged("its checksum is wrong"));
    }
    let (signature, packed) = line(body).ok_or_else(|| damaged("it is cut off"))?;
    if let Some(key) = key {
        let expected = format!("hmac-sha256:{}", key.sign(packed).hex());
        // All bytes are compared, so that the time tells nothing.
        let differ = expected
            .bytes()
            .zip(signature)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if signature.len() != expected.len() || differ != 0 {
            return Err(damaged("it is not signed with the given key"));
        }
    }
    unpack(packed, limit as u64).ok_or_else(|| damaged("it can't be decompressed, or is too long"))
}

/// Decompresses at most so many bytes; none if there are more, or it is no zstd.
pub(super) fn unpack(packed: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let decoder = zstd::Decoder::new(packed).ok()?;
    let read = decoder.take(limit + 1).read_to_end(&mut out).ok()?;
    (read as u64 <= limit).then_some(out)
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_rfc() {
        // RFC 4231, test cases 2 and 6 (a key that is longer than a block).
        let check = |key: &[u8], data: &[u8], expected: &str| {
            assert_eq!(IndexKey(key.to_vec()).sign(data).hex(), expected);
        };
        check(
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        check(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
    }

    #[test]
    fn an_envelope_opens_only_whole_and_with_its_key() {
        let key = IndexKey::new(b"0123456789abcdef\n").unwrap();
        let other = IndexKey::new(b"0123456789abcdeg").unwrap();
        assert!(IndexKey::new(b"short\n").is_none());
        let (plain, signed) = (seal(b"{}", None).unwrap(), seal(b"{}", Some(&key)).unwrap());
        assert_eq!(open(&plain, None, 1000).unwrap(), b"{}");
        assert_eq!(open(&signed, Some(&key), 1000).unwrap(), b"{}");
        assert_eq!(open(&signed, None, 1000).unwrap(), b"{}");
        assert!(open(&signed, Some(&other), 1000).is_err());
        assert!(open(&plain, Some(&key), 1000).is_err());
        for at in 0..signed.len() {
            let mut damaged = signed.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged, Some(&key), 1000).is_err(), "bit at {at}");
            assert!(open(&signed[..at], None, 1000).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_bomb_is_stopped() {
        let bomb = zstd::encode_all(&vec![0; 1 << 20][..], 1).unwrap();
        assert_eq!(unpack(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        assert!(unpack(&bomb, (1 << 20) - 1).is_none());
        assert!(unpack(b"no zstd", 100).is_none());
    }
}
