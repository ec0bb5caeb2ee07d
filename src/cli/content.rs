//! `box diff` and `box cp`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::Format;

/// `box diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Compare times, too.
    #[arg(long)]
    pub(crate) times: bool,
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

/// `box cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Keep owners, setuid bits and extended attributes; otherwise everything is yours.
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Follow a symbolic link at the end of PATH.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// The image, and an absolute path in it. Of a directory that ends in /. the content alone is copied.
    #[arg(value_name = "IMAGE:PATH")]
    pub(crate) source: ImagePath,
    /// Where to: into a directory that is there, else under this name; - writes a tar to standard output.
    #[arg(value_name = "DEST")]
    pub(crate) dest: PathBuf,
}

/// A path in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImagePath {
    pub(crate) image: String,
    pub(crate) path: String,
}

impl FromStr for ImagePath {
    type Err = String;

    /// Names have no `:/`, so that the first one is where the path begins.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.find(":/") {
            Some(at) if at > 0 => Ok(Self {
                image: text[..at].to_owned(),
                path: text[at + 1..].to_owned(),
            }),
            _ => Err("write IMAGE:/PATH; only what is in images can be copied, and to the host".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_images() {
        let check = |text: &str, expect: Option<(&str, &str)>| {
            let expect = expect.map(|(image, path)| ImagePath {
                image: image.to_owned(),
                path: path.to_owned(),
            });
            assert_eq!(text.parse().ok(), expect, "{text}");
        };
        check("app:/etc", Some(("app", "/etc")));
        check(
            "localhost:5000/app:1:/a:/b",
            Some(("localhost:5000/app:1", "/a:/b")),
        );
        for wrong in ["", "app", ":/etc", "/etc", "app:etc", "./file"] {
            check(wrong, None);
        }
    }
}
