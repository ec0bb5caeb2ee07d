//! The three ways in which GNU tar writes files with holes.

use super::error::Problem;
use super::header::{BLOCK, decimal, number};

/// A piece of a sparse file that holds data; what lies between two is zeros. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// More pieces than any sane writer makes; bounds the memory of the map.
pub(super) const MAX_SEGMENTS: usize = 1 << 20;

/// Segments in order, none over another or beyond the end, with `stored` bytes together.
pub(super) fn check(map: &[Segment], real_size: u64, stored: u64) -> Result<(), Problem> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for segment in map {
        if segment.offset < end {
            return Err(Problem::BadSparse("pieces overlap or are out of order"));
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .ok_or(Problem::BadSparse("a piece is too long"))?;
        sum = sum
            .checked_add(segment.length)
            .ok_or(Problem::BadSparse("the pieces are too long"))?;
    }
    if end > real_size {
        return Err(Problem::BadSparse("a piece lies beyond the end of the file"));
    }
    match sum == stored {
        true => Ok(()),
        false => Err(Problem::BadSparse(
            "the pieces' lengths do not add up to the data",
        )),
    }
}

/// `offset,length,offset,length…`: GNU's PAX format 0.1.
pub(super) fn parse_map(value: &[u8]) -> Result<Vec<Segment>, Problem> {
    let bad = || Problem::BadSparse("the map is not a list of number pairs");
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
    pairs(&numbers.ok_or_else(bad)?).ok_or_else(bad)
}

fn pairs(numbers: &[u64]) -> Option<Vec<Segment>> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    let segment = |[offset, length]: &[u64; 2]| Segment {
        offset: *offset,
        length: *length,
    };
    (rest.is_empty() && pairs.len() <= MAX_SEGMENTS).then(|| pairs.iter().map(segment).collect())
}

/// The pairs of 12-byte fields in an old GNU header (4 of them) or its extension block (21). Returns whether
/// another block follows.
pub(super) fn take_old(fields: &[u8], more: u8, map: &mut Vec<Segment>) -> Result<bool, Problem> {
    const PAIR: usize = 24;
    for pair in fields.chunks_exact(PAIR) {
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        let field = |at: usize| number(&pair[at..at + 12]).and_then(|n| u64::try_from(n).ok());
        match (field(0), field(12)) {
            (Some(offset), Some(length)) => map.push(Segment { offset, length }),
            _ => return Err(Problem::BadSparse("not a number")),
        }
    }
    match map.len() > MAX_SEGMENTS {
        true => Err(Problem::BadSparse("too many pieces")),
        false => Ok(more != 0),
    }
}

/// Reads GNU's PAX format 1.0, decimal lines padded to whole blocks before the data. `block` yields the next block.
/// Returns the map and the blocks it took.
pub(super) fn read_lines<E: From<Problem>>(
    mut block: impl FnMut() -> Result<[u8; BLOCK], E>,
) -> Result<(Vec<Segment>, u64), E> {
    let mut lines = Lines::default();
    let mut blocks = 0;
    while !lines.complete() {
        lines.take(&block()?)?;
        blocks += 1;
    }
    let map = pairs(&lines.numbers[1..]).ok_or(Problem::BadSparse("the map is not complete"))?;
    Ok((map, blocks))
}

#[derive(Default)]
struct Lines {
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl Lines {
    /// The first number tells how many pairs follow.
    fn complete(&self) -> bool {
        self.numbers
            .first()
            .is_some_and(|n| self.numbers.len() as u64 > n.saturating_mul(2))
    }

    fn take(&mut self, block: &[u8]) -> Result<(), Problem> {
        for byte in block {
            if self.complete() {
                return Ok(());
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                continue;
            }
            self.numbers
                .push(decimal(&self.digits).ok_or(Problem::BadSparse("not a number"))?);
            self.digits.clear();
        }
        let bounded =
            self.numbers.first().is_none_or(|n| *n <= MAX_SEGMENTS as u64) && self.digits.len() <= BLOCK;
        bounded.then_some(()).ok_or(Problem::BadSparse("too many pieces"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pieces: &[(u64, u64)]) -> Vec<Segment> {
        pieces
            .iter()
            .map(|(offset, length)| Segment {
                offset: *offset,
                length: *length,
            })
            .collect()
    }

    /// Pieces, the file's size, the data's, and whether that fits.
    type Case = (&'static [(u64, u64)], u64, u64, bool);

    #[test]
    fn maps_are_checked() {
        let cases: &[Case] = &[
            (&[], 100, 0, true),
            (&[(0, 10), (50, 10)], 100, 20, true),
            (&[(0, 10), (100, 0)], 100, 10, true),
            (&[(50, 10), (0, 10)], 100, 20, false),
            (&[(0, 10), (5, 10)], 100, 20, false),
            (&[(0, 101)], 100, 101, false),
            (&[(0, 10)], 100, 11, false),
            (&[(u64::MAX, 2)], u64::MAX, 2, false),
            (&[(0, u64::MAX), (u64::MAX, 0)], u64::MAX, u64::MAX, true),
        ];
        for (pieces, real, stored, good) in cases {
            assert_eq!(check(&map(pieces), *real, *stored).is_ok(), *good, "{pieces:?}");
        }
    }

    #[test]
    fn maps_of_lines() {
        let mut text = b"2\n0\n512\n1024\n512\n".to_vec();
        text.resize(BLOCK, 0);
        let read = |text: Vec<u8>| {
            let mut blocks = text
                .chunks(BLOCK)
                .map(|b| b.try_into().unwrap())
                .collect::<Vec<_>>()
                .into_iter();
            read_lines(|| blocks.next().ok_or(Problem::BadSparse("end")))
        };
        assert_eq!(read(text), Ok((map(&[(0, 512), (1024, 512)]), 1)));
        for bad in ["99999999\n", "1\nx\n", "1\n1\n", "-1\n", ""] {
            let mut text = bad.as_bytes().to_vec();
            text.resize(BLOCK, 0);
            assert!(read(text).is_err(), "{bad}");
        }
    }

    #[test]
    fn maps_of_commas() {
        assert_eq!(parse_map(b"0,5,10,5"), Ok(map(&[(0, 5), (10, 5)])));
        for bad in [&b"1"[..], b"1,", b"a,b", b"1,2,3", b"1;2"] {
            assert!(parse_map(bad).is_err());
        }
    }
}
