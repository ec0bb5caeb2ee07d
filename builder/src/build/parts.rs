//! What the keys of all steps of a stage have in common.

use std::collections::BTreeMap;

use crate::cache::{KeyParts, LayerMode, StepKind, VERSION};
use crate::request::TimesMode;

use super::stage::Stage;

impl Stage<'_, '_> {
    /// The parts of every key of this stage.
    pub(super) fn parts(&self, kind: StepKind, instruction: Vec<String>) -> KeyParts {
        let tools = &self.shared.tools;
        KeyParts {
            version: VERSION,
            kind,
            platform: self.plan.platform.to_string(),
            instruction,
            env: BTreeMap::new(),
            user: String::new(),
            workdir: String::new(),
            network: None,
            hosts: Vec::new(),
            inputs: Vec::new(),
            layer: LayerMode {
                ownership: "ids".to_owned(),
                mtimes: match tools.request.mtimes {
                    TimesMode::Logical => "logical".to_owned(),
                    TimesMode::Real => "real".to_owned(),
                },
                source_date_epoch: tools.source_date_epoch,
                base_created: self.result.base_created,
            },
        }
    }
}
