//! What a stage graph is made of.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::Instruction;
use crate::diagnostic::Diagnostic;
use crate::source::{Span, Spanned};

/// A stage's place in the Boxfile, counted from 0 (as `COPY --from=0` counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub usize);

/// What the caller of a build says about its stages.
#[derive(Clone, Debug, Default)]
pub struct GraphOptions {
    /// `--target`: a stage's name or number; unset: the last stage.
    pub target: Option<String>,
    /// The last step of the target that matters, counted from its FROM, which is 1; unset: all do.
    pub until: Option<usize>,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// Predefined global ARGs with their values (`TARGETPLATFORM`, `BUILDOS`, …).
    pub platform_args: BTreeMap<String, String>,
    /// Names given by `--build-context`; they go before stages and images.
    pub contexts: BTreeSet<String>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its place in the Boxfile.
    pub id: StageId,
    /// Its name in lower case.
    pub name: Option<String>,
    /// Its FROM.
    pub from: Instruction,
    /// What it is built on.
    pub base: Base,
    /// `--platform`, expanded; never empty.
    pub platform: Option<Spanned<String>>,
    /// The ONBUILD triggers of its base, which come right after its FROM.
    pub triggers: Vec<Trigger>,
    /// What follows its FROM.
    pub instructions: Vec<Instruction>,
    /// How many instructions after those do not matter.
    pub left_out: usize,
    /// Whether the last of them is the one before which the build ends.
    pub is_cut: bool,
    /// The stages it needs: its base, those it copies or mounts from.
    pub needs: BTreeSet<StageId>,
}

impl Stage {
    /// Whether a named build context has taken its place: it is that context, and nothing that it says is done.
    pub fn is_replaced(&self) -> bool {
        let name = self.name.as_deref().map(context_name);
        matches!(&self.base, Base::Context(context) if name == Some(context.value.as_str()))
    }
}

/// An ONBUILD trigger of a base.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// As the base's config has it.
    pub text: String,
    /// What it says. Its spans mean nothing in this Boxfile.
    pub instruction: Instruction,
}

impl Trigger {
    /// Makes a finding about it one about the FROM that it comes with.
    pub fn point_at(&self, from: Span, diagnostic: &mut Diagnostic) {
        point_at(&self.text, from, diagnostic);
    }
}

/// Makes a finding about the trigger of this text one about the FROM that it comes with.
pub(super) fn point_at(text: &str, from: Span, diagnostic: &mut Diagnostic) {
    let line = text.lines().next().unwrap_or_default();
    diagnostic.span = from;
    diagnostic.message = format!("{} (in the base's ONBUILD trigger `{line}`)", diagnostic.message);
}

/// What a stage is built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(StageId),
    /// An image by name, not yet checked.
    Image(Spanned<String>),
    /// A named build context.
    Context(Spanned<String>),
    /// A root file system archive.
    Archive(ArchiveBase),
    /// `oci:DIR[:ref]`
    OciLayout {
        /// The directory, relative to the context.
        directory: Spanned<String>,
        /// The image in it, by tag; unset: the only one.
        reference: Option<String>,
    },
}

/// A root file system archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveBase {
    /// Where it is.
    pub location: ArchiveLocation,
    /// `--checksum`, as `sha256:<64 lower hex>`.
    pub checksum: Option<Spanned<String>>,
    /// Where FROM names it.
    pub span: Span,
}

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveLocation {
    /// `http://` or `https://`
    Url(String),
    /// A path relative to the context.
    Path(String),
}

/// What `from=` or `--from=` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromRef {
    /// A stage.
    Stage(StageId),
    /// A named build context.
    Context(String),
    /// An image by name, not yet checked.
    Image(String),
}

/// The name of a build context that stands for this name of an image or stage: without what every name may begin and end
/// with, as with Docker.
pub fn context_name(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name)
}

/// What names and numbers of stages mean, seen from behind the last stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) stages: BTreeMap<String, StageId>,
    pub(super) contexts: BTreeSet<String>,
    pub(super) count: usize,
}

impl Names {
    pub(super) fn resolve(&self, name: &str) -> FromRef {
        let context = context_name(name);
        if self.contexts.contains(context) {
            return FromRef::Context(context.to_owned());
        }
        match self
            .number(name)
            .or_else(|| self.stages.get(&name.to_lowercase()).copied())
        {
            Some(id) => FromRef::Stage(id),
            None => FromRef::Image(name.to_owned()),
        }
    }

    fn number(&self, name: &str) -> Option<StageId> {
        let digits = name.bytes().all(|b| b.is_ascii_digit());
        let number = name.parse().ok().filter(|_| digits)?;
        (number < self.count).then_some(StageId(number))
    }
}
