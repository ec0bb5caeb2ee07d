//! RUN and WORKDIR.

use box_store::error::StoreError;

use crate::ast::{self, Network, Run, RunCache, RunCommand, Security, Word};
use crate::diagnostic::Diagnostic;
use crate::exec::{Limits, NetworkMode};
use crate::plan::{MountPlan, Reuse, RunStep, WorkdirStep};
use crate::source::Span;

use super::mount::program_path;
use super::state::{State, join};
use super::{Lowering, is_predefined};

impl Lowering<'_> {
    /// The step and what history says of it.
    pub(super) fn run(
        &mut self,
        state: &State,
        run: &Run,
        span: Span,
    ) -> Result<Option<(RunStep, String)>, StoreError> {
        let args = self.run_args(state, run, span);
        let checked = self.check_run(run);
        let mounts = self.mounts(state, run)?;
        let known = args.zip(checked).zip(mounts);
        Ok(known.map(|((args, ()), mounts)| self.run_step(state, run, args, mounts)))
    }

    fn run_step(
        &self,
        state: &State,
        run: &Run,
        args: Vec<String>,
        mounts: Vec<MountPlan>,
    ) -> (RunStep, String) {
        let network = match run.network.as_ref().map(|network| network.value) {
            None | Some(Network::Default) => self.request.network,
            Some(Network::None) => NetworkMode::None,
            Some(Network::Host) => NetworkMode::Host,
        };
        let created_by = created_by(state, &args);
        let step = RunStep {
            args,
            shell: state.shell(),
            env: state.scope.build_env().clone(),
            declared: state.scope.arg_names().map(str::to_owned).collect(),
            user: state.config.config.user.clone(),
            workdir: state.workdir().to_owned(),
            mounts,
            network,
            limits: limits(&run.limits).over(state.limits).over(self.request.limits),
            reuse: match run.cache {
                None => Reuse::Always,
                Some(RunCache::Never) => Reuse::Never,
                Some(RunCache::Ttl(time)) => Reuse::For(time),
            },
        };
        (step, created_by)
    }

    fn run_args(&mut self, state: &State, run: &Run, span: Span) -> Option<Vec<String>> {
        match &run.command {
            RunCommand::Exec(args) if args.is_empty() => {
                self.problems.push(
                    Diagnostic::error(span, "RUN needs a command").expected("a program and its arguments"),
                );
                None
            }
            RunCommand::Exec(args) => Some(args.clone()),
            RunCommand::Shell(text) => Some(shell_form(state, text)),
            RunCommand::Program { name, .. } => Some(vec![program_path(name)]),
        }
    }

    fn check_run(&mut self, run: &Run) -> Option<()> {
        if let Some(security) = run
            .security
            .as_ref()
            .filter(|security| security.value == Security::Insecure)
        {
            let problem = "RUN --security=insecure is refused: box runs no step outside its sandbox";
            let diagnostic = Diagnostic::error(security.span, problem);
            self.problems
                .push(diagnostic.expected("--security=sandbox, or the flag left out"));
            return None;
        }
        Some(())
    }

    /// The directory becomes the working directory, and is made if it is missing.
    pub(super) fn workdir(&mut self, state: &mut State, word: &Word) -> Option<WorkdirStep> {
        let written = self.word(state, word)?;
        if written.is_empty() {
            self.problems
                .push(Diagnostic::error(word.span, "WORKDIR is empty").expected("a path"));
            return None;
        }
        let path = join(state.workdir(), &written);
        state.config.config.working_dir.clone_from(&path);
        Some(WorkdirStep {
            path,
            user: state.config.config.user.clone(),
        })
    }
}

/// What the shell form of RUN, CMD and ENTRYPOINT runs.
pub(super) fn shell_form(state: &State, text: &str) -> Vec<String> {
    let mut args = state.shell();
    args.push(text.to_owned());
    args
}

/// The limits that an instruction states.
pub(super) fn limits(written: &ast::Limits) -> Limits {
    Limits {
        memory: written.memory.as_ref().map(|limit| limit.value),
        millicpus: written.cpus.as_ref().map(|limit| limit.value),
        pids: written.pids.as_ref().map(|limit| limit.value),
        time: written.time.as_ref().map(|limit| limit.value),
    }
}

/// As Docker writes it: `RUN |2 A=1 B=2 /bin/sh -c make`, the ARGs in scope first.
fn created_by(state: &State, args: &[String]) -> String {
    let declared = state.scope.args().iter();
    let given: Vec<String> = declared
        .filter(|(name, _)| !is_predefined(name))
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
        .collect();
    let mut words = vec!["RUN".to_owned()];
    if !given.is_empty() {
        words.push(format!("|{}", given.len()));
    }
    words.extend(given);
    words.extend(args.iter().cloned());
    words.join(" ")
}
