//! Where a stream is cut: by its content (FastCDC with normalised sizes), so that what is inserted or removed changes the pieces around
//! it alone.

use std::io::{self, Write};

/// Sizes of a piece in bytes: no shorter (but at the end), on the average, no longer.
const MIN: usize = 16 << 10;
const AVERAGE: usize = 64 << 10;
pub(super) const MAX: usize = 256 << 10;
/// A cut is where this many of the rolling hash's highest bits are zero: more before the average size is reached, fewer after it.
const STRICT: u32 = 18;
const LOOSE: u32 = 14;
/// Bytes that are gathered before they are cut.
const GATHERED: usize = 1 << 20;

static GEAR: [u64; 256] = gear();

/// Random numbers that are the same for ever (splitmix64): other ones would cut everything anew.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 0x626f_7820_6361_6368_u64;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
}

/// The length of the first piece of these bytes.
fn cut(bytes: &[u8]) -> usize {
    let end = bytes.len().min(MAX);
    let mut hash = 0_u64;
    // The hash depends on the last 64 bytes alone.
    for at in MIN.saturating_sub(64)..end {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(bytes[at])]);
        let bits = if at < AVERAGE { STRICT } else { LOOSE };
        if at >= MIN && hash >> (64 - bits) == 0 {
            return at + 1;
        }
    }
    end
}

/// Cuts what is written into it.
pub(super) struct Chunker<F> {
    gathered: Vec<u8>,
    emit: F,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Chunker<F> {
    /// Each piece goes to `emit`.
    pub(super) fn new(emit: F) -> Chunker<F> {
        Chunker {
            gathered: Vec::with_capacity(GATHERED + MAX),
            emit,
        }
    }

    /// The last pieces.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.cut_until(0)
    }

    fn cut_until(&mut self, rest: usize) -> io::Result<()> {
        let mut at = 0;
        while self.gathered.len() - at > rest {
            let length = cut(&self.gathered[at..]);
            (self.emit)(&self.gathered[at..at + length])?;
            at += length;
        }
        self.gathered.drain(..at);
        Ok(())
    }
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Chunker<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED {
            self.cut_until(MAX)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::digest::Digest;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn pieces(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut chunker = Chunker::new(|piece| {
            all.push(piece.to_vec());
            Ok(())
        });
        for part in bytes.chunks(step) {
            chunker.write_all(part).unwrap();
        }
        chunker.finish().unwrap();
        all
    }

    #[test]
    fn pieces_are_the_stream_however_it_is_written() {
        let bytes = noise(5 << 20);
        let all = pieces(&bytes, 1 << 20);
        assert_eq!(all.concat(), bytes);
        assert_eq!(all, pieces(&bytes, 777));
        let (last, others) = all.split_last().unwrap();
        assert!(others.iter().all(|piece| (MIN..=MAX).contains(&piece.len())));
        assert!(last.len() <= MAX);
        let average = bytes.len() / all.len();
        assert!((AVERAGE / 2..AVERAGE * 2).contains(&average), "{average}");
        assert!(pieces(b"", 1).is_empty());
        // Without any structure the longest pieces come out.
        assert!(
            pieces(&vec![0; 1 << 20], 4096)
                .iter()
                .all(|piece| piece.len() <= MAX)
        );
    }

    #[test]
    fn an_insertion_changes_the_pieces_around_it() {
        let before = noise(8 << 20);
        let mut after = before.clone();
        after.splice(4_000_000..4_000_000, *b"a line\n");
        let known: HashSet<_> = pieces(&before, 1 << 16).iter().map(|p| Digest::of(p)).collect();
        let fresh = pieces(&after, 1 << 16);
        let fresh = fresh.iter().filter(|piece| !known.contains(&Digest::of(piece)));
        assert!(fresh.count() <= 3);
    }

    /// Caches keep what was cut: another cut sends everything once more.
    #[test]
    fn golden_cuts() {
        let lengths: Vec<usize> = pieces(&noise(400_000), 4096).iter().map(Vec::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 400_000);
        assert_eq!(lengths, GOLDEN);
    }

    const GOLDEN: [usize; 6] = [56_197, 70_101, 69_330, 79_198, 73_321, 51_853];
}
