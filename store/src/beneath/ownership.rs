//! Who owns an entry: whom its inode names, or in a process with a single id (an ordinary user's without subordinate ids) whom a
//! record names, since there every inode is the user's.
//!
//! The record of a file or directory is its attribute `user.box.owner`, `UID:GID` in decimal. A link, FIFO or device can have no such attribute:
//! its record is in `user.box.owners` of its directory, `UID:GID NAME` and a zero byte for each. Without a record an entry is
//! root's. Both attributes belong to the store and not to images: no tar has them. A step may set them on what it makes, as it may
//! say `chown` where there are more ids.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Kind, Metadata, proc_path};

const OWNER: &str = "user.box.owner";
const OWNERS: &str = "user.box.owners";
/// Longest record of a directory's links and nodes, in bytes; file systems may hold less.
const MAX_OWNERS: usize = 65_536;

/// A process has one kind of ids: its user namespace's.
static HAS_SINGLE_ID: AtomicBool = AtomicBool::new(false);

/// From now on owners are recorded in this process.
pub(crate) fn record() {
    HAS_SINGLE_ID.store(true, Ordering::Relaxed);
}

pub(super) fn is_recorded() -> bool {
    HAS_SINGLE_ID.load(Ordering::Relaxed)
}

/// Whether an extended attribute is one of the records.
pub(crate) fn is_record(name: &OsStr) -> bool {
    name == OWNER || name == OWNERS
}

/// Gives an open file or directory to this user and group.
pub(crate) fn give(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    if !is_recorded() {
        return Ok(rustix::fs::fchown(
            fd,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
        )?);
    }
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let result = match (uid, gid) {
        (0, 0) => rustix::fs::removexattr(&path, OWNER),
        _ => rustix::fs::setxattr(&path, OWNER, written(uid, gid).as_bytes(), XattrFlags::empty()),
    };
    done(result)
}

/// The same for a file just made, which most often has its owner already.
pub(crate) fn give_new(file: &File, uid: u32, gid: u32) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    let is_given = match is_recorded() {
        // No record is root's.
        true => (uid, gid) == (0, 0),
        false => (stat.st_uid, stat.st_gid) == (uid, gid),
    };
    if is_given { Ok(()) } else { give(file, uid, gid) }
}

/// Gives what is called `name` in `dir` to this user and group; a link itself, not what it leads to.
pub(crate) fn give_at(dir: impl AsFd, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    if !is_recorded() {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        return Ok(rustix::fs::chownat(dir, name, owner.0, owner.1, flags)?);
    }
    let stat = rustix::fs::statat(&dir, name, flags)?;
    if matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::RegularFile | FileType::Directory
    ) {
        let path = proc_path(dir.as_fd(), name)?;
        return done(match (uid, gid) {
            (0, 0) => rustix::fs::lremovexattr(path.as_c_str(), OWNER),
            _ => rustix::fs::lsetxattr(
                path.as_c_str(),
                OWNER,
                written(uid, gid).as_bytes(),
                XattrFlags::empty(),
            ),
        });
    }
    give_in_list(dir, name, uid, gid)
}

fn give_in_list(dir: impl AsFd, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
    let old = attribute(&dir, OsStr::new("."), OWNERS)?;
    let mut list: Vec<u8> = Vec::with_capacity(old.len() + name.len() + 24);
    for (entry, _, _) in entries(&old).filter(|(_, other, _)| *other != name.as_bytes()) {
        list.extend([entry, b"\0"].concat());
    }
    if (uid, gid) != (0, 0) {
        list.extend(written(uid, gid).bytes());
        list.push(b' ');
        list.extend(name.as_bytes());
        list.push(0);
    }
    if list == old {
        return Ok(());
    }
    let path = proc_path(dir.as_fd(), OsStr::new("."))?;
    done(match list.is_empty() {
        true => rustix::fs::removexattr(path.as_c_str(), OWNERS),
        false => rustix::fs::setxattr(path.as_c_str(), OWNERS, &list, XattrFlags::empty()),
    })
}

/// That there is no record to remove is as good.
fn done(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NODATA) => Ok(()),
        Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => Err(io::Error::other(
            "the owners of this directory's links and files do not fit; with subordinate ids they need not be recorded (usermod --add-subuids, --add-subgids)",
        )),
        other => Ok(other?),
    }
}

/// Puts the recorded owner of `name` in `dir` (`.` for `dir` itself) in its place.
pub(super) fn apply(dir: impl AsFd, name: &OsStr, metadata: &mut Metadata) -> io::Result<()> {
    if !is_recorded() {
        return Ok(());
    }
    let owner = match metadata.kind {
        Kind::File | Kind::Directory => read(&attribute(dir, name, OWNER)?),
        _ => {
            let list = attribute(dir, OsStr::new("."), OWNERS)?;
            entries(&list)
                .find(|(_, other, _)| *other == name.as_bytes())
                .map(|(_, _, owner)| owner)
        }
    };
    (metadata.uid, metadata.gid) = owner.unwrap_or((0, 0));
    Ok(())
}

/// Empty where there is none.
fn attribute(dir: impl AsFd, name: &OsStr, attribute: &str) -> io::Result<Vec<u8>> {
    let path = proc_path(dir.as_fd(), name)?;
    let mut buffer = [0; 256];
    match rustix::fs::lgetxattr(path.as_c_str(), attribute, &mut buffer[..]) {
        Ok(length) => Ok(buffer[..length].to_vec()),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(Vec::new()),
        Err(Errno::RANGE) => {
            let mut value = vec![0; MAX_OWNERS];
            let length = rustix::fs::lgetxattr(path.as_c_str(), attribute, &mut value[..])?;
            value.truncate(length);
            Ok(value)
        }
        Err(error) => Err(error.into()),
    }
}

fn written(uid: u32, gid: u32) -> String {
    format!("{uid}:{gid}")
}

/// What was not written by us is no record. The last number is no id.
fn read(text: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (uid, gid) = text.split_once(':')?;
    let owner = (uid.parse().ok()?, gid.parse().ok()?);
    let is_ours = text == written(owner.0, owner.1) && owner.0 != u32::MAX && owner.1 != u32::MAX;
    is_ours.then_some(owner)
}

/// Each record of a list: the whole of it, the name, the owner.
fn entries(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], (u32, u32))> {
    list.split(|byte| *byte == 0).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b' ')?;
        Some((entry, &entry[at + 1..], read(&entry[..at])?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        assert_eq!(read(b"33:4"), Some((33, 4)));
        assert_eq!(read(b"0:0"), Some((0, 0)));
        for bad in [
            &b""[..],
            b":",
            b"1",
            b"1:",
            b"+1:2",
            b"01:2",
            b" 1:2",
            b"1:2\n",
            b"4294967295:0",
            b"0:4294967295",
            b"4294967296:0",
            b"\xff:1",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lists() {
        let list = b"1:2 a\x0033:33 b c\0x y\0\x001:1 \0";
        let found: Vec<_> = entries(list).map(|(_, name, owner)| (name, owner)).collect();
        let expected: Vec<(&[u8], _)> = vec![(b"a", (1, 2)), (b"b c", (33, 33)), (b"", (1, 1))];
        assert_eq!(found, expected);
    }
}
