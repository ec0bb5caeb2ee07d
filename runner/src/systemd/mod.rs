//! systemd, which owns the cgroups of the machines it runs on: it is asked for a scope, and hands that over (`Delegate=yes`).
//!
//! On version 2 a process may be moved, or started, only where the cgroup above both places is the mover's; an ordinary user's is not, and
//! root's may be changed by systemd at any time, with all limits in it. In a scope of one's own both are settled. The calling
//! process is moved into it, and there into a group below (no cgroup with limits below it may hold processes itself).

mod bus;
mod message;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bus::Bus;
pub use bus::BusAddress;
use message::{Call, Property, Value};

/// How long systemd may take to move this process.
const MOVING: Duration = Duration::from_secs(10);
/// The group for the calling process, below the scope.
const OWN: &str = "box";

/// A systemd that gives out cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Systemd {
    /// The bus on which it listens: the user's session bus, or for root the system's.
    pub bus: BusAddress,
    /// Whether it is an ordinary user's.
    pub is_users: bool,
}

impl Systemd {
    /// Where its scopes are.
    fn slice(&self) -> &'static str {
        match self.is_users {
            true => "app.slice",
            false => "system.slice",
        }
    }

    /// Moves this process, with all its threads but no child, into a scope of its own, and gives its path below the
    /// root of the tree that is mounted at `tree`. An error is why not, in words for the user.
    pub(crate) fn enter_scope(&self, tree: &Path, owner: &str) -> Result<PathBuf, String> {
        let unit = unit_name(owner);
        let scope = match scope_of_this_process(&unit)? {
            Some(scope) => scope,
            None => {
                self.start(&unit)?;
                await_move(&unit)?
            }
        };
        let own = tree.join(&scope).join(OWN);
        match fs::create_dir(&own) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(format!("make {}: {e}", own.display()));
            }
            _ => {}
        }
        let procs = own.join("cgroup.procs");
        fs::write(&procs, "0").map_err(|e| format!("write {}: {e}", procs.display()))?;
        Ok(scope)
    }

    fn start(&self, unit: &str) -> Result<(), String> {
        let mut bus = Bus::connect(&self.bus)?;
        let text = |text: &str| Value::Text(text.to_owned());
        bus.call(&Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
            unit,
            properties: &[
                Property("Description", text("Containers of box")),
                Property("Slice", text(self.slice())),
                Property("Delegate", Value::Flag(true)),
                Property("CollectMode", text("inactive-or-failed")),
                // 0 is the sender, whatever it is called in systemd's pid namespace.
                Property("PIDs", Value::Numbers(vec![0])),
            ],
        })
    }
}

/// The name of the scope: by it, what a killed box left is found (as the groups of containers).
fn unit_name(owner: &str) -> String {
    format!("box-{owner}-all.scope")
}

/// Directories below the root of the tree in which there may be scopes of this user's boxes.
pub(crate) fn slices(rootless: bool) -> Vec<PathBuf> {
    if !rootless {
        return vec![PathBuf::from("system.slice")];
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let uid = outer_id(&map);
    uid.map(|uid| {
        PathBuf::from(format!(
            "user.slice/user-{uid}.slice/user@{uid}.service/app.slice"
        ))
    })
    .into_iter()
    .collect()
}

/// What id 0 is outside.
fn outer_id(map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "0").then(|| words.next()?.parse().ok())?
    })
}

/// Whether this cgroup (a path below the root) is one that systemd keeps for itself: a slice, or a user's manager.
pub(crate) fn is_its_own(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.ends_with(".slice") || (name.starts_with("user@") && name.ends_with(".service"))
}

/// The scope's path, if this process is in it already.
fn scope_of_this_process(unit: &str) -> Result<Option<PathBuf>, String> {
    let file = "/proc/self/cgroup";
    let text = fs::read_to_string(file).map_err(|e| format!("read {file}: {e}"))?;
    Ok(scope_in(&text, unit))
}

fn scope_in(own: &str, unit: &str) -> Option<PathBuf> {
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::/"))?);
    let mut places = path.ancestors();
    let found = places.find(|place| place.file_name().is_some_and(|name| name == unit))?;
    Some(found.to_owned())
}

fn await_move(unit: &str) -> Result<PathBuf, String> {
    let end = Instant::now() + MOVING;
    loop {
        if let Some(scope) = scope_of_this_process(unit)? {
            return Ok(scope);
        }
        if Instant::now() >= end {
            return Err(format!(
                "it did not move this process into {unit} (see journalctl, and systemctl status {unit})"
            ));
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_found() {
        let unit = unit_name("abc");
        let at = |text: &str| scope_in(text, &unit).map(|path| path.display().to_string());
        let scope = "user.slice/user-1000.slice/user@1000.service/app.slice/box-abc-all.scope";
        assert_eq!(at(&format!("0::/{scope}\n")).as_deref(), Some(scope));
        assert_eq!(
            at(&format!("1:cpu:/x\n0::/{scope}/box\n")).as_deref(),
            Some(scope)
        );
        assert_eq!(at("0::/user.slice/user-1000.slice/session-1.scope\n"), None);
        assert_eq!(at("0::/\n"), None);
        assert_eq!(at("4:memory:/box-abc-all.scope\n"), None);
    }

    #[test]
    fn what_is_systemds_own() {
        let own = |path: &str| is_its_own(Path::new(path));
        assert!(own("user.slice/user-1.slice/user@1.service/app.slice"));
        assert!(own("user.slice/user-1.slice/user@1.service"));
        assert!(!own(
            "user.slice/user-1.slice/user@1.service/app.slice/run-1.scope"
        ));
        assert!(!own("ann") && !own(""));
    }

    #[test]
    fn the_id_outside() {
        assert_eq!(
            outer_id("         0       1000          1\n 1 700 5\n"),
            Some(1000)
        );
        assert_eq!(outer_id("1 2 3\n"), None);
    }
}
