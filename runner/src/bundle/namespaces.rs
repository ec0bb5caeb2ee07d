//! `linux.namespaces`: which are new, which are joined, and which stay the caller's.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::{invalid, refused};
use crate::error::{Result, RunnerError};

/// The namespaces of a container.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` of those that are made.
    pub(super) new: i32,
    /// Those that are joined: the kind, and where it is.
    pub(super) joined: Vec<(i32, PathBuf)>,
}

/// The order in which namespaces are joined: the user namespace last, since the rights over the others may be the caller's.
const KINDS: [(LinuxNamespaceType, i32, &str); 7] = [
    (LinuxNamespaceType::Pid, libc::CLONE_NEWPID, "pid"),
    (LinuxNamespaceType::Network, libc::CLONE_NEWNET, "net"),
    (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC, "ipc"),
    (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS, "uts"),
    (LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP, "cgroup"),
    (LinuxNamespaceType::Mount, libc::CLONE_NEWNS, "mnt"),
    (LinuxNamespaceType::User, libc::CLONE_NEWUSER, "user"),
];

impl Namespaces {
    pub(super) fn of(linux: &Linux) -> Result<Namespaces> {
        let mut found = Namespaces::default();
        let given = linux.namespaces().as_deref().unwrap_or_default();
        if given
            .iter()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::Time)
        {
            return refused("linux.namespaces: time");
        }
        for (kind, flag, name) in KINDS {
            let mut of_kind = given.iter().filter(|namespace| namespace.typ() == kind);
            let Some(namespace) = of_kind.next() else {
                continue;
            };
            if of_kind.next().is_some() {
                return invalid("linux.namespaces", format!("{name} is there twice"));
            }
            match namespace
                .path()
                .as_ref()
                .filter(|path| !path.as_os_str().is_empty())
            {
                None => found.new |= flag,
                Some(path) if !path.is_absolute() => {
                    return invalid("linux.namespaces", format!("the path of {name} must be absolute"));
                }
                Some(path) => found.joined.push((flag, path.clone())),
            }
        }
        if !found.is_new(libc::CLONE_NEWNS) {
            return invalid(
                "linux.namespaces",
                "a container without a new mount namespace is not supported",
            );
        }
        Ok(found)
    }

    pub(super) fn is_new(&self, kind: i32) -> bool {
        self.new & kind != 0
    }

    /// Whether it is not the caller's.
    pub(super) fn is_own(&self, kind: i32) -> bool {
        self.is_new(kind)
            || self
                .joined
                .iter()
                .any(|(joined, path)| *joined == kind && !is_callers(*joined, path))
    }

    /// Whether it has any user namespace but the caller's.
    pub(super) fn has_user(&self) -> bool {
        self.is_new(libc::CLONE_NEWUSER) || self.joined.iter().any(|(kind, _)| *kind == libc::CLONE_NEWUSER)
    }

    /// Opens those that are joined, checked to be namespaces of their kinds.
    pub(super) fn open(&self) -> Result<Vec<OwnedFd>> {
        let open = |(kind, path): &(i32, PathBuf)| {
            let file = File::open(path)
                .map_err(|e| RunnerError::os(format!("open the namespace {}", path.display()), e))?;
            let wanted = name(*kind);
            let link = std::fs::read_link(format!(
                "/proc/self/fd/{}",
                std::os::fd::AsRawFd::as_raw_fd(&file)
            ));
            let link = link.unwrap_or_default();
            // Those that are bound somewhere show their place; the kernel compares the kind when they are joined.
            let is_other = link
                .to_string_lossy()
                .split_once(":[")
                .is_some_and(|(kind, _)| kind != wanted);
            match is_other {
                true => invalid(
                    "linux.namespaces",
                    format!("{} is no {wanted} namespace", path.display()),
                ),
                false => Ok(OwnedFd::from(file)),
            }
        };
        self.joined.iter().map(open).collect()
    }
}

fn name(kind: i32) -> &'static str {
    KINDS
        .iter()
        .find(|(_, flag, _)| *flag == kind)
        .map_or("", |(_, _, name)| name)
}

fn is_callers(kind: i32, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let own = PathBuf::from(format!("/proc/self/ns/{}", name(kind)));
    id(path).is_some_and(|theirs| id(&own) == Some(theirs))
}

/// The kinds in which a process is not in the caller's own namespaces.
pub(super) fn differing(pid: i32) -> Result<i32> {
    use std::os::unix::fs::MetadataExt;
    let id = |path: String| {
        let meta = std::fs::metadata(&path).map_err(|e| RunnerError::os(format!("look at {path}"), e))?;
        Ok::<_, RunnerError>((meta.dev(), meta.ino()))
    };
    let mut kinds = 0;
    for (_, flag, name) in KINDS {
        if id(format!("/proc/{pid}/ns/{name}"))? != id(format!("/proc/self/ns/{name}"))? {
            kinds |= flag;
        }
    }
    Ok(kinds)
}

/// The lines of uid_map and gid_map.
pub(super) fn id_maps(linux: &Linux) -> Result<(String, String)> {
    let text = |field: &str, maps: &Option<Vec<LinuxIdMapping>>| {
        let maps = maps.as_deref().unwrap_or_default();
        if maps.is_empty() {
            return invalid(field, "a new user namespace needs one");
        }
        if maps.iter().any(|map| map.size() == 0) {
            return invalid(field, "a size of 0");
        }
        let line =
            |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
        Ok(maps.iter().map(line).collect())
    };
    Ok((
        text("linux.uidMappings", linux.uid_mappings())?,
        text("linux.gidMappings", linux.gid_mappings())?,
    ))
}
