//! What a container has in common with its host or with another container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::Errno;

use super::mounts::{clone_of, new_file_system};
use super::{Context, Done, failed, refused};
use crate::setup::Slot;
use crate::sys::{self, attr};

/// tmpfs, as statfs(2) tells it.
const TMPFS_MAGIC: u32 = 0x0102_1994;
/// No machine has more device nodes than this.
const MOST_DEVICES: usize = 65_536;
/// What of /dev is no device of the machine, or the container's own.
const NOT_OF_THE_MACHINE: [&str; 7] = ["pts", "shm", "fd", "mqueue", "hugepages", "console", "ptmx"];

/// A node of the host's /dev.
#[derive(Debug, Clone)]
pub(super) struct HostDevice {
    /// Below /dev.
    path: PathBuf,
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    device: u64,
}

/// By the descriptor of the other container's first process, so that no number can have come to mean another one.
pub(super) fn join(ctx: &Context, number: usize, kind: libc::c_int) -> Done {
    let first = ctx
        .bundle
        .joins
        .get(number)
        .ok_or_else(|| refused("no process to join"))?;
    sys::setns(first.as_fd(), kind).map_err(|e| match e.raw_os_error() {
        Some(libc::ESRCH) => refused("the container whose namespaces it shares has ended"),
        _ => failed("join another container's namespace")(e),
    })
}

pub(super) fn host_tree(ctx: &mut Context, slot: Slot, path: &str, attrs: u64, may_be_missing: bool) -> Done {
    let tree = || -> io::Result<OwnedFd> {
        let clone = match clone_of(CWD, Path::new(path), true) {
            Err(Errno::NOENT) if may_be_missing => {
                let options = [("mode", "755"), ("size", "4k")];
                let options = options.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
                return new_file_system("tmpfs", &options, attrs | attr::RDONLY);
            }
            clone => clone?,
        };
        sys::mount_setattr(clone.as_fd(), true, attrs, None)?;
        Ok(clone)
    };
    let tree = tree().map_err(failed(format!("clone the host's {path}")))?;
    ctx.slots.insert(slot, tree);
    Ok(())
}

/// The other container may have put anything at that place, but nothing that is not in its own mount namespace: only there the path is
/// looked up, through no link, and what is found must be a tmpfs.
pub(super) fn shm(ctx: &mut Context, number: usize) -> Done {
    let take = || -> io::Result<OwnedFd> {
        let first = ctx.bundle.joins.get(number).ok_or(io::ErrorKind::NotFound)?;
        // Nobody in there may look into this process meanwhile.
        sys::set_undumpable()?;
        let own = rustix::fs::open(
            "/proc/self/ns/mnt",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let root = rustix::fs::open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        sys::setns(first.as_fd(), libc::CLONE_NEWNS)?;
        let found = clone_of_shm();
        sys::setns(own.as_fd(), libc::CLONE_NEWNS)?;
        // The root of the namespace may not have been that of this process.
        rustix::process::fchdir(root)?;
        rustix::process::chroot(".")?;
        let found = found?;
        let attrs = attr::NOSUID | attr::NODEV | attr::NOEXEC;
        sys::mount_setattr(found.as_fd(), false, attrs, None)?;
        Ok(found)
    };
    let shm = take().map_err(failed("share the /dev/shm of another container"))?;
    ctx.slots.insert(Slot::Shm, shm);
    Ok(())
}

fn clone_of_shm() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(CWD, "/dev/shm", flags, Mode::empty(), resolve)?;
    match fstatfs(&found)?.f_type as u32 {
        TMPFS_MAGIC => Ok(clone_of(&found, Path::new(""), false)?),
        _ => Err(io::Error::other("it is no tmpfs")),
    }
}

/// The host's /dev is its root's: what is there is believed, but no link is followed.
pub(super) fn find_devices(ctx: &mut Context) -> Done {
    let all = walkdir::WalkDir::new("/dev").min_depth(1).into_iter();
    let of_the_machine = all.filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() > 1 || !NOT_OF_THE_MACHINE.contains(&name.as_ref())
    });
    for entry in of_the_machine.flatten().take(MOST_DEVICES) {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let kind = match entry.file_type() {
            kind if kind.is_char_device() => FileType::CharacterDevice,
            kind if kind.is_block_device() => FileType::BlockDevice,
            _ => continue,
        };
        // One that goes meanwhile is none.
        let (Ok(path), Ok(metadata)) = (entry.path().strip_prefix("/dev"), entry.metadata()) else {
            continue;
        };
        ctx.devices.push(HostDevice {
            path: path.to_owned(),
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            device: metadata.rdev(),
        });
    }
    Ok(())
}

/// On a tmpfs of the container's that nothing but the runner has written to yet.
pub(super) fn make_devices(ctx: &mut Context, slot: Slot) -> Done {
    for device in std::mem::take(&mut ctx.devices) {
        let dev = ctx.slot(slot).map_err(failed("find /dev"))?;
        make_device(dev.as_fd(), &device).map_err(failed(format!("make /dev/{}", device.path.display())))?;
    }
    Ok(())
}

/// A character device that everybody may use.
pub(super) fn make_node(ctx: &Context, slot: Slot, path: &str, (major, minor): (u32, u32)) -> Done {
    let device = HostDevice {
        path: path.into(),
        kind: FileType::CharacterDevice,
        mode: 0o666,
        owner: (0, 0),
        device: rustix::fs::makedev(major, minor),
    };
    let made = ctx.slot(slot).and_then(|dev| make_device(dev, &device));
    made.map_err(failed(format!("make /dev/{path}")))
}

fn make_device(dev: impl AsFd, of: &HostDevice) -> io::Result<()> {
    use rustix::fs::{AtFlags, Gid, Uid, chmodat, chownat, mkdirat, mknodat, openat};
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut parent = openat(&dev, ".", flags, Mode::empty())?;
    for part in of.path.parent().into_iter().flat_map(Path::components) {
        match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        parent = openat(&parent, part.as_os_str(), flags, Mode::empty())?;
    }
    let name = of.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mode = Mode::from_raw_mode(of.mode);
    match mknodat(&parent, name, of.kind, mode, of.device) {
        // Of the usual ones the container has its own already.
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    let (uid, gid) = (Uid::from_raw(of.owner.0), Gid::from_raw(of.owner.1));
    chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let made = fstat(openat(
        &parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)?;
    match FileType::from_raw_mode(made.st_mode) == of.kind && made.st_rdev == of.device {
        true => Ok(chmodat(&parent, name, mode, AtFlags::empty())?),
        false => Err(io::Error::from_raw_os_error(libc::ENODEV)),
    }
}
