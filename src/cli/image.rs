//! Options of the commands for images that are there.

use clap::{Args, ValueEnum};

use super::Format;

// `box images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// Print ids alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print whole ids.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only those of this name; without a tag, of all tags.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

// `box rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove an image by its id even if it has several names.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The images, by name or id.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

// `box tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Its new name.
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

// `box inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// What is meant, where a container and an image have the same name.
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<InspectType>,
    /// Containers or images, by name or id.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

/// What `box inspect` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InspectType {
    /// Containers.
    Container,
    /// Images.
    Image,
}

// `box history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) format: Format,
    /// Print whole commands.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// The image, by name or id.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}
