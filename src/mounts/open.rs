//! A plan becomes what the runner mounts.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use box_runner::{DeviceAccess, FileContent, Mount, MountKind, MountLimits, RootFs, Tmpfs};
use box_store::scratch::Scratch;
use box_store::tree::Tree;
use box_store::{
    ActiveSnapshot, ImageId, Layer, NewVolume, OverlayDirs, OverlayXattrs, PrepareOptions, Store,
    VolumeError, VolumeName, VolumeSource, VolumeUse,
};
use nix::unistd::AccessFlags;

use super::{MountPlan, PlannedSource};
use crate::app::App;
use crate::error::{EXIT_BOX, Failure};
use crate::secrets::SecretArg;
use crate::step_mounts::root_fs;

/// For whom a plan is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    /// The layers of the container's image, bottom first.
    pub(crate) layers: &'a [Layer],
    /// Whether the volumes that nobody named go with the guard, and with this process if it is killed (`--rm`).
    pub(crate) is_fleeting: bool,
}

/// What must live as long as a container runs: the holds on its volumes, and what is thrown away after it.
#[derive(Debug, Default)]
pub(crate) struct MountGuard {
    store: Option<Store>,
    volumes: Vec<VolumeUse>,
    images: Vec<ActiveSnapshot>,
    scratches: Vec<Scratch>,
    /// Volumes that go when the guard does.
    fleeting: Vec<VolumeName>,
}

impl MountGuard {
    /// The directories of the container's root, and all others that it lies on: what [`Store::rest`] must hold.
    pub(crate) fn held(&self, root: &OverlayDirs) -> OverlayDirs {
        let mut dirs = root.clone();
        let images = self.images.iter();
        dirs.lower
            .extend(images.flat_map(|image| image.dirs().lower.iter().cloned()));
        dirs
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        self.volumes.clear();
        // No collection looks at volumes, so this may be done without the store's lock, too.
        for name in &self.fleeting {
            // One that can't be removed now goes with the next listing.
            let _ = self
                .store
                .as_ref()
                .map(|store| store.remove_volume(name, &|_| Vec::new()));
        }
    }
}

/// The mounts of a plan, and what they need.
pub(crate) fn open(
    app: &App,
    plans: &[MountPlan],
    opening: &Opening<'_>,
) -> Result<(Vec<Mount>, MountGuard), Failure> {
    let mut guard = MountGuard {
        store: Some(app.store.clone()),
        volumes: Vec::new(),
        images: Vec::new(),
        scratches: Vec::new(),
        fleeting: Vec::new(),
    };
    let mut mounts = Vec::with_capacity(plans.len());
    for plan in plans {
        mounts.push(Mount {
            target: plan.target.clone(),
            read_only: plan.read_only,
            limits: MountLimits {
                no_exec: plan.no_exec,
                no_suid: plan.no_suid,
            },
            kind: kind(app, plan, opening, &mut guard)?,
        });
    }
    Ok((mounts, guard))
}

fn kind(
    app: &App,
    plan: &MountPlan,
    opening: &Opening<'_>,
    guard: &mut MountGuard,
) -> Result<MountKind, Failure> {
    match &plan.source {
        PlannedSource::Bind { path, recursive } => {
            on_host(path)?;
            Ok(MountKind::Bind {
                source: path.clone(),
                part: PathBuf::new(),
                is_recursive: *recursive,
            })
        }
        PlannedSource::Discarded { path } => discarded(app, path, opening, guard),
        PlannedSource::Volume { part, .. } => Ok(MountKind::Bind {
            source: volume(app, plan, opening, guard)?,
            part: part.clone(),
            is_recursive: false,
        }),
        PlannedSource::Tmpfs {
            size,
            inodes,
            mode,
            uid,
            gid,
            exec,
        } => Ok(MountKind::Tmpfs(Tmpfs {
            size: *size,
            inodes: *inodes,
            mode: *mode,
            uid: *uid,
            gid: *gid,
            exec: *exec,
        })),
        PlannedSource::Image { id, name, part } => {
            let snapshot = image(app, id, name, part)?;
            // What was mounted as volatile can't be mounted again, as a container that starts again does.
            let layers = root_fs(snapshot.dirs(), opening.is_fleeting, false);
            guard.images.push(snapshot);
            let source = part.clone();
            Ok(MountKind::Overlay { layers, source })
        }
        PlannedSource::Secret { .. } => secret(&plan.source),
        PlannedSource::Device {
            path,
            read,
            write,
            make,
        } => {
            let access = DeviceAccess {
                read: *read,
                write: *write,
                make: *make,
            };
            device(app, path, access)
        }
    }
}

/// A directory of the host is mounted, never made: a slip of the pen would make it root's, and empty.
fn on_host(path: &Path) -> Result<std::fs::Metadata, Failure> {
    path.metadata().map_err(|e| {
        let failure = Failure::own(format!("bind source {}: {e}", path.display()));
        match e.kind() {
            std::io::ErrorKind::NotFound => failure.hint(format!(
                "make it first (mkdir -p {}); a name without a slash is a volume",
                path.display()
            )),
            _ => failure,
        }
    })
}

