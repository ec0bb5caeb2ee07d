//! Control groups on version 1, version 2 and both beside each other.
//!
//! Each container has its own, `box-<owner>-<id>`, below a parent; only the controllers that a
//! limit or a figure needs are used. On version 1 each controller is a tree of its own; a controller
//! that no tree of version 1 has is looked for in the one of version 2.

mod device_program;
mod devices;
mod further;
mod live;
mod placed;
mod resources;
mod scope;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use placed::PlacedGroups;

use crate::error::{Result, RunnerError};
use crate::setup::CgroupView;
use crate::spec::{Limits, LimitsPolicy};
use crate::systemd;

/// Containers without a limit of their own get this many processes.
const DEFAULT_PIDS: u64 = 2048;
/// How often removal is tried while the last process is still leaving.
const REMOVE_TRIES: u32 = 200;

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Cpu => "cpu",
        }
    }

    /// The limit's name to the user.
    fn limit(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Cpu => "cpus",
        }
    }
}

/// The hierarchies of this machine, found once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hierarchies {
    v1: Vec<v1::Hierarchy>,
    v2: Option<v2::Hierarchy>,
    parent: Option<PathBuf>,
    /// The parent was chosen by the caller: there and nowhere else.
    is_chosen: bool,
    /// Why there is no parent, beside that nothing is delegated.
    refusal: Option<String>,
    /// Where scopes of systemd may be.
    slices: Vec<PathBuf>,
}

impl Hierarchies {
    /// Reads the mounts of this process. `parent` is a path below each hierarchy's root; without one
    /// root uses the roots themselves and an ordinary user what was delegated.
    pub(crate) fn find(parent: Option<&Path>, rootless: bool) -> Result<Hierarchies> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|e| RunnerError::os(format!("read {path}"), e));
        let mounts = read("/proc/self/mountinfo")?;
        let mut found = Hierarchies::parse(&mounts);
        if found.v1.is_empty() && found.v2.is_some() {
            found.slices = systemd::slices(rootless);
        }
        found.is_chosen = parent.is_some();
        found.parent = match (parent, rootless) {
            (Some(parent), _) => Some(parent.strip_prefix("/").unwrap_or(parent).to_owned()),
            (None, false) => Some(PathBuf::new()),
            (None, true) => {
                let own = read("/proc/self/cgroup")?;
                found.v2.as_ref().and_then(|h| h.delegated(&own))
            }
        };
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let (Some(mount_point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else {
                continue;
            };
            let dir = PathBuf::from(mount_point);
            match kind {
                "cgroup2" => found.v2 = Some(v2::Hierarchy { dir }),
                "cgroup" => {
                    let options = right.rsplit(' ').next().unwrap_or("");
                    found.v1.extend(v1::Hierarchy::parse(dir, options));
                }
                _ => {}
            }
        }
        found
    }

    /// What a container with these limits sees of its groups.
    pub(crate) fn view(&self, groups: &Cgroups) -> CgroupView {
        if !groups.v1.is_empty() {
            let of = |g: &v1::Group| (g.hierarchy_name.clone(), g.controllers.clone());
            return CgroupView::Legacy(groups.v1.iter().map(of).collect());
        }
        if groups.v2.is_some() {
            CgroupView::Unified
        } else {
            CgroupView::None
        }
    }

    /// The containers' groups that exist now: the owner, and how to end it.
    pub(crate) fn existing(&self) -> Vec<Existing> {
        let mut dirs = Vec::new();
        if let Some(parent) = &self.parent {
            dirs.extend(self.v1.iter().map(|h| h.dir.join(parent)));
            dirs.extend(self.v2.iter().map(|h| h.dir.join(parent)));
        }
        for slice in &self.slices {
            dirs.extend(self.v2.iter().map(|h| h.dir.join(slice)));
        }
        dirs.iter().flat_map(|dir| existing_in(dir)).collect()
    }
}

/// A group some container of some owner left or uses.
pub(crate) struct Existing {
    pub(crate) owner: String,
    dir: PathBuf,
}

impl Existing {
    /// Kills what is in it and in the groups below it (a container that runs containers makes some), and removes them,
    /// the deepest first, as the kernel wants it.
    pub(crate) fn end(&self) -> io::Result<()> {
        below(&self.dir).try_for_each(|dir| end_one(&dir))
    }
}

fn end_one(dir: &Path) -> io::Result<()> {
    if fs::write(dir.join("cgroup.kill"), "1").is_err() {
        v1::kill(dir)?;
    }
    remove(dir)
}

fn existing_in(dir: &Path) -> Vec<Existing> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (owner, _) = name.strip_prefix("box-")?.split_once('-')?;
            Some(Existing {
                owner: owner.to_owned(),
                dir: entry.path(),
            })
        })
        .collect()
}

/// The groups of one container.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    v1: Vec<v1::Group>,
    v2: Option<v2::Group>,
    /// The group that was made to stop its processes, where none of the others can.
    freezer: Mutex<Option<PathBuf>>,
}

/// What the groups tell at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) peak_memory: Option<u64>,
    pub(crate) oom_kills: u64,
    /// User and system time, where the kernel accounts it by group.
    pub(crate) cpu: Option<(Duration, Duration)>,
    /// Bytes read and written, where the kernel accounts it by group.
    pub(crate) io: Option<(u64, u64)>,
}

