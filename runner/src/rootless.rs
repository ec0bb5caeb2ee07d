//! An ordinary user's way in: a user namespace with the ids the administrator granted.
//!
//! `/etc/subuid` and `/etc/subgid` are read by us; writing the maps is left to `newuidmap` and
//! `newgidmap`, the only programs here that run with more rights than their caller.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Result, RunnerError};
use crate::spec::{IdExtent, IdMap};
use crate::sys::{self, ExecStrings};

/// Most bytes read of passwd, subuid or subgid.
const MAX_FILE: u64 = 16 << 20;
const TOOL_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];
pub(crate) const PACKAGE: &str = "uidmap";

/// Why a user of a single id can't have another.
pub const SINGLE_ID: &str = "a user without subordinate ids has the id 0 alone in containers; as root: apt-get install uidmap, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME, and use another --root after that";

/// What the user namespace of this process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootless {
    /// Every id there is, the same inside and outside: what containers are given.
    pub ids: IdMap,
    /// The user's id outside.
    pub user: u32,
}

impl Rootless {
    /// Whether there are no subordinate ids: every file is then the user's, whoever an image says is the owner.
    pub fn has_single_id(&self) -> bool {
        self.ids
            .extents
            .iter()
            .map(|extent| u64::from(extent.len))
            .sum::<u64>()
            == 1
    }
}

/// Moves this process, which must not have started a thread yet, into a user and a mount namespace
/// of its own, where it is root: id 0 is the caller, the ids from 1 on are its subordinate ids, if it has some and the tools to
/// map them are there.
///
/// Environment, working directory and open files stay. Fails with the cure where the kernel forbids user namespaces.
pub fn enter_user_namespace() -> Result<Rootless> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let ids = match Granted::find(uid) {
        Ok(granted) => enter_with(&granted, uid, gid)?,
        Err(RunnerError::NoSubIds { .. } | RunnerError::MissingTool { .. }) => enter_alone(uid, gid)?,
        Err(error) => return Err(error),
    };
    become_root()?;
    Ok(Rootless { ids, user: uid })
}

/// Whether this process needs a user namespace of its own to make containers: everybody but root, and root of a container that was not given the
/// right to mount (CAP_SYS_ADMIN), or is in a user namespace already, which has not the ids that root's containers get.
pub fn needs_user_namespace() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    // What can't be read is found out by what fails later.
    let is_admin = sys::permitted_caps().is_ok_and(|caps| caps & CAP_SYS_ADMIN != 0);
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !rustix::process::geteuid().is_root() || !is_admin || !is_whole(&map)
}

/// Whether this process' user namespace has every id that there is: the machine's first one, or one like it.
pub fn has_all_ids() -> bool {
    is_whole(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

/// Whether a map has every id that there is.
fn is_whole(map: &str) -> bool {
    let mut numbers = map.split_whitespace().skip(2).map(str::parse);
    numbers.next() == Some(Ok(u32::MAX))
}

/// The same by a user namespace of the caller's that is there already, as another process of this user has made it in the same way: containers of
/// both can share namespaces. The mount namespace is one of this process' own in any case. None if
/// it can't be joined; after an error this process is in it and of no use.
pub fn join_user_namespace(user: BorrowedFd<'_>) -> Result<Option<Rootless>> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if sys::setns(user, libc::CLONE_NEWUSER).is_err() {
        return Ok(None);
    }
    let read = |file: &str, own| {
        let path = format!("/proc/self/{file}");
        let text = fs::read_to_string(&path).map_err(|e| RunnerError::os(format!("read {path}"), e))?;
        subordinate(&text, own).ok_or(RunnerError::InvalidSpec {
            what: "user namespace to join (its ids are not this user's)",
            value: text,
        })
    };
    let len = read("uid_map", uid)?.min(read("gid_map", gid)?);
    sys::unshare(libc::CLONE_NEWNS as u64).map_err(|e| RunnerError::os("make a mount namespace", e))?;
    become_root()?;
    Ok(Some(Rootless {
        ids: identity(len),
        user: uid,
    }))
}

/// How many subordinate ids a map has that gives the user 0 and those from 1 on, if there are any.
fn subordinate(map: &str, own: u32) -> Option<u32> {
    let mut lines = map.lines().map(|line| {
        let numbers = line.split_whitespace().map(str::parse::<u32>);
        numbers.collect::<std::result::Result<Vec<_>, _>>().ok()
    });
    let (first, second) = (lines.next()??, lines.next());
    let second = match second {
        Some(line) => Some(line?),
        None => None,
    };
    match (first.as_slice(), second.as_deref(), lines.next()) {
        (&[0, user, 1], Some(&[1, _, len]), None) if user == own => Some(len),
        (&[0, user, 1], None, None) if user == own => Some(0),
        _ => None,
    }
}

fn become_root() -> Result<()> {
    sys::become_namespace_root().map_err(refused("become root of the user namespace"))?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|e| refused("keep mounts to this namespace")(e.into()))
}

