//! What a build is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use box_store::digest::Digest;
use box_store::remote::Imports;
use box_store::{Image, Reference, Store};

use crate::exec::{CancelToken, Limits, LimitsPolicy, NetworkMode, Secret};
use crate::lockfile::Lock;
use crate::progress::EventSink;
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
    /// Stages, by name or number, of which every step is done anew.
    pub no_cache_stages: BTreeSet<String>,
    /// Whether it is told of every step why it is done, or not.
    pub explain: bool,
    /// The network of RUN.
    pub network: NetworkMode,
    /// What RUN finds in `/etc/hosts` besides its own names, in order.
    pub hosts: Vec<(String, IpAddr)>,
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
    /// Foreign architectures whose programs run here too, by an emulator that the kernel knows.
    pub emulated: BTreeSet<String>,
    /// Named build contexts, which go before stages and images of their names.
    pub contexts: BTreeMap<String, NamedContext>,
    /// What `RUN --mount=type=secret` may ask for, by id; in no cache key, no image and no output.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of SSH agents that `RUN --mount=type=ssh` may ask for, by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Values of `HTTP_PROXY` and its like, handed to RUN; in no cache key and no image.
    pub proxies: BTreeMap<String, String>,
    /// Brings in images that are not in the store; none: they are missing.
    pub puller: Option<Arc<dyn ImagePuller>>,
    /// What names are locked to; none: to nothing.
    pub lock: Option<RequestLock>,
    /// Whether nothing may be asked for or fetched. (The network of RUN is another matter.)
    pub offline: bool,
    /// Caches of RUN are those of this name alone, apart from all others; none: the usual ones.
    pub cache_scope: Option<String>,
    /// Caches elsewhere that are looked into for what is not here.
    pub imports: Option<Arc<Imports>>,
    /// Whether the outcome says which records, layers and cache mounts were used, so that they can be put elsewhere.
    pub notes_uses: bool,
    /// Whether a person is let into the container of a RUN that fails, before the build does.
    pub shell_on_error: bool,
    /// Where a person is let in by [`visit`](crate::build::visit); what comes after that is left out. For a build: none.
    pub shell_at: Option<ShellAt>,
    /// How many steps work at once, at least 1. With 1 they are done one after another, in the order of the plan.
    pub jobs: usize,
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
            no_cache_stages: BTreeSet::new(),
            explain: false,
            network: NetworkMode::default(),
            hosts: Vec::new(),
            limits: Limits::default(),
            limits_policy: LimitsPolicy::default(),
            mtimes: TimesMode::default(),
            source_date_epoch: None,
            platform: Platform::native(),
            emulated: BTreeSet::new(),
            contexts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            proxies: BTreeMap::new(),
            puller: None,
            lock: None,
            offline: false,
            cache_scope: None,
            imports: None,
            notes_uses: false,
            shell_on_error: false,
            shell_at: None,
            jobs: default_jobs(),
            cancel: CancelToken::new(),
        }
    }
}

/// A point of a build's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellAt {
    /// Before this step, counted as it is shown: FROM is 1.
    Step(usize),
    /// After the last one.
    End,
}

/// The fewest steps at once by default, however few processors there are.
const LEAST_JOBS: usize = 4;

/// As many steps at once as there are processors, and at least four: steps often wait for the network or the disk, and those that
/// compute share the processors without loss. More would cost memory, which a small machine has little of.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(LEAST_JOBS, |count| count.get().max(LEAST_JOBS))
}

/// The lock of a build.
#[derive(Clone, Debug)]
pub struct RequestLock {
    /// What it is called, for people.
    pub name: String,
    /// What it holds.
    pub lock: Lock,
    /// Whether what it lacks is an error.
    pub is_strict: bool,
    /// Its place in the context, which it is no part of; none if it is elsewhere.
    pub in_context: Option<PathBuf>,
}

/// Brings images in that are not in the store.
pub trait ImagePuller: Send + Sync + std::fmt::Debug {
    /// Whether the registry is asked for an image that is here, too.
    fn asks_always(&self) -> bool;

    /// Brings an image into the store, under its name.
    ///
    /// # Errors
    /// Why it could not be had, for people.
    fn pull(
        &self,
        store: &Store,
        name: &Reference,
        platform: &Platform,
        pulling: Pulling<'_>,
    ) -> Result<(), String>;

    /// Asks which image a name stands for now; fetches none of its layers. Gives its manifest's digest, too.
    ///
    /// # Errors
    /// Why it could not be had, for people.
    fn resolve(
        &self,
        name: &Reference,
        platform: &Platform,
        cancel: &CancelToken,
    ) -> Result<(Digest, Image), String>;
}

/// What a pull tells, and what ends it.
#[derive(Clone, Copy)]
pub struct Pulling<'a> {
    /// Gives it up.
    pub cancel: &'a CancelToken,
    /// Where it is told of.
    pub events: &'a dyn EventSink,
    /// Gets what the image is when that is known, before its layers are in the store. It need not be called.
    pub found: &'a dyn Fn(Image),
}

impl std::fmt::Debug for Pulling<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pulling")
    }
}

/// What a named build context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory, read in place.
    Directory(PathBuf),
    /// An image of the store.
    Image(String),
    /// An image of an OCI layout directory, by what the layout calls it; none: its only one.
    Layout {
        /// The directory.
        directory: PathBuf,
        /// The image's tag, name or digest.
        reference: Option<String>,
    },
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
    /// Whether its programs run on this machine as they are.
    pub fn is_native(&self) -> bool {
        let native = Platform::native();
        let own = (native.architecture.as_str(), self.architecture.as_str());
        self.os == native.os && (own.0 == own.1 || own == ("amd64", "386"))
    }

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

/// A platform that is none, or none that images are built for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown platform {0}: expected linux/ARCHITECTURE[/VARIANT]")]
pub struct PlatformError(pub String);

impl std::str::FromStr for Platform {
    type Err = PlatformError;

    /// `OS/ARCHITECTURE[/VARIANT]`, or an architecture alone; the names that uname has are understood.
    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let mut parts = text.split('/');
        let first = parts.next().unwrap_or_default();
        let (os, architecture) = match parts.next() {
            Some(architecture) => (first, architecture),
            None => ("linux", first),
        };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" => ("386", None),
            other => (other, None),
        };
        let variant = parts
            .next()
            .or(implied)
            .filter(|variant| !(architecture == "arm64" && *variant == "v8"));
        if os != "linux" || architecture.is_empty() || variant == Some("") || parts.next().is_some() {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
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
