//! The Boxfile as it was written: typed, every part with its place, nothing expanded or looked up.
//!
//! A [`Word`] holds raw text, quotes and `$variables` included, for [`crate::expand`]; a plain `String`
//! is final. Instructions stand in one flat list, since `INCLUDE` may bring further ones anywhere;
//! [`crate::graph`] forms the stages.

mod heredoc;
mod mount;
mod run;
mod word;

use std::time::Duration;

pub use heredoc::Heredoc;
pub use mount::{Mount, MountError, MountField, MountKind, RunMount, Sharing};
pub use run::{Limits, Network, Run, RunCache, RunCommand, Security};
pub use word::Word;

use crate::diagnostic::Diagnostic;
use crate::source::{Sources, Span, Spanned};

/// A whole Boxfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boxfile {
    /// The texts that spans point into.
    pub sources: Sources,
    /// The parser directives at the top.
    pub directives: Directives,
    /// All instructions in order; there is at least one.
    pub instructions: Vec<Instruction>,
    /// What the lexer found odd (empty continuation lines). The other lints are in [`crate::lint`].
    pub warnings: Vec<Diagnostic>,
}

/// `# syntax=`, `# escape=`, `# check=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// The frontend that was asked for, always a `docker/dockerfile`.
    pub syntax: Option<Spanned<String>>,
    /// The character that continues lines and escapes.
    pub escape: Escape,
    /// What the lints are told.
    pub check: Option<Spanned<Check>>,
}

/// The escape character of a Boxfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escape {
    /// `\`
    #[default]
    Backslash,
    /// `` ` ``
    Backtick,
}

impl Escape {
    /// The character itself.
    pub fn as_char(self) -> char {
        match self {
            Escape::Backslash => '\\',
            Escape::Backtick => '`',
        }
    }
}

/// `# check=skip=A,B;error=true`, for the file or for the next instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Lints to leave out, in lower case; `all` means every one.
    pub skip: Vec<String>,
    /// Lints to try though they are experimental, in lower case; `all` means every one.
    pub experimental: Vec<String>,
    /// Whether any warning makes the build fail.
    pub error: Option<bool>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The first line of it, from the keyword on.
    pub span: Span,
    /// Its first and its last line (heredocs included), counted from 1.
    pub lines: (u32, u32),
    /// The keyword as written (`copy`, `COPY`).
    pub keyword: Spanned<String>,
    /// The whole instruction on one line, as written but for continuations and comments; without the
    /// bodies of heredocs.
    pub text: String,
    /// The comment lines right before it, without `#` and surrounding blanks.
    pub comments: Vec<Spanned<String>>,
    /// What it says.
    pub kind: InstructionKind,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is named after its instruction
pub enum InstructionKind {
    From(From),
    Arg(Vec<ArgDeclaration>),
    Env(KeyValues),
    Label(KeyValues),
    Run(Box<Run>),
    Copy(Box<Copy>),
    Add(Box<Add>),
    Workdir(Word),
    User(Word),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Healthcheck(Healthcheck),
    OnBuild(OnBuild),
    Volume(Vec<Word>),
    /// Expanded and split again into words (`EXPOSE $PORTS`).
    Expose(Vec<Word>),
    StopSignal(Word),
    Maintainer(Word),
    Limit(Limits),
    Include(Word),
}

impl InstructionKind {
    /// The instruction's name in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            InstructionKind::From(_) => "FROM",
            InstructionKind::Arg(_) => "ARG",
            InstructionKind::Env(_) => "ENV",
            InstructionKind::Label(_) => "LABEL",
            InstructionKind::Run(_) => "RUN",
            InstructionKind::Copy(_) => "COPY",
            InstructionKind::Add(_) => "ADD",
            InstructionKind::Workdir(_) => "WORKDIR",
            InstructionKind::User(_) => "USER",
            InstructionKind::Cmd(_) => "CMD",
            InstructionKind::Entrypoint(_) => "ENTRYPOINT",
            InstructionKind::Shell(_) => "SHELL",
            InstructionKind::Healthcheck(_) => "HEALTHCHECK",
            InstructionKind::OnBuild(_) => "ONBUILD",
            InstructionKind::Volume(_) => "VOLUME",
            InstructionKind::Expose(_) => "EXPOSE",
            InstructionKind::StopSignal(_) => "STOPSIGNAL",
            InstructionKind::Maintainer(_) => "MAINTAINER",
            InstructionKind::Limit(_) => "LIMIT",
            InstructionKind::Include(_) => "INCLUDE",
        }
    }
}

