//! Instructions → stages with their bases and needs.

use std::collections::{BTreeMap, BTreeSet};

use super::ImageTriggers;
use super::base::{expand_global, resolve_base};
use super::order::target;
use super::types::{Base, FromRef, GraphOptions, Names, Stage, StageId, Trigger, context_name, point_at};
use crate::ast::{ArgDeclaration, Boxfile, Escape, From, Instruction, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::expand::{arg_value, expand_word};
use crate::parse::parse_trigger;
use crate::source::{Span, Spanned};

/// Every stage carries the environment of those before it, so there can't be any number of them.
const MAX_STAGES: usize = 1000;

type Resolved = (Vec<Stage>, Names, BTreeMap<String, String>);

/// All stages of a Boxfile, in its order.
pub(super) fn resolve(
    boxfile: &Boxfile,
    options: &GraphOptions,
    triggers: &ImageTriggers<'_>,
) -> Result<Resolved, Vec<Diagnostic>> {
    let mut resolver = Resolver {
        escape: boxfile.directives.escape,
        options,
        args: options.platform_args.clone(),
        names: Names {
            contexts: options.contexts.clone(),
            ..Names::default()
        },
        stages: Vec::new(),
        errors: Vec::new(),
    };
    for instruction in &boxfile.instructions {
        resolver.instruction(instruction);
        if resolver.stages.len() > MAX_STAGES {
            let message = format!("more than {MAX_STAGES} stages");
            return Err(vec![Diagnostic::error(instruction.span, message)]);
        }
    }
    if resolver.stages.is_empty() && resolver.errors.is_empty() {
        let span = boxfile.instructions.last().map(|i| i.span).unwrap_or_default();
        resolver
            .errors
            .push(Diagnostic::error(span, "no build stage: there is no FROM").expected("FROM BASE"));
    }
    resolver.triggers(triggers);
    resolver.leave_out(boxfile);
    resolver.needs();
    match resolver.errors.is_empty() {
        true => Ok((resolver.stages, resolver.names, resolver.args)),
        false => Err(resolver.errors),
    }
}

struct Resolver<'a> {
    escape: Escape,
    options: &'a GraphOptions,
    args: BTreeMap<String, String>,
    names: Names,
    stages: Vec<Stage>,
    errors: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn instruction(&mut self, instruction: &Instruction) {
        match (&instruction.kind, self.stages.last_mut()) {
            (InstructionKind::From(from), _) => match self.stage(from, instruction) {
                Ok(stage) => self.stages.push(stage),
                Err(error) => self.fail(error, instruction),
            },
            (_, Some(stage)) if stage.is_replaced() => {}
            (_, Some(stage)) => stage.instructions.push(instruction.clone()),
            (InstructionKind::Arg(declarations), None) => {
                for declaration in declarations {
                    if let Err(error) = self.global_arg(declaration) {
                        self.errors.push(error);
                    }
                }
            }
            (InstructionKind::Include(path), None) => {
                let message = "INCLUDE is not supported here: its file has not been read";
                let error = Diagnostic::error(path.span, message);
                self.errors
                    .push(error.suggest("copy the file's instructions into this one"));
            }
            (kind, None) if self.errors.is_empty() => {
                let message = format!(
                    "no build stage in current context: {} before the first FROM",
                    kind.name()
                );
                let error = Diagnostic::error(instruction.keyword.span, message);
                self.errors
                    .push(error.expected("FROM; only ARG may come before it"));
            }
            _ => {}
        }
    }

    /// Keeps numbers and names right behind a FROM that is wrong.
    fn fail(&mut self, error: Diagnostic, instruction: &Instruction) {
        self.errors.push(error);
        self.stages.push(Stage {
            id: StageId(self.stages.len()),
            name: None,
            from: instruction.clone(),
            base: Base::Scratch,
            platform: None,
            triggers: Vec::new(),
            instructions: Vec::new(),
            left_out: 0,
            is_cut: false,
            needs: BTreeSet::new(),
        });
        self.names.count = self.stages.len();
    }

    fn global_arg(&mut self, declaration: &ArgDeclaration) -> Result<(), Diagnostic> {
        let name = &declaration.name.value;
        // A default that is not needed is not expanded: it may say `${NAME:?…}`.
        let given = self.options.build_args.contains_key(name);
        let default = declaration.default.as_ref().filter(|_| !given).map(|w| {
            expand_word(&w.text, self.escape, &self.args)
                .map_err(|e| Diagnostic::error(w.span, format!("failed to expand the default: {e}")))
        });
        let default = default.transpose()?;
        if let Some(value) = arg_value(name, default.as_deref(), &self.options.build_args, &self.args) {
            self.args.insert(name.clone(), value);
        }
        Ok(())
    }

    fn stage(&mut self, from: &From, instruction: &Instruction) -> Result<Stage, Diagnostic> {
        let id = StageId(self.stages.len());
        let base = match self.replacement(from) {
            Some(context) => context,
            None => resolve_base(from, self.escape, &self.args, &self.names)?,
        };
        let expand = |w| expand_global(w, "platform", self.escape, &self.args);
        let platform = from.platform.as_ref().map(expand).transpose()?;
        let name = from.alias.as_ref().map(|a| a.name.clone());
        if let Some(name) = &name {
            self.names.stages.insert(name.clone(), id);
        }
        self.names.count = id.0 + 1;
        let (instructions, needs) = (Vec::new(), BTreeSet::new());
        Ok(Stage {
            id,
            name,
            from: instruction.clone(),
            base,
            platform,
            triggers: Vec::new(),
            instructions,
            left_out: 0,
            is_cut: false,
            needs,
        })
    }

    /// The named context that takes the place of the stage, as with Docker: by name, by number and as the target.
    fn replacement(&self, from: &From) -> Option<Base> {
        let alias = from.alias.as_ref()?;
        let name = context_name(&alias.name);
        let is_given = self.names.contexts.contains(name);
        is_given.then(|| Base::Context(Spanned::new(name.to_owned(), alias.written.span)))
    }

    /// Finds out what each stage's base has left to be done in it.
    fn triggers(&mut self, of_image: &ImageTriggers<'_>) {
        for index in 0..self.stages.len() {
            let stage = &self.stages[index];
            let triggers = match &stage.base {
                _ if stage.is_replaced() => Vec::new(),
                Base::Stage(base) => {
                    let base = self.stages[base.0].instructions.iter();
                    base.filter_map(trigger).collect()
                }
                base => self.parsed(of_image(stage.id, base), stage.from.span),
            };
            self.stages[index].triggers = triggers;
        }
    }

    /// An image's triggers; what is wrong with one is said of the FROM.
    fn parsed(&mut self, texts: Vec<String>, from: Span) -> Vec<Trigger> {
        let mut triggers = Vec::with_capacity(texts.len());
        for text in texts {
            match parse_trigger(&text) {
                Ok(instruction) => triggers.push(Trigger { text, instruction }),
                Err(mut error) => {
                    point_at(&text, from, &mut error);
                    self.errors.push(error);
                }
            }
        }
        triggers
    }

    /// Leaves out what comes after the last step that matters. (Of a stage on a named context one more may stay: whether that is a
    /// directory, whose copy is a step, is not known here.)
    fn leave_out(&mut self, boxfile: &Boxfile) {
        let Some(until) = self.options.until else {
            return;
        };
        // One that does not exist is told of later.
        let target = target(&self.stages, &self.names, self.options, boxfile).ok();
        if let Some(stage) = target.and_then(|target| self.stages.get_mut(target.0)) {
            let kept = until.saturating_sub(1 + stage.triggers.len());
            stage.left_out = stage.instructions.len().saturating_sub(kept);
            stage.is_cut = kept > 0 && kept <= stage.instructions.len();
            stage.instructions.truncate(kept);
        }
    }

    /// Finds out which stages each one needs. A later stage may be copied from, too.
    fn needs(&mut self) {
        for index in 0..self.stages.len() {
            let mut needs = BTreeSet::new();
            let stage = &self.stages[index];
            if let Base::Stage(base) = stage.base {
                needs.insert(base);
            }
            for trigger in &stage.triggers {
                let before = self.errors.len();
                copied_from(&trigger.instruction, &self.names, &mut needs, &mut self.errors);
                let found = self.errors[before..].iter_mut();
                found.for_each(|error| trigger.point_at(stage.from.span, error));
            }
            // Before a COPY nothing of what it copies is needed; a RUN's mounts are.
            let last = match stage.is_cut && !is_run(stage.instructions.last()) {
                true => stage.instructions.len().saturating_sub(1),
                false => stage.instructions.len(),
            };
            for instruction in &stage.instructions[..last] {
                copied_from(instruction, &self.names, &mut needs, &mut self.errors);
            }
            self.stages[index].needs = needs;
        }
    }
}

