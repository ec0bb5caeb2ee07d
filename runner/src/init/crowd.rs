//! The processes of a container whose pid namespace is not its own: they outlive the first one, until the keeper ends them.
//!
//! They are known by their cgroups. Without any they are those in the container's mount namespace, which no other process is in, and which
//! they can leave only with rights that a container without cgroups is rarely given.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cgroup;
use crate::channel::{self, Raw};
use crate::sys;

/// How long it is tried. What starts others faster than this is bounded by the limit of processes.
const LONGEST: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(1);

/// How they are found.
pub(super) enum Crowd {
    Groups(Vec<PathBuf>),
    /// The mount namespace, held so that no other one gets its number.
    Mounts(File),
}

/// The two ends by which the first process hands over its mount namespace, where there are no cgroups.
pub(super) type Line = Option<(UnixStream, UnixStream)>;

pub(super) fn line(groups: Option<&Vec<Raw>>) -> io::Result<Line> {
    match groups {
        Some(groups) if groups.is_empty() => UnixStream::pair().map(Some),
        _ => Ok(None),
    }
}

/// The first process' side: nobody else may look at its namespaces as long as it hides.
pub(super) fn tell(line: Line) -> io::Result<()> {
    let Some((_, theirs)) = line else {
        return Ok(());
    };
    let mounts = File::open("/proc/self/ns/mnt")?;
    channel::send(&theirs, &(), &[mounts.as_fd()])
}

impl Crowd {
    /// The keeper's side; none where all end with the first one.
    pub(super) fn of(groups: Option<Vec<Raw>>, line: Line) -> io::Result<Option<Crowd>> {
        let Some(groups) = groups else {
            return Ok(None);
        };
        let Some((ours, theirs)) = line else {
            let dirs = groups.iter().map(|dir| dir.as_path().to_owned());
            return Ok(Some(Crowd::Groups(dirs.collect())));
        };
        drop(theirs);
        let told: Option<((), Vec<OwnedFd>)> = channel::recv(&ours)?;
        let mounts = told.and_then(|(_, fds)| fds.into_iter().next());
        Ok(mounts.map(|fd| Crowd::Mounts(fd.into())))
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        let end = Instant::now() + LONGEST;
        while Instant::now() < end {
            let pids = self.find();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                // What is gone needs no signal.
                let _ = sys::signal(pid, libc::SIGKILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn find(&self) -> Vec<i32> {
        match self {
            Crowd::Groups(dirs) => dirs.iter().flat_map(|dir| cgroup::processes_below(dir)).collect(),
            Crowd::Mounts(mounts) => in_mounts(mounts).unwrap_or_default(),
        }
    }
}

fn in_mounts(mounts: &File) -> io::Result<Vec<i32>> {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let wanted = id(mounts.metadata()?);
    let all = std::fs::read_dir("/proc")?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_in = |pid: &i32| {
        let place = std::fs::metadata(format!("/proc/{pid}/ns/mnt"));
        place.is_ok_and(|found| id(found) == wanted)
    };
    Ok(pids.filter(is_in).collect())
}