/// `FROM [--platform=P] [--checksum=sha256:…] BASE [AS NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Sees global ARGs alone.
    pub platform: Option<Word>,
    /// Of an archive or URL (`sha256:<64 hex>`); a Boxfile addition.
    pub checksum: Option<Word>,
    /// An image, a stage, `scratch`, a named context, or an archive, URL or OCI layout.
    pub base: Word,
    /// The stage's name.
    pub alias: Option<Alias>,
}

/// `AS name`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// `AS` as written.
    pub keyword: Spanned<String>,
    /// The name as written.
    pub written: Spanned<String>,
    /// The name in lower case: names are compared so.
    pub name: String,
}

/// `name[=default]` of an ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name, without quotes; variables in it are nothing.
    pub name: Spanned<String>,
    /// The name as written: in a stage variables in it count.
    pub written: Word,
    /// The default.
    pub default: Option<Word>,
}

/// The pairs of an ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValues {
    /// In order, at least one. Keys and values are expanded.
    pub pairs: Vec<(Word, Word)>,
    /// `ENV key value`: one pair, whose value is the rest of the line.
    pub legacy: bool,
}

/// The shell or exec form of CMD, ENTRYPOINT and HEALTHCHECK's CMD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Handed to SHELL as it stands.
    Shell(String),
    /// The program and its arguments; may be empty (`CMD []` clears).
    Exec(Vec<String>),
}

/// One source of a COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path, wildcard, URL or git address.
    Path(Word),
    /// A file written in the Boxfile itself, mode 0644.
    Inline(Heredoc),
}

/// The flags that COPY and ADD share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyFlags {
    /// `user[:group]`
    pub chown: Option<Word>,
    /// Octal, or `u=rwX,go=rX`.
    pub chmod: Option<Word>,
    /// A layer that does not depend on the one below.
    pub link: bool,
    /// Keep the sources' parent directories.
    pub parents: bool,
    /// Patterns left out.
    pub excludes: Vec<Word>,
}

/// COPY
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// A stage's name or index, an image or a named context; never expanded.
    pub from: Option<Spanned<String>>,
    /// At least one.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: Word,
    /// Common flags.
    pub flags: CopyFlags,
}

/// ADD
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// At least one.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: Word,
    /// Common flags.
    pub flags: CopyFlags,
    /// Of a URL's file or a git commit.
    pub checksum: Option<Word>,
    /// Keep `.git`.
    pub keep_git_dir: Option<bool>,
    /// Whether archives are unpacked; unset: local ones are, those from a URL aren't.
    pub unpack: Option<bool>,
}

/// HEALTHCHECK
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`
    None,
    /// `[OPTIONS] CMD command`; what is unset (or 0) is inherited from the defaults.
    Check {
        /// The command; never empty.
        command: Command,
        /// Default 30 s.
        interval: Option<Duration>,
        /// Default 30 s.
        timeout: Option<Duration>,
        /// Default 0 s.
        start_period: Option<Duration>,
        /// Default 5 s.
        start_interval: Option<Duration>,
        /// Default 3.
        retries: Option<u32>,
    },
}

/// ONBUILD
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnBuild {
    /// The trigger as it is written into the image's config: heredocs follow their line.
    pub text: String,
    /// The trigger, parsed.
    pub trigger: Box<Instruction>,
}
