//! What a build is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::exec::{CancelToken, Limits, LimitsPolicy, NetworkMode};
use crate::source::Source;

/// One build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The Boxfile.
    pub boxfile: Source,
    /// The directory that COPY and `FROM ./…` read, in place.
    pub context: PathBuf,
    /// The rules of what COPY leaves out; none: the `.boxignore` or `.dockerignore` of the context.
    pub ignore: Option<Source>,
    /// The stage to build, by name or number; none: the last.
    pub target: Option<String>,
    /// Values of ARGs.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image, over those of its Boxfile.
    pub labels: BTreeMap<String, String>,
    /// Whether every step is done anew.
    pub no_cache: bool,
    /// The network of RUN.
    pub network: NetworkMode,
    /// Limits of every RUN; LIMIT and RUN's own flags go before them.
    pub limits: Limits,
    /// What happens to a limit that can't be enforced.
    pub limits_policy: LimitsPolicy,
    /// The times in layers.
    pub mtimes: TimesMode,
    /// Nothing in the image is later than this (seconds since 1970).
    pub source_date_epoch: Option<i64>,
    /// What is built for.
    pub platform: Platform,
    /// Values of `HTTP_PROXY` and its like, handed to RUN; in no cache key and no image.
    pub proxies: BTreeMap<String, String>,
    /// Stops the build.
    pub cancel: CancelToken,
}

impl BuildRequest {
    /// A build of this Boxfile in this context, everything else as by default.
    pub fn new(boxfile: Source, context: impl Into<PathBuf>) -> BuildRequest {
        BuildRequest {
            boxfile,
            context: context.into(),
            ignore: None,
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: false,
            network: NetworkMode::default(),
            limits: Limits::default(),
            limits_policy: LimitsPolicy::default(),
            mtimes: TimesMode::default(),
            source_date_epoch: None,
            platform: Platform::native(),
            proxies: BTreeMap::new(),
            cancel: CancelToken::new(),
        }
    }
}

/// Which times of files a layer's digest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimesMode {
    /// Logical ones: equal builds are equal.
    #[default]
    Logical,
    /// Those on disk, as Docker has it: not reproducible.
    Real,
}

/// An operating system and an architecture in OCI's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`
    pub architecture: String,
    /// `v8`, of architectures that have some
    pub variant: Option<String>,
}

impl Platform {
    /// What this program runs on.
    pub fn native() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}
