//! gzip on every core, with the same result on any number of them.
//!
//! The input is cut into chunks of a fixed size, each compressed by itself as a gzip member (RFC 1952); members after each other are a
//! gzip file, which every client reads (eStargz layers are made of them too). libdeflate compresses better than zlib in less time, but
//! can't end a stream on a byte's boundary without ending it: hence the members.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor};

/// Bytes that are compressed by themselves: the smaller, the better the cores are used, the larger, the smaller the result.
const CHUNK: usize = 1 << 20;

type Job = (u64, Vec<u8>);

/// Compresses what is written to it.
pub(crate) struct ParallelGzip<W: Write> {
    out: W,
    chunk: Vec<u8>,
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
    /// Starts its threads; `level` is 0 to 12.
    pub(crate) fn new(out: W, level: u32) -> io::Result<ParallelGzip<W>> {
        let level = i32::try_from(level).map_err(|_| wrong_level())?;
        let level = CompressionLvl::new(level).map_err(|_| wrong_level())?;
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
        // Nothing at all is a member too.
        if !self.chunk.is_empty() || self.given == 0 {
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

fn wrong_level() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "gzip has no such level")
}

/// Compresses chunks until there are no more. No name, no time, no system: the bytes are the same everywhere.
fn work(todo: &Mutex<Receiver<Job>>, finished: &Sender<io::Result<Job>>, level: CompressionLvl) {
    let mut compressor = Compressor::new(level);
    loop {
        let job = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, chunk)) = job else { return };
        let mut packed = vec![0; compressor.gzip_compress_bound(chunk.len())];
        let packed = match compressor.gzip_compress(&chunk, &mut packed) {
            Ok(count) => {
                packed.truncate(count);
                Ok((number, packed))
            }
            Err(e) => Err(io::Error::other(e)),
        };
        if finished.send(packed).is_err() {
            return;
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
        let mut gzip = ParallelGzip::new(Vec::new(), 5).unwrap();
        bytes
            .chunks(step)
            .for_each(|piece| gzip.write_all(piece).unwrap());
        gzip.finish().unwrap()
    }

    #[test]
    fn members_that_everybody_reads() {
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
            let mut decoder = flate2::read::MultiGzDecoder::new(&packed[..]);
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
