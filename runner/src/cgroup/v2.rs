//! Version 2: one tree for all controllers.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, CWD, Mode, OFlags};

use super::{Controller, Figures, keyed, make_dir, number, set, told};

/// Microseconds over which a cpu quota counts.
const PERIOD: u64 = 100_000;

/// The mounted tree.
#[derive(Debug, Clone)]
pub(super) struct Hierarchy {
    pub(super) dir: PathBuf,
}

impl Hierarchy {
    /// The nearest group above this process' own that it may make groups in and move into, as a
    /// path below the root. `own` is the text of `/proc/self/cgroup`.
    pub(super) fn delegated(&self, own: &str) -> Option<PathBuf> {
        let own = own.lines().find_map(|l| l.strip_prefix("0::/"))?;
        let writable = |path: &Path| {
            let dir = self.dir.join(path);
            let may =
                |p: PathBuf| rustix::fs::accessat(CWD, p, Access::WRITE_OK, rustix::fs::AtFlags::EACCESS);
            may(dir.clone()).is_ok() && may(dir.join("cgroup.procs")).is_ok()
        };
        Path::new(own)
            .ancestors()
            .skip(1)
            .find(|p| writable(p))
            .map(Path::to_owned)
    }

    /// Makes a container's group.
    pub(super) fn group(&self, parent: &Path, name: &str) -> Result<Group, String> {
        let parent = self.dir.join(parent);
        let dir = parent.join(name);
        make_dir(&dir).map_err(told("make", &dir))?;
        Ok(Group { dir, parent })
    }
}

/// A container's group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) dir: PathBuf,
    parent: PathBuf,
}

impl Group {
    /// Has the controller act in this group, and sets its limit.
    pub(super) fn limit(&self, controller: Controller, value: Option<u64>) -> Result<(), String> {
        self.activate(controller.name())?;
        let Some(value) = value else {
            return Ok(());
        };
        match controller {
            Controller::Memory => {
                set(&self.dir, "memory.max", value)?;
                match self.dir.join("memory.swap.max").exists() {
                    true => set(&self.dir, "memory.swap.max", 0),
                    false => Ok(()),
                }
            }
            Controller::Pids => set(&self.dir, "pids.max", value),
            Controller::Cpu => {
                let quota = (value * PERIOD / 1000).max(1000);
                set(&self.dir, "cpu.max", format_args!("{quota} {PERIOD}"))
            }
        }
    }

    /// Has the controller act in this group.
    pub(super) fn activate(&self, controller: &str) -> Result<(), String> {
        let active = fs::read_to_string(self.dir.join("cgroup.controllers")).unwrap_or_default();
        if active.split_whitespace().any(|c| c == controller) {
            return Ok(());
        }
        let file = self.parent.join("cgroup.subtree_control");
        fs::write(&file, format!("+{controller}")).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT) => format!(
                "the cgroup {} was not given the {controller} controller",
                self.parent.display()
            ),
            // No cgroup both holds processes and hands controllers down.
            Some(libc::EBUSY) => format!(
                "processes are in the cgroup {} itself; move them into one below it, or name another by --cgroup-parent",
                self.parent.display()
            ),
            _ => told("write", &file)(e),
        })
    }

    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(
            &self.dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    pub(super) fn processes(&self) -> io::Result<OwnedFd> {
        let file = self.dir.join("cgroup.procs");
        Ok(fs::OpenOptions::new().write(true).open(file)?.into())
    }

    pub(super) fn read(&self, figures: &mut Figures) {
        let read = |file: &str| fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        figures.peak_memory = number(&self.dir, "memory.peak").or(figures.peak_memory);
        figures.oom_kills += keyed(&read("memory.events"), "oom_kill").unwrap_or(0);
        let cpu = read("cpu.stat");
        let time = |key| keyed(&cpu, key).map(Duration::from_micros);
        figures.cpu = time("user_usec").zip(time("system_usec"));
        let io = read("io.stat");
        if !io.is_empty() {
            let sum = |key: &str| {
                io.split_whitespace()
                    .filter_map(|w| w.strip_prefix(key)?.parse::<u64>().ok())
                    .sum()
            };
            figures.io = Some((sum("rbytes="), sum("wbytes=")));
        }
    }
}
