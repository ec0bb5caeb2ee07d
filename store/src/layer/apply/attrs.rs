//! Owner, mode, extended attributes and times of what was made: in this order, since a change of the owner takes
//! setuid bits and capabilities away.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::error::{ApplyError, EntryName, Problem};
use super::member::Member;
use super::options::Extract;
use super::pax::Time;
use super::trouble::Failed;

/// What is set on an entry.
#[derive(Debug, Clone)]
pub(super) struct Attrs {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attrs {
    /// Of an entry, as far as a layer keeps them.
    pub(super) fn of(member: &mut Member, how: &Extract<'_>) -> Result<Attrs, ApplyError> {
        let mut xattrs = std::mem::take(&mut member.xattrs);
        xattrs.retain(|(name, _)| is_kept(name));
        let (what, limit) = ("extended attribute", how.limits.max_xattr);
        if xattrs.iter().any(|(_, value)| value.len() > limit) {
            let problem = Problem::TooLong { what, limit };
            return Err(ApplyError::Entry {
                entry: EntryName::new(member.name.clone()),
                problem,
            });
        }
        let mtime = bounded(member.mtime);
        let mtime = match &how.retime {
            Some(retime) if retime.from == mtime => retime.to,
            _ => mtime,
        };
        Ok(Attrs {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime,
            xattrs,
        })
    }

    /// Of a directory that the archive does not list: 0755, root's, and the oldest time that zip files can hold, so
    /// that two archives of one tree give one layer.
    pub(super) fn implied() -> Attrs {
        let mtime = Time {
            seconds: 315_532_800,
            nanoseconds: 0,
        };
        Attrs {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: Vec::new(),
        }
    }

    /// On an open file or directory.
    pub(super) fn set_on(&self, fd: BorrowedFd<'_>) -> Result<(), Failed> {
        crate::beneath::give(fd, self.uid, self.gid).map_err(owner_failed)?;
        for (name, value) in &self.xattrs {
            rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty())
                .map_err(|e| ("set an extended attribute", e))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode)).map_err(|e| ("set the mode", e))?;
        rustix::fs::futimens(fd, &self.times()).map_err(|e| ("set the time", e))
    }

    /// On what cannot be opened without side effects: links, FIFOs and devices. `parent` was opened beneath the
    /// root and `name` was just made there.
    pub(super) fn set_at(&self, parent: BorrowedFd<'_>, name: &[u8], has_mode: bool) -> Result<(), Failed> {
        crate::beneath::give_at(parent, OsStr::from_bytes(name), self.uid, self.gid).map_err(owner_failed)?;
        if has_mode || !self.xattrs.is_empty() {
            self.set_by_handle(parent, name, has_mode)?;
        }
        rustix::fs::utimensat(parent, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| ("set the time", e))
    }

    /// By the descriptor's name in /proc, which means the thing itself even if it is a link.
    fn set_by_handle(&self, parent: BorrowedFd<'_>, name: &[u8], has_mode: bool) -> Result<(), Failed> {
        let handle = handle(parent, name).map_err(|e| ("open", e))?;
        let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
        for (name, value) in &self.xattrs {
            rustix::fs::setxattr(&path, name.as_slice(), value, XattrFlags::empty())
                .map_err(|e| ("set an extended attribute", e))?;
        }
        if has_mode {
            rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(self.mode), AtFlags::empty())
                .map_err(|e| ("set the mode", e))?;
        }
        Ok(())
    }

    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: self.mtime.seconds,
                tv_nsec: self.mtime.nanoseconds.into(),
            },
        }
    }
}

fn owner_failed(error: io::Error) -> Failed {
    match Errno::from_io_error(&error) {
        Some(errno) => ("set the owner", errno),
        // Not the kernel's words: there are too many.
        None => (
            "record the owner beside those of other links in its directory (with subordinate ids none are recorded)",
            Errno::TOOBIG,
        ),
    }
}

fn handle(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Not what means something to overlayfs, in whichever namespace, and not what belongs to one machine's policy.
fn is_kept(name: &[u8]) -> bool {
    let overlay = name.split(|b| *b == b'.').nth(1) == Some(b"overlay");
    let record = crate::beneath::is_owner_record(OsStr::from_bytes(name));
    !overlay && !record && !matches!(name, b"security.selinux" | b"security.ima" | b"security.evm")
}

/// Times that file systems cannot hold become 1970, as with Docker (whose own layers say 0001-01-01 at times).
fn bounded(time: Time) -> Time {
    const LAST: i64 = (1 << 34) - 1;
    match (0..LAST).contains(&time.seconds) {
        true => time,
        false => Time::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_the_machine_are_dropped() {
        for name in [
            "trusted.overlay.opaque",
            "user.overlay.whiteout",
            "security.selinux",
            "x.overlay.y",
            "user.overlay",
        ] {
            assert!(!is_kept(name.as_bytes()), "{name}");
        }
        for name in [
            "security.capability",
            "user.overlayed",
            "user.a.overlay.b",
            "trusted.x",
            "user.x",
        ] {
            assert!(is_kept(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn times_out_of_range_become_1970() {
        let time = |seconds| Time {
            seconds,
            nanoseconds: 5,
        };
        for seconds in [-1, i64::MIN, i64::MAX, 1 << 34] {
            assert_eq!(bounded(time(seconds)), Time::default());
        }
        assert_eq!(bounded(time(1_700_000_000)), time(1_700_000_000));
    }
}
