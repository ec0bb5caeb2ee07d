//! Reading a container's log, also while it is written.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::LogStream;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it is written.
    pub(crate) time: String,
    pub(crate) stream: LogStream,
    pub(crate) content: Vec<u8>,
    /// Whether the line ends here.
    pub(crate) is_end: bool,
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        let stream = match parts.next()? {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            _ => return None,
        };
        let is_end = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self {
            time,
            stream,
            content: parts.next()?.to_vec(),
            is_end,
        })
    }

    /// When it came, in nanoseconds since 1970.
    pub(crate) fn nanos(&self) -> i64 {
        let time = self.time.parse::<jiff::Timestamp>();
        time.map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
    }
}

/// Gives entries in the order they were written, from the oldest file on.
pub(crate) struct LogReader {
    path: PathBuf,
    current: Option<BufReader<File>>,
    /// A line whose end has not been written.
    begun: Vec<u8>,
}

impl LogReader {
    /// Opens what is there; nothing at all is an empty log.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            current: None,
            begun: Vec::new(),
        };
        let oldest = (1..).find(|number| !name(path, *number).exists()).unwrap_or(1) - 1;
        reader.current = open(&name(path, oldest))?;
        Ok(reader)
    }

    /// The next entry; none if no more has been written yet.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let Some(current) = &mut self.current else {
                self.current = open(&self.path)?;
                match self.current {
                    Some(_) => continue,
                    None => return Ok(None),
                }
            };
            // Asked before reading: what comes after an answer of no more is in another file.
            let next = successor(current.get_ref(), &self.path)?;
            let count = current.read_until(b'\n', &mut self.begun)?;
            if self.begun.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.begun);
                // What nobody could have written is left out.
                match Entry::parse(&line[..line.len() - 1]) {
                    Some(entry) => return Ok(Some(entry)),
                    None => continue,
                }
            }
            if count > 0 {
                continue;
            }
            let Some(next) = next else { return Ok(None) };
            self.begun.clear();
            self.current = Some(BufReader::new(next));
        }
    }
}

/// The n-th oldest file; 0 is the one that is written to.
fn name(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        _ => PathBuf::from(format!("{}.{number}", path.display())),
    }
}

fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The file in which the log goes on after this one, opened; none if it does in this one. Files are renamed meanwhile, always from a lower
/// number to a higher one, the highest first: looked at from the lowest on, each is met. What was renamed while it was opened is looked for again.
fn successor(file: &File, path: &Path) -> io::Result<Option<File>> {
    let identity = |file: &fs::Metadata| (file.dev(), file.ino());
    let own = Some(identity(&file.metadata()?));
    let at = |number: u32| {
        fs::metadata(name(path, number))
            .ok()
            .map(|found| identity(&found))
    };
    loop {
        if at(0) == own {
            return Ok(None);
        }
        // While files are renamed one number is free for a moment.
        let count = (1..)
            .find(|number| at(*number).is_none() && at(number + 1).is_none())
            .unwrap_or(1);
        let (place, before) = match (0..=count).find(|number| at(*number) == own) {
            Some(0) => return Ok(None),
            Some(number) => (number - 1, own),
            // It has been removed: from the oldest one on.
            None => match (0..=count).rev().find(|number| at(*number).is_some()) {
                Some(oldest) => (oldest, None),
                None => return Ok(None),
            },
        };
        if let Some(next) = open(&name(path, place))?
            && at(place) == Some(identity(&next.get_ref().metadata()?))
            && at(place + 1) == before
        {
            return Ok(Some(next.into_inner()));
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::LogWriter;
    use crate::values::LogOptions;

    fn options(max_size: u64, max_files: u32) -> LogOptions {
        LogOptions {
            none: false,
            max_size,
            max_files,
        }
    }

    /// All bytes of a stream as they came.
    fn all(path: &Path, stream: LogStream) -> Vec<u8> {
        let mut reader = LogReader::open(path).unwrap();
        let mut bytes = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            if entry.stream == stream {
                bytes.extend(&entry.content);
                bytes.extend(entry.is_end.then_some(b'\n'));
            }
        }
        bytes
    }

    #[test]
    fn every_byte_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path, options(1 << 30, 2)).unwrap();
        let mut out = b"one\n\ntwo\xff\0three\n".to_vec();
        out.extend(vec![b'x'; 40_000]);
        out.extend(b"\nlast without end");
        for (number, piece) in out.chunks(7001).enumerate() {
            writer.take(LogStream::Stdout, piece, number as i64).unwrap();
            writer.take(LogStream::Stderr, b"err\n", 5).unwrap();
        }
        writer.finish(9).unwrap();
        assert!(all(&path, LogStream::Stdout) == out);
        assert_eq!(
            all(&path, LogStream::Stderr),
            b"err\n".repeat(out.len().div_ceil(7001))
        );
    }

    #[test]
    fn a_full_file_is_followed_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path, options(2000, 3)).unwrap();
        let mut follower = LogReader::open(&path).unwrap();
        let mut followed = Vec::new();
        for number in 0..200 {
            writer
                .take(LogStream::Stdout, format!("line {number}\n").as_bytes(), 1)
                .unwrap();
            while let Some(entry) = follower.next().unwrap() {
                followed.push(String::from_utf8(entry.content).unwrap());
            }
        }
        assert_eq!(
            followed,
            (0..200).map(|n| format!("line {n}")).collect::<Vec<_>>()
        );
        let kept = String::from_utf8(all(&path, LogStream::Stdout)).unwrap();
        assert!(
            kept.ends_with("line 199\n") && kept.lines().count() < 200,
            "{kept}"
        );
        assert!(dir.path().join("log.2").exists() && !dir.path().join("log.3").exists());
        let total: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 6000, "{total}");
    }

    #[test]
    fn nonsense_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(
            &path,
            "nonsense\n\n2020-01-01T00:00:00Z stdout F good\n2020 stdout X bad\nhalf",
        )
        .unwrap();
        assert_eq!(all(&path, LogStream::Stdout), b"good\n");
    }
}
