//! The root file system: an overlay of idmapped clones of the layers.
//!
//! Files on disk keep their real ids. The overlay is made with the file system ids of the mapped
//! root, or the kernel silently makes it read-only.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2, stat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
};

use super::{Context, Done, failed};
use crate::channel::Failure;
use crate::setup::Overlay;
use crate::sys::{self, attr};

const OPTIONS: [(&str, &str); 5] = [
    ("source", "overlay"),
    ("redirect_dir", "nofollow"),
    ("metacopy", "off"),
    ("index", "off"),
    ("xino", "off"),
];

/// The open layers of the root. The last descriptor of a clone's file takes it apart, which makes every
/// other change of mounts wait; so the keeper keeps them to its end, and nobody else has them.
pub(super) struct Layers {
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// The clones that they lie on; closed too early, these would fall apart under them.
    _clones: Vec<OwnedFd>,
}

pub(super) fn make(ctx: &mut Context, overlay: &Overlay) -> Done {
    let mut result = make_by(ctx, Way::Descriptors, overlay)?;
    for way in [Way::Paths, Way::OneLine] {
        match &result {
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINVAL | libc::EBADF | libc::EOPNOTSUPP)
                ) => {}
            _ => break,
        }
        // The first way's error is the telling one.
        result = make_by(ctx, way, overlay)?.or(result);
    }
    let mount = result.map_err(failed(format!("overlay on {}", overlay.dir)))?;
    ctx.slots.insert(overlay.slot, mount);
    if !overlay.inside.as_path().as_os_str().is_empty() {
        ctx.inside.insert(overlay.slot, overlay.inside.clone());
    }
    Ok(())
}

fn make_by(ctx: &mut Context, way: Way, overlay: &Overlay) -> Result<io::Result<OwnedFd>, Failure> {
    if way == Way::OneLine {
        own_mounts().map_err(failed("make a mount namespace"))?;
    }
    let opener = Opener {
        idmap: overlay.idmapped_root.map(|_| ctx.entrance.as_fd()),
        clones: RefCell::default(),
    };
    let layers = open_layers(&opener, overlay)?;
    let place = overlay.dir.as_path();
    // Kernels that take all layers in one line take none of a detached mount.
    let clones = opener.clones.take();
    let attached = if way == Way::OneLine {
        clones.as_slice()
    } else {
        &[]
    };
    for clone in attached {
        // One over the other.
        move_mount(clone, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| failed("attach the layers")(e.into()))?;
    }
    let make = || mount_by(way, overlay, &layers);
    let made = match overlay.idmapped_root {
        Some(root) => sys::with_fs_ids(root, root, make),
        None => make(),
    };
    // What is opened by path later must not go through them.
    for _ in attached {
        unmount(place, UnmountFlags::DETACH).map_err(|e| failed("take the layers away again")(e.into()))?;
    }
    ctx.layers.push(layers);
    Ok(made)
}

/// What mount(2) mounts shows in a namespace; so one of this process' own. Layers must be opened
/// after this.
pub(super) fn own_mounts() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS as u64)?;
    Ok(mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?)
}

fn open_layers(opener: &Opener<'_>, overlay: &Overlay) -> Result<Layers, Failure> {
    let dir = overlay.dir.as_path();
    let common = opener.idmap.and_then(|_| Common::open(overlay, opener));
    let open = |path: &Path| {
        let in_common = common.as_ref().and_then(|common| common.layer(path));
        let opened = in_common.map_or_else(|| opener.open(path), Ok);
        opened.map_err(failed(format!("open the layer {}", path.display())))
    };
    let lower = overlay
        .lower
        .iter()
        .map(|l| open(l.as_path()))
        .collect::<Result<_, _>>()?;
    let opened = open(dir)?;
    let below = |name: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&opened, name, flags, Mode::empty())
            .map_err(|e| failed(format!("open {}", dir.join(name).display()))(e.into()))
    };
    let (upper, work) = (below(overlay.upper.as_path())?, below(overlay.work.as_path())?);
    let mut clones = vec![opened];
    clones.extend(common.map(|common| common.clone));
    Ok(Layers {
        lower,
        upper,
        work,
        _clones: clones,
    })
}

/// One mapped clone of the directory that all layers are somewhere in: a mapped mount for each of
/// them would cost more than all the rest.
struct Common {
    path: PathBuf,
    clone: OwnedFd,
}

impl Common {
    /// None where there is no such directory, or it can't be mapped as a whole.
    fn open(overlay: &Overlay, opener: &Opener<'_>) -> Option<Common> {
        let mut path = overlay.dir.as_path();
        for lower in &overlay.lower {
            while !lower.as_path().starts_with(path) {
                path = path.parent()?;
            }
        }
        let clone = opener.open(path).ok()?;
        let path = path.to_owned();
        Some(Common { path, clone })
    }

    /// The layer, if the clone shows the very directory that the path leads to: no link on the way,
    /// and nothing mounted there.
    fn layer(&self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let inside = path.strip_prefix(&self.path).ok()?;
        let inside = Some(inside).filter(|p| !p.as_os_str().is_empty());
        let inside = inside.unwrap_or(Path::new("."));
        let found = openat2(&self.clone, inside, flags, Mode::empty(), resolve).ok()?;
        let (shown, wanted) = (fstat(&found).ok()?, stat(path).ok()?);
        ((shown.st_dev, shown.st_ino) == (wanted.st_dev, wanted.st_ino)).then_some(found)
    }
}

