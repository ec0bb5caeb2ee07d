//! The user namespace of a container, or of all steps of a build.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use crate::error::{Result, RunnerError};
use crate::mapping::{IdKind, write_map};
use crate::net;
use crate::spec::IdMap;
use crate::sys::NamespaceHolder;

/// A user namespace with its ids mapped, held by descriptor: made once, joined by every container
/// that uses it. Its isolated network, made when first asked for, is shared the same way.
#[derive(Debug)]
pub struct UserNamespace {
    fd: OwnedFd,
    ids: IdMap,
    net: OnceLock<OwnedFd>,
    is_runners: bool,
}

impl UserNamespace {
    /// Makes one below the caller's with these ids, as users and as groups.
    pub(crate) fn new(ids: &IdMap) -> Result<UserNamespace> {
        let (uids, gids) = ids.kernel_texts();
        if ids.to_host(0).is_none() || ids.group_to_host(0).is_none() {
            return Err(RunnerError::InvalidSpec {
                what: "id map (must map 0)",
                value: uids,
            });
        }
        UserNamespace::make(&uids, &gids, ids.clone())
    }

    /// The runner's own, in which every id is what it is.
    pub fn of_runner() -> Result<UserNamespace> {
        let path = "/proc/self/ns/user";
        let fd = File::open(path).map_err(|e| RunnerError::os(format!("open {path}"), e))?;
        Ok(UserNamespace {
            fd: fd.into(),
            ids: IdMap::range(0, u32::MAX),
            net: OnceLock::new(),
            is_runners: true,
        })
    }

    /// Another container's, by its descriptor and its ids, as whoever made it tells them.
    pub fn joined(fd: OwnedFd, ids: IdMap) -> UserNamespace {
        UserNamespace {
            fd,
            ids,
            net: OnceLock::new(),
            is_runners: false,
        }
    }

    /// One whose users and groups are mapped by these lines of uid_map and gid_map.
    pub(crate) fn with_maps(uids: &str, gids: &str) -> Result<UserNamespace> {
        UserNamespace::make(uids, gids, IdMap::default())
    }

    fn make(uids: &str, gids: &str, ids: IdMap) -> Result<UserNamespace> {
        let holder = NamespaceHolder::new_user()
            .map_err(|source| RunnerError::forbidden("make a user namespace", source))?;
        for (kind, text) in [(IdKind::User, uids), (IdKind::Group, gids)] {
            write_map(holder.pid(), kind, text)?;
        }
        Ok(UserNamespace {
            fd: namespace(&holder, "user")?,
            ids,
            net: OnceLock::new(),
            is_runners: false,
        })
    }

    /// The ids it maps.
    pub fn ids(&self) -> &IdMap {
        &self.ids
    }

    /// It, for those who pass it on to who shares it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether it is the runner's own.
    pub fn is_runners(&self) -> bool {
        self.is_runners
    }

    /// It, unless whoever is to enter it is there already.
    pub(crate) fn to_enter(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_runners).then(|| self.fd.as_fd())
    }

    /// A network namespace with nothing but loopback, belonging to this user namespace.
    pub(crate) fn isolated_network(&self) -> Result<BorrowedFd<'_>> {
        if let Some(fd) = self.net.get() {
            return Ok(fd.as_fd());
        }
        let fd = net::isolated(self.to_enter())?;
        // When two steps are here at once, one namespace goes unused.
        Ok(self.net.get_or_init(|| fd).as_fd())
    }
}

fn namespace(holder: &NamespaceHolder, kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{}/ns/{kind}", holder.pid());
    Ok(File::open(&path)
        .map_err(|e| RunnerError::os(format!("open {path}"), e))?
        .into())
}
