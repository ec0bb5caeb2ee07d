//! Stages: names and numbers resolved, what the target does not reach left out.
//!
//! ```text
//! Boxfile ──form──► stages ──FROM expanded with global ARGs──► bases ──COPY --from, mounts──► edges ──prune──► StageGraph
//! ```

mod base;
mod order;
mod resolve;
mod types;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::ast::{Boxfile, Directives};
use crate::diagnostic::Diagnostic;
use crate::source::Sources;
use types::Names;

pub use types::{
    ArchiveBase, ArchiveLocation, Base, FromRef, GraphOptions, Stage, StageId, Trigger, context_name,
};

/// The ONBUILD triggers of a stage's base that is an image; none where it is not at hand.
pub type ImageTriggers<'a> = dyn Fn(StageId, &Base) -> Vec<String> + 'a;

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

impl StageGraph {
    /// Resolves the stages of a Boxfile.
    ///
    /// # Errors
    /// Everything that is wrong with its stages: an instruction before the first FROM, unknown or
    /// circular stages, an empty base, a target that does not exist.
    pub fn new(boxfile: &Boxfile, options: &GraphOptions) -> Result<StageGraph, Vec<Diagnostic>> {
        Self::with_triggers(boxfile, options, &|_, _| Vec::new())
    }

    /// The same, minding the ONBUILD triggers of images.
    ///
    /// # Errors
    /// As [`StageGraph::new`]; triggers that are none.
    pub fn with_triggers(
        boxfile: &Boxfile,
        options: &GraphOptions,
        triggers: &ImageTriggers<'_>,
    ) -> Result<StageGraph, Vec<Diagnostic>> {
        let (stages, names, global_args) = resolve::resolve(boxfile, options, triggers)?;
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

    /// The images that the stages are on, copy from or mount from, as they are written; with the platform that FROM asks for.
    pub fn images(&self) -> Vec<(String, Option<String>)> {
        let of_stage = |stage: &Stage| {
            let platform = stage.platform.as_ref().map(|platform| platform.value.clone());
            let images = resolve::images_of(stage, &self.names).into_iter();
            images.map(|image| (image, platform.clone())).collect::<Vec<_>>()
        };
        self.stages.iter().flat_map(of_stage).collect()
    }

    /// The names of all stages, built or not, and of the named contexts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let Names { stages, contexts, .. } = &self.names;
        stages.keys().chain(contexts).map(String::as_str)
    }
}
