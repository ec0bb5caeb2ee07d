//! The journal: what happened to containers, images, volumes and networks, a line each. The store does not understand them.
//!
//! ```text
//! <first 16 hexadecimal digits of the SHA-256 of the text> <text>\n
//! ```
//!
//! Lines are appended to `journal/log` while its `flock` is held. A full one becomes `journal/log.1` in place of the one before it, so
//! the journal never grows beyond twice that size. Nothing of it is durable before somebody syncs for another reason: it tells what
//! happened, and nothing else relies on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::lock::is_linked;
use crate::root::Root;
use crate::store::Store;

/// Bytes after which another file is begun.
const FULL: u64 = 4 << 20;
/// The longest text; what is longer is no event.
const LONGEST: usize = 64 << 10;
const SUM: usize = 16;

impl Store {
    /// Appends a line. A text with a line's end in it, or longer than 64 KiB, is left out.
    pub fn note(&self, text: &[u8]) -> Result<()> {
        if text.contains(&b'\n') || text.len() > LONGEST {
            return Ok(());
        }
        append(self.parts().0, text)
    }

    /// Reads the journal from its oldest line on.
    pub fn journal(&self) -> JournalReader {
        JournalReader {
            files: Files::new(self.parts().0),
            current: None,
        }
    }
}

/// The journal's two files.
#[derive(Debug, Clone)]
struct Files {
    log: PathBuf,
    old: PathBuf,
}

impl Files {
    fn new(root: &Root) -> Files {
        let dir = root.layout.journal();
        Files {
            log: dir.join("log"),
            old: dir.join("log.1"),
        }
    }
}

/// A file of the journal that nobody else changes meanwhile.
struct Locked {
    file: File,
}

impl Locked {
    /// None if it is there no more, under this name.
    fn take(file: File, path: &Path) -> Result<Option<Locked>> {
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result.map_err(io::Error::from).at("lock", path)?,
            }
        }
        Ok(is_linked(&file, path).then_some(Locked { file }))
    }
}

fn sum(text: &[u8]) -> String {
    let mut sum = Digest::of(text).hex();
    sum.truncate(SUM);
    sum
}

/// The text of a line, if it is what was written.
fn text(line: &[u8]) -> Option<&[u8]> {
    let (found, rest) = line.split_at_checked(SUM)?;
    let text = rest.strip_prefix(b" ")?;
    (sum(text).as_bytes() == found).then_some(text)
}

fn append(root: &Root, text: &[u8]) -> Result<()> {
    let files = Files::new(root);
    let path = &files.log;
    loop {
        let options = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .clone();
        let file = match options.open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                root.disk.make_dir(&root.layout.journal())?;
                continue;
            }
            opened => opened.at("open", path)?,
        };
        let Some(mut locked) = Locked::take(file, path)? else {
            continue;
        };
        let size = locked.file.metadata().at("look at", path)?.len();
        if size >= FULL {
            fs::rename(path, &files.old).at("rename", path)?;
            continue;
        }
        let end = whole(&locked.file, size).at("read", path)?;
        if end < size {
            // Whoever wrote that was killed.
            locked.file.set_len(end).at("write", path)?;
        }
        let mut line = sum(text).into_bytes();
        line.push(b' ');
        line.extend_from_slice(text);
        line.push(b'\n');
        let written = root.disk.write(&mut locked.file, path, &line);
        if written.is_err() {
            // No half a line; the next one to write does it where it fails here.
            let _ = locked.file.set_len(end);
        }
        return written;
    }
}

/// Where the last whole line ends.
fn whole(file: &File, size: u64) -> io::Result<u64> {
    let mut last = [0];
    if size == 0 || (file.read_exact_at(&mut last, size - 1).is_ok() && last == *b"\n") {
        return Ok(size);
    }
    let from = size.saturating_sub((LONGEST + SUM + 2) as u64);
    let mut tail = vec![0; usize::try_from(size - from).unwrap_or(0)];
    file.read_exact_at(&mut tail, from)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n');
    Ok(end.map_or(from, |at| from + at as u64 + 1))
}

/// Gives the lines of the journal as they were written, those too that come while it is read.
#[derive(Debug)]
pub struct JournalReader {
    files: Files,
    current: Option<BufReader<File>>,
}

impl JournalReader {
    /// The next text; none if no more has been written yet. What is damaged is left out ([`Store::check`] tells).
    pub fn next_text(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let Files { log, old } = &self.files;
            if self.current.is_none() {
                self.current = match open(old)? {
                    Some(file) => Some(file),
                    None => open(log)?,
                };
            }
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            // Asked before reading: what comes after an answer of no more is in another file.
            let next = successor(current.get_ref(), &self.files).at("look at", log)?;
            let start = current.stream_position().at("read", log)?;
            let mut line = Vec::new();
            current.read_until(b'\n', &mut line).at("read", log)?;
            if line.pop_if(|last| *last == b'\n').is_some() {
                match text(&line) {
                    Some(text) => return Ok(Some(text.to_vec())),
                    None => continue,
                }
            }
            let Some(next) = next else {
                // Half a line may be taken back by the next one to write.
                current.seek(SeekFrom::Start(start)).at("read", log)?;
                return Ok(None);
            };
            self.current = open(&next)?;
        }
    }
}

