//! From stages to steps: every word expanded, every name resolved, the config folded together.
//!
//! One [`State`] goes through a stage's instructions; it is the one place where ARG, ENV, USER, WORKDIR and SHELL have
//! effect. What depends on running a step is left to the steps; what this version can't do yet is refused by name.

mod add;
mod base;
mod config;
mod contexts;
mod copy;
mod locked;
mod mount;
mod ports;
mod run;
mod state;
mod triggers;
mod visit;

use std::collections::{BTreeMap, BTreeSet};

use box_store::Store;
use box_store::error::StoreError;

use crate::ast::{ArgDeclaration, Instruction, InstructionKind, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::{arg_value, expand_word};
use crate::graph::{Base, Stage, StageGraph, StageId};
use crate::plan::{Action, BasePlan, Place, StagePlan, Step};
use crate::request::BuildRequest;
use crate::source::Span;
use crate::url::without_credentials;

use state::State;

pub use contexts::Loaded;
pub(crate) use locked::{Locked, locked_anywhere, locked_image};
pub(crate) use state::DEFAULT_PATH;

/// Why stages could not be lowered.
#[derive(Debug)]
pub enum LowerError {
    /// The Boxfile is wrong, or asks for what this version can't do.
    Boxfile {
        /// What is wrong.
        diagnostics: Vec<Diagnostic>,
        /// Whether an image that it names is not here, so that nothing is certain of what is built on it.
        lacks_image: bool,
    },
    /// The store could not be read.
    Store(StoreError),
}

/// Everything that is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The stages, each after those it needs; the last is the target.
    pub stages: Vec<StagePlan>,
    /// What is odd.
    pub warnings: Vec<Diagnostic>,
    /// Names given by `--build-arg` that no ARG declares.
    pub unused_args: Vec<String>,
}

impl Plan {
    /// Whether a container runs on what a step of this stage makes: a RUN that follows it, from the `next` step on, or one of a stage built on it.
    pub(crate) fn runs_on(&self, stage: StageId, next: usize) -> bool {
        let is_run = |step: &Step| matches!(step.action, Action::Run(_));
        self.stages.iter().any(|plan| match plan.base {
            _ if plan.id == stage => plan.steps.iter().skip(next).any(is_run),
            BasePlan::Stage(base) if base == stage => self.runs_on(plan.id, 0),
            _ => false,
        })
    }
}

/// Lowers all stages of a graph.
///
/// # Errors
/// All that is wrong with the Boxfile at once; that the store could not be read.
pub fn lower(
    graph: &StageGraph,
    request: &BuildRequest,
    store: &Store,
    loaded: &Loaded,
) -> Result<Plan, LowerError> {
    let mut lowering = Lowering {
        graph,
        request,
        store,
        loaded,
        states: BTreeMap::new(),
        declared: graph.global_args.keys().cloned().collect(),
        problems: Vec::new(),
        lacks_image: false,
        warnings: Vec::new(),
    };
    let mut stages = Vec::with_capacity(graph.stages.len());
    for stage in &graph.stages {
        stages.extend(lowering.stage(stage).map_err(LowerError::Store)?);
    }
    if !lowering.problems.is_empty() {
        return Err(LowerError::Boxfile {
            diagnostics: lowering.problems,
            lacks_image: lowering.lacks_image,
        });
    }
    let is_unused = |name: &&String| !lowering.declared.contains(*name) && !is_predefined(name);
    let unused_args = request.build_args.keys().filter(is_unused).cloned().collect();
    Ok(Plan {
        stages,
        warnings: lowering.warnings,
        unused_args,
    })
}

/// ARGs that need no ARG line.
pub(crate) fn is_predefined(name: &str) -> bool {
    is_proxy(name) || name == "SOURCE_DATE_EPOCH" || name == "BUILDKIT_DOCKERFILE_CHECK"
}

/// `HTTP_PROXY` and its like, in both spellings.
pub(crate) fn is_proxy(name: &str) -> bool {
    const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    PROXIES
        .iter()
        .any(|proxy| *proxy == name || proxy.to_ascii_lowercase() == name)
}

struct Lowering<'a> {
    graph: &'a StageGraph,
    request: &'a BuildRequest,
    store: &'a Store,
    loaded: &'a Loaded,
    /// How the stages lowered so far end.
    states: BTreeMap<StageId, State>,
    declared: BTreeSet<String>,
    problems: Vec<Diagnostic>,
    lacks_image: bool,
    warnings: Vec<Diagnostic>,
}

