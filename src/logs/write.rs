//! Writing a container's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::LogStream;
use crate::clock::timestamp;
use crate::values::LogOptions;

/// The longest part of a line that is kept as one entry.
const LONGEST: usize = 16 * 1024;

/// Appends to a log, and begins another file where one is full. What is written is in the file when a call returns.
pub(crate) struct LogWriter {
    path: PathBuf,
    options: LogOptions,
    file: File,
    size: u64,
    /// What has come of a line that has not ended: of each stream.
    begun: [Vec<u8>; 2],
}

impl LogWriter {
    /// Opens it for more.
    pub(crate) fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            options,
            file,
            size,
            begun: [Vec::new(), Vec::new()],
        })
    }

    /// Takes what came of a stream: lines that have ended are written.
    pub(crate) fn take(&mut self, stream: LogStream, bytes: &[u8], now: i64) -> io::Result<()> {
        let mut rest = bytes;
        let mut out = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let begun = &mut self.begun[stream as usize];
            begun.extend_from_slice(&rest[..end]);
            split(begun, |part| entry(&mut out, stream, b'P', part, now));
            entry(&mut out, stream, b'F', begun, now);
            begun.clear();
            rest = &rest[end + 1..];
        }
        let begun = &mut self.begun[stream as usize];
        begun.extend_from_slice(rest);
        split(begun, |part| entry(&mut out, stream, b'P', part, now));
        self.append(&out)
    }

    /// Writes what did not end with a line.
    pub(crate) fn finish(&mut self, now: i64) -> io::Result<()> {
        let mut out = Vec::new();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let begun = std::mem::take(&mut self.begun[stream as usize]);
            if !begun.is_empty() {
                entry(&mut out, stream, b'P', &begun, now);
            }
        }
        self.append(&out)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.options.max_size {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// A reader that follows finds the rest of the old file under its new name.
    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: u32| match number {
            0 => self.path.clone(),
            _ => PathBuf::from(format!("{}.{number}", self.path.display())),
        };
        for number in (1..self.options.max_files).rev() {
            match fs::rename(name(number - 1), name(number)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if self.options.max_files == 1 {
            fs::remove_file(&self.path)?;
        }
        self.file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

/// Gives away the longest parts, and leaves the rest.
fn split(begun: &mut Vec<u8>, mut give: impl FnMut(&[u8])) {
    let mut from = 0;
    while begun.len() - from > LONGEST {
        give(&begun[from..from + LONGEST]);
        from += LONGEST;
    }
    begun.drain(..from);
}

fn entry(out: &mut Vec<u8>, stream: LogStream, tag: u8, content: &[u8], now: i64) {
    out.extend_from_slice(timestamp(now).as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.word().as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    out.extend_from_slice(content);
    out.push(b'\n');
}
