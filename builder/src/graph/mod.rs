//! Stages: names and numbers resolved, what the target does not reach left out.
//!
//! ```text
//! Boxfile ──form──► stages ──FROM expanded with global ARGs──► bases ──COPY --from, mounts──► edges ──prune──► StageGraph
//! ```

mod base;
mod order;
mod resolve;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Boxfile, Directives, Instruction};
use crate::diagnostic::Diagnostic;
use crate::source::{Sources, Span, Spanned};

/// A stage's place in the Boxfile, counted from 0 (as `COPY --from=0` counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub usize);

/// What the caller of a build says about its stages.
#[derive(Clone, Debug, Default)]
pub struct GraphOptions {
    /// `--target`: a stage's name or number; unset: the last stage.
    pub target: Option<String>,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// Predefined global ARGs with their values (`TARGETPLATFORM`, `BUILDOS`, …).
    pub platform_args: BTreeMap<String, String>,
    /// Names given by `--build-context`; they go before stages and images.
    pub contexts: BTreeSet<String>,
}

/// The stages that have to be built, each after those it needs.
#[derive(Clone, Debug)]
pub struct StageGraph {
    /// In an order in which they can be built; the target is the last.
    pub stages: Vec<Stage>,
    /// The stage whose image is wanted.
    pub target: StageId,
    /// Global ARGs (those before the first FROM, then the predefined) that have a value, for bare ARGs in stages.
    pub global_args: BTreeMap<String, String>,
    /// Directives of the Boxfile.
    pub directives: Directives,
    /// The texts that spans point into.
    pub sources: Sources,
    names: Names,
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
    /// What follows its FROM.
    pub instructions: Vec<Instruction>,
    /// The stages it needs: its base, those it copies or mounts from.
    pub needs: BTreeSet<StageId>,
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

impl StageGraph {
    /// Resolves the stages of a Boxfile.
    ///
    /// # Errors
    /// Everything that is wrong with its stages: an instruction before the first FROM, unknown or
    /// circular stages, an empty base, a target that does not exist.
    pub fn new(boxfile: &Boxfile, options: &GraphOptions) -> Result<StageGraph, Vec<Diagnostic>> {
        let (stages, names, global_args) = resolve::resolve(boxfile, options)?;
        let target = order::target(&stages, &names, options, boxfile)?;
        let stages = order::order(stages, target)?;
        Ok(StageGraph {
            stages,
            target,
            global_args,
            directives: boxfile.directives.clone(),
            sources: boxfile.sources.clone(),
            names,
        })
    }

    /// The stage with that id, if it is built.
    pub fn stage(&self, id: StageId) -> Option<&Stage> {
        self.stages.iter().find(|s| s.id == id)
    }

    /// What `COPY --from=NAME` or a mount's `from=NAME` means. (Stages are known to exist.)
    pub fn resolve(&self, name: &str) -> FromRef {
        self.names.resolve(name)
    }
}

/// What names and numbers of stages mean, seen from behind the last stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    stages: BTreeMap<String, StageId>,
    contexts: BTreeSet<String>,
    count: usize,
}

impl Names {
    fn resolve(&self, name: &str) -> FromRef {
        if self.contexts.contains(name) {
            return FromRef::Context(name.to_owned());
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
