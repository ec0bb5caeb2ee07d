//! Reading ahead while another thread works, so that decompressing and hashing overlap with writing files.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The length of one piece, in bytes, and how many may wait.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// Runs `work` on a thread of its own, with a reader of what this one reads from `source`. Returns what `work` returns;
/// `source` then was read to its end, if `work` read to the end.
pub(crate) fn read_ahead<T: Send>(
    source: &mut impl Read,
    work: impl FnOnce(Ahead) -> T + Send,
) -> std::thread::Result<T> {
    let (send, receive) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            // Dropped with the work: the reading then ends at its next piece.
            work(Ahead {
                receive,
                piece: Vec::new(),
                taken: 0,
            })
        });
        pump(source, &send);
        drop(send);
        worker.join()
    })
}

fn pump(source: &mut impl Read, send: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let last = read.is_err() || piece.is_empty();
        // What was read before an error comes before the error.
        let sent = piece.is_empty() || send.send(Ok(piece)).is_ok();
        if let Err(error) = read {
            // Nobody listens any more: then nobody wants to know either.
            let _ = send.send(Err(error));
        }
        if last || !sent {
            return;
        }
    }
}

/// What was read ahead.
pub(crate) struct Ahead {
    receive: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    taken: usize,
}

impl Read for Ahead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            match self.receive.recv() {
                Ok(piece) => (self.piece, self.taken) = (piece?, 0),
                // The other thread is at the end.
                Err(_) => return Ok(0),
            }
        }
        let n = buf.len().min(self.piece.len() - self.taken);
        buf[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes, then fails.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0 {
                0 => Err(io::Error::other("broken")),
                left => {
                    let n = buf.len().min(left);
                    self.0 -= n;
                    Ok(n)
                }
            }
        }
    }

    #[test]
    fn everything_comes_in_order() {
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut source = &data[..];
        let out = read_ahead(&mut source, |mut ahead| {
            let mut out = Vec::new();
            ahead.read_to_end(&mut out).unwrap();
            out
        });
        assert!(out.unwrap() == data);
        assert!(source.is_empty());
    }

    #[test]
    fn an_error_comes_after_what_was_read() {
        let (length, error) = read_ahead(&mut Broken(1_000_000), |mut ahead| {
            let mut out = Vec::new();
            let error = ahead.read_to_end(&mut out).unwrap_err();
            (out.len(), error.to_string())
        })
        .unwrap();
        assert_eq!((length, error.as_str()), (1_000_000, "broken"));
    }

    #[test]
    fn whoever_stops_early_does_not_wait_for_the_end() {
        let n = read_ahead(&mut io::repeat(7), |mut ahead| ahead.read(&mut [0; 10]).unwrap());
        assert_eq!(n.unwrap(), 10);
    }
}
