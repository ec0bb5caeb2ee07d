//! Groups at a place that the caller chooses, in every hierarchy there is: what other tools expect of a container.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{set, told};
use crate::error::{Result, RunnerError};
use crate::sys;

/// A container's group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedGroup {
    /// Where the hierarchy is mounted.
    pub(crate) top: PathBuf,
    pub(crate) dir: PathBuf,
    /// Those of version 1; of version 2 there are those that the kernel says.
    pub(crate) controllers: Vec<String>,
    pub(crate) is_unified: bool,
    /// Whether it is removed with the container.
    pub(crate) is_ours: bool,
}

/// The groups of a container, in all hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedGroups {
    pub(crate) groups: Vec<PlacedGroup>,
    /// Whether there are hierarchies in which this user may have none.
    #[serde(default)]
    pub(crate) is_partial: bool,
}

/// Why a group is not made.
struct Refusal {
    reason: String,
    is_forbidden: bool,
}

impl PlacedGroups {
    /// The group of this path in every hierarchy, and which of them will be the container's own. Nothing is made yet.
    pub(crate) fn plan(path: &Path) -> Result<PlacedGroups> {
        let parts = parts(path)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| RunnerError::os("read /proc/self/mountinfo", e))?;
        let mut groups = parse(&mounts);
        for group in &mut groups {
            group.dir = parts.iter().fold(group.top.clone(), |dir, part| dir.join(part));
            group.is_ours = !group.dir.exists();
        }
        Ok(PlacedGroups {
            groups,
            is_partial: false,
        })
    }

    /// Makes them, with all that leads to them; those that are there after all are not ours.
    pub(crate) fn make(&mut self, path: &Path) -> Result<()> {
        let parts = parts(path)?;
        let made = self.groups.iter_mut().try_for_each(|group| group.make(&parts));
        made.map_err(|refusal| {
            self.remove();
            refused(refusal.reason)
        })
    }

    /// The same; hierarchies in which this user may make none are left out: what an ordinary user's containers have, who asks for no place.
    pub(crate) fn make_allowed(&mut self, path: &Path) -> Result<()> {
        let parts = parts(path)?;
        let (mut allowed, mut failed) = (Vec::new(), None);
        for mut group in std::mem::take(&mut self.groups) {
            match group.make(&parts) {
                Err(refusal) if refusal.is_forbidden => self.is_partial = true,
                Err(refusal) => failed = Some(refusal.reason),
                Ok(()) => allowed.push(group),
            }
        }
        self.groups = allowed;
        failed.map_or(Ok(()), |reason| {
            self.remove();
            Err(refused(reason))
        })
    }

    /// Those that are removed with the container.
    pub fn own(mut self) -> PlacedGroups {
        self.groups.retain(|group| group.is_ours);
        self
    }

    /// The group that this controller has, of version 1 before that of version 2.
    pub(crate) fn with(&self, controller: &str) -> Option<&PlacedGroup> {
        let v1 = self
            .groups
            .iter()
            .find(|g| g.controllers.iter().any(|c| c == controller));
        v1.or_else(|| self.unified().filter(|group| group.offers(controller)))
    }

    pub(crate) fn unified(&self) -> Option<&PlacedGroup> {
        self.groups.iter().find(|group| group.is_unified)
    }

    /// Where processes of version 1 move themselves.
    pub(crate) fn tasks(&self) -> io::Result<Vec<OwnedFd>> {
        let v1 = self.groups.iter().filter(|group| !group.is_unified);
        let open = |group: &PlacedGroup| fs::OpenOptions::new().write(true).open(group.dir.join("tasks"));
        v1.map(|group| open(group).map(OwnedFd::from)).collect()
    }

    pub(crate) fn unified_dir(&self) -> io::Result<Option<OwnedFd>> {
        self.unified()
            .map(|group| fs::File::open(&group.dir).map(OwnedFd::from))
            .transpose()
    }

    /// The processes in it, and in groups below it.
    pub fn processes(&self) -> Vec<i32> {
        let mut all = BTreeSet::new();
        for group in &self.groups {
            for entry in walkdir::WalkDir::new(&group.dir).into_iter().flatten() {
                if entry.file_type().is_dir() {
                    let text = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
                    all.extend(
                        text.lines()
                            .filter_map(|line| line.parse::<i32>().ok())
                            .filter(|pid| *pid > 1),
                    );
                }
            }
        }
        all.into_iter().collect()
    }

    /// Sends a signal to every process in it. For SIGKILL again until none is left, since they may start others meanwhile.
    pub fn signal_all(&self, number: i32) -> io::Result<()> {
        for _ in 0..if number == libc::SIGKILL { 500 } else { 1 } {
            let pids = self.processes();
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                sys::signal(pid, number)?;
            }
            if number == libc::SIGKILL {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Stops all processes in it, or lets them go on; returns when it is so.
    pub fn freeze(&self, stop: bool) -> io::Result<()> {
        let (group, file, words) = self
            .freezer()
            .ok_or_else(|| io::Error::other("this machine has no cgroup that can stop processes"))?;
        let word = if stop { words.0 } else { words.1 };
        for _ in 0..super::REMOVE_TRIES {
            // Of version 1 it may have to be said again while processes are started.
            fs::write(group.dir.join(file), word)?;
            if self.is_frozen() == stop {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Err(io::Error::other("its processes do not stop"))
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        let Some((group, file, _)) = self.freezer() else {
            return false;
        };
        let read = |file: &str| fs::read_to_string(group.dir.join(file)).unwrap_or_default();
        match group.is_unified {
            true => read("cgroup.events").lines().any(|line| line == "frozen 1"),
            false => read(file).trim() == "FROZEN",
        }
    }

    /// The group that stops processes, its file, and what is written there to stop them and to let them go on.
    fn freezer(&self) -> Option<(&PlacedGroup, &'static str, (&'static str, &'static str))> {
        let is_freezer = |g: &&PlacedGroup| g.controllers.iter().any(|c| c == "freezer");
        match self.groups.iter().find(is_freezer) {
            Some(group) => Some((group, "freezer.state", ("FROZEN", "THAWED"))),
            None => Some((self.unified()?, "cgroup.freeze", ("1", "0"))),
        }
    }

    /// Removes those that were made for the container, with those made below them. What still holds a process stays.
    pub fn remove(&self) -> bool {
        let mut is_gone = true;
        for group in self.groups.iter().filter(|group| group.is_ours) {
            for _ in 0..super::REMOVE_TRIES {
                let below = walkdir::WalkDir::new(&group.dir)
                    .contents_first(true)
                    .into_iter()
                    .flatten();
                for entry in below.filter(|entry| entry.file_type().is_dir()) {
                    // Whether it worked is seen below.
                    let _ = fs::remove_dir(entry.path());
                }
                if !group.dir.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            is_gone &= !group.dir.exists();
        }
        is_gone
    }
}

impl PlacedGroup {
    fn make(&mut self, parts: &[&std::ffi::OsStr]) -> std::result::Result<(), Refusal> {
        let mut dir = self.top.clone();
        for (number, part) in parts.iter().enumerate() {
            if self.is_unified {
                self.hand_down(&dir);
            }
            let above = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                Ok(()) => self.is_ours = number + 1 == parts.len(),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.is_ours = false,
                Err(e) => {
                    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
                    return Err(Refusal {
                        is_forbidden: matches!(e.kind(), PermissionDenied | ReadOnlyFilesystem),
                        reason: told("make", &dir)(e),
                    });
                }
            }
            if self.controllers.iter().any(|c| c == "cpuset") {
                let may = rustix::fs::access(dir.join("cpuset.cpus"), rustix::fs::Access::WRITE_OK);
                fill_cpuset(&above, &dir).map_err(|reason| Refusal {
                    reason,
                    is_forbidden: may.is_err(),
                })?;
            }
        }
        Ok(())
    }

    /// A controller that can't be handed down is missed by the limit that needs it.
    fn hand_down(&self, dir: &Path) {
        let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }

    fn offers(&self, controller: &str) -> bool {
        let own = fs::read_to_string(self.dir.join("cgroup.controllers")).unwrap_or_default();
        own.split_whitespace().any(|c| c == controller)
    }

    /// The last part of the mount point, by which programs look for the hierarchy.
    pub(crate) fn name(&self) -> String {
        self.top
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub(crate) fn set(&self, file: &str, value: impl std::fmt::Display) -> std::result::Result<(), String> {
        set(&self.dir, file, value)
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.dir.join(file).exists()
    }
}

/// Of version 1 a new group has no processor and no memory node at all until it is said.
fn fill_cpuset(above: &Path, dir: &Path) -> std::result::Result<(), String> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
        if own.trim().is_empty() {
            let all = fs::read_to_string(above.join(file)).map_err(|e| format!("read {file}: {e}"))?;
            set(dir, file, all.trim())?;
        }
    }
    Ok(())
}

fn refused(reason: String) -> RunnerError {
    RunnerError::Bundle {
        field: "linux.cgroupsPath".into(),
        reason,
    }
}

/// The names that a path consists of.
fn parts(path: &Path) -> Result<Vec<&std::ffi::OsStr>> {
    let name = |part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    };
    let parts: Vec<&std::ffi::OsStr> = path.components().filter_map(name).collect();
    if parts.is_empty() || path.components().any(|part| part == Component::ParentDir) {
        return Err(refused(format!("{} is no place for a container", path.display())));
    }
    Ok(parts)
}

fn parse(mountinfo: &str) -> Vec<PlacedGroup> {
    let mut found: Vec<PlacedGroup> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(top), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else {
            continue;
        };
        let options = right.rsplit(' ').next().unwrap_or("");
        let is_known = |o: &&str| {
            !matches!(
                *o,
                "rw" | "ro"
                    | "xattr"
                    | "none"
                    | "clone_children"
                    | "noprefix"
                    | "favordynmods"
                    | "cpuset_v2_mode"
            ) && !o.contains("release_agent")
        };
        let controllers: Vec<String> = match kind {
            "cgroup" => options.split(',').filter(is_known).map(str::to_owned).collect(),
            "cgroup2" => Vec::new(),
            _ => continue,
        };
        let group = PlacedGroup {
            top: PathBuf::from(top),
            dir: PathBuf::new(),
            controllers,
            is_unified: kind == "cgroup2",
            is_ours: false,
        };
        // The same hierarchy mounted twice.
        if !found
            .iter()
            .any(|f| f.is_unified == group.is_unified && f.controllers == group.controllers)
        {
            found.push(group);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_once() {
        let line =
            |top: &str, kind: &str, options: &str| format!("1 2 0:1 / {top} rw - {kind} {kind} {options}\n");
        let text = [
            line("/c/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            line("/c/systemd", "cgroup", "rw,xattr,name=systemd"),
            line("/c/unified", "cgroup2", "rw,nsdelegate"),
            line("/other/cpu", "cgroup", "rw,cpu,cpuacct"),
            line("/tmp", "tmpfs", "rw"),
        ]
        .concat();
        let found = parse(&text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[1].controllers, ["name=systemd"]);
        assert!(found[2].is_unified);
    }

    #[test]
    fn no_place_is_refused() {
        for path in ["/", "", "../x", "/a/../../b"] {
            assert!(PlacedGroups::plan(Path::new(path)).is_err(), "{path}");
        }
    }
}
