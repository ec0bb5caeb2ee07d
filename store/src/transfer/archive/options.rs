//! What loading is told, and what it tells.

use crate::digest::Digest;
use crate::image::Image;
use crate::layer::apply::Limits;
use crate::reference::Reference;

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Which one to take of an image for several platforms.
    pub platform: Platform,
    /// For the archive and for each layer in it.
    pub limits: Limits,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            platform: Platform::host(),
            limits: Limits::default(),
        }
    }
}

/// An operating system and a processor, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`…
    pub architecture: String,
}

impl Platform {
    /// Of this program.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// An image that was loaded.
#[derive(Debug, Clone)]
pub struct LoadedImage {
    /// The image.
    pub image: Image,
    /// Its manifest's digest.
    pub manifest: Digest,
    /// The names that the archive gives it, which it has now.
    pub names: Vec<Reference>,
}
