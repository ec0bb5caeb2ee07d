//! What a RUN has mounted: read for its key, then made ready for its container.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use box_store::digest::Digest;
use box_store::error::StoreError;
use box_store::layer::Layer;
use box_store::snapshot::{ActiveSnapshot, MountStub, PrepareOptions};
use box_store::{CacheMount, CacheMountSpec, CacheSharing};

use crate::cache::Input;
use crate::error::StepError;
use crate::exec::{ExecMount, ExecMountKind, Secret};
use crate::plan::{BindPlan, MountPlan, MountSource, Owned, RunStep};
use crate::progress::StepId;

use super::bind::Source;
use super::caches::{cache_of, restore, take_cache};
use super::{At, Tools};

/// What of the mounts is in the step's key: where and what each is, and what binds hold. No content of a secret.
pub(crate) fn inputs(step: &RunStep, sources: &[Option<Source<'_>>]) -> Vec<Input> {
    let mounts = step.mounts.iter().zip(sources);
    mounts
        .map(|(mount, source)| {
            let digest = match (&mount.kind, source) {
                (MountSource::Program(program), _) => Digest::of(program),
                (_, Some(source)) => source.input.digest,
                (_, None) => Digest::of(b""),
            };
            let name = serde_json::to_string(&described(mount)).unwrap_or_default();
            Input { name, digest }
        })
        .collect()
}

/// A mount as its key names it.
fn described(mount: &MountPlan) -> Vec<String> {
    let mut words = vec![
        mount.target.clone(),
        if mount.read_only { "ro" } else { "rw" }.to_owned(),
    ];
    let owned = |owner: &Owned| format!("{:o} {}:{}", owner.mode, owner.uid, owner.gid);
    match &mount.kind {
        MountSource::Bind(_) => words.push("bind".to_owned()),
        MountSource::Cache { id, owner, .. } => words.extend(["cache".to_owned(), id.clone(), owned(owner)]),
        MountSource::Tmpfs(size) => words.extend(["tmpfs".to_owned(), format!("{size:?}")]),
        MountSource::Secret {
            id,
            env,
            is_file,
            owner,
            ..
        } => {
            words.extend([
                "secret".to_owned(),
                id.clone(),
                format!("{env:?} {is_file}"),
                owned(owner),
            ]);
        }
        MountSource::Ssh { id, owner, .. } => words.extend(["ssh".to_owned(), id.clone(), owned(owner)]),
        MountSource::Program(_) => words.push("program".to_owned()),
    }
    words
}

/// The mounts of a step, ready. They must outlive the step.
#[derive(Default)]
pub(crate) struct Ready {
    /// For the container.
    pub(crate) mounts: Vec<ExecMount>,
    /// What must exist in the rootfs to be mounted over.
    pub(crate) stubs: Vec<MountStub>,
    /// Variables that the mounts bring.
    pub(crate) env: Vec<(String, OsString)>,
    /// What the output must not show.
    pub(crate) secrets: Vec<Secret>,
    /// Pages of ids that files of the mounts have.
    pub(crate) id_pages: BTreeSet<u32>,
    /// The layers that are mounted.
    pub(crate) layers: Vec<Layer>,
    snapshots: Vec<ActiveSnapshot>,
    caches: Vec<(CacheMountSpec, CacheMount)>,
}

/// Makes the mounts of a step ready. Waits for caches that others have for themselves.
///
/// # Errors
/// A secret or an agent that is required and not given; a cancelled build; what the store says.
pub(crate) fn prepare(
    tools: &Tools<'_>,
    at: At<'_>,
    step: &RunStep,
    sources: &[Option<Source<'_>>],
) -> Result<Ready, StepError> {
    let mut ready = Ready::default();
    ready.take_caches(tools, at.id, step, sources)?;
    for (mount, source) in step.mounts.iter().zip(sources) {
        ready.add(tools, at, mount, source.as_ref())?;
    }
    Ok(ready)
}

impl Ready {
    /// Takes all caches in the order of their names, so that no two steps wait for each other.
    fn take_caches(
        &mut self,
        tools: &Tools<'_>,
        id: StepId,
        step: &RunStep,
        sources: &[Option<Source<'_>>],
    ) -> Result<(), StepError> {
        let mut wanted: Vec<(CacheMountSpec, CacheSharing)> = Vec::new();
        for (mount, source) in step.mounts.iter().zip(sources) {
            let Some((spec, sharing)) =
                cache_of(mount, source.as_ref(), tools.request.cache_scope.as_deref())?
            else {
                continue;
            };
            match wanted.iter_mut().find(|(known, _)| *known == spec) {
                // It is an overlay's upper directory, which takes no two mounts.
                Some(_) if !spec.base.is_empty() => return Err(StepError::CacheTwice { id: spec.id }),
                Some((_, known)) if *known == CacheSharing::Shared => *known = sharing,
                Some(_) => {}
                None => wanted.push((spec, sharing)),
            }
        }
        wanted.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (spec, sharing) in wanted {
            restore(tools, &spec);
            let cache = take_cache(tools, id, &spec, sharing)?;
            self.caches.push((spec, cache));
        }
        Ok(())
    }

    /// Makes them ready for another container, when the first is gone. What it wrote into them is still there, but for what was in memory.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn mount_again(&mut self) -> Result<(), StoreError> {
        for snapshot in &mut self.snapshots {
            snapshot.mount_again()?;
            let again = snapshot.dirs();
            for mount in &mut self.mounts {
                if let ExecMountKind::Layers { dirs, .. } = &mut mount.kind
                    && dirs.upper == again.upper
                {
                    dirs.work.clone_from(&again.work);
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        tools: &Tools<'_>,
        at: At<'_>,
        mount: &MountPlan,
        source: Option<&Source<'_>>,
    ) -> Result<(), StepError> {
        let (kind, is_directory) = match &mount.kind {
            MountSource::Bind(_) => match source {
                Some(source) => (self.bind(tools, at, source)?, source.is_directory),
                None => return Ok(()),
            },
            MountSource::Cache { owner, .. } => {
                self.id_pages.extend([owner.uid >> 16, owner.gid >> 16]);
                match self.cache(tools, at, mount, source)? {
                    Some(kind) => (kind, true),
                    None => return Ok(()),
                }
            }
            MountSource::Tmpfs(size) => (
                ExecMountKind::Tmpfs {
                    size: *size,
                    mode: 0o1777,
                },
                true,
            ),
            MountSource::Secret {
                id,
                env,
                is_file,
                required,
                owner,
            } => {
                let Some(content) = self.secret(tools, id, *required)? else {
                    return Ok(());
                };
                if let Some(name) = env {
                    self.env.push((name.clone(), variable(id, name, &content)?));
                }
                if !is_file {
                    return Ok(());
                }
                (self.file(content, *owner), false)
            }
            MountSource::Ssh { id, required, owner } => {
                let Some(kind) = self.ssh(tools, id, *required, *owner)? else {
                    return Ok(());
                };
                if !self.env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
                    self.env
                        .push(("SSH_AUTH_SOCK".to_owned(), mount.target.clone().into()));
                }
                (kind, false)
            }
            MountSource::Program(program) => {
                let owner = Owned {
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                };
                (self.file(Secret::new(program.clone()), owner), false)
            }
        };
        let target = PathBuf::from(&mount.target);
        self.stubs.push(match is_directory {
            true => MountStub::Directory(target.clone()),
            false => MountStub::File(target.clone()),
        });
        self.mounts.push(ExecMount {
            kind,
            target,
            read_only: mount.read_only,
        });
        Ok(())
    }

    /// A snapshot on the layers, which is thrown away.
    fn bind(
        &mut self,
        tools: &Tools<'_>,
        at: At<'_>,
        source: &Source<'_>,
    ) -> Result<ExecMountKind, StepError> {
        let (layers, path) = source.layers(tools, at)?;
        if layers.is_empty() {
            return Ok(ExecMountKind::Tmpfs {
                size: None,
                mode: 0o755,
            });
        }
        let dirs = self.snapshot(tools, &layers)?.dirs().clone();
        Ok(ExecMountKind::Layers {
            dirs,
            source: path,
            is_kept: false,
        })
    }

    fn snapshot(&mut self, tools: &Tools<'_>, layers: &[Layer]) -> Result<&ActiveSnapshot, StoreError> {
        let pages = layers.iter().flat_map(|layer| layer.id_pages());
        self.id_pages.extend(pages.copied());
        let options = PrepareOptions { ..tools.options() };
        let snapshot = tools.store.prepare(layers, &options)?;
        self.layers.extend_from_slice(snapshot.layers());
        self.snapshots.push(snapshot);
        let last = self.snapshots.len() - 1;
        Ok(&self.snapshots[last])
    }

    fn cache(
        &mut self,
        tools: &Tools<'_>,
        at: At<'_>,
        mount: &MountPlan,
        source: Option<&Source<'_>>,
    ) -> Result<Option<ExecMountKind>, StepError> {
        let scope = tools.request.cache_scope.as_deref();
        let wanted = cache_of(mount, source, scope)?.map(|(spec, _)| spec);
        let taken = self.caches.iter().find(|(spec, _)| wanted.as_ref() == Some(spec));
        let Some((data, work)) = taken.map(|(_, taken)| (taken.data(), taken.work())) else {
            return Ok(None);
        };
        let Some(source) = source else {
            return Ok(Some(ExecMountKind::Directory(data)));
        };
        let (layers, path) = source.layers(tools, at)?;
        if layers.is_empty() {
            return Ok(Some(ExecMountKind::Directory(data)));
        }
        let mut dirs = self.snapshot(tools, &layers)?.dirs().clone();
        (dirs.upper, dirs.work) = (data, work);
        Ok(Some(ExecMountKind::Layers {
            dirs,
            source: path,
            is_kept: true,
        }))
    }

    fn secret(&mut self, tools: &Tools<'_>, id: &str, required: bool) -> Result<Option<Secret>, StepError> {
        match tools.request.secrets.get(id) {
            Some(secret) => {
                self.secrets.push(secret.clone());
                Ok(Some(secret.clone()))
            }
            None if required => Err(StepError::NoSecret { id: id.to_owned() }),
            None => Ok(None),
        }
    }

    fn file(&mut self, content: Secret, owner: Owned) -> ExecMountKind {
        let Owned { mode, uid, gid } = owner;
        self.id_pages.extend([uid >> 16, gid >> 16]);
        ExecMountKind::File {
            content,
            mode,
            uid,
            gid,
        }
    }

    fn ssh(
        &mut self,
        tools: &Tools<'_>,
        id: &str,
        required: bool,
        owner: Owned,
    ) -> Result<Option<ExecMountKind>, StepError> {
        let Some(agent) = tools.request.ssh.get(id) else {
            return match required {
                true => Err(StepError::NoAgent { id: id.to_owned() }),
                false => Ok(None),
            };
        };
        let Owned { mode, uid, gid } = owner;
        self.id_pages.extend([uid >> 16, gid >> 16]);
        Ok(Some(ExecMountKind::Socket {
            agent: agent.clone(),
            mode,
            uid,
            gid,
        }))
    }
}

fn variable(id: &str, name: &str, content: &Secret) -> Result<OsString, StepError> {
    use std::os::unix::ffi::OsStringExt;
    match content.expose().contains(&0) {
        true => Err(StepError::SecretWithNul {
            id: id.to_owned(),
            name: name.to_owned(),
        }),
        false => Ok(OsString::from_vec(content.expose().to_vec())),
    }
}

/// Where a mount reads, if it reads anything.
pub(crate) fn bind_of(mount: &MountPlan) -> Option<&BindPlan> {
    match &mount.kind {
        MountSource::Bind(bind) => Some(bind),
        MountSource::Cache { from, .. } => from.as_deref(),
        MountSource::Tmpfs(_)
        | MountSource::Secret { .. }
        | MountSource::Ssh { .. }
        | MountSource::Program(_) => None,
    }
}
