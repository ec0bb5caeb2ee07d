//! Where the bytes go: a file, a hash, a count.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use super::error::FetchError;
use super::fetched::{FetchedFile, Part};
use super::options::FetchOptions;
use super::response::Head;
use crate::digest::Hasher;
use crate::transfer::progress::Progress;

/// What was received so far.
pub(super) struct Sink<'a> {
    file: File,
    hasher: Hasher,
    size: u64,
    progress: &'a dyn Progress,
    /// What the bytes so far belong to.
    head: Option<Head>,
    limit: u64,
    pub(super) attempts: u32,
}

impl<'a> Sink<'a> {
    pub(super) fn new(file: File, options: &FetchOptions, progress: &'a dyn Progress) -> Sink<'a> {
        Sink {
            file,
            hasher: Hasher::new(),
            size: 0,
            progress,
            head: None,
            limit: options.limits.max_size,
            attempts: 0,
        }
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// From where a server that sends these parts may go on; `None` if the file must begin anew.
    pub(super) fn resumable(&self) -> Option<(u64, &Head)> {
        let head = self.head.as_ref()?;
        let safe = head.validators.strong_etag().is_some() && head.ranges;
        (self.size > 0 && safe).then_some((self.size, head))
    }

    /// What is there is of no use; the next attempt begins anew.
    pub(super) fn forget(&mut self) {
        self.head = None;
    }

    /// A whole answer begins.
    pub(super) fn restart(&mut self, head: Head) -> Result<(), FetchError> {
        self.check_size(head.length.unwrap_or(0), &head.url)?;
        let local = |source| FetchError::Local {
            action: "empty the temporary file",
            source,
        };
        self.file.set_len(0).map_err(local)?;
        self.file.seek(SeekFrom::Start(0)).map_err(local)?;
        self.hasher = Hasher::new();
        self.size = 0;
        self.progress.start(head.length);
        self.head = Some(head);
        Ok(())
    }

    /// The next bytes.
    pub(super) fn take(&mut self, bytes: &[u8], url: &str) -> Result<(), FetchError> {
        self.check_size(self.size + bytes.len() as u64, url)?;
        let local = |source| FetchError::Local {
            action: "write to the temporary file",
            source,
        };
        self.file.write_all(bytes).map_err(local)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.progress.advance(bytes.len() as u64);
        Ok(())
    }

    fn check_size(&self, size: u64, url: &str) -> Result<(), FetchError> {
        match size > self.limit {
            true => Err(FetchError::TooLarge {
                url: url.to_owned(),
                limit: self.limit,
            }),
            false => Ok(()),
        }
    }

    pub(super) fn check_cancelled(&self) -> Result<(), FetchError> {
        match self.progress.cancelled() {
            true => Err(FetchError::Cancelled),
            false => Ok(()),
        }
    }

    /// The file is whole: is it the right one?
    pub(super) fn finish(mut self, part: Part, options: &FetchOptions) -> Result<FetchedFile, FetchError> {
        let (found, size, url) = (self.hasher.finish(), self.size, part.url);
        if let Some(expected) = options.checksum
            && expected != found
        {
            return Err(FetchError::Checksum {
                url,
                expected,
                found,
                size,
            });
        }
        let local = |source| FetchError::Local {
            action: "read the temporary file",
            source,
        };
        self.file.seek(SeekFrom::Start(0)).map_err(local)?;
        let validators = self.head.map(|head| head.validators).unwrap_or_default();
        Ok(FetchedFile {
            file: self.file,
            digest: found,
            size,
            validators,
            url,
        })
    }
}
