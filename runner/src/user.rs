//! Who the container's process is: passwd and group of the root file system, parsed by us.
//!
//! No NSS module is ever loaded (CVE-2019-14271), and the files are hostile data: only regular
//! files are read, up to a cap, and lines that make no sense are passed over as libc does.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat};

/// Most bytes read of passwd or group.
const MAX_FILE: u64 = 16 << 20;
/// The kernel's own cap on supplementary groups is 65,536; more than this is no honest image.
const MAX_GROUPS: usize = 1024;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, without duplicates.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks up `user[:group]` in the files of the root at `/`, and the groups that it is to be in besides.
pub(crate) fn lookup(text: &str, extra: &[String]) -> Result<User, String> {
    let passwd = read("/etc/passwd").map_err(|e| format!("/etc/passwd: {e}"))?;
    let group = read("/etc/group").map_err(|e| format!("/etc/group: {e}"))?;
    let mut user = resolve(text, &passwd, &group)?;
    join(&mut user.groups, extra, &group)?;
    Ok(user)
}

fn join(groups: &mut Vec<u32>, extra: &[String], group: &str) -> Result<(), String> {
    for wanted in extra.iter().take(MAX_GROUPS) {
        let gid = find_group(wanted, group)?;
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(())
}

fn read(path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match crate::sys::open_beneath(CWD, Path::new(path), flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        other => other?,
    };
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd)
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last id, 2³²−1, means "leave it as it is" to setresuid(2): whoever asked for it would stay root.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).filter(|home| !home.contains('\0')).unwrap_or("");
        Some(PasswdLine { name, uid, gid, home })
    })
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_lines(text: &str) -> impl Iterator<Item = GroupLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some(GroupLine {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    })
}

pub(crate) fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user);
    let by_name = passwd_lines(passwd).find(|l| l.name == user);
    let line = by_name.or_else(|| passwd_lines(passwd).find(|l| Some(l.uid) == number));
    let uid = match (&line, number) {
        (Some(line), _) => line.uid,
        (None, Some(number)) => number,
        (None, None) => return Err("no such user in the container's /etc/passwd".into()),
    };
    let gid = match wanted_group {
        Some(wanted) => find_group(wanted, group)?,
        None => line.as_ref().map_or(0, |l| l.gid),
    };
    let groups = match (&line, wanted_group) {
        (Some(line), None) => memberships(line.name, gid, group),
        _ => vec![gid],
    };
    let home = line
        .as_ref()
        .map(|l| l.home)
        .filter(|h| !h.is_empty())
        .unwrap_or("/")
        .to_owned();
    Ok(User {
        uid,
        gid,
        groups,
        home,
    })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, String> {
    let found = group_lines(group).find(|l| l.name == wanted).map(|l| l.gid);
    found
        .or_else(|| number(wanted))
        .ok_or_else(|| format!("no group {wanted:?} in the container's /etc/group"))
}

fn memberships(name: &str, gid: u32, group: &str) -> Vec<u32> {
    let of_name = group_lines(group)
        .filter(|l| l.members.split(',').any(|m| m == name))
        .map(|l| l.gid);
    let mut groups = vec![gid];
    for gid in of_name.take(MAX_GROUPS) {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7:7::/:\nweb:x:33:34::/srv:/bin/sh\nbig:x:99999999999:1::/:\nlast:x:4294967295:1::/:\nnul:x:7:7::/a\0b:\n";
    const GROUP: &str =
        "root:x:0:\nweb:x:34:\nadm:x:4:web,root\nlog:x:5:nobody,web\nbad:x:-1:web\nlast:x:4294967295:web\n";

    fn check(text: &str, expect: Result<(u32, u32, &[u32], &str), ()>) {
        let got = resolve(text, PASSWD, GROUP);
        let got = got
            .as_ref()
            .map(|u| (u.uid, u.gid, u.groups.as_slice(), u.home.as_str()))
            .map_err(|_| ());
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", Ok((0, 0, &[0, 4], "/root")));
        check("root", Ok((0, 0, &[0, 4], "/root")));
        check("web", Ok((33, 34, &[34, 4, 5], "/srv")));
        check("33", Ok((33, 34, &[34, 4, 5], "/srv")));
        check("web:adm", Ok((33, 4, &[4], "/srv")));
        check("web:77", Ok((33, 77, &[77], "/srv")));
        check("1234", Ok((1234, 0, &[0], "/")));
        check("1234:5678", Ok((1234, 5678, &[5678], "/")));
        check("nobody", Err(()));
        check("big", Err(()));
        check("web:nogroup", Err(()));
        check("-1", Err(()));
        check("4294967296", Err(()));
        check("4294967295", Err(()));
        check("0:4294967295", Err(()));
        check("last", Err(()));
        check("web:last", Err(()));
        check("nul", Ok((7, 7, &[7], "/")));
    }

    #[test]
    fn groups_are_joined() {
        let join = |extra: &[&str]| {
            let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
            let mut groups = vec![34];
            super::join(&mut groups, &extra, GROUP).map(|()| groups).ok()
        };
        assert_eq!(join(&["adm", "77", "web", "4"]), Some(vec![34, 4, 77]));
        assert_eq!(join(&["nobody"]), None);
        assert_eq!(join(&["4294967295"]), None);
    }

    #[test]
    fn missing_files_know_numbers() {
        assert_eq!(
            resolve("5", "", ""),
            Ok(User {
                uid: 5,
                gid: 0,
                groups: vec![0],
                home: "/".into()
            })
        );
        assert_eq!(resolve("", "", "").unwrap().uid, 0);
    }
}
