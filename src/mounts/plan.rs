//! What was asked for becomes a plan.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use box_store::{ContainerConfig, VolumeName};

use super::{Asked, MountPlan, PlannedSource};
use crate::app::App;
use crate::error::{EXIT_BOX, Failure};
use crate::values::{DeviceArg, MountArg, MountSource, RunSecretArg, clean_target};

/// Where the kernel shows whether SELinux is there.
const SELINUX: &str = "/sys/fs/selinux/enforce";
/// Directories that are the kernel's: an image's VOLUME has no say there.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The mounts of a container of an image with this config. Of those for one target, what was asked for comes before `inherited` (what
/// other containers have), and that before the image's own VOLUMEs, which become volumes that nobody named.
pub(crate) fn plan(
    app: &App,
    asked: &Asked<'_>,
    config: &ContainerConfig,
    inherited: Vec<MountPlan>,
) -> Result<Vec<MountPlan>, Failure> {
    let mut plans: Vec<MountPlan> = Vec::new();
    let volumes = asked.volumes.iter().map(|arg| &arg.0);
    let mounts = asked.mounts.iter().map(|arg| &arg.0);
    let tmpfs = asked.tmpfs.iter().map(|arg| &arg.0);
    for arg in volumes.chain(mounts).chain(tmpfs) {
        plans.push(mount(app, arg)?);
    }
    for arg in asked.secrets {
        plans.push(secret(arg)?);
    }
    plans.extend(asked.devices.iter().map(device));
    for (at, plan) in plans.iter().enumerate() {
        if plans[..at].iter().any(|other| other.target == plan.target) {
            return Err(
                Failure::own(format!("two mounts were asked for on {}", plan.target.display()))
                    .hint("leave one of them away, or give it another target"),
            );
        }
    }
    let mut add = |plan: MountPlan| {
        if plans.iter().all(|other| other.target != plan.target) {
            plans.push(plan);
        }
    };
    inherited.into_iter().for_each(&mut add);
    for target in config.volumes.keys() {
        add(image_volume(target)?);
    }
    Ok(plans)
}

fn mount(app: &App, arg: &MountArg) -> Result<MountPlan, Failure> {
    if arg.is_relabelled && Path::new(SELINUX).exists() {
        return Err(
            Failure::own("z and Z are not supported: box changes no SELinux labels").hint(
                "leave them away, and label the directory once: chcon -R -t container_file_t DIRECTORY",
            ),
        );
    }
    let source = match &arg.source {
        MountSource::Bind { path, is_recursive } => PlannedSource::Bind {
            path: absolute(path)?,
            recursive: *is_recursive,
        },
        MountSource::Discarded(path) => PlannedSource::Discarded {
            path: absolute(path)?,
        },
        MountSource::Volume {
            name,
            part,
            is_filled,
            labels,
        } => PlannedSource::Volume {
            anonymous: name.is_none(),
            name: name.clone().map_or_else(VolumeName::random, Ok)?,
            part: part.clone(),
            filled: *is_filled,
            labels: labels.clone(),
        },
        MountSource::Tmpfs(tmpfs) => PlannedSource::Tmpfs {
            size: tmpfs.size,
            inodes: tmpfs.inodes,
            mode: tmpfs.mode,
            uid: tmpfs.uid,
            gid: tmpfs.gid,
            exec: tmpfs.exec,
        },
        MountSource::Image { image, part } => PlannedSource::Image {
            id: app.image(image, EXIT_BOX)?.id.to_string(),
            name: image.clone(),
            part: part.clone(),
        },
    };
    Ok(MountPlan {
        read_only: arg.read_only,
        no_exec: arg.limits.no_exec,
        no_suid: arg.limits.no_suid,
        ..MountPlan::new(source, arg.target.clone())
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::own(format!("bind source {}: {e}", path.display())))
}

fn secret(arg: &RunSecretArg) -> Result<MountPlan, Failure> {
    let (file, variable) = match arg.source.origin() {
        Ok(path) => (Some(absolute(&path)?), None),
        Err(variable) => (None, Some(variable)),
    };
    let source = PlannedSource::Secret {
        id: arg.source.id.clone(),
        file,
        variable,
        uid: arg.uid,
        gid: arg.gid,
        mode: arg.mode,
    };
    Ok(MountPlan {
        read_only: true,
        ..MountPlan::new(source, arg.target.clone())
    })
}

fn device(arg: &DeviceArg) -> MountPlan {
    let source = PlannedSource::Device {
        path: arg.source.clone(),
        read: arg.access.read,
        write: arg.access.write,
        make: arg.access.make,
    };
    MountPlan::new(source, arg.target.clone())
}

/// An image's VOLUME. Where a link of the image leads is found out when it is mounted, and never out of the root.
fn image_volume(text: &str) -> Result<MountPlan, Failure> {
    let refused = |why: &str| {
        Failure::own(format!("the image's VOLUME {text:?} can't be mounted: {why}"))
            .hint("build the image anew without it, or mount something there yourself (-v, --tmpfs)")
    };
    let target = clean_target(text).map_err(|why| refused(&why))?;
    if KERNELS.iter().any(|kernels| target.starts_with(kernels)) {
        return Err(refused("it lies in the kernel's file systems"));
    }
    let source = PlannedSource::Volume {
        name: VolumeName::random()?,
        anonymous: true,
        part: PathBuf::new(),
        filled: true,
        labels: BTreeMap::new(),
    };
    Ok(MountPlan::new(source, target))
}
