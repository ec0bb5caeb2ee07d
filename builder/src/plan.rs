//! What a build is going to do: stages with everything expanded and looked up that can be before a step runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use box_store::digest::Digest;
use box_store::image::{Image, ImageConfig};

use crate::ast::Sharing;
use crate::exec::{Limits, NetworkMode};
use crate::git_ref::GitRef;
use crate::graph::StageId;
use crate::parse::Chmod;
use crate::request::Platform;
use crate::source::Span;

/// A stage, ready to be built.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// Its place in the Boxfile.
    pub id: StageId,
    /// Its name.
    pub name: Option<String>,
    /// Its FROM.
    pub from: Place,
    /// What it is built on.
    pub base: BasePlan,
    /// The name of that, where its FROM gives one: of an image, a context or a layout.
    pub base_name: String,
    /// What follows its FROM, in order.
    pub steps: Vec<Step>,
    /// The config of its image; layers, history and `created` are those of its base.
    pub config: ImageConfig,
    /// What it is built for.
    pub platform: Platform,
    /// Where its person is let in after these steps, in a build that is asked for that; what follows is left out.
    pub visit: Option<Box<Visited>>,
    /// How many steps were left out.
    pub left_out: usize,
}

impl StagePlan {
    /// How many steps its Boxfile has, FROM included.
    pub fn total(&self) -> usize {
        self.steps.len() + 1 + self.left_out
    }
}

/// A point of a stage at which a person is let in.
#[derive(Clone, Debug)]
pub struct Visited {
    /// The step that would come next; none at the end of the stage.
    pub next: Option<Place>,
    /// What a RUN would have there, or has: the next step is one.
    pub run: RunStep,
    /// Whether it is one.
    pub is_run: bool,
}

/// What a stage is built on.
#[derive(Clone, Debug)]
pub enum BasePlan {
    /// Nothing.
    Scratch,
    /// A stage that is built before.
    Stage(StageId),
    /// An image of the store.
    Image(Box<Image>),
    /// An archive in the context.
    File {
        /// Relative to the context.
        path: String,
        /// What it must hash to.
        checksum: Option<Digest>,
    },
    /// An archive somewhere else.
    Url {
        /// `http://` or `https://`
        url: String,
        /// What it must hash to.
        checksum: Option<Digest>,
    },
}

/// Where an instruction stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it stands.
    pub span: Span,
    /// The Boxfile's name.
    pub file: String,
    /// The instruction on one line.
    pub text: String,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it stands.
    pub place: Place,
    /// What the image's history says.
    pub created_by: String,
    /// What is to be done.
    pub action: Action,
}

/// What an instruction does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Changes the config alone, which has been done.
    Config,
    /// Runs a command.
    Run(Box<RunStep>),
    /// Copies files.
    Copy(Box<CopyStep>),
    /// Makes a directory if it is missing.
    Workdir(WorkdirStep),
}

impl Action {
    /// The stages that it copies or mounts from.
    pub fn stages(&self) -> Vec<StageId> {
        match self {
            Action::Run(run) => run.stages(),
            Action::Copy(copy) => copy.from.stage().into_iter().collect(),
            Action::Config | Action::Workdir(_) => Vec::new(),
        }
    }
}

/// A RUN.
#[derive(Clone, Debug)]
pub struct RunStep {
    /// The program and its arguments, SHELL included.
    pub args: Vec<String>,
    /// SHELL, also where the command does not use it.
    pub shell: Vec<String>,
    /// The image's environment and every ARG in scope that has a value.
    pub env: BTreeMap<String, String>,
    /// Which of them are ARGs alone.
    pub declared: BTreeSet<String>,
    /// The user, as written.
    pub user: String,
    /// Where it runs, absolute.
    pub workdir: String,
    /// What it has mounted, in order.
    pub mounts: Vec<MountPlan>,
    /// Its network.
    pub network: NetworkMode,
    /// Its limits.
    pub limits: Limits,
    /// Until when its layer may be used again.
    pub reuse: Reuse,
}

impl RunStep {
    /// The stages that it mounts from.
    pub fn stages(&self) -> Vec<StageId> {
        let of_mount = |mount: &MountPlan| match &mount.kind {
            MountSource::Bind(bind) | MountSource::Cache { from: Some(bind), .. } => bind.from.stage(),
            _ => None,
        };
        self.mounts.iter().filter_map(of_mount).collect()
    }
}