fn volume(
    app: &App,
    plan: &MountPlan,
    opening: &Opening<'_>,
    guard: &mut MountGuard,
) -> Result<PathBuf, Failure> {
    let PlannedSource::Volume {
        name,
        anonymous,
        part,
        filled,
        labels,
    } = &plan.source
    else {
        return Err(Failure::own("no volume"));
    };
    let fleeting = plan.anonymous_volume().filter(|_| opening.is_fleeting);
    let new = NewVolume {
        labels: labels.clone(),
        is_anonymous: *anonymous,
        is_fleeting: fleeting.is_some(),
    };
    // A part of a volume is its users' own affair.
    let is_filled = *filled && part.as_os_str().is_empty();
    let source = is_filled.then_some(VolumeSource {
        layers: opening.layers,
        path: &plan.target,
    });
    guard.fleeting.extend(fleeting.cloned());
    let used = app
        .store
        .use_volume(name, &new, source.as_ref())
        .map_err(|error| volume_failure(&error))?;
    let data = used.data().to_owned();
    guard.volumes.push(used);
    Ok(data)
}

fn volume_failure(error: &VolumeError) -> Failure {
    Failure::of(EXIT_BOX, error)
}

/// An overlay on a directory of the host: its changes lie in a temporary directory.
fn discarded(
    app: &App,
    path: &Path,
    opening: &Opening<'_>,
    guard: &mut MountGuard,
) -> Result<MountKind, Failure> {
    let metadata = on_host(path)?;
    if !metadata.is_dir() {
        return Err(
            Failure::own(format!("{} is no directory, and :O needs one", path.display()))
                .hint("mount it with :ro, or copy it first"),
        );
    }
    let scratch = app.store.scratch()?;
    let (upper, work) = (scratch.path().join("upper"), scratch.path().join("work"));
    let make = || -> std::io::Result<()> {
        std::fs::create_dir(&work)?;
        std::fs::create_dir(&upper)?;
        // An id that this user has not can't be given away; then the container sees the directory as its own.
        let _ = std::os::unix::fs::chown(&upper, Some(metadata.uid()), Some(metadata.gid()));
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(metadata.mode() & 0o7777))
    };
    make().map_err(|e| {
        Failure::own(format!(
            "cannot make a place for the changes of {}: {e}",
            path.display()
        ))
    })?;
    guard.scratches.push(scratch);
    Ok(MountKind::Overlay {
        layers: RootFs {
            lower: vec![path.to_owned()],
            upper,
            work,
            userxattr: app.store.overlay_xattrs() == OverlayXattrs::User,
            volatile: opening.is_fleeting,
            read_only: false,
        },
        source: PathBuf::new(),
    })
}

/// The layers of the images among the mounts: a container must have the ids of their files, too.
pub(crate) fn image_layers(app: &App, plans: &[MountPlan]) -> Result<Vec<Layer>, Failure> {
    let mut layers = Vec::new();
    for (id, name) in plans.iter().filter_map(MountPlan::image) {
        layers.extend(layers_of(app, id, name)?);
    }
    Ok(layers)
}

fn layers_of(app: &App, id: &str, name: &str) -> Result<Vec<Layer>, Failure> {
    let gone = || {
        Failure::own(format!(
            "the image {name} of a mount is not in the store any more"
        ))
        .hint("pull or build it again")
    };
    let id: ImageId = id.parse().map_err(|_| gone())?;
    let image = app.store.image(&id)?.ok_or_else(gone)?;
    app.layers(&image)
}

fn image(app: &App, id: &str, name: &str, part: &Path) -> Result<ActiveSnapshot, Failure> {
    let layers = layers_of(app, id, name)?;
    let missing = |why: String| {
        Failure::own(format!("the image {name} has no {}: {why}", part.display()))
            .hint("image-subpath names a file or directory of that image")
    };
    let found = Tree::new(&layers).resolve(part, true);
    let found = found.map_err(|e| missing(e.to_string()))?;
    if found.entry.is_none() {
        return Err(missing("it does not exist".to_owned()));
    }
    Ok(app.store.prepare(&layers, &PrepareOptions::default())?)
}

fn secret(source: &PlannedSource) -> Result<MountKind, Failure> {
    let PlannedSource::Secret {
        id,
        file,
        variable,
        uid,
        gid,
        mode,
    } = source
    else {
        return Err(Failure::own("no secret"));
    };
    let arg = match (file, variable) {
        (Some(path), _) => SecretArg::of_file(id, path.clone()),
        (None, variable) => SecretArg::of_variable(id, variable.as_deref().unwrap_or(id)),
    };
    Ok(MountKind::File {
        content: FileContent(arg.read()?.expose().to_vec()),
        mode: *mode,
        uid: *uid,
        gid: *gid,
    })
}

/// An ordinary user can give a container only what the user can open.
fn device(app: &App, path: &Path, access: DeviceAccess) -> Result<MountKind, Failure> {
    let fail = |why: String| Failure::own(format!("device {}: {why}", path.display()));
    path.metadata().map_err(|e| {
        fail(e.to_string())
            .hint("ls /dev lists the devices of this machine; a driver may have to be loaded first")
    })?;
    if app.rootless.is_some() {
        let wanted = [
            (access.read, AccessFlags::R_OK),
            (access.write, AccessFlags::W_OK),
        ];
        let wanted = wanted.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag);
        nix::unistd::access(path, wanted.collect()).map_err(|e| {
            fail(e.desc().to_owned()).hint(
                "an ordinary user's container can use what the user can without further groups: let the device be read and \
                 written by all (chmod, or a rule of udev), or run box as root",
            )
        })?;
    }
    Ok(MountKind::Device {
        source: path.to_owned(),
        access,
    })
}
