//! Being the only one who uses the store, and letting others be.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::lock::{self, LockGuard};
use crate::root::Root;
use crate::snapshot::OverlayDirs;
use crate::store::Store;

/// How long newcomers are held up at once, at most, by somebody who waits to be alone.
const TURN: Duration = Duration::from_secs(5);
/// How long they are let through in between.
const PAUSE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(10);
/// Locks of what running containers use.
const USE: &str = "use";

/// Nobody else uses the store as long as this is held.
pub(super) struct Alone<'a> {
    root: &'a Root,
}

impl<'a> Alone<'a> {
    /// Waits for it; none if others use the store all the time.
    pub(super) fn wait(root: &'a Root, longest: Duration) -> Result<Option<Alone<'a>>> {
        let end = Instant::now() + longest;
        loop {
            // Newcomers wait while this is held. Without a byte free it may be missing: then they are not held up.
            let turn = lock::open_lock(&root.layout.turn_lock()).ok();
            let turn = turn.filter(|turn| lock::try_exclusive(turn).unwrap_or(false));
            let until = (Instant::now() + TURN).min(end);
            loop {
                let path = root.layout.store_lock();
                if lock::try_exclusive(root.store_lock.file()).at("lock", &path)? {
                    return Ok(Some(Alone { root }));
                }
                lock::take_shared(root.store_lock.file()).at("lock", &path)?;
                if Instant::now() >= until {
                    break;
                }
                std::thread::sleep(TICK);
            }
            drop(turn);
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether a running container uses a layer or a fix-up of this name.
    pub(super) fn is_used(&self, digest: &Digest) -> Result<bool> {
        let path = self.root.layout.locks(USE).join(digest.hex());
        match File::open(&path) {
            Ok(file) => Ok(!lock::try_exclusive(&file).at("lock", &path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).at("open lock", &path),
        }
    }

    /// Removes the locks that nobody holds.
    pub(super) fn tidy_uses(&self) -> Result<()> {
        let directory = self.root.layout.locks(USE);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).at("read", &directory),
        };
        for entry in entries {
            let path = entry.at("read", &directory)?.path();
            let file = File::open(&path).at("open lock", &path)?;
            if lock::try_exclusive(&file).at("lock", &path)? {
                self.root.disk.remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // Whoever waits goes on with this; that the own lock is shared again is for what this process does next.
        let _ = lock::take_shared(self.root.store_lock.file());
    }
}

/// A running container's hold on what it lies on.
#[derive(Debug)]
pub struct Rest {
    _uses: Vec<LockGuard>,
}

impl Store {
    /// Lets go of the store but for what these directories lie on, so that it can be swept while a container runs. Nothing of the store may
    /// be used through this handle from then on but what [`Rest`] holds and what is this process' own.
    pub fn rest(&self, dirs: &OverlayDirs) -> Result<Rest> {
        let (root, _) = self.parts();
        let name = |path: &Path| Digest::from_hex(path.file_name()?.to_str()?).ok();
        let used: BTreeSet<Digest> = dirs.lower.iter().filter_map(|path| name(path)).collect();
        let directory = root.layout.locks(USE);
        std::fs::create_dir_all(&directory).at("make directory", &directory)?;
        let take = |digest: &Digest| {
            let path = directory.join(digest.hex());
            lock::shared_of(lock::open_lock(&path).at("open lock", &path)?, &path)
        };
        let uses = used.iter().map(take).collect::<Result<Vec<_>>>()?;
        lock::unlock(root.store_lock.file()).at("unlock", root.layout.store_lock())?;
        Ok(Rest { _uses: uses })
    }
}
