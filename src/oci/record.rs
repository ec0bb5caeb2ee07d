//! What is known of a container: a directory of its own with its state, its config.json as it was, and a lock.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use box_runner::bundle::{self, PlacedGroups, ProcessId};
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::{SPECIFICATION, of_runner};
use crate::error::{EXIT_BOX, Failure};

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
const LOCK: &str = "lock";
/// How long a killed container may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// How a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It waits for its start.
    Created,
    Running,
    /// Its processes are stopped where they are.
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// What is kept of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) created: String,
    pub(super) annotations: HashMap<String, String>,
    pub(super) first: ProcessId,
    pub(super) groups: PlacedGroups,
}

impl Record {
    pub(super) fn status(&self, root: &Root) -> Status {
        if !self.first.is_alive() {
            return Status::Stopped;
        }
        match bundle::waits(&root.dir(&self.id)) {
            true => Status::Created,
            false if self.groups.is_frozen() => Status::Paused,
            false => Status::Running,
        }
    }

    /// The state as the specification has it, with what other runtimes say besides.
    pub(super) fn state(&self, status: Status) -> serde_json::Value {
        serde_json::json!({
            "ociVersion": SPECIFICATION,
            "id": self.id,
            "pid": if status == Status::Stopped { 0 } else { self.first.pid },
            "status": status.name(),
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
            "annotations": self.annotations,
        })
    }

    /// What is stopped by cgroup version 1 does not even die.
    pub(super) fn thaw(&self) -> Result<(), Failure> {
        match self.groups.is_frozen() {
            true => self.groups.freeze(false).map_err(|e| Failure::of(EXIT_BOX, &e)),
            false => Ok(()),
        }
    }

    /// Kills all of it, and waits for the end.
    pub(super) fn end(&self) -> Result<(), Failure> {
        self.first.signal(9).map_err(|e| of_runner(&e))?;
        self.thaw()?;
        let begun = Instant::now();
        while self.first.is_alive() {
            if begun.elapsed() > ENDING {
                return Err(Failure::own(format!("container {} does not end", self.id)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// Where the containers are.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
}

/// Holds a container against other commands.
#[derive(Debug)]
pub(super) struct Held(#[allow(dead_code)] Flock<fs::File>);

impl Root {
    pub(super) fn of(given: Option<&Path>) -> Result<Root, Failure> {
        let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let is_root = nix::unistd::geteuid().is_root();
        let path = match given {
            Some(path) => std::path::absolute(path).map_err(|e| Failure::of(EXIT_BOX, &e))?,
            // Root of a user namespace is some user (podman starts runtimes so).
            None if is_root && (own.is_none() || box_runner::has_all_ids()) => PathBuf::from("/run/box-oci"),
            None => match own {
                Some(dir) => PathBuf::from(dir).join("box-oci"),
                None => {
                    return Err(Failure::own("there is no directory for the state of containers")
                        .hint("give --root DIR, or set XDG_RUNTIME_DIR"));
                }
            },
        };
        Ok(Root { path })
    }

    pub(super) fn dir(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// Makes the directory of a container to be, held by the caller.
    pub(super) fn claim(&self, id: &str) -> Result<Held, Failure> {
        check_id(id)?;
        let fail = |path: &Path, e: io::Error| Failure::own(format!("cannot make {}: {e}", path.display()));
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder
            .recursive(true)
            .create(&self.path)
            .map_err(|e| fail(&self.path, e))?;
        let meta = fs::symlink_metadata(&self.path).map_err(|e| fail(&self.path, e))?;
        if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Failure::own(format!(
                "{} is not a directory of this user's",
                self.path.display()
            )));
        }
        let dir = self.dir(id);
        match builder.recursive(false).create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(Failure::own(format!("container with id {id} already exists")))
            }
            Err(e) => Err(fail(&dir, e)),
            Ok(()) => self.hold(id),
        }
    }

    fn hold(&self, id: &str) -> Result<Held, Failure> {
        let path = self.dir(id).join(LOCK);
        let open = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = open.map_err(|e| Failure::own(format!("cannot open {}: {e}", path.display())))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked
            .map(Held)
            .map_err(|(_, e)| Failure::own(format!("cannot lock {}: {e}", path.display())))
    }

    pub(super) fn has(&self, id: &str) -> Result<bool, Failure> {
        check_id(id)?;
        Ok(self.dir(id).is_dir())
    }

    /// The container of this id, held by the caller.
    pub(super) fn find(&self, id: &str) -> Result<(Record, Held), Failure> {
        let missing = || Failure::own(format!("container {id} does not exist"));
        if !self.has(id)? {
            return Err(missing());
        }
        let held = self.hold(id)?;
        match self.read(id)? {
            Some(record) => Ok((record, held)),
            // Its `create` failed, or was killed.
            None => Err(missing()),
        }
    }

    pub(super) fn read(&self, id: &str) -> Result<Option<Record>, Failure> {
        let path = self.dir(id).join(STATE);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Failure::own(format!("cannot read {}: {e}", path.display())))?,
        };
        let record = serde_json::from_slice(&text);
        record
            .map(Some)
            .map_err(|e| Failure::own(format!("{}: {e}", path.display())))
    }

    /// The config.json as it was when the container was made.
    pub(super) fn config(&self, id: &str) -> Result<Spec, Failure> {
        let path = self.dir(id).join(CONFIG);
        let text =
            fs::read(&path).map_err(|e| Failure::own(format!("cannot read {}: {e}", path.display())))?;
        serde_json::from_slice(&text).map_err(|e| Failure::own(format!("{}: {e}", path.display())))
    }

    pub(super) fn write_config(&self, id: &str, spec: &Spec) -> Result<(), Failure> {
        self.write(
            id,
            CONFIG,
            &serde_json::to_vec(spec).map_err(|e| Failure::of(EXIT_BOX, &e))?,
        )
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), Failure> {
        let text = serde_json::to_vec(record).map_err(|e| Failure::of(EXIT_BOX, &e))?;
        self.write(&record.id, STATE, &text)
    }

    fn write(&self, id: &str, name: &str, content: &[u8]) -> Result<(), Failure> {
        whole_file(&self.dir(id).join(name), content)
    }

    pub(super) fn remove(&self, id: &str) -> Result<(), Failure> {
        check_id(id)?;
        let dir = self.dir(id);
        fs::remove_dir_all(&dir).map_err(|e| Failure::own(format!("cannot remove {}: {e}", dir.display())))
    }

    /// All ids, in order.
    pub(super) fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.retain(|id| check_id(id).is_ok());
        ids.sort();
        ids
    }
}

/// A file that is there only when it is whole.
pub(super) fn whole_file(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let unfinished = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&unfinished)?;
        file.write_all(content)?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|e| Failure::own(format!("cannot write {}: {e}", path.display())))
}

/// An id is a file's name.
fn check_id(id: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
    if id.is_empty() || id.len() > 255 || id.starts_with(['.', '-']) || !id.chars().all(good) {
        return Err(Failure::own(format!("bad container id {id:?}"))
            .hint("letters, digits, _, ., + and -, not beginning with a dot or -"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_no_paths() {
        for bad in ["", ".", "..", "a/b", "../a", "a\n", ".lock", "-x"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        check_id("a-b_c.d+1").unwrap();
    }
}
