//! Named build contexts, as bases and as sources.

use std::collections::BTreeMap;

use box_store::error::StoreError;
use box_store::image::Image;

use crate::ast::Instruction;
use crate::diagnostic::Diagnostic;
use crate::graph::{Base, Stage, StageId};
use crate::plan::{Action, CopyFrom, CopySourcePlan, CopyStep, Step};
use crate::request::{NamedContext, Platform};
use crate::source::Spanned;

use super::{Lowering, canonical_text};

/// Images that were brought into the store for this build: of OCI layouts and from registries.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Of `FROM oci:`
    pub stages: BTreeMap<StageId, Image>,
    /// Of named contexts.
    pub contexts: BTreeMap<String, Image>,
    /// Images that a registry was asked for, by the names in the Boxfile: nothing, or why they could not be had.
    pub pulled: BTreeMap<String, Option<String>>,
    /// Images that are known without being in the store, by their names in the Boxfile and their platforms.
    pub resolved: BTreeMap<(String, String), Image>,
    /// Those of them whose layers are still on their way.
    pub coming: BTreeMap<String, Image>,
}

/// What a named context gives.
pub(super) enum ContextSource {
    Image(Box<Image>),
    /// The directory of that context.
    Directory(String),
}

impl Lowering<'_> {
    /// What the named context is; none if it is not to be had (which was noted).
    pub(super) fn context(
        &mut self,
        name: &Spanned<String>,
        platform: &Platform,
    ) -> Result<Option<ContextSource>, StoreError> {
        let image = match self.request.contexts.get(&name.value) {
            Some(NamedContext::Directory(_)) => {
                return Ok(Some(ContextSource::Directory(name.value.clone())));
            }
            Some(NamedContext::Image(image)) => {
                self.image(&Spanned::new(image.clone(), name.span), platform)?
            }
            Some(NamedContext::Layout { .. }) => {
                let image = self.loaded.contexts.get(&name.value).cloned();
                self.lacks_image |= image.is_none();
                image
            }
            None => {
                let message = format!("there is no build context {}", name.value);
                self.problems.push(Diagnostic::error(name.span, message));
                None
            }
        };
        Ok(image.map(|image| ContextSource::Image(Box::new(image))))
    }

    /// Where a COPY from the named context reads.
    pub(super) fn copy_from_context(
        &mut self,
        name: &Spanned<String>,
        platform: &Platform,
    ) -> Result<Option<CopyFrom>, StoreError> {
        Ok(self.context(name, platform)?.map(|source| match source {
            ContextSource::Image(image) => CopyFrom::Image(name.value.clone(), image),
            ContextSource::Directory(name) => CopyFrom::Named(name),
        }))
    }

    /// The step that makes a named directory the rootfs of a stage on it.
    pub(super) fn context_step(&self, stage: &Stage) -> Option<Step> {
        let Base::Context(name) = &stage.base else {
            return None;
        };
        let Some(NamedContext::Directory(_)) = self.request.contexts.get(&name.value) else {
            return None;
        };
        let from: &Instruction = &stage.from;
        Some(Step {
            place: self.place(from),
            created_by: canonical_text(from),
            action: Action::Copy(Box::new(CopyStep {
                from: CopyFrom::Named(name.value.clone()),
                sources: vec![CopySourcePlan::Path("/".to_owned())],
                destination: "/".to_owned(),
                chown: None,
                chmod: None,
                excludes: Vec::new(),
                parents: false,
                link: false,
                unpack: false,
            })),
        })
    }
}
