//! Options of `box volume`.

use std::str::FromStr;

use clap::{Args, Subcommand};

use super::Format;
use crate::values::BuildArg;

/// What is done with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeAction {
    /// Make a volume; print its name.
    Create(VolumeCreateArgs),
    /// List volumes.
    Ls(VolumeListArgs),
    /// Show volumes as JSON.
    Inspect(VolumeInspectArgs),
    /// Remove volumes with all that they hold. One that a container needs stays.
    Rm(VolumeRemoveArgs),
    /// Remove the volumes that no container needs: those that nobody named, or all.
    Prune(VolumePruneArgs),
}

// `box volume create`.
#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// A label; without =VALUE an empty one (may be repeated).
    #[arg(long = "label", value_name = "NAME[=VALUE]")]
    pub(crate) labels: Vec<BuildArg>,
    /// Who keeps it: only box itself does (local).
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    pub(crate) driver: String,
    /// Its name [default: 64 random hex digits].
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

// `box volume ls`.
#[derive(Debug, Args)]
pub(crate) struct VolumeListArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// Print names alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only those with dangling=true|false, name=PART, label=NAME[=VALUE] or driver=local (may be repeated).
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<VolumeFilter>,
}

// `box volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct VolumeInspectArgs {
    /// The volumes.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

// `box volume rm`.
#[derive(Debug, Args)]
pub(crate) struct VolumeRemoveArgs {
    /// One that is not there is no error.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The volumes.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

// `box volume prune`.
#[derive(Debug, Args)]
pub(crate) struct VolumePruneArgs {
    /// Those with a name, too.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Don't ask first (box asks on a terminal alone).
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only those with label=NAME[=VALUE], or without it: label!=NAME[=VALUE] (may be repeated).
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<VolumeFilter>,
}

/// `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VolumeFilter {
    /// Whether no container needs it.
    Dangling(bool),
    /// A part of its name.
    Name(String),
    /// A label, with this value if one is given; whether it is there.
    Label(BuildArg, bool),
    /// What keeps it.
    Driver(String),
}

impl FromStr for VolumeFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' is no filter; write for example dangling=true"))?;
        Ok(match key {
            "dangling" => Self::Dangling(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(format!("'{value}' is neither true nor false")),
            }),
            "name" => Self::Name(value.to_owned()),
            "label" => Self::Label(value.parse()?, true),
            "label!" => Self::Label(value.parse()?, false),
            "driver" => Self::Driver(value.to_owned()),
            _ => {
                return Err(format!(
                    "there is no filter '{key}'; there are dangling, name, label, label! and driver"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |text: &str, expected: Option<VolumeFilter>| {
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        let label = |name: &str, value: Option<&str>| BuildArg {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        check("dangling=1", Some(VolumeFilter::Dangling(true)));
        check("name=a=b", Some(VolumeFilter::Name("a=b".to_owned())));
        check("label=a", Some(VolumeFilter::Label(label("a", None), true)));
        check(
            "label!=a=b",
            Some(VolumeFilter::Label(label("a", Some("b")), false)),
        );
        for wrong in ["", "dangling", "dangling=maybe", "label=", "size=1"] {
            check(wrong, None);
        }
    }
}
