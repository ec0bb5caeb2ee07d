//! Places for files of a layer in the making, each of which any thread can write.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::beneath;
use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::snapshot::canvas::timestamps;
use crate::snapshot::content;
use crate::snapshot::writer::Attrs;
use crate::stamp::Stamp;

/// A place for a regular file.
#[derive(Debug)]
pub struct Reserved {
    path: PathBuf,
    parent: Arc<OwnedFd>,
    name: OsString,
    attrs: Attrs,
    stamp: Stamp,
}

impl Reserved {
    pub(super) fn new(
        path: PathBuf,
        (parent, name): (Arc<OwnedFd>, OsString),
        attrs: Attrs,
        stamp: Stamp,
    ) -> Reserved {
        Reserved {
            path,
            parent,
            name,
            attrs,
            stamp,
        }
    }

    /// Whether both are in one directory, which is kept open for them.
    pub fn is_beside(&self, other: &Reserved) -> bool {
        Arc::ptr_eq(&self.parent, &other.parent)
    }

    /// Writes the file with all that `source` gives; the digest is of its bytes.
    ///
    /// # Errors
    /// When the source can't be read or the file can't be written.
    pub fn write(&self, source: &mut dyn Read) -> Result<Digest> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&*self.parent, &self.name, flags, mode).at("create", &self.path)?;
        let mut file = File::from(file);
        let digest = BUFFER.with_borrow_mut(|buffer| content::copy(source, &mut file, &self.path, buffer))?;
        let (attrs, path) = (&self.attrs, &self.path);
        beneath::give_new(&file, attrs.uid, attrs.gid).at("set the owner of", path)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(attrs.mode)).at("set the mode of", path)?;
        for (name, value) in &attrs.xattrs {
            rustix::fs::fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty())
                .at("set an attribute of", path)?;
        }
        rustix::fs::futimens(&file, &timestamps(self.stamp)).at("set the times of", path)?;
        Ok(digest)
    }
}
