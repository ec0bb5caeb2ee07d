//! ONBUILD triggers of a base, done right after FROM.

use box_store::error::StoreError;

use crate::ast::Instruction;
use crate::graph::Trigger;
use crate::plan::{Place, Step};

use super::Lowering;
use super::state::State;

impl Lowering<'_> {
    /// A trigger's step. It stands nowhere in this Boxfile, so all that is said of it points at the FROM.
    pub(super) fn trigger(
        &mut self,
        state: &mut State,
        trigger: &Trigger,
        from: &Instruction,
    ) -> Result<Step, StoreError> {
        let (problems, warnings) = (self.problems.len(), self.warnings.len());
        let step = self.step(state, &trigger.instruction)?;
        let found = self.problems[problems..]
            .iter_mut()
            .chain(&mut self.warnings[warnings..]);
        found.for_each(|diagnostic| trigger.point_at(from.span, diagnostic));
        let line = trigger.text.lines().next().unwrap_or_default();
        Ok(Step {
            place: Place {
                text: format!("ONBUILD {line}"),
                ..self.place(from)
            },
            ..step
        })
    }
}
