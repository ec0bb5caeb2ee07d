//! Who uses which address: `flock`s held by the living, below one directory of the machine.
//!
//! Layout: `lock`, held while anything of the host's network is changed; one directory for each network namespace that box has
//! a bridge in, named by the namespace's inode (and the bridge, unless that is box0); in it a file for each lease, named by its number and locked by whoever has
//! it, with the names that others on the bridge know it by, `next`, the number that is tried first, so that an address is not given away again at once, and `sweeper`, locked by
//! the process that removes an unused bridge. Files come and go under `lock` alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::BRIDGE;

/// The first number; 0 is the network's own address and 1 the bridge's.
const FIRST: u32 = 2;
/// The number after the last: the last address is for all.
const END: u32 = 0xffff;
const NEXT: &str = "next";
const SWEEPER: &str = "sweeper";

/// The leases of this network namespace, while nobody else changes them.
#[derive(Debug)]
pub(super) struct Leases {
    bridge: String,
    directory: PathBuf,
    _lock: File,
}

/// An address that is this process' own as long as the value lives.
#[derive(Debug)]
pub(super) struct Lease {
    number: u32,
    _file: File,
}

impl Lease {
    /// The number of the address in its network.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Leases {
    /// Waits until nobody else changes them.
    pub(super) fn lock(base: &Path, bridge: &str) -> io::Result<Leases> {
        Leases::open(base, bridge, FlockOperation::LockExclusive)
    }

    /// The same, unless there is nothing to look after, or somebody else does.
    pub(super) fn look_after(base: &Path, bridge: &str) -> io::Result<Option<Leases>> {
        if !own_directory(base, bridge)?.exists() {
            return Ok(None);
        }
        match Leases::open(base, bridge, FlockOperation::NonBlockingLockExclusive) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    /// The bridges that there is something of, in this thread's network namespace.
    pub(super) fn bridges(base: &Path) -> io::Result<Vec<String>> {
        let own = namespace()?;
        let found = match fs::read_dir(base) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut bridges = Vec::new();
        for entry in found {
            let name = entry?.file_name();
            match name.to_str().and_then(|name| name.strip_prefix(&own)) {
                Some("") => bridges.push(BRIDGE.to_owned()),
                Some(rest) => bridges.extend(rest.strip_prefix('-').map(str::to_owned)),
                None => {}
            }
        }
        Ok(bridges)
    }

    /// The bridge they are of.
    pub(super) fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Where they are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn open(base: &Path, bridge: &str, how: FlockOperation) -> io::Result<Leases> {
        let directory = own_directory(base, bridge)?;
        make(base)?;
        let lock = open(&base.join("lock"))?;
        rustix::io::retry_on_intr(|| flock(&lock, how))?;
        make(&directory)?;
        Ok(Leases {
            bridge: bridge.to_owned(),
            directory,
            _lock: lock,
        })
    }

    /// Takes a number that is free. The second value says whether somebody dead has it still.
    pub(super) fn take(&self, names: &[String]) -> io::Result<(Lease, bool)> {
        let next: u32 = fs::read_to_string(self.directory.join(NEXT))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|number| (FIRST..END).contains(number))
            .unwrap_or(FIRST);
        for number in (next..END).chain(FIRST..next) {
            let path = self.path(number);
            let was_there = path.exists();
            if let Some(file) = try_lock(&path)? {
                fs::write(self.directory.join(NEXT), (number + 1).to_string())?;
                fs::write(&path, names.join(" "))?;
                let lease = Lease { number, _file: file };
                return Ok((lease, was_there));
            }
        }
        Err(io::Error::other("all addresses of the network are in use"))
    }

    /// Makes a number free for others.
    pub(super) fn free(&self, number: u32) -> io::Result<()> {
        match fs::remove_file(self.path(number)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The numbers of the living, and those of the dead.
    pub(super) fn all(&self) -> io::Result<(Vec<u32>, Vec<u32>)> {
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match try_lock(&self.path(number))? {
                Some(_) => dead.push(number),
                None => living.push(number),
            }
        }
        Ok((living, dead))
    }

    /// The right to remove an unused bridge; none when somebody has it already.
    pub(super) fn sweeper(&self) -> io::Result<Option<File>> {
        try_lock(&self.directory.join(SWEEPER))
    }

    /// Removes the directory, where nothing is in use any more.
    pub(super) fn forget(self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(number.to_string())
    }
}

/// The living in a directory of leases: their numbers and names.
pub(super) fn members(directory: &Path) -> io::Result<Vec<(u32, Vec<String>)>> {
    let mut members = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        let (Some(number), Ok(text)) = (number, fs::read_to_string(&path)) else {
            continue;
        };
        // Whoever could be given the lock is dead, and has it not.
        let is_dead =
            File::open(&path).is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockShared).is_ok());
        if !is_dead {
            members.push((number, text.split_whitespace().map(str::to_owned).collect()));
        }
    }
    Ok(members)
}

/// The name of this thread's network namespace.
fn namespace() -> io::Result<String> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino().to_string())
}

/// The directory of a bridge in this thread's network namespace.
pub(super) fn own_directory(base: &Path, bridge: &str) -> io::Result<PathBuf> {
    let own = namespace()?;
    Ok(base.join(if bridge == BRIDGE {
        own
    } else {
        format!("{own}-{bridge}")
    }))
}

fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let base = std::env::temp_dir().join(format!("box-leases-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        base
    }

    #[test]
    fn numbers_are_held_by_the_living() {
        let base = scratch("living");
        assert!(Leases::look_after(&base, BRIDGE).unwrap().is_none());
        let leases = Leases::lock(&base, BRIDGE).unwrap();
        assert!(Leases::look_after(&base, BRIDGE).unwrap().is_none(), "locked");
        let (one, _) = leases.take(&["web".into(), "www".into()]).unwrap();
        let (two, _) = leases.take(&[]).unwrap();
        assert_eq!((one.number(), two.number()), (2, 3));
        let known = members(leases.directory()).unwrap();
        assert!(
            known.contains(&(2, vec!["web".into(), "www".into()])),
            "{known:?}"
        );
        drop(one);
        assert_eq!(members(leases.directory()).unwrap().len(), 1);
        assert_eq!(leases.all().unwrap(), (vec![3], vec![2]));
        let (three, was_there) = leases.take(&[]).unwrap();
        assert_eq!((three.number(), was_there), (4, false), "not at once again");
        leases.free(2).unwrap();
        leases.free(2).unwrap();
        assert!(leases.all().unwrap().1.is_empty());
        fs::write(leases.directory.join(NEXT), "3").unwrap();
        drop(two);
        let (again, was_there) = leases.take(&[]).unwrap();
        assert_eq!((again.number(), was_there), (3, true));
        leases.forget().unwrap();
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn one_sweeper_at_a_time() {
        let base = scratch("sweeper");
        let leases = Leases::lock(&base, BRIDGE).unwrap();
        let sweeper = leases.sweeper().unwrap();
        assert!(sweeper.is_some());
        assert!(leases.sweeper().unwrap().is_none());
        drop(sweeper);
        assert!(leases.sweeper().unwrap().is_some());
        leases.forget().unwrap();
        fs::remove_dir_all(&base).unwrap();
    }
}
