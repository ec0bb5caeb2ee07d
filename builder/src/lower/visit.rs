//! Where a person is let into a stage: what a RUN would have there.

use crate::diagnostic::Diagnostic;
use crate::graph::Stage;
use crate::plan::{Action, Reuse, RunStep, Step, Visited};
use crate::request::ShellAt;

use super::Lowering;
use super::state::State;

impl Lowering<'_> {
    /// Whether the steps are all that are wanted, the one before which a person is let in included; `before` gets the state before that.
    pub(super) fn is_over(
        &self,
        stage: &Stage,
        steps: &[Step],
        state: &State,
        before: &mut Option<State>,
    ) -> bool {
        let Some(ShellAt::Step(number)) = self.wanted(stage) else {
            return false;
        };
        if steps.len() + 2 == number {
            *before = Some(state.clone());
        }
        steps.len() + 1 >= number
    }

    /// The point in this stage; the step that would come next is taken from the steps.
    pub(super) fn visit(&mut self, stage: &Stage, state: &State, steps: &mut Vec<Step>) -> Option<Visited> {
        let next = match self.wanted(stage)? {
            ShellAt::End => None,
            ShellAt::Step(number) if number >= 2 && steps.len() + 1 == number => steps.pop(),
            ShellAt::Step(number) => {
                self.no_such_step(stage, number, steps.len() + 1);
                return None;
            }
        };
        let place = next.as_ref().map(|step| step.place.clone());
        Some(match next.map(|step| step.action) {
            Some(Action::Run(run)) => Visited {
                next: place,
                run: *run,
                is_run: true,
            },
            _ => Visited {
                next: place,
                run: self.nothing(state),
                is_run: false,
            },
        })
    }

    fn wanted(&self, stage: &Stage) -> Option<ShellAt> {
        self.request.shell_at.filter(|_| stage.id == self.graph.target)
    }

    fn no_such_step(&mut self, stage: &Stage, number: usize, count: usize) {
        let problem = match number {
            0 => "steps are counted from 1, which is FROM".to_owned(),
            1 => "before step 1 there is nothing: it is FROM".to_owned(),
            _ => format!("there is no step {number} in this stage"),
        };
        let expected = match count {
            // A stage of a FROM alone.
            0 | 1 => "a stage with another step".to_owned(),
            _ => format!("a step from 2 to {count}, or the stage's name for its end"),
        };
        self.problems
            .push(Diagnostic::error(stage.from.span, problem).expected(expected));
    }

    /// What a RUN without a flag would have.
    fn nothing(&self, state: &State) -> RunStep {
        RunStep {
            args: Vec::new(),
            shell: state.shell(),
            env: state.scope.build_env().clone(),
            declared: state.scope.arg_names().map(str::to_owned).collect(),
            user: state.config.config.user.clone(),
            workdir: state.workdir().to_owned(),
            mounts: Vec::new(),
            network: self.request.network,
            limits: state.limits.over(self.request.limits),
            reuse: Reuse::Always,
        }
    }
}
