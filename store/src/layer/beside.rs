//! Hashing on a thread of its own, while this one reads what is hashed.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::digest::{Digest, Hasher};

/// The length of one piece, in bytes, and how many there are.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// The digest of all that `write` writes, and what it returns. Without a thread to be had, all is done on this one.
pub(crate) fn hash_beside<T>(write: impl FnOnce(&mut dyn Write) -> T) -> (T, Digest) {
    let (full, waiting) = sync_channel::<Vec<u8>>(PIECES);
    let (back, empty) = sync_channel::<Vec<u8>>(PIECES);
    for _ in 0..PIECES {
        // There is room for all of them.
        let _ = back.send(Vec::with_capacity(PIECE));
    }
    std::thread::scope(|scope| {
        let hashing = std::thread::Builder::new()
            .name("box-sha256".into())
            .spawn_scoped(scope, move || hash(&waiting, &back));
        let Ok(hashing) = hashing else {
            let mut hasher = Hasher::new();
            let result = write(&mut hasher);
            return (result, hasher.finish());
        };
        let mut pieces = Pieces {
            full,
            empty,
            piece: Vec::new(),
        };
        let result = write(&mut pieces);
        pieces.send();
        drop(pieces);
        let digest = hashing.join();
        let digest = digest.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, digest)
    })
}

fn hash(waiting: &Receiver<Vec<u8>>, back: &SyncSender<Vec<u8>>) -> Digest {
    let mut hasher = Hasher::new();
    while let Ok(mut piece) = waiting.recv() {
        hasher.update(&piece);
        piece.clear();
        // At the end nobody wants it back.
        let _ = back.send(piece);
    }
    hasher.finish()
}

/// Collects what is written into pieces.
struct Pieces {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            // Whoever hashes goes on until this is dropped.
            let _ = self.full.send(piece);
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece = self.empty.recv().unwrap_or_default();
        }
        let room = PIECE.saturating_sub(self.piece.len());
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.send();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_all_that_was_written() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 20 * PIECE + 7] {
            let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let (result, digest) =
                hash_beside(|out| data.chunks(100_003).try_for_each(|chunk| out.write_all(chunk)));
            result.unwrap();
            assert_eq!(digest, Digest::of(&data), "{length}");
        }
    }
}
