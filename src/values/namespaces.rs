//! Whose namespaces a container has: `--pid`, `--ipc`, `--uts`, `--cgroupns` and `--userns`.

use std::fmt;
use std::str::FromStr;

use box_runner::{IdExtent, IdMap};
use serde::{Deserialize, Serialize};

/// Most runs of ids that the kernel maps.
const MOST_RUNS: usize = 340;

/// `--pid` and `--uts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Share {
    /// The container's own.
    #[default]
    Own,
    Host,
    /// That of the container of this name, or, once it is resolved, of this id.
    Container(String),
}

/// `--ipc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ipc {
    /// Its own, for nobody else.
    #[default]
    Private,
    /// Its own, which others may join.
    Shareable,
    /// Its own, without /dev/shm.
    None,
    Host,
    Container(String),
}

/// `--userns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Userns {
    /// What is usual: a range of its own for root's containers, the user's ids for others'. Of a container that joins others, theirs.
    #[default]
    Default,
    Auto,
    Host,
    /// The user's own id is this one inside; the same as outside where none is said.
    KeepId {
        uid: Option<u32>,
        gid: Option<u32>,
    },
    /// Runs of ids: the first inside, the first outside, how many.
    Ranges(Vec<(u32, u32, u32)>),
}

/// All of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceModes {
    pub(crate) pid: Share,
    pub(crate) ipc: Ipc,
    pub(crate) uts: Share,
    /// It sees the cgroups of the host.
    pub(crate) host_cgroups: bool,
    pub(crate) user: Userns,
}

/// `--cgroupns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CgroupNs {
    /// Its own.
    Private,
    /// The host's.
    Host,
}

fn container(text: &str) -> Option<String> {
    text.strip_prefix("container:")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, container(text)) {
            ("" | "private", _) => Ok(Self::Own),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) => Ok(Self::Container(name)),
            _ => Err(format!(
                "'{text}' is no namespace; write host, container:NAME or private"
            )),
        }
    }
}

impl FromStr for Ipc {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, container(text)) {
            ("" | "private", _) => Ok(Self::Private),
            ("shareable", _) => Ok(Self::Shareable),
            ("none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) => Ok(Self::Container(name)),
            _ => Err(format!(
                "'{text}' is no IPC namespace; write private, shareable, none, host or container:NAME"
            )),
        }
    }
}

impl FromStr for Userns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text.is_empty() => Ok(Self::Default),
            None if text == "auto" => Ok(Self::Auto),
            None if text == "host" => Ok(Self::Host),
            None if text == "keep-id" => Ok(Self::KeepId { uid: None, gid: None }),
            Some(("keep-id", options)) => keep_id(options),
            Some(("ranges", runs)) => ranges(runs),
            _ => Err(format!(
                "'{text}' is no user namespace; write host, auto, keep-id[:uid=UID,gid=GID] or \
                 ranges:INSIDE:OUTSIDE:COUNT[,INSIDE:OUTSIDE:COUNT]"
            )),
        }
    }
}

fn keep_id(options: &str) -> Result<Userns, String> {
    let (mut uid, mut gid) = (None, None);
    for option in options.split(',') {
        let wrong = || format!("'{option}' is none of keep-id's options; write keep-id:uid=UID,gid=GID");
        let (name, value) = option.split_once('=').ok_or_else(wrong)?;
        let value: u32 = value.parse().map_err(|_| wrong())?;
        match name {
            "uid" if value < MOST_ID => uid = Some(value),
            "gid" if value < MOST_ID => gid = Some(value),
            _ => return Err(wrong()),
        }
    }
    Ok(Userns::KeepId { uid, gid })
}

/// Ids that a user who keeps its own can have inside: below that of nobody's 32 bits.
const MOST_ID: u32 = 1 << 30;