/// Opens layers' directories as the container's ids see them.
struct Opener<'a> {
    idmap: Option<BorrowedFd<'a>>,
    /// The clones that were made.
    clones: RefCell<Vec<OwnedFd>>,
}

impl Opener<'_> {
    /// The directory, or a clone of it when mapped.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        if self.idmap.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(rustix::fs::open(path, flags, Mode::empty())?);
        }
        let clone = open_tree(
            CWD,
            path,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )?;
        sys::mount_setattr(clone.as_fd(), false, 0, self.idmap)?;
        self.clones.borrow_mut().push(clone.try_clone()?);
        Ok(clone)
    }
}

/// How the kernel is told of the layers; each kernel takes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By descriptor, since 6.13.
    Descriptors,
    /// One by one by the descriptors' paths, since 6.8.
    Paths,
    /// All in one line of mount(2); no more of them than fit a page.
    OneLine,
}

fn mount_by(way: Way, overlay: &Overlay, layers: &Layers) -> io::Result<OwnedFd> {
    if way == Way::OneLine {
        return mount_in_one_line(overlay, layers);
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in OPTIONS {
        fsconfig_set_string(&fs, key, value)?;
    }
    for flag in &overlay.flags {
        match flag.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&fs, key, value)?,
            None => fsconfig_set_flag(&fs, flag.as_str())?,
        }
    }
    let set = |key: &str, layer: &OwnedFd| match way {
        Way::Descriptors => fsconfig_set_fd(&fs, key, layer),
        _ => fsconfig_set_string(&fs, key, fd_path(layer.as_fd())),
    };
    for lower in &layers.lower {
        set("lowerdir+", lower)?;
    }
    set("upperdir", &layers.upper)?;
    set("workdir", &layers.work)?;
    fsconfig_create(&fs)?;
    Ok(fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(overlay.attrs as u32),
    )?)
}

/// mount(2) needs a place: the layers' own directory, from where the mount is cloned and taken away
/// again.
fn mount_in_one_line(overlay: &Overlay, layers: &Layers) -> io::Result<OwnedFd> {
    let paths = |fds: &[OwnedFd]| {
        fds.iter()
            .map(|fd| fd_path(fd.as_fd()))
            .collect::<Vec<_>>()
            .join(":")
    };
    let mut options: Vec<String> = OPTIONS.iter().skip(1).map(|(k, v)| format!("{k}={v}")).collect();
    // A comma may stand in a value only between quotation marks.
    options.extend(overlay.flags.iter().map(|flag| match flag.split_once('=') {
        Some((key, value)) => format!("{key}=\"{value}\""),
        None => flag.clone(),
    }));
    options.push(format!("lowerdir={}", paths(&layers.lower)));
    options.push(format!("upperdir={}", fd_path(layers.upper.as_fd())));
    options.push(format!("workdir={}", fd_path(layers.work.as_fd())));
    let options = std::ffi::CString::new(options.join(","))?;
    let place = overlay.dir.as_path();
    rustix::mount::mount(
        "overlay",
        place,
        "overlay",
        match overlay.attrs & attr::NODEV {
            0 => MountFlags::empty(),
            _ => MountFlags::NODEV,
        },
        Some(options.as_c_str()),
    )?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mounted = open_tree(CWD, place, clone);
    unmount(place, UnmountFlags::DETACH)?;
    let mounted = mounted?;
    sys::mount_setattr(mounted.as_fd(), false, overlay.attrs, None)?;
    Ok(mounted)
}

fn fd_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;
    use crate::channel::Raw;

    fn check(way: Way) {
        let dir = std::path::PathBuf::from(format!("/tmp/box-overlay-{}-{way:?}", std::process::id()));
        let at = |name: &str| dir.join(name);
        for name in ["a", "b", "active/upper", "active/work"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("a/file"), "top").unwrap();
        fs::write(at("b/file"), "bottom").unwrap();
        let overlay = Overlay {
            slot: crate::setup::Slot::Root,
            attrs: 0,
            inside: Raw::default(),
            lower: vec![Raw::from(&at("a")), Raw::from(&at("b"))],
            dir: Raw::from(&at("active")),
            upper: Raw::from("upper"),
            work: Raw::from("work"),
            idmapped_root: None,
            flags: vec!["volatile".into()],
        };
        if way == Way::OneLine {
            // Mount namespaces are per thread, and this thread is the test's own.
            own_mounts().unwrap();
        }
        let opener = Opener {
            idmap: None,
            clones: RefCell::default(),
        };
        let open = |path: &Path| opener.open(path).unwrap();
        let layers = Layers {
            lower: vec![open(&at("a")), open(&at("b"))],
            upper: open(&at("active/upper")),
            work: open(&at("active/work")),
            _clones: vec![open(&at("active"))],
        };
        let root = mount_by(way, &overlay, &layers).unwrap_or_else(|e| panic!("{way:?}: {e}"));
        let file = rustix::fs::openat(&root, "file", OFlags::RDONLY, Mode::empty()).unwrap();
        let mut text = String::new();
        fs::File::from(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "top");
        drop(root);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn every_way_works() {
        std::thread::spawn(|| [Way::Descriptors, Way::Paths, Way::OneLine].map(check))
            .join()
            .unwrap();
    }
}
