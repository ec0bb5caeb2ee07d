//! `RUN --mount=`: what is mounted where, its variables expanded.

use std::path::Path;

use box_store::error::StoreError;

use crate::ast::{Mount, MountKind, Run, RunCommand, RunMount};
use crate::diagnostic::Diagnostic;
use crate::expand::expand_word;
use crate::parse::resolve_mount;
use crate::plan::{BindPlan, MountPlan, MountSource, Owned};
use crate::request::Platform;
use crate::source::Spanned;

use super::Lowering;
use super::state::{State, join};

impl Lowering<'_> {
    /// All that a RUN has mounted; none if something is wrong with one (which was noted).
    pub(super) fn mounts(&mut self, state: &State, run: &Run) -> Result<Option<Vec<MountPlan>>, StoreError> {
        let mut plans = Vec::with_capacity(run.mounts.len());
        if let RunCommand::Program { name, data } = &run.command {
            plans.push(Some(MountPlan {
                kind: MountSource::Program(data.clone()),
                target: program_path(name),
                read_only: true,
            }));
        }
        for (index, mount) in run.mounts.iter().enumerate() {
            plans.push(self.mount(state, mount, index)?);
        }
        Ok(plans.into_iter().collect())
    }

    fn mount(
        &mut self,
        state: &State,
        written: &RunMount,
        index: usize,
    ) -> Result<Option<MountPlan>, StoreError> {
        let escape = self.graph.directives.escape;
        let mount = resolve_mount(written, |word| expand_word(&word.text, escape, &state.scope));
        let mount = match mount {
            Ok(mount) => mount,
            Err(error) => {
                self.problems.push(error.into());
                return Ok(None);
            }
        };
        let target = join(state.workdir(), &default_target(&mount, index));
        if target == "/" {
            let problem = Diagnostic::error(written.span, "a mount can't take the place of /");
            self.problems
                .push(problem.expected("target= with a directory or file below /"));
            return Ok(None);
        }
        let kind = self.mount_source(written, &mount, &target, &state.platform)?;
        Ok(kind.map(|kind| MountPlan {
            kind,
            target,
            read_only: mount.read_only,
        }))
    }

    fn mount_source(
        &mut self,
        written: &RunMount,
        mount: &Mount,
        target: &str,
        platform: &Platform,
    ) -> Result<Option<MountSource>, StoreError> {
        let owned = |mode: &Option<u32>, default, uid: &Option<u32>, gid: &Option<u32>| Owned {
            mode: mode.unwrap_or(default) & 0o7777,
            uid: uid.unwrap_or(0),
            gid: gid.unwrap_or(0),
        };
        Ok(match &mount.kind {
            MountKind::Bind { source, .. } => {
                let bind = self.bind(written, source.as_deref(), platform)?;
                bind.map(|bind| MountSource::Bind(Box::new(bind)))
            }
            MountKind::Cache {
                from: None,
                source: Some(_),
                ..
            } => self.refuse(written.span, "source= without from= in RUN --mount=type=cache"),
            MountKind::Cache {
                id,
                from,
                source,
                sharing,
                mode,
                uid,
                gid,
            } => {
                let from = match from {
                    Some(_) => match self.bind(written, source.as_deref(), platform)? {
                        Some(bind) => Some(Box::new(bind)),
                        None => return Ok(None),
                    },
                    None => None,
                };
                Some(MountSource::Cache {
                    id: id.clone().unwrap_or_else(|| target.to_owned()),
                    sharing: *sharing,
                    from,
                    owner: owned(mode, 0o755, uid, gid),
                })
            }
            MountKind::Tmpfs { copy_up: true, .. } => {
                self.refuse(written.span, "tmpcopyup in RUN --mount=type=tmpfs")
            }
            MountKind::Tmpfs { size, .. } => Some(MountSource::Tmpfs(*size)),
            MountKind::Secret {
                id,
                env,
                required,
                mode,
                uid,
                gid,
            } => Some(MountSource::Secret {
                id: id.clone().unwrap_or_else(|| last_part(target)),
                env: env.clone(),
                is_file: env.is_none() || mount.target.is_some(),
                required: *required,
                owner: owned(mode, 0o400, uid, gid),
            }),
            MountKind::Ssh {
                id,
                required,
                mode,
                uid,
                gid,
            } => Some(MountSource::Ssh {
                id: id.clone().unwrap_or_else(|| "default".to_owned()),
                required: *required,
                owner: owned(mode, 0o600, uid, gid),
            }),
        })
    }

    fn bind(
        &mut self,
        written: &RunMount,
        source: Option<&str>,
        platform: &Platform,
    ) -> Result<Option<BindPlan>, StoreError> {
        let from = written.from.as_ref();
        let from = self.copy_from(
            from.map(|from| Spanned::new(from.value.clone(), from.span))
                .as_ref(),
            platform,
        )?;
        let source = join("/", source.unwrap_or_default())[1..].to_owned();
        Ok(from.map(|from| BindPlan { from, source }))
    }
}

fn default_target(mount: &Mount, index: usize) -> String {
    if let Some(target) = &mount.target {
        return target.clone();
    }
    match &mount.kind {
        MountKind::Secret { id, .. } => {
            format!("/run/secrets/{}", last_part(id.as_deref().unwrap_or_default()))
        }
        MountKind::Ssh { .. } => format!("/run/buildkit/ssh_agent.{index}"),
        MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => String::new(),
    }
}

fn last_part(path: &str) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Where the program of a heredoc of this name is.
pub(super) fn program_path(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    format!("/dev/pipes/{name}")
}
