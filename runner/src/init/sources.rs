//! What the caller gives of the host: binds and devices, each opened once and looked at by its descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, fstat, mknodat,
};

use super::mounts::{self, clone_of, new_file_system};
use super::{Context, Done, failed};
use crate::channel::{Failure, FailureKind, Raw};
use crate::setup::Slot;
use crate::sys::{self, attr};

/// The name of a device's node in its own file system.
const NODE: &str = "device";

/// A clone of the source, or of what lies at `part` below it. That is found by one lookup beneath the open source: whoever writes there
/// may put a link in the way at any time, but it leads nowhere else.
pub(super) fn bind(source: &Raw, part: &Raw, recursive: bool) -> Result<OwnedFd, Failure> {
    let no_source = |e: rustix::io::Errno| Failure {
        kind: FailureKind::BindSource,
        what: source.to_string(),
        errno: Some(e.raw_os_error()),
    };
    if part.0.is_empty() {
        return clone_of(CWD, source.as_path(), recursive).map_err(no_source);
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(source.as_path(), flags | OFlags::DIRECTORY, Mode::empty());
    let top = top.map_err(no_source)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let opened = sys::open_beneath(top, part.as_path(), flags, Mode::empty(), resolve);
    opened
        .and_then(|opened| clone_of(opened, Path::new(""), recursive))
        .map_err(|e| Failure {
            kind: FailureKind::MountPart,
            what: format!("{part}\n{source}"),
            errno: Some(e.raw_os_error()),
        })
}

/// A device of the host. Nobody in a container has rights at a node of the host's root, so where ids are mapped the container gets a node
/// of its own that belongs to its root; else it is a clone of the host's.
pub(super) fn host_device(ctx: &mut Context, slot: Slot, source: &Raw, owner: Option<u32>) -> Done {
    let fail = || failed(format!("device {source}"));
    let clone = clone_of(CWD, source.as_path(), false).map_err(|e| fail()(e.into()))?;
    let stat = fstat(&clone).map_err(|e| fail()(e.into()))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(Failure {
            kind: FailureKind::NotADevice,
            what: source.to_string(),
            errno: None,
        });
    }
    let Some(owner) = owner else {
        sys::mount_setattr(clone.as_fd(), false, mounts::node_attrs(true), None).map_err(fail())?;
        ctx.slots.insert(slot, clone);
        return Ok(());
    };
    let make = || -> io::Result<OwnedFd> {
        let options = [("mode", "755"), ("size", "4k"), ("nr_inodes", "4")];
        let options = options.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
        let own = new_file_system("tmpfs", &options, attr::NOSUID | attr::NOEXEC)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        mknodat(&own, NODE, kind, mode, stat.st_rdev)?;
        let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
        chownat(&own, NODE, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        chmodat(&own, NODE, mode, AtFlags::empty())?;
        Ok(own)
    };
    let own = make().map_err(fail())?;
    ctx.inside.insert(slot, Raw::from(NODE));
    ctx.slots.insert(slot, own);
    Ok(())
}
