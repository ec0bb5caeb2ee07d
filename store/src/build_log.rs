//! Logs of builds: directories with files whose content the caller knows.
//!
//! `builds/<n>/` is locked (`flock` on itself) before it appears and as long as the build goes on; what a killed one had written by
//! then is there. A log is as long as it is; the oldest ones go when there are too many, or too large ones.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use crate::disk::Disk;
use crate::error::{IoContext, Result, StoreError};
use crate::lock;
use crate::root::{Root, entries};
use crate::store::Store;

/// The file that each has: lines, the first of which is JSON.
pub const EVENTS: &str = "events";
/// The longest first line that is looked at.
const LONGEST_LINE: u64 = 1 << 20;

/// A log that is being written. Its lock goes with it.
#[derive(Debug)]
pub struct BuildLog {
    number: u64,
    dir: PathBuf,
    disk: Disk,
    _lock: File,
}

impl BuildLog {
    /// Its number, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Makes a file of it. `name` is of letters, digits and dots, and begins with none.
    ///
    /// # Errors
    /// When it can't be made, or is there.
    pub fn create(&self, name: &str) -> Result<File> {
        let path = self.dir.join(name);
        match is_good(name) {
            true => self.disk.create_file(&path),
            false => Err(StoreError::BadPath { path }),
        }
    }

    /// Writes to the end of a file of it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, file: &mut File, bytes: &[u8]) -> Result<()> {
        self.disk.write(file, &self.dir, bytes)
    }
}

/// A log, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLogInfo {
    /// Its number.
    pub number: u64,
    /// Whether its build goes on.
    pub is_running: bool,
}

/// How many logs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// So many, at most.
    pub count: usize,
    /// Bytes on the disk of all together; the newest one is kept however large it is.
    pub bytes: u64,
}

impl Store {
    /// Begins a log; the oldest ones go, so that there are no more than `bounds` says.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new_build_log(&self, bounds: LogBounds) -> Result<BuildLog> {
        let (root, _) = self.parts();
        let temp = root.temp_dir()?;
        let made = temp.path().join("log");
        root.disk.make_dir(&made)?;
        let lock = open_dir(&made).at("open", &made)?;
        lock::try_exclusive(&lock).at("lock", &made)?;
        let mut number = numbers(root)?.last().map_or(1, |last| last + 1);
        while !root.disk.rename_new(&made, &root.layout.build(number))? {
            // Another build has it.
            number += 1;
        }
        root.wrote();
        bound(root, bounds)?;
        Ok(BuildLog {
            number,
            dir: root.layout.build(number),
            disk: root.disk.clone(),
            _lock: lock,
        })
    }

    /// All logs, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn build_logs(&self) -> Result<Vec<BuildLogInfo>> {
        let (root, _) = self.parts();
        let info = |number| BuildLogInfo {
            number,
            is_running: is_held(&root.layout.build(number)),
        };
        Ok(numbers(root)?.into_iter().map(info).collect())
    }

    /// Opens a file of a log; none if there is no such log or file.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open_build_log(&self, number: u64, name: &str) -> Result<Option<File>> {
        let path = self.layout().build(number).join(name);
        if !is_good(name) {
            return Err(StoreError::BadPath { path });
        }
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.at("open", &path).map(Some),
        }
    }
}

fn is_good(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    !name.starts_with('.') && !name.is_empty() && name.bytes().all(good)
}

fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?.into())
}

/// Whether somebody writes to it.
fn is_held(path: &Path) -> bool {
    let Ok(dir) = open_dir(path) else { return false };
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared).is_err()
}

/// The numbers of all logs, in order.
pub(crate) fn numbers(root: &Root) -> Result<Vec<u64>> {
    let names = entries(&root.layout.builds())?.into_iter();
    let mut numbers: Vec<u64> = names.filter_map(|(name, _)| number(&name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn number(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (number > 0 && name == u64::to_string(&number)).then_some(number)
}

/// Removes the oldest ones until the bounds hold. Those that are being written stay.
fn bound(root: &Root, bounds: LogBounds) -> Result<()> {
    let (mut count, mut bytes) = (0, 0_u64);
    for number in numbers(root)?.into_iter().rev() {
        let path = root.layout.build(number);
        count += 1;
        bytes = bytes.saturating_add(size(&path));
        if count == 1 || (count <= bounds.count && bytes <= bounds.bytes) {
            continue;
        }
        let Ok(dir) = open_dir(&path) else { continue };
        if !lock::try_exclusive(&dir).at("lock", &path)? {
            continue;
        }
        let away = root.temp_dir()?;
        match root.disk.rename_into(&path, &away.path().join("log")) {
            // Somebody else was first.
            Err(_) if !path.exists() => {}
            moved => moved?,
        }
    }
    Ok(())
}

/// Bytes on the disk.
pub(crate) fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512));
    sizes.sum()
}

/// What is wrong with what lies in `builds/` under this name; nothing if its build goes on, or was killed before it wrote anything.
pub(crate) fn problem(root: &Root, name: &str) -> Result<Option<&'static str>> {
    let Some(number) = number(name) else {
        return Ok(Some("it is no log"));
    };
    let path = root.layout.build(number).join(EVENTS);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.at("open", &path)?,
    };
    let mut text = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut text).at("read", &path)?;
    let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
        return Ok((text.first().is_some_and(|first| *first != b'{')).then_some("its events can't be read"));
    };
    let is_json = serde_json::from_slice::<serde_json::Value>(&text[..end]).is_ok();
    Ok((!is_json).then_some("its events can't be read"))
}