impl Lowering<'_> {
    /// A stage's plan; none if its base is not to be had (which was noted).
    fn stage(&mut self, stage: &Stage) -> Result<Option<StagePlan>, StoreError> {
        let Some((base, mut state)) = self.base(stage)? else {
            return Ok(None);
        };
        let mut steps = Vec::with_capacity(stage.instructions.len());
        let mut before = None;
        steps.extend(self.context_step(stage));
        for trigger in &stage.triggers {
            if self.is_over(stage, &steps, &state, &mut before) {
                break;
            }
            steps.push(self.trigger(&mut state, trigger, &stage.from)?);
        }
        for instruction in &stage.instructions {
            if self.is_over(stage, &steps, &state, &mut before) {
                break;
            }
            steps.push(self.step(&mut state, instruction)?);
        }
        let visit = self.visit(stage, before.as_ref().unwrap_or(&state), &mut steps);
        let all = usize::from(self.context_step(stage).is_some())
            + stage.triggers.len()
            + stage.instructions.len()
            + stage.left_out;
        let plan = StagePlan {
            id: stage.id,
            name: stage.name.clone(),
            from: self.place(&stage.from),
            base,
            base_name: base_name(&stage.base),
            left_out: all.saturating_sub(steps.len()),
            steps,
            config: state.config.clone(),
            platform: state.platform.clone(),
            visit: visit.map(Box::new),
        };
        self.states.insert(stage.id, state);
        Ok(Some(plan))
    }

    fn step(&mut self, state: &mut State, instruction: &Instruction) -> Result<Step, StoreError> {
        let mut created_by = canonical_text(instruction);
        let action = match &instruction.kind {
            InstructionKind::Run(run) => match self.run(state, run, instruction.span)? {
                Some((step, text)) => {
                    self.check_runnable(&state.platform, instruction.keyword.span);
                    created_by = text;
                    Action::Run(Box::new(step))
                }
                None => Action::Config,
            },
            InstructionKind::Copy(copy) => {
                let step = self.copy(state, copy)?;
                step.map_or(Action::Config, |step| Action::Copy(Box::new(step)))
            }
            InstructionKind::Add(add) => {
                let step = self.add(state, add);
                step.map_or(Action::Config, |step| Action::Copy(Box::new(step)))
            }
            InstructionKind::Workdir(word) => {
                let step = self.workdir(state, word);
                step.map_or(Action::Config, Action::Workdir)
            }
            InstructionKind::Arg(declarations) => {
                self.args(state, declarations);
                Action::Config
            }
            _ => {
                self.config(state, instruction);
                Action::Config
            }
        };
        Ok(Step {
            place: self.place(instruction),
            created_by,
            action,
        })
    }

    fn args(&mut self, state: &mut State, declarations: &[ArgDeclaration]) {
        // One snapshot of the environment per instruction.
        let declared: Vec<_> = declarations
            .iter()
            .filter_map(|arg| self.arg(state, arg))
            .collect();
        for (name, default) in declared {
            let given = &self.request.build_args;
            let value = arg_value(&name, default.as_deref(), given, &self.graph.global_args);
            state.scope.declare_arg(&name, value);
            self.declared.insert(name);
        }
    }

    /// An ARG's name and its default, expanded.
    fn arg(&mut self, state: &State, arg: &ArgDeclaration) -> Option<(String, Option<String>)> {
        let name = self.word(state, &arg.written)?;
        if name.is_empty() {
            let problem = Diagnostic::error(arg.written.span, "the name is empty");
            self.problems.push(problem.expected("NAME or NAME=DEFAULT"));
            return None;
        }
        // A default that is not needed may be one that can't be had (`${X:?}`).
        let is_given = self.request.build_args.contains_key(&name);
        let needed = arg.default.as_ref().filter(|_| !is_given);
        let default = needed.and_then(|default| self.word(state, default));
        Some((name, default))
    }

    /// A word, expanded; none if it can't be (which is noted).
    fn word(&mut self, state: &State, word: &Word) -> Option<String> {
        match expand_word(&word.text, self.graph.directives.escape, &state.scope) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problems
                    .push(Diagnostic::error(word.span, error.to_string()));
                None
            }
        }
    }

    /// Notes that something is not supported yet.
    fn refuse<T>(&mut self, span: Span, what: &str) -> Option<T> {
        self.problems
            .push(Diagnostic::error(span, format!("{what} is not supported yet")));
        None
    }

    fn place(&self, instruction: &Instruction) -> Place {
        let source = self.graph.sources.get(instruction.span.file);
        let file = source.map_or("Boxfile", |source| source.name()).to_owned();
        Place {
            span: instruction.span,
            file,
            text: without_credentials(&instruction.text),
        }
    }
}

/// What a base is called; archives say it themselves.
fn base_name(base: &Base) -> String {
    match base {
        Base::Image(name) | Base::Context(name) => name.value.clone(),
        Base::OciLayout { directory, .. } => format!("oci:{}", directory.value),
        Base::Scratch | Base::Stage(_) | Base::Archive(_) => String::new(),
    }
}

/// The instruction on one line, its name in capitals.
fn canonical_text(instruction: &Instruction) -> String {
    let written = &instruction.keyword.value;
    let text = match instruction.text.strip_prefix(written.as_str()) {
        Some(rest) => format!("{}{rest}", instruction.kind.name()),
        None => instruction.text.clone(),
    };
    without_credentials(&text)
}