/// Rights that a namespace should give and does not are forbidden by the machine.
fn refused(doing: &'static str) -> impl FnOnce(io::Error) -> RunnerError {
    move |e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => RunnerError::forbidden(doing, e),
        _ => RunnerError::os(doing, e),
    }
}

fn unshare() -> Result<()> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    sys::unshare(namespaces as u64).map_err(|e| RunnerError::forbidden("make a user namespace", e))
}

/// The subordinate ids, and what maps them.
struct Granted {
    uids: Range,
    gids: Range,
    /// None for root, who needs none.
    tools: Option<[PathBuf; 2]>,
}

impl Granted {
    fn find(uid: u32) -> Result<Granted> {
        if uid == 0 {
            return Ok(Granted {
                uids: Range::of_root("uid_map")?,
                gids: Range::of_root("gid_map")?,
                tools: None,
            });
        }
        let name = user_name(uid);
        Ok(Granted {
            uids: Range::find(Path::new("/etc/subuid"), &name, uid)?,
            gids: Range::find(Path::new("/etc/subgid"), &name, uid)?,
            tools: Some([find_tool("newuidmap", PACKAGE)?, find_tool("newgidmap", PACKAGE)?]),
        })
    }
}

fn enter_with(granted: &Granted, uid: u32, gid: u32) -> Result<IdMap> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let (uid_tool, gid_tool) = match &granted.tools {
        Some([uid_tool, gid_tool]) => (Some(uid_tool.as_path()), Some(gid_tool.as_path())),
        None => (None, None),
    };
    let uid_mapper = Mapper::start("newuidmap", uid_tool, (pid, uid), granted.uids)?;
    let gid_mapper = Mapper::start("newgidmap", gid_tool, (pid, gid), granted.gids)?;
    unshare()?;
    uid_mapper.finish()?;
    gid_mapper.finish()?;
    Ok(identity(granted.uids.len.min(granted.gids.len)))
}

/// The user's own id can be mapped by the user; the kernel wants supplementary groups to be fixed then.
fn enter_alone(uid: u32, gid: u32) -> Result<IdMap> {
    unshare()?;
    let texts = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (file, text) in texts {
        fs::write(format!("/proc/self/{file}"), text).map_err(refused("map the user's id"))?;
    }
    Ok(identity(0))
}

/// The caller's own id and its subordinate ones as two runs: the kernel refuses an extent that
/// spans two extents of the namespace above.
fn identity(subordinate: u32) -> IdMap {
    let same = |first, len| IdExtent {
        container: first,
        host: first,
        len,
    };
    IdMap::of(match subordinate {
        0 => vec![same(0, 1)],
        some => vec![same(0, 1), same(1, some)],
    })
}

/// A run of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    len: u32,
}

impl Range {
    fn find(file: &Path, name: &str, uid: u32) -> Result<Range> {
        let text = match read_capped(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|e| RunnerError::os(format!("read {}", file.display()), e))?,
        };
        Range::parse(&text, name, uid).ok_or_else(|| RunnerError::NoSubIds {
            user: name.to_owned(),
            file: file.to_owned(),
        })
    }

    /// What root has besides its own id: the rest of the first run, which begins with 0. It needs no tool that grants it.
    fn of_root(file: &str) -> Result<Range> {
        let path = format!("/proc/self/{file}");
        let text = fs::read_to_string(&path).map_err(|e| RunnerError::os(format!("read {path}"), e))?;
        Range::after_root(&text).ok_or_else(|| RunnerError::NoSubIds {
            user: "root".to_owned(),
            file: path.into(),
        })
    }

    fn after_root(map: &str) -> Option<Range> {
        let mut numbers = map.lines().next()?.split_whitespace().map(str::parse::<u32>);
        let (inside, _, len) = (
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
        );
        (inside == 0 && len > 1).then_some(Range {
            start: 1,
            len: len - 1,
        })
    }

    /// The longest run of the user, by name or number: lines of `user:start:count`.
    fn parse(text: &str, name: &str, uid: u32) -> Option<Range> {
        let number = uid.to_string();
        let lines = text.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let who = fields.next()?;
            let (start, len) = (fields.next()?.parse().ok()?, fields.next()?.parse::<u32>().ok()?);
            let fits = u32::checked_add(start, len).is_some() && len > 0;
            (fits && (who == name || who == number)).then_some(Range {
                start,
                len: len.min(u32::MAX - 1),
            })
        });
        lines.max_by_key(|r| r.len)
    }
}

