//! `box export`, and `box build --output`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// The root file system in a directory.
    Local,
    /// The root file system as a tar.
    Tar,
    /// The image as an OCI archive.
    Oci,
    /// The image as an archive of Docker's, which is the same file.
    Docker,
}

/// `--output`: a directory, `-`, or `type=local|tar|oci|docker,dest=PLACE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputSpec {
    pub(crate) kind: OutputKind,
    /// Where to; none: standard output.
    pub(crate) place: Option<PathBuf>,
}

impl FromStr for OutputSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = |text: &str| Some(PathBuf::from(text)).filter(|path| path.as_os_str() != "-");
        if !text.contains('=') {
            let kind = if text == "-" {
                OutputKind::Tar
            } else {
                OutputKind::Local
            };
            return match text {
                "" => Err("an output needs a place".to_owned()),
                _ => Ok(Self {
                    kind,
                    place: place(text),
                }),
            };
        }
        let (mut kind, mut dest) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", "local")) => kind = Some(OutputKind::Local),
                Some(("type", "tar")) => kind = Some(OutputKind::Tar),
                Some(("type", "oci")) => kind = Some(OutputKind::Oci),
                Some(("type", "docker")) => kind = Some(OutputKind::Docker),
                Some(("type", other)) => {
                    return Err(format!(
                        "'type={other}' is not supported; write type=local, tar, oci or docker (the image is in the store in any case; box push sends it on)"
                    ));
                }
                Some(("dest", value)) if !value.is_empty() => dest = place(value),
                _ => {
                    return Err(format!(
                        "'{field}' is not supported; write type=local|tar|oci|docker,dest=PLACE"
                    ));
                }
            }
        }
        let kind =
            kind.ok_or_else(|| format!("'{text}' says no type; write for example type=tar,dest=rootfs.tar"))?;
        match (kind, &dest) {
            (OutputKind::Local, None) => Err("an output of type=local needs dest=DIRECTORY".to_owned()),
            _ => Ok(Self { kind, place: dest }),
        }
    }
}

// `box export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to write the tar [default: standard output, if that is no terminal].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        let check = |text: &str, expect: Option<(OutputKind, Option<&str>)>| {
            let expect = expect.map(|(kind, place)| OutputSpec {
                kind,
                place: place.map(PathBuf::from),
            });
            assert_eq!(text.parse::<OutputSpec>().ok(), expect, "{text}");
        };
        check("out", Some((OutputKind::Local, Some("out"))));
        check("-", Some((OutputKind::Tar, None)));
        check("type=tar,dest=a.tar", Some((OutputKind::Tar, Some("a.tar"))));
        check("dest=-,type=oci", Some((OutputKind::Oci, None)));
        check("type=docker", Some((OutputKind::Docker, None)));
        for wrong in [
            "",
            "type=local",
            "type=image",
            "type=registry,dest=x",
            "dest=x",
            "type=tar,compression=zstd",
            "type=tar,dest=",
        ] {
            check(wrong, None);
        }
    }
}
