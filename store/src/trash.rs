//! Removing what nobody uses any more, beside the work: that waits for the disk (one that discards what is freed, above all), not for the
//! processor.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::disk::Disk;

/// How many trees are removed at once.
const WORKERS: usize = 4;

/// Trees that are to go. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Trash(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    disk: Disk,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<PathBuf>,
    /// Workers that remove something.
    busy: usize,
    workers: Vec<JoinHandle<()>>,
    is_closed: bool,
}

impl Trash {
    pub(crate) fn new(disk: Disk) -> Trash {
        Trash(Arc::new(Shared {
            disk,
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Has a tree removed soon. What can't be removed is removed with the owner's directory.
    pub(crate) fn push(&self, path: PathBuf) {
        let mut state = self.0.state();
        let all_busy = state.workers.len() <= state.busy + state.waiting.len();
        if !state.is_closed && all_busy && state.workers.len() < WORKERS {
            let shared = Arc::clone(&self.0);
            let worker = std::thread::Builder::new().name("box-trash".into());
            state.workers.extend(worker.spawn(move || shared.work()));
        }
        if state.is_closed || state.workers.is_empty() {
            drop(state);
            let _ = self.0.disk.remove_tree(&path);
            return;
        }
        state.waiting.push_back(path);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until all is gone that was to go; what is to go later goes at once.
    pub(crate) fn close(&self) {
        let mut state = self.0.state();
        state.is_closed = true;
        let workers = std::mem::take(&mut state.workers);
        drop(state);
        self.0.changed.notify_all();
        for worker in workers {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what is waiting, until nothing comes any more.
    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(path) = state.waiting.pop_front() {
                state.busy += 1;
                drop(state);
                let _ = self.disk.remove_tree(&path);
                state = self.state();
                state.busy -= 1;
            } else if state.is_closed {
                return;
            } else {
                state = self.wait(state);
            }
        }
    }
}

/// A directory in this process' part of `tmp/`; removed with the handle (or soon after), or by a later command if this one is killed.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
    disk: Disk,
    trash: Option<Trash>,
}

impl TempDir {
    /// Removed with the handle.
    pub(crate) fn new(path: PathBuf, disk: &Disk) -> TempDir {
        let (disk, trash) = (disk.clone(), None);
        TempDir { path, disk, trash }
    }

    /// Removed soon after the handle.
    pub(crate) fn removed_later(path: PathBuf, disk: &Disk, trash: &Trash) -> TempDir {
        let (disk, trash) = (disk.clone(), Some(trash.clone()));
        TempDir { path, disk, trash }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// It is elsewhere by now: nothing is removed.
    pub(crate) fn forget(mut self) {
        self.path = PathBuf::new();
    }

    /// Has a part of it removed soon, if nobody waits for that.
    pub(crate) fn part_with(&self, part: PathBuf) {
        if let Some(trash) = &self.trash {
            trash.push(part);
        }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        match &self.trash {
            _ if self.path.as_os_str().is_empty() => {}
            Some(trash) => trash.push(std::mem::take(&mut self.path)),
            // What can't be removed now is removed with the owner's directory.
            None => drop(self.disk.remove_tree(&self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_gone_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let trash = Trash::new(Disk::default());
        let tree = |n: usize| {
            let path = dir.path().join(n.to_string());
            std::fs::create_dir_all(path.join("work/work")).unwrap();
            std::fs::write(path.join("work/file"), "x").unwrap();
            path
        };
        for n in 0..40 {
            let path = tree(n);
            // Two may be at the same tree.
            trash.push(path.join("work"));
            trash.push(path);
        }
        trash.push(tree(40));
        trash.close();
        trash.push(tree(41));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