fn ranges(runs: &str) -> Result<Userns, String> {
    let parsed: Result<Vec<_>, String> = runs.split(',').map(run).collect();
    let parsed = parsed?;
    if parsed.len() > MOST_RUNS {
        return Err(format!(
            "more than {MOST_RUNS} runs of ids, which the kernel does not map"
        ));
    }
    if !parsed.iter().any(|(inside, ..)| *inside == 0) {
        return Err(format!(
            "'{runs}': one of the runs must begin with 0, the container's root"
        ));
    }
    for (number, one) in parsed.iter().enumerate() {
        let overlap = |a: u32, b: u32, other: &(u32, u32, u32)| a < b + other.2 && b < a + one.2;
        let twice = parsed.iter().skip(number + 1);
        if let Some(other) = twice
            .into_iter()
            .find(|other| overlap(one.0, other.0, other) || overlap(one.1, other.1, other))
        {
            return Err(format!(
                "the runs {}:{}:{} and {}:{}:{} overlap",
                one.0, one.1, one.2, other.0, other.1, other.2
            ));
        }
    }
    Ok(Userns::Ranges(parsed))
}

fn run(text: &str) -> Result<(u32, u32, u32), String> {
    let wrong =
        || format!("'{text}' is no run of ids; write INSIDE:OUTSIDE:COUNT, for example 0:200000:65536");
    let numbers: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
    match numbers.map_err(|_| wrong())?.as_slice() {
        &[inside, outside, count]
            if count > 0 && inside.checked_add(count).is_some() && outside.checked_add(count).is_some() =>
        {
            Ok((inside, outside, count))
        }
        _ => Err(wrong()),
    }
}

/// The map of these runs.
pub(crate) fn map_of(runs: &[(u32, u32, u32)]) -> IdMap {
    let extent = |&(container, host, len): &(u32, u32, u32)| IdExtent { container, host, len };
    IdMap::of(runs.iter().map(extent).collect())
}

/// As the option takes it, and `inspect` shows it; empty for the container's own.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => Ok(()),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl fmt::Display for Ipc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::Shareable => f.write_str("shareable"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl fmt::Display for Userns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => Ok(()),
            Self::Auto => f.write_str("auto"),
            Self::Host => f.write_str("host"),
            Self::KeepId { uid, gid } => {
                let options = [("uid", uid), ("gid", gid)];
                let given = options
                    .iter()
                    .filter_map(|(name, id)| Some(format!("{name}={}", id.as_ref()?)));
                let given: Vec<String> = given.collect();
                match given.is_empty() {
                    true => f.write_str("keep-id"),
                    false => write!(f, "keep-id:{}", given.join(",")),
                }
            }
            Self::Ranges(runs) => {
                let runs: Vec<String> = runs.iter().map(|(a, b, n)| format!("{a}:{b}:{n}")).collect();
                write!(f, "ranges:{}", runs.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is understood is written as it was.
    fn check<T: FromStr + fmt::Display>(text: &str, is_good: bool) {
        let parsed = text.parse::<T>().ok().map(|value| value.to_string());
        let expect = is_good.then(|| text.to_owned());
        assert_eq!(parsed, expect, "{text:?}");
    }

    #[test]
    fn modes() {
        for good in ["", "host", "container:web"] {
            check::<Share>(good, true);
        }
        for wrong in ["container:", "web", "shareable", "HOST"] {
            check::<Share>(wrong, false);
        }
        for good in ["private", "shareable", "none", "host", "container:a"] {
            check::<Ipc>(good, true);
        }
        for wrong in ["container:", "ns:/x", "public"] {
            check::<Ipc>(wrong, false);
        }
    }

    #[test]
    fn users() {
        for good in [
            "",
            "auto",
            "host",
            "keep-id",
            "keep-id:uid=5",
            "keep-id:uid=5,gid=6",
            "ranges:0:100000:65536",
            "ranges:0:100000:1000,1000:5:1",
        ] {
            check::<Userns>(good, true);
        }
        for wrong in [
            "private",
            "keep-id:",
            "keep-id:uid=",
            "keep-id:pid=1",
            "keep-id:uid=4294967295",
            "ranges:",
            "ranges:0:1",
            "ranges:0:1:0",
            "ranges:1:0:5",
            "ranges:0:0:-1",
            "ranges:0:4294967295:2",
            "ranges:0:10:10,5:100:10",
            "ranges:0:10:10,10:15:10",
            "auto:size=5",
        ] {
            check::<Userns>(wrong, false);
        }
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let modes: NamespaceModes = serde_json::from_str("{}").unwrap();
        assert_eq!(modes, NamespaceModes::default());
    }
}