fn is_run(instruction: Option<&Instruction>) -> bool {
    instruction.is_some_and(|instruction| matches!(instruction.kind, InstructionKind::Run { .. }))
}

/// What an ONBUILD does in the stages that are built on its own.
fn trigger(instruction: &Instruction) -> Option<Trigger> {
    match &instruction.kind {
        InstructionKind::OnBuild(on_build) => Some(Trigger {
            text: on_build.text.clone(),
            instruction: (*on_build.trigger).clone(),
        }),
        _ => None,
    }
}

/// What an instruction copies or mounts from.
fn sources_of(instruction: &Instruction) -> Vec<&Spanned<String>> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.iter().collect(),
        InstructionKind::Run(run) => run.mounts.iter().filter_map(|m| m.from.as_ref()).collect(),
        _ => Vec::new(),
    }
}

/// The images that a stage is on, copies from or mounts from, as they are written.
pub(super) fn images_of(stage: &Stage, names: &Names) -> Vec<String> {
    let base = match &stage.base {
        Base::Image(name) => Some(name.value.clone()),
        _ => None,
    };
    let triggers = stage.triggers.iter().map(|trigger| &trigger.instruction);
    let instructions = triggers.chain(&stage.instructions);
    let sources = instructions.flat_map(sources_of);
    let images = sources.filter_map(|source| match names.resolve(&source.value) {
        FromRef::Image(name) => Some(name),
        FromRef::Stage(_) | FromRef::Context(_) => None,
    });
    base.into_iter().chain(images).collect()
}

/// Adds the stages that an instruction copies or mounts from.
fn copied_from(
    instruction: &Instruction,
    names: &Names,
    needs: &mut BTreeSet<StageId>,
    errors: &mut Vec<Diagnostic>,
) {
    for source in sources_of(instruction) {
        match names.resolve(source) {
            FromRef::Stage(id) => {
                needs.insert(id);
            }
            FromRef::Image(name) if name.is_empty() => {
                let error = Diagnostic::error(source.span, "'from' points to an empty value");
                errors.push(error.expected("a stage's name or number, or an image"));
            }
            FromRef::Image(name) if name.bytes().all(|b| b.is_ascii_digit()) => {
                let error = Diagnostic::error(source.span, format!("invalid stage index {name}"));
                let last = names.count.saturating_sub(1);
                errors.push(error.expected(format!("a stage's name, or its number from 0 to {last}")));
            }
            FromRef::Image(_) | FromRef::Context(_) => {}
        }
    }
}
