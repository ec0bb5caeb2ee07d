//! The mounts of a container: what was asked for becomes a plan that can be kept on disk, and the plan becomes what the runner mounts.
//!
//! [`plan`] looks things up once: host paths become absolute, images ids, and what nobody named gets a name. Nothing is made. A plan says the
//! same each time its container starts. [`open`] makes and takes what the plan names: volumes are made, filled and held, overlays get a place
//! for what is thrown away, secrets are read. What it returns with the mounts must live as long as the container runs.

mod open;
mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;

use box_store::VolumeName;
use serde::{Deserialize, Serialize};

use crate::values::{DeviceArg, MountFlag, RunSecretArg, TmpfsArg, VolumeArg};

pub(crate) use open::{MountGuard, Opening, image_layers, open};
pub(crate) use plan::plan;

/// What the command line says of mounts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// `-v`.
    pub(crate) volumes: &'a [VolumeArg],
    /// `--mount`.
    pub(crate) mounts: &'a [MountFlag],
    /// `--tmpfs`.
    pub(crate) tmpfs: &'a [TmpfsArg],
    /// `--secret`.
    pub(crate) secrets: &'a [RunSecretArg],
    /// `--device`.
    pub(crate) devices: &'a [DeviceArg],
}

/// A mount of a container, with nothing left to look up but by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountPlan {
    /// An absolute path of the container.
    pub(crate) target: PathBuf,
    /// Whether the container may not write to it.
    #[serde(default)]
    pub(crate) read_only: bool,
    /// Whether no program may be started from it.
    #[serde(default)]
    pub(crate) no_exec: bool,
    /// Whether set-user-ID bits mean nothing in it.
    #[serde(default)]
    pub(crate) no_suid: bool,
    /// What is mounted.
    pub(crate) source: PlannedSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum PlannedSource {
    /// A file or directory of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// Whether what is mounted below comes along.
        recursive: bool,
    },
    /// A directory of the host whose changes are thrown away.
    Discarded {
        /// Absolute.
        path: PathBuf,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: VolumeName,
        /// Whether nobody named it.
        anonymous: bool,
        /// The directory in it that is meant; empty for the whole.
        part: PathBuf,
        /// Whether it gets what the image holds there when it is empty.
        filled: bool,
        /// Labels of a new one.
        labels: BTreeMap<String, String>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Most bytes.
        size: Option<u64>,
        /// Most files.
        inodes: Option<u64>,
        /// Permissions of its root.
        mode: u32,
        /// Owner of its root.
        uid: u32,
        /// Group of its root.
        gid: u32,
        /// Whether programs may be started from it.
        exec: bool,
    },
    /// An image's root file system. What is written is thrown away.
    Image {
        /// The image's id.
        id: String,
        /// What it was called, for people.
        name: String,
        /// The file or directory in it that is meant; empty for the whole.
        part: PathBuf,
    },
    /// A secret, read each time the container starts; the plan holds none of it.
    Secret {
        /// What it is called.
        id: String,
        /// The file that it is read from, absolute.
        file: Option<PathBuf>,
        /// Or the variable whose value it is.
        variable: Option<String>,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// A device of the host.
    Device {
        /// Its node, absolute.
        path: PathBuf,
        /// Whether it may be read.
        read: bool,
        /// Whether it may be written.
        write: bool,
        /// Whether further nodes of it may be made, as far as a user namespace allows that at all.
        make: bool,
    },
}

impl MountPlan {
    /// A writable mount of this.
    fn new(source: PlannedSource, target: PathBuf) -> Self {
        Self {
            target,
            read_only: false,
            no_exec: false,
            no_suid: false,
            source,
        }
    }

    /// The volume that it needs and that nobody named: it goes with its container.
    pub(crate) fn anonymous_volume(&self) -> Option<&VolumeName> {
        match &self.source {
            PlannedSource::Volume { name, anonymous, .. } if *anonymous => Some(name),
            _ => None,
        }
    }

    /// Makes it one that was named: the volume stays when this container goes.
    pub(crate) fn become_anothers(&mut self) {
        if let PlannedSource::Volume { anonymous, .. } = &mut self.source {
            *anonymous = false;
        }
    }

    /// Whether what is mounted is there without the container: a volume, or the host's.
    pub(crate) fn outlives(&self) -> bool {
        matches!(
            self.source,
            PlannedSource::Bind { .. } | PlannedSource::Volume { .. } | PlannedSource::Discarded { .. }
        )
    }

    /// The volume that it needs.
    pub(crate) fn volume(&self) -> Option<&VolumeName> {
        match &self.source {
            PlannedSource::Volume { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The image that it needs: its id, and what it was called.
    pub(crate) fn image(&self) -> Option<(&str, &str)> {
        match &self.source {
            PlannedSource::Image { id, name, .. } => Some((id, name)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(plan: &MountPlan) {
        let text = serde_json::to_string(plan).unwrap();
        assert_eq!(serde_json::from_str::<MountPlan>(&text).unwrap(), *plan, "{text}");
    }

    #[test]
    fn a_plan_can_be_kept() {
        let plan = |source| MountPlan {
            read_only: true,
            ..MountPlan::new(source, "/target".into())
        };
        let volume = plan(PlannedSource::Volume {
            name: "data".parse().unwrap(),
            anonymous: true,
            part: "a/b".into(),
            filled: true,
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        });
        check(&volume);
        assert_eq!(volume.anonymous_volume().map(VolumeName::as_str), Some("data"));
        check(&plan(PlannedSource::Bind {
            path: "/host".into(),
            recursive: false,
        }));
        check(&plan(PlannedSource::Discarded { path: "/host".into() }));
        check(&plan(PlannedSource::Tmpfs {
            size: Some(1),
            inodes: None,
            mode: 0o700,
            uid: 1,
            gid: 2,
            exec: true,
        }));
        check(&plan(PlannedSource::Secret {
            id: "a".into(),
            file: None,
            variable: Some("A".into()),
            uid: 0,
            gid: 0,
            mode: 0o400,
        }));
        check(&plan(PlannedSource::Device {
            path: "/dev/fuse".into(),
            read: true,
            write: false,
            make: false,
        }));
        let image = plan(PlannedSource::Image {
            id: "sha256:…".into(),
            name: "app".into(),
            part: PathBuf::new(),
        });
        check(&image);
        assert_eq!(image.image(), Some(("sha256:…", "app")));
        // A name that came to be a path is none.
        let text = r#"{"target":"/t","source":{"type":"volume","name":"../x","anonymous":false,"part":"","filled":true,"labels":{}}}"#;
        assert!(serde_json::from_str::<MountPlan>(text).is_err());
    }
}
