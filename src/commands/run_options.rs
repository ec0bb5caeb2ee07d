//! The options of `box run` that take some reading: capabilities, security options, mounts, files of variables, names.

use std::io::Write;
use std::path::Path;

use box_runner::{Capabilities, ContainerSpec, Seccomp};
use box_store::{Digest, LockGuard};

use crate::app::{self, App};
use crate::cli::{MountArgs, ProcessArgs};
use crate::error::{EXIT_BOX, Failure};
use crate::mounts::Asked;
use crate::user_files;

/// The default capabilities, first fewer, then more.
pub(super) fn capabilities(add: &[String], drop: &[String]) -> Result<Capabilities, Failure> {
    let mut caps = Capabilities::default();
    let dropped = drop.iter().try_for_each(|name| caps.drop(name));
    let added = dropped.and_then(|()| add.iter().try_for_each(|name| caps.add(name)));
    added.map(|()| caps).map_err(|e| Failure::of(EXIT_BOX, &e))
}

/// `--security-opt`, each one understood or refused.
pub(super) fn security(given: &[String], spec: &mut ContainerSpec) -> Result<(), Failure> {
    for option in given {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => spec.no_new_privs = true,
            ("no-new-privileges", "false") => spec.no_new_privs = false,
            ("seccomp", "unconfined") => spec.seccomp = Seccomp::Unconfined,
            _ => {
                return Err(
                    Failure::own(format!("the security option {option:?} is not supported yet"))
                        .hint("no-new-privileges[=true|false] and seccomp=unconfined are"),
                );
            }
        }
    }
    Ok(())
}

/// What is said of the process.
pub(super) fn process(args: &ProcessArgs, spec: &mut ContainerSpec) {
    spec.rlimits = args.ulimit.iter().map(|limit| limit.0).collect();
    spec.shm_size = args.shm_size.map(|size| size.0);
    spec.groups.clone_from(&args.group_add);
    spec.sysctls = args
        .sysctl
        .iter()
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
    spec.oom_score_adj = args.oom_score_adj;
    if let Some(mask) = args.umask {
        spec.umask = mask.0;
    }
}

/// Whether the container's id can be written, before it has one.
pub(super) fn check_id_file(args: &ProcessArgs) -> Result<(), Failure> {
    match &args.cidfile {
        Some(path) if path.symlink_metadata().is_ok() => {
            Err(Failure::own(format!("{} is there already", path.display()))
                .hint("--cidfile takes a file that is not there"))
        }
        _ => Ok(()),
    }
}

/// Writes the id of the container, which runs, into a new file.
pub(super) fn write_id(args: &ProcessArgs, id: &str) -> Result<(), Failure> {
    let Some(path) = &args.cidfile else { return Ok(()) };
    let written = user_files::create_new(path).and_then(|mut file| file.write_all(id.as_bytes()));
    written.map_err(|e| {
        Failure::own(format!(
            "cannot write the container's id to {}: {e}",
            path.display()
        ))
    })
}

/// What was asked for of mounts.
pub(super) fn asked_mounts(args: &MountArgs) -> Asked<'_> {
    Asked {
        volumes: &args.volumes,
        mounts: &args.mounts,
        tmpfs: &args.tmpfs,
        secrets: &args.secrets,
        devices: &args.devices,
    }
}

/// `NAME=VALUE` lines, or `NAME` for the environment's value; `#` begins a comment line.
pub(super) fn env_file(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let text = String::from_utf8(app::read_file(path)?)
        .map_err(|_| Failure::own(format!("{} is not UTF-8", path.display())))?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, std::env::var(line).ok()),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Failure::own(format!(
                "{}:{}: {name:?} can't name a variable",
                path.display(),
                number + 1
            )));
        }
        pairs.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(pairs)
}

/// Claims a name for as long as the guard lives; fails when a running container has it.
pub(super) fn claim_name(app: &App, name: &str) -> Result<LockGuard, Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() < 2 || name.len() > 128 || !first || !name.chars().all(good) {
        return Err(Failure::own(format!("{name:?} can't name a container"))
            .hint("2 to 128 letters, digits, '_', '.' and '-', the first a letter or digit"));
    }
    let claimed = app.store.try_lock("container-name", &Digest::of(name.as_bytes()));
    match claimed.map_err(|e| Failure::of(EXIT_BOX, &e))? {
        Some(guard) => Ok(guard),
        None => Err(Failure::own(format!(
            "the name {name:?} is in use by a running container"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_variables() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# comment\nA=1\n  B=x=y\n\nBOX_SURELY_UNSET\n").unwrap();
        let pairs = env_file(file.path()).unwrap();
        assert_eq!(
            pairs,
            [
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "x=y".to_owned())
            ]
        );
        std::fs::write(file.path(), "A B=1\n").unwrap();
        assert!(env_file(file.path()).unwrap_err().to_string().contains(":1:"));
    }
}