impl Cgroups {
    /// Makes the groups and sets the limits. With [`LimitsPolicy::BestEffort`] what can't be had is
    /// left out; otherwise an explicit limit that can't be had is an error.
    pub(crate) fn create(
        hierarchies: &Hierarchies,
        name: &str,
        limits: &Limits,
        policy: LimitsPolicy,
    ) -> Result<Cgroups> {
        let mut groups = Cgroups::default();
        let wanted = [
            (Controller::Memory, limits.memory, limits.memory.is_some()),
            (
                Controller::Pids,
                Some(limits.pids.unwrap_or(DEFAULT_PIDS)),
                limits.pids.is_some(),
            ),
            (Controller::Cpu, limits.millicpus, limits.millicpus.is_some()),
        ];
        for (controller, value, explicit) in wanted {
            if controller == Controller::Cpu && value.is_none() {
                continue;
            }
            match groups.add(hierarchies, name, controller, value) {
                Err(reason) if explicit && policy == LimitsPolicy::Enforce => {
                    groups.remove();
                    return Err(RunnerError::LimitUnenforceable {
                        limit: controller.limit(),
                        reason,
                    });
                }
                _ => {}
            }
        }
        Ok(groups)
    }

    fn add(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
        controller: Controller,
        value: Option<u64>,
    ) -> std::result::Result<(), String> {
        let parent = hierarchies.parent()?;
        if let Some(hierarchy) = hierarchies.v1.iter().find(|h| h.has(controller.name())) {
            let group = v1::Group::join(&mut self.v1, hierarchy, parent, name)?;
            return value.map_or(Ok(()), |value| group.limit(controller, value));
        }
        self.join_unified(hierarchies, name)?.limit(controller, value)
    }

    /// The container's group of version 2, made when it is not there yet.
    fn join_unified(
        &mut self,
        hierarchies: &Hierarchies,
        name: &str,
    ) -> std::result::Result<&v2::Group, String> {
        let hierarchy = hierarchies
            .v2
            .as_ref()
            .ok_or("this machine has no such cgroup controller")?;
        let group = match self.v2.take() {
            Some(group) => group,
            None => hierarchy.group(hierarchies.parent()?, name)?,
        };
        Ok(self.v2.insert(group))
    }

    /// The files by which a process of version 1 enters.
    pub(crate) fn tasks(&self) -> io::Result<Vec<OwnedFd>> {
        self.v1.iter().map(v1::Group::tasks).collect()
    }

    /// The directory of version 2, for clone.
    pub(crate) fn unified(&self) -> io::Result<Option<OwnedFd>> {
        self.v2.as_ref().map(v2::Group::open).transpose()
    }

    /// The file of version 2 by which a process enters; whoever opened it needs the right to it, not who writes.
    pub(crate) fn unified_processes(&self) -> io::Result<Option<OwnedFd>> {
        self.v2.as_ref().map(v2::Group::processes).transpose()
    }

    /// What they have counted; to be read when the container has ended.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for group in &self.v1 {
            group.read(&mut figures);
        }
        if let Some(group) = &self.v2 {
            group.read(&mut figures);
        }
        figures
    }

    /// Where they are.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().map(|g| g.dir.as_path());
        v1.chain(self.v2.iter().map(|g| g.dir.as_path()))
    }

    /// Kills all that is in them.
    pub(crate) fn kill(&self) {
        for dir in self.dirs().flat_map(below) {
            // What is left is the next reaping's.
            let _ = v1::kill(&dir);
        }
    }

    /// Removes them, with those that a container made below; what still can't be removed is left to the next reaping.
    pub(crate) fn remove(&self) {
        let freezer = self.freezer.lock().unwrap_or_else(PoisonError::into_inner);
        for dir in self.dirs().chain(freezer.as_deref()) {
            // Only a privileged one can have made any.
            let is_busy = |e: io::Error| e.raw_os_error() == Some(libc::EBUSY) && has_groups(dir);
            let removed = fs::remove_dir(dir);
            if removed.is_err_and(is_busy) {
                let _ = below(dir).try_for_each(|dir| remove(&dir));
            } else {
                let _ = remove(dir);
            }
        }
    }
}

fn has_groups(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

/// A group and those below it, the deepest first.
fn below(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let all = walkdir::WalkDir::new(dir)
        .contents_first(true)
        .into_iter()
        .flatten();
    all.filter(|entry| entry.file_type().is_dir())
        .map(walkdir::DirEntry::into_path)
}

/// The processes in a group and in those below it, by the ids that the caller sees.
pub(crate) fn processes_below(dir: &Path) -> Vec<i32> {
    let found = below(dir).flat_map(|dir| live::processes_in(&dir).unwrap_or_default());
    // 0 stands for one that the caller can't see.
    found.filter(|pid| *pid > 1).collect()
}

/// Makes a container's group. Its programs may read what they are allowed (it is how a Java machine finds its size), whatever the caller's mask.
fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

/// A process that was just reaped may still be leaving: EBUSY means a moment's patience.
fn remove(dir: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && tries < REMOVE_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_micros(100 * u64::from(tries.min(50))));
            }
            other => return other,
        }
    }
}

/// Why a file of a group could not be written, in words for the user.
fn told(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let text = format!("{doing} {}", path.display());
    move |e| format!("{text}: {e}")
}

fn set(dir: &Path, file: &str, value: impl std::fmt::Display) -> std::result::Result<(), String> {
    let path = dir.join(file);
    fs::write(&path, value.to_string()).map_err(told("write", &path))
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// The number behind `key` in lines of `key number`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpuacct,xattr
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw";

    #[test]
    fn hierarchies_are_found() {
        let found = Hierarchies::parse(HYBRID);
        assert_eq!(found.v1.len(), 2);
        assert!(found.v1[0].has("cpu") && !found.v1[1].has("cpu"));
        assert_eq!(found.v1[1].controllers, ["cpuacct"]);
        assert_eq!(found.v2.unwrap().dir, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn keyed_lines() {
        let text = "oom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "oom"), Some(3));
        assert_eq!(keyed(text, "none"), None);
    }
}
