//! The options of a mount: which are the kernel's attributes, which are the file system's, and which are not supported.

use crate::setup::bundle::MountChange;
use crate::sys::{attr, more_attr};

/// The options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether it is a bind, and with all that is mounted below.
    pub(super) bind: Option<bool>,
    pub(super) change: MountChange,
    /// Begin with a copy of what lies there in the root file system.
    pub(super) copy_up: bool,
    /// Options of the file system itself.
    pub(super) data: Vec<(String, Option<String>)>,
}

/// Attributes by the option that sets them and the one that takes them away.
const ATTRIBUTES: [(&str, &str, u64); 6] = [
    ("ro", "rw", attr::RDONLY),
    ("nosuid", "suid", attr::NOSUID),
    ("nodev", "dev", attr::NODEV),
    ("noexec", "exec", attr::NOEXEC),
    ("nodiratime", "diratime", more_attr::NODIRATIME),
    ("nosymfollow", "symfollow", more_attr::NOSYMFOLLOW),
];

/// How times of access are kept; the kernel knows exactly one of the three.
const TIMES: [(&str, u64); 6] = [
    ("noatime", more_attr::NOATIME),
    ("atime", 0),
    ("relatime", 0),
    ("norelatime", 0),
    ("strictatime", more_attr::STRICTATIME),
    ("nostrictatime", 0),
];

const PROPAGATIONS: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Told by their names: they mean something to other runtimes.
const UNSUPPORTED: [&str; 5] = ["remount", "idmap", "ridmap", "mand", "nomand"];

/// `MS_PRIVATE` and so on of a propagation's name, and whether it is for all below, too.
pub(super) fn propagation(name: &str) -> Option<(u64, bool)> {
    let find = |name: &str| {
        PROPAGATIONS
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, kind)| *kind)
    };
    match find(name) {
        Some(kind) => Some((kind, false)),
        None => Some((find(name.strip_prefix('r')?)?, true)),
    }
}

/// The options that are the kernel's or propagations, for all below, too, in order.
pub(super) fn names() -> Vec<String> {
    let pairs = ATTRIBUTES.iter().flat_map(|(on, off, _)| [*on, *off]);
    let alone: Vec<&str> = pairs
        .chain(TIMES.iter().map(|(name, _)| *name))
        .chain(PROPAGATIONS.iter().map(|(name, _)| *name))
        .collect();
    let mut names: Vec<String> = alone.iter().map(|name| format!("r{name}")).collect();
    names.extend(alone.iter().map(|name| (*name).to_owned()));
    names.extend(["bind", "rbind", "defaults", "async", "tmpcopyup"].map(str::to_owned));
    names.sort();
    names
}

impl Options {
    /// Sorts the options; the last of several that contradict each other counts.
    pub(super) fn parse(options: &[String]) -> Result<Options, String> {
        let mut all = Options::default();
        for option in options {
            all.add(option)?;
        }
        let is_bind = all.bind.is_some();
        if is_bind && all.copy_up {
            return Err("option \"tmpcopyup\" of a bind mount".to_owned());
        }
        match all.data.first() {
            Some((name, _)) if is_bind => Err(format!("option {name:?} of a bind mount is not supported")),
            _ => Ok(all),
        }
    }

    fn add(&mut self, option: &str) -> Result<(), String> {
        match option {
            "defaults" | "async" | "nolazytime" | "noiversion" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "tmpcopyup" => self.copy_up = true,
            "rbind" => self.bind = Some(true),
            name if UNSUPPORTED.contains(&name) => {
                return Err(format!("option {name:?} is not supported"));
            }
            name if self.attribute(name) => {}
            name => match propagation(name) {
                Some((kind, all)) => {
                    (self.change.propagation, self.change.propagation_all) = (kind, all);
                }
                None => {
                    let (key, value) = match name.split_once('=') {
                        Some((key, value)) => (key, Some(value.to_owned())),
                        None => (name, None),
                    };
                    self.data.push((key.to_owned(), value));
                }
            },
        }
        Ok(())
    }

    fn attribute(&mut self, name: &str) -> bool {
        let change = &mut self.change;
        let Some((set, clear)) = attribute(name) else {
            let Some((set, clear)) = name.strip_prefix('r').and_then(attribute) else {
                return false;
            };
            (change.set_all, change.clear_all) = merge((change.set_all, change.clear_all), (set, clear));
            return true;
        };
        (change.set, change.clear) = merge((change.set, change.clear), (set, clear));
        true
    }
}

fn attribute(name: &str) -> Option<(u64, u64)> {
    if let Some((_, bits)) = TIMES.iter().find(|(n, _)| *n == name) {
        return Some((*bits, more_attr::ATIME));
    }
    let (on, _, bits) = ATTRIBUTES
        .iter()
        .find(|(on, off, _)| *on == name || *off == name)?;
    Some(match *on == name {
        true => (*bits, 0),
        false => (0, *bits),
    })
}

/// To set times of access the kernel wants all their bits cleared as well.
fn merge((set, clear): (u64, u64), (more_set, more_clear): (u64, u64)) -> (u64, u64) {
    let set = (set & !more_clear) | more_set;
    let clear = (clear & !more_set) | more_clear;
    match set & more_attr::ATIME != 0 {
        true => (set, clear | more_attr::ATIME),
        false => (set, clear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options, String> {
        Options::parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_of_contradictory_options_counts() {
        let of = |options: &[&str]| {
            let change = parse(options).unwrap().change;
            (change.set, change.clear)
        };
        assert_eq!(of(&["ro", "nosuid"]), (attr::RDONLY | attr::NOSUID, 0));
        assert_eq!(of(&["ro", "rw"]), (0, attr::RDONLY));
        assert_eq!(of(&["strictatime"]), (more_attr::STRICTATIME, more_attr::ATIME));
        assert_eq!(of(&["strictatime", "relatime"]), (0, more_attr::ATIME));
    }

    #[test]
    fn what_is_for_all_below_is_kept_apart() {
        let options = parse(&["rbind", "rro", "nosuid", "rslave"]).unwrap();
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.change.set_all, attr::RDONLY);
        assert_eq!(options.change.set, attr::NOSUID);
        assert_eq!(options.change.propagation, libc::MS_SLAVE);
        assert!(options.change.propagation_all);
        // An r that is no prefix.
        assert_eq!(parse(&["relatime"]).unwrap().change.clear, more_attr::ATIME);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert!(parse(&["idmap"]).unwrap_err().contains("idmap"));
        assert!(parse(&["bind", "size=1m"]).unwrap_err().contains("size"));
        assert_eq!(parse(&["size=1m", "newinstance"]).unwrap().data.len(), 2);
    }
}
