//! `box diff` and `box cp`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::Format;

// `box diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Compare times, too.
    #[arg(long)]
    pub(crate) times: bool,
    /// What this step of the image OLD changed; `box history` counts them, from 1. One without a layer changed no file.
    #[arg(long, value_name = "N", conflicts_with = "new")]
    pub(crate) step: Option<usize>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// An image, or a layer by its digest (`box inspect` lists them).
    #[arg(value_name = "OLD")]
    pub(crate) old: String,
    /// Another one [default: OLD is an image, and what its last layer changed is shown].
    #[arg(value_name = "NEW")]
    pub(crate) new: Option<String>,
}

// `box cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Keep owners, setuid bits and extended attributes; otherwise everything is yours.
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Follow a symbolic link at the end of SOURCE.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// CONTAINER:PATH, IMAGE:/PATH, a path of the host, or - for a tar on standard input. Of a directory that ends in /. the content alone is copied.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: CopyPlace,
    /// CONTAINER:PATH, a path of the host, or - for a tar on standard output: into a directory that is there, else under this name.
    #[arg(value_name = "DEST")]
    pub(crate) dest: CopyPlace,
}

/// Where a copy comes from, or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopyPlace {
    /// A tar on a standard stream.
    Stream,
    /// A path of the host.
    Host(PathBuf),
    /// A path in a container or an image.
    Inside { name: String, path: String },
}

impl FromStr for CopyPlace {
    type Err = std::convert::Infallible;

    /// As Docker reads it: what begins as a path is one, else the name is before the colon. Images' names may have colons, but never before a slash
    /// that begins the path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split = text.find(":/").or_else(|| text.find(':'));
        Ok(match split {
            _ if text == "-" => Self::Stream,
            Some(at) if at > 0 && !text.starts_with(['/', '.']) => Self::Inside {
                name: text[..at].to_owned(),
                path: text[at + 1..].to_owned(),
            },
            _ => Self::Host(PathBuf::from(text)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let inside = |name: &str, path: &str| CopyPlace::Inside {
            name: name.to_owned(),
            path: path.to_owned(),
        };
        let check = |text: &str, expect: CopyPlace| assert_eq!(text.parse(), Ok(expect), "{text}");
        check("app:/etc", inside("app", "/etc"));
        check("app:etc/x", inside("app", "etc/x"));
        check(
            "localhost:5000/app:1:/a:/b",
            inside("localhost:5000/app:1", "/a:/b"),
        );
        check("-", CopyPlace::Stream);
        for host in ["", "app", ":/etc", "/etc:x", "./a:b", "../a:/b"] {
            check(host, CopyPlace::Host(PathBuf::from(host)));
        }
    }
}