fn open(path: &Path) -> Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("open", path),
    }
}

/// The file in which the journal goes on after this one; none if it does in this one.
fn successor(file: &File, files: &Files) -> io::Result<Option<PathBuf>> {
    let open = file.metadata()?;
    let is_it = |path: &Path| {
        let named = fs::symlink_metadata(path);
        named.is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()))
    };
    // A file is renamed from the first name to the second; asked in this order it is met.
    if is_it(&files.log) {
        return Ok(None);
    }
    let next = if is_it(&files.old) { &files.log } else { &files.old };
    Ok(next.exists().then(|| next.clone()))
}

/// How many lines of the journal are not what was written; with `repair` they are left out of it.
pub(crate) fn check(root: &Root, repair: bool) -> Result<Vec<(PathBuf, usize)>> {
    let files = Files::new(root);
    // Held for both: whoever appends renames the one to the other.
    let _locked = loop {
        match OpenOptions::new().read(true).write(true).open(&files.log) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => break None,
            opened => {
                let locked = Locked::take(opened.at("open", &files.log)?, &files.log)?;
                if locked.is_some() {
                    break locked;
                }
            }
        }
    };
    let mut found = Vec::new();
    for path in [&files.old, &files.log] {
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            read => read.at("read", path)?,
        };
        let (good, bad) = sift(&bytes);
        if bad > 0 {
            if repair {
                root.replace(path, &good, crate::disk::Durability::Later)?;
            }
            found.push((path.clone(), bad));
        }
    }
    Ok(found)
}

/// The good lines, and how many others there are.
fn sift(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut good = Vec::with_capacity(bytes.len());
    let mut bad = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.split_last() {
            Some((b'\n', rest)) if text(rest).is_some() => good.extend_from_slice(line),
            Some((b'\n', _)) => bad += 1,
            // The end of it that somebody did not come to write; but not one that only lost its line's end.
            Some((_, rest)) => bad += usize::from(text(rest).is_some()),
            None => {}
        }
    }
    (good, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::StoreOptions;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        (dir, store)
    }

    fn all(reader: &mut JournalReader) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(text) = reader.next_text().unwrap() {
            texts.push(String::from_utf8(text).unwrap());
        }
        texts
    }

    #[test]
    fn what_is_noted_is_read_once_in_order_by_many() {
        let (dir, store) = store();
        let mut follower = store.journal();
        assert!(all(&mut follower).is_empty());
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
                std::thread::spawn(move || {
                    for n in 0..50 {
                        store.note(format!("{thread} {n}").as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        let mut followed = Vec::new();
        while followed.len() < 200 {
            followed.extend(all(&mut follower));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(followed, all(&mut store.journal()));
        for thread in 0..4 {
            let own = followed
                .iter()
                .filter(|text| text.starts_with(&format!("{thread} ")));
            let wanted: Vec<String> = (0..50).map(|n| format!("{thread} {n}")).collect();
            assert!(own.eq(wanted.iter()), "{thread}");
        }
        store.note(b"two\nlines").unwrap();
        assert_eq!(all(&mut store.journal()).len(), 200);
    }

    #[test]
    fn it_does_not_grow_without_bound_and_a_follower_misses_nothing() {
        let (dir, store) = store();
        let mut follower = store.journal();
        let mut followed = Vec::new();
        let long = "x".repeat(40_000);
        for n in 0..400 {
            store.note(format!("{n} {long}").as_bytes()).unwrap();
            followed.extend(all(&mut follower));
        }
        assert_eq!(followed.len(), 400);
        let sizes =
            ["log", "log.1"].map(|name| fs::metadata(dir.path().join("journal").join(name)).unwrap().len());
        assert!(sizes.iter().all(|size| *size < FULL + 50_000), "{sizes:?}");
        let kept = all(&mut store.journal());
        assert!(kept.len() < 400 && kept[..] == followed[400 - kept.len()..]);
    }

    #[test]
    fn half_a_line_goes_and_a_damaged_one_is_found() {
        let (dir, store) = store();
        let log = dir.path().join("journal/log");
        store.note(b"one").unwrap();
        let mut follower = store.journal();
        let mut bytes = fs::read(&log).unwrap();
        let whole = bytes.clone();
        bytes.extend(&whole[..10]);
        fs::write(&log, &bytes).unwrap();
        assert_eq!(all(&mut follower), ["one"]);
        assert!(store.check(false).unwrap().findings.is_empty());
        store.note(b"two").unwrap();
        assert_eq!(all(&mut follower), ["two"]);
        assert_eq!(all(&mut store.journal()), ["one", "two"]);
        let good = fs::read(&log).unwrap();
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&log, &flipped).unwrap();
            let found = store.check(false).unwrap().findings;
            assert_eq!(found.len(), 1, "bit {bit}: {found:?}");
            assert!(all(&mut store.journal()).len() < 2, "bit {bit}");
        }
        assert!(store.check(true).unwrap().findings[0].is_repaired);
        assert!(store.check(false).unwrap().findings.is_empty());
        store.note(b"three").unwrap();
        assert_eq!(all(&mut store.journal()).last().unwrap(), "three");
    }
}