fn read_capped(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn user_name(uid: u32) -> String {
    let passwd = read_capped(Path::new("/etc/passwd")).unwrap_or_default();
    name_in(&passwd, uid).unwrap_or_else(|| uid.to_string())
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A child that stayed in the old user namespace and writes a map of ours when told to.
struct Mapper {
    tool: &'static str,
    pid: i32,
    go: OwnedFd,
}

impl Mapper {
    fn start(
        tool: &'static str,
        path: Option<&Path>,
        (target, own): (i32, u32),
        range: Range,
    ) -> Result<Mapper> {
        let failed = |e: io::Error| RunnerError::os(format!("start {tool}"), e);
        let Some(path) = path else {
            return Mapper::of_root(tool, target, range).map_err(failed);
        };
        let numbers = [target as u32, 0, own, 1, 1, range.start, range.len];
        let mut args = vec![CString::new(tool).map_err(|e| failed(e.into()))?];
        for number in numbers {
            args.push(CString::new(number.to_string()).map_err(|e| failed(e.into()))?);
        }
        let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| failed(e.into()))?;
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        match sys::fork().map_err(failed)? {
            Some(pid) => Ok(Mapper { tool, pid, go }),
            None => {
                drop(go);
                exec_when_told(&path, &args, wait)
            }
        }
    }

    /// Root maps its ids itself, from outside as well.
    fn of_root(tool: &'static str, target: i32, range: Range) -> io::Result<Mapper> {
        let file = tool.strip_prefix("new").unwrap_or(tool).replace("map", "_map");
        let path = format!("/proc/{target}/{file}");
        let map = format!("0 0 1\n1 {} {}\n", range.start, range.len);
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
        match sys::fork()? {
            Some(pid) => Ok(Mapper { tool, pid, go }),
            None => {
                drop(go);
                until_told(&wait);
                sys::exit_now(i32::from(fs::write(path, map).is_err()))
            }
        }
    }

    fn finish(self) -> Result<()> {
        let failed = |e: io::Error| RunnerError::os(format!("wait for {}", self.tool), e);
        rustix::io::write(&self.go, b"g").map_err(|e| failed(e.into()))?;
        let ended = sys::wait_for(self.pid, false).map_err(failed)?;
        match ended.map(|e| e.status) {
            Some(0) => Ok(()),
            status => {
                let reason = format!("it ended with wait status {status:?}; see its message above");
                Err(RunnerError::MapRefused {
                    tool: self.tool,
                    reason,
                })
            }
        }
    }
}

/// Ends this process if nobody tells it.
fn until_told(wait: &OwnedFd) {
    let mut told = [0];
    if !matches!(
        rustix::io::retry_on_intr(|| rustix::io::read(wait, &mut told)),
        Ok(1)
    ) {
        sys::exit_now(1);
    }
}

fn exec_when_told(path: &CStr, args: &[CString], wait: OwnedFd) -> ! {
    until_told(&wait);
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    let _ = sys::exec(path, &ExecStrings::new(&args), &ExecStrings::new(&[]));
    sys::exit_now(127)
}

/// Where a program of the distribution is.
pub(crate) fn find_tool(tool: &'static str, package: &'static str) -> Result<PathBuf> {
    let found = TOOL_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(tool))
        .find(|p| p.is_file());
    found.ok_or(RunnerError::MissingTool { tool, package })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(u32, u32)>) {
        let got = Range::parse(text, "ann", 1000).map(|r| (r.start, r.len));
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn ranges_are_found() {
        check("", None);
        check("bob:100000:65536\n", None);
        check("bob:100000:65536\nann:165536:65536\n", Some((165_536, 65_536)));
        check("1000:5:6", Some((5, 6)));
        check("ann:1:2\nann:100:200\n", Some((100, 200)));
        check("ann:4294967295:2\nann:x:1\nann:1\nann:3:0", None);
        check(":::\n\n#ann:1:1", None);
    }

    #[test]
    fn what_root_has_besides_itself() {
        let check = |map: &str, expect: Option<(u32, u32)>| {
            assert_eq!(
                Range::after_root(map).map(|r| (r.start, r.len)),
                expect,
                "{map:?}"
            );
        };
        check("         0          0 4294967295\n", Some((1, u32::MAX - 1)));
        check("0 100000 65536\n65536 5 5\n", Some((1, 65_535)));
        check("0 1000 1\n1 100000 65536\n", None);
        check("5 0 10\n", None);
        check("", None);
    }

    #[test]
    fn whole_maps() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("0 1073741824 65536\n") && !is_whole(""));
    }

    #[test]
    fn maps_of_others() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(subordinate(map, 1000), Some(65_536));
        assert_eq!(subordinate(map, 1001), None);
        assert_eq!(subordinate("0 1000 1\n", 1000), Some(0));
        assert_eq!(subordinate("0 1000 1\n", 1001), None);
        for other in [
            "",
            "0 0 4294967295\n",
            "0 1000 1\n1 5 5\n6 10 5\n",
            "0 1000 1\nx\n",
        ] {
            assert_eq!(subordinate(other, 1000), None, "{other:?}");
        }
    }

    #[test]
    fn names_are_found() {
        assert_eq!(
            name_in("root:x:0:0::/:\nann:x:1000:1000::/:\n", 1000).as_deref(),
            Some("ann")
        );
        assert_eq!(name_in("broken\n:::\n", 1000), None);
    }
}
