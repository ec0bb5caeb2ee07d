//! Logs of builds, for a collection: nobody writes to one while somebody is alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::usage::bytes_of_tree;
use crate::build_log;
use crate::error::{IoContext, Result};
use crate::root::Root;

/// All that are there, oldest first.
pub(super) struct Logs(Vec<Log>);

struct Log {
    path: PathBuf,
    bytes: u64,
    used: i64,
}

impl Logs {
    pub(super) fn read(root: &Root) -> Result<Logs> {
        let read = |number| {
            let path = root.layout.build(number);
            let metadata = fs::metadata(&path).at("look at", &path)?;
            Ok(Log {
                bytes: bytes_of_tree(&path)?,
                used: metadata.mtime(),
                path,
            })
        };
        let logs: Result<Vec<Log>> = build_log::numbers(root)?.into_iter().map(read).collect();
        Ok(Logs(logs?))
    }

    /// Their bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|log| log.bytes).sum()
    }

    /// Takes those out that were not used since then, in seconds since 1970; places and bytes.
    pub(super) fn unused_since(&mut self, limit: i64) -> Vec<(PathBuf, u64)> {
        self.take(|log| log.used < limit)
    }

    /// Takes so many of the oldest out that these bytes go with them.
    pub(super) fn oldest(&mut self, mut bytes: u64) -> Vec<(PathBuf, u64)> {
        self.take(|log| {
            let goes = bytes > 0;
            bytes = bytes.saturating_sub(log.bytes);
            goes
        })
    }

    fn take(&mut self, which: impl FnMut(&mut Log) -> bool) -> Vec<(PathBuf, u64)> {
        let taken = self.0.extract_if(.., which);
        taken.map(|log| (log.path, log.bytes)).collect()
    }
}
