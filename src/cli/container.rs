//! Options of `box run` for the process of a container and the machine it sees.

use std::path::PathBuf;
use std::str::FromStr;

use box_runner::{Resource, Rlimit};
use clap::Args;

use crate::values::Memory;

// For the container's process.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// A limit of setrlimit(2) for each process (may be repeated).
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// How much /dev/shm may hold [default: 64m].
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<Memory>,
    /// One more group that the user is in, by name or number (may be repeated).
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// A kernel parameter of the container's own: net.*, fs.mqueue.* or System V IPC's (may be repeated).
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<Sysctl>,
    /// How readily the kernel ends the container when memory runs out (-1000 to 1000; below 0 for root alone).
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i32>,
    /// The file creation mask [default: 0022].
    #[arg(long, value_name = "OCTAL")]
    pub(crate) umask: Option<Umask>,
    /// Write the container's id to a file, which must not be there.
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
}

/// `--ulimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ulimit(pub(crate) Rlimit);

const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl FromStr for Ulimit {
    type Err = String;

    /// -1 is no limit; without a hard limit it is the soft one.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no limit; write for example nofile=1024:4096");
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let resource = RESOURCES.iter().find(|(known, _)| *known == name);
        let Some((_, resource)) = resource else {
            let names: Vec<_> = RESOURCES.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "there is no limit '{name}'; there are {}",
                names.join(", ")
            ));
        };
        let number = |text: &str| match text {
            "-1" => Ok(u64::MAX),
            text => text.parse().map_err(|_| wrong()),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(format!("'{text}': the soft limit is larger than the hard one"));
        }
        Ok(Self(Rlimit {
            resource: *resource,
            soft,
            hard,
        }))
    }
}

/// `--sysctl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sysctl {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Sysctl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(format!("'{text}' is no parameter; write NAME=VALUE")),
        }
    }
}

/// `--umask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Umask(pub(crate) u32);

impl FromStr for Umask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
        mask.map(Self)
            .ok_or_else(|| format!("'{text}' is no mask; write for example 0027"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let check = |text: &str, expect: Option<(Resource, u64, u64)>| {
            let found = text.parse::<Ulimit>().ok();
            assert_eq!(
                found.map(|Ulimit(l)| (l.resource, l.soft, l.hard)),
                expect,
                "{text}"
            );
        };
        check("nofile=10:20", Some((Resource::Nofile, 10, 20)));
        check("nproc=5", Some((Resource::Nproc, 5, 5)));
        check("memlock=-1", Some((Resource::Memlock, u64::MAX, u64::MAX)));
        check("core=0:-1", Some((Resource::Core, 0, u64::MAX)));
        for wrong in [
            "",
            "nofile",
            "nofile=",
            "nofile=a",
            "nofile=20:10",
            "files=1",
            "nofile=1:",
            "nofile=-2",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn masks() {
        let check = |text: &str, expect: Option<u32>| {
            assert_eq!(text.parse::<Umask>().ok().map(|m| m.0), expect, "{text}")
        };
        check("0027", Some(0o027));
        check("777", Some(0o777));
        check("1000", None);
        check("8", None);
        check("", None);
    }
}
