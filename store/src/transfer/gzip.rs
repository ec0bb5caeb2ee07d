//! gzip on every core, with the same result on any number of them.
//!
//! The input is cut into chunks of a fixed size, each compressed by itself and ended on a byte's boundary (a sync flush), and put after each
//! other as one deflate stream of one gzip member (RFC 1951, RFC 1952), which every client reads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes that are compressed by themselves: the smaller, the better the cores are used, the larger, the smaller the result.
const CHUNK: usize = 1 << 20;
/// No name, no time, no system: the bytes are the same everywhere.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty last block.
const END: [u8; 2] = [3, 0];

type Job = (u64, Vec<u8>);

/// Compresses what is written to it.
pub(crate) struct ParallelGzip<W: Write> {
    out: W,
    chunk: Vec<u8>,
    crc: Crc,
    jobs: Option<Sender<Job>>,
    done: Receiver<io::Result<Job>>,
    workers: Vec<JoinHandle<()>>,
    /// Numbers of the next chunk to be given away, and to be written.
    given: u64,
    written: u64,
    /// Chunks that are compressed, but not yet their turn.
    waiting: BTreeMap<u64, Vec<u8>>,
}

impl<W: Write> ParallelGzip<W> {
    /// Writes the header.
    pub(crate) fn new(mut out: W, level: Compression) -> io::Result<ParallelGzip<W>> {
        out.write_all(&HEADER)?;
        let (jobs, todo) = channel::<Job>();
        let (finished, done) = channel();
        let todo = Arc::new(Mutex::new(todo));
        let count = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            let (todo, finished) = (Arc::clone(&todo), finished.clone());
            let worker = std::thread::Builder::new().name("box-gzip".into());
            workers.push(worker.spawn(move || work(&todo, &finished, level))?);
        }
        Ok(ParallelGzip {
            out,
            chunk: Vec::with_capacity(CHUNK),
            crc: Crc::new(),
            jobs: Some(jobs),
            done,
            workers,
            given: 0,
            written: 0,
            waiting: BTreeMap::new(),
        })
    }

    /// Writes the rest, and gives back what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if !self.chunk.is_empty() {
            self.give()?;
        }
        while self.written < self.given {
            self.take()?;
        }
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // One that panicked has told nothing, and that was met above.
            let _ = worker.join();
        }
        self.out.write_all(&END)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Gives a chunk away; waits for others where too many are on their way.
    fn give(&mut self) -> io::Result<()> {
        let most = 2 * self.workers.len() as u64;
        while self.given - self.written >= most {
            self.take()?;
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.crc.update(&chunk);
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send((self.given, chunk)).map_err(|_| ended())?;
        self.given += 1;
        Ok(())
    }

    /// Waits for one chunk, and writes all whose turn it is.
    fn take(&mut self) -> io::Result<()> {
        let (number, bytes) = self.done.recv().map_err(|_| ended())??;
        self.waiting.insert(number, bytes);
        while let Some(bytes) = self.waiting.remove(&self.written) {
            self.out.write_all(&bytes)?;
            self.written += 1;
        }
        Ok(())
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread that compresses has ended")
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.chunk.len();
        let count = room.min(bytes.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.give()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A chunk is what it is: what is written ends with `finish`.
        Ok(())
    }
}

/// Compresses chunks until there are no more.
fn work(todo: &Mutex<Receiver<Job>>, finished: &Sender<io::Result<Job>>, level: Compression) {
    loop {
        let job = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, chunk)) = job else { return };
        let packed = pack(&chunk, level).map(|packed| (number, packed));
        if finished.send(packed).is_err() {
            return;
        }
    }
}

/// One chunk as deflate blocks that end on a byte's boundary.
fn pack(chunk: &[u8], level: Compression) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(level, false);
    let mut packed = Vec::with_capacity(chunk.len() / 2 + 1024);
    loop {
        let rest = &chunk[usize::try_from(compress.total_in()).unwrap_or_default()..];
        let before = packed.len();
        let status = compress.compress_vec(rest, &mut packed, FlushCompress::Sync);
        match status.map_err(io::Error::other)? {
            // It is whole when there was room left for more.
            Status::Ok | Status::BufError | Status::StreamEnd
                if rest.is_empty() && packed.len() < packed.capacity()
                    || compress.total_in() == chunk.len() as u64 && packed.len() < packed.capacity() =>
            {
                return Ok(packed);
            }
            _ if packed.len() == before && packed.len() < packed.capacity() => return Err(ended()),
            _ => packed.reserve(chunk.len() / 4 + 1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 40) as u8
            })
            .collect()
    }

    fn packed(bytes: &[u8], step: usize) -> Vec<u8> {
        let mut gzip = ParallelGzip::new(Vec::new(), Compression::new(6)).unwrap();
        bytes
            .chunks(step)
            .for_each(|piece| gzip.write_all(piece).unwrap());
        gzip.finish().unwrap()
    }

    #[test]
    fn one_member_that_everybody_reads() {
        let text = b"a layer has much of the same in it ".repeat(100_000);
        for bytes in [
            vec![],
            vec![7],
            noise(CHUNK),
            noise(CHUNK + 1),
            noise(3 * CHUNK + 77),
            text,
        ] {
            let packed = packed(&bytes, 10_007);
            let mut found = Vec::new();
            // The single-member decoder: there is one member only.
            let mut decoder = flate2::read::GzDecoder::new(&packed[..]);
            decoder.read_to_end(&mut found).unwrap();
            assert!(found == bytes, "{} bytes", bytes.len());
            assert_eq!(packed, self::packed(&bytes, 4096), "however it is written");
            let mut alone = std::process::Command::new("gzip")
                .args(["-t"])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            alone.stdin.take().unwrap().write_all(&packed).unwrap();
            assert!(alone.wait().unwrap().success());
        }
    }
}