/// How long a step's layer may be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// As long as its inputs are the same.
    #[default]
    Always,
    /// Never: the step runs in every build.
    Never,
    /// For this long after it ran, at most.
    For(Duration),
}

/// A mount of a RUN.
#[derive(Clone, Debug)]
pub struct MountPlan {
    /// What is mounted.
    pub kind: MountSource,
    /// Where: absolute, clean, never `/`.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What a RUN has mounted.
#[derive(Clone, Debug)]
pub enum MountSource {
    /// A file or directory; writes are thrown away.
    Bind(Box<BindPlan>),
    /// A directory that outlives builds.
    Cache {
        /// What it is called.
        id: String,
        /// Between builds at the same time.
        sharing: Sharing,
        /// What it lies on.
        from: Option<Box<BindPlan>>,
        /// Permissions, user and group of a new one.
        owner: Owned,
    },
    /// An empty file system in memory, of at most so many bytes.
    Tmpfs(Option<u64>),
    /// A secret.
    Secret {
        /// Its name.
        id: String,
        /// The variable that holds it.
        env: Option<String>,
        /// Whether there is a file, too.
        is_file: bool,
        /// Whether the step fails without it.
        required: bool,
        /// Permissions, user and group of the file.
        owner: Owned,
    },
    /// An SSH agent's socket.
    Ssh {
        /// Its name.
        id: String,
        /// Whether the step fails without it.
        required: bool,
        /// Permissions, user and group of the socket.
        owner: Owned,
    },
    /// The program of `RUN <<EOF` that begins with `#!`.
    Program(Vec<u8>),
}

/// Where a mount comes from.
#[derive(Clone, Debug)]
pub struct BindPlan {
    /// The tree.
    pub from: CopyFrom,
    /// The path in it, relative and clean; empty for its root.
    pub source: String,
}

/// Permissions, user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Permission bits.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A COPY.
#[derive(Clone, Debug)]
pub struct CopyStep {
    /// Where from.
    pub from: CopyFrom,
    /// What.
    pub sources: Vec<CopySourcePlan>,
    /// Where to: absolute; a slash at the end says that it is a directory.
    pub destination: String,
    /// The owner, as written.
    pub chown: Option<String>,
    /// The modes: as written, and as meant.
    pub chmod: Option<(String, Chmod)>,
    /// Patterns of what is left out, relative to each source.
    pub excludes: Vec<String>,
    /// Whether the directories that lead to a source are copied, too.
    pub parents: bool,
    /// Whether the layer depends on nothing below it.
    pub link: bool,
    /// Whether archives among the files are unpacked.
    pub unpack: bool,
}

/// Where a COPY reads.
#[derive(Clone, Debug)]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// Another stage.
    Stage(StageId),
    /// The directory of a named build context.
    Named(String),
    /// An image of the store, with the name it was asked for by.
    Image(String, Box<Image>),
}

impl CopyFrom {
    fn stage(&self) -> Option<StageId> {
        match self {
            CopyFrom::Stage(stage) => Some(*stage),
            CopyFrom::Context | CopyFrom::Named(_) | CopyFrom::Image(..) => None,
        }
    }
}

/// What a COPY reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySourcePlan {
    /// A path or wildcard.
    Path(String),
    /// A file written in the Boxfile.
    Inline {
        /// Its name.
        name: String,
        /// What it holds.
        data: Vec<u8>,
    },
    /// What is behind an http(s) URL.
    Url {
        /// The URL.
        url: String,
        /// What the file is called.
        name: String,
        /// What it must hash to.
        checksum: Option<Digest>,
        /// Whether it is unpacked if it is an archive.
        unpack: bool,
    },
    /// The files of a commit.
    Git {
        /// The repository, and what of it.
        address: Box<GitRef>,
        /// Whether `.git` comes, too.
        keep_git_dir: bool,
    },
}

/// A WORKDIR.
#[derive(Clone, Debug)]
pub struct WorkdirStep {
    /// The directory, absolute and clean.
    pub path: String,
    /// Who owns it if it is made, as written in USER.
    pub user: String,
}
