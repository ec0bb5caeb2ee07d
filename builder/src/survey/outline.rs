//! What a target takes: build arguments, secrets, SSH agents, cache mounts.

use std::collections::{BTreeMap, BTreeSet};

use box_store::Store;

use super::description;
use crate::ast::{ArgDeclaration, Escape, Instruction, InstructionKind, MountKind, Run};
use crate::build::{Front, boxfile_error, open_context};
use crate::error::BuildError;
use crate::expand::{arg_value, expand, expand_word};
use crate::graph::{Stage, StageGraph};
use crate::lower::Loaded;
use crate::parse::resolve_mount;
use crate::request::BuildRequest;
use crate::source::{Sources, Span};

/// What a target takes, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// What a comment before its FROM says.
    pub description: Option<String>,
    /// The ARGs that it and the stages it needs have.
    pub args: Vec<OutlineArg>,
    /// `--mount=type=secret`
    pub secrets: Vec<OutlineMount>,
    /// `--mount=type=ssh`
    pub ssh: Vec<OutlineMount>,
    /// `--mount=type=cache`
    pub caches: Vec<OutlineMount>,
    /// What places point into.
    pub sources: Sources,
}

/// An ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What a comment before it says.
    pub description: Option<String>,
    /// The value it will have: as given, else its default.
    pub value: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// A secret, an SSH agent or a cache, by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The mount.
    pub span: Span,
}

/// What the request's target takes.
///
/// # Errors
/// When the Boxfile is wrong, or the context or the store can't be read.
pub fn outline(store: &Store, request: &BuildRequest) -> Result<Outline, BuildError> {
    let context = open_context(store, request)?;
    let front = Front::read(store, request, &context).map_err(boxfile_error)?;
    let graph = front.built_graph(&Loaded::default())?;
    let mut outline = Outline {
        sources: graph.sources.clone(),
        ..Outline::default()
    };
    if let Some(target) = graph.stage(graph.target) {
        outline.name.clone_from(&target.name);
        let name = target.name.as_deref();
        outline.description = name.and_then(|name| description(&target.from, name));
    }
    global_args(&front, &graph, &mut outline);
    for stage in &graph.stages {
        stage_args(&front, &graph, stage, &mut outline);
        stage.instructions.iter().for_each(|i| mounts(i, &mut outline));
    }
    outline.tidy();
    Ok(outline)
}

impl Outline {
    /// In the order of the text, each name once.
    fn tidy(&mut self) {
        self.args.sort_by_key(|arg| arg.span);
        let mut seen = BTreeSet::new();
        self.args.retain(|arg| seen.insert(arg.name.clone()));
        for list in [&mut self.secrets, &mut self.ssh, &mut self.caches] {
            list.sort_by_key(|mount| mount.span);
            let required: BTreeSet<String> =
                list.iter().filter(|m| m.required).map(|m| m.id.clone()).collect();
            let mut seen = BTreeSet::new();
            list.retain(|mount| seen.insert(mount.id.clone()));
            list.iter_mut()
                .for_each(|m| m.required = required.contains(&m.id));
        }
    }
}

/// Global ARGs that a FROM of these stages uses.
fn global_args(front: &Front<'_>, graph: &StageGraph, outline: &mut Outline) {
    let escape = graph.directives.escape;
    let mut used = BTreeSet::new();
    for stage in &graph.stages {
        let InstructionKind::From(from) = &stage.from.kind else {
            continue;
        };
        for word in [Some(&from.base), from.platform.as_ref()].into_iter().flatten() {
            let names = expand(&word.text, escape, &graph.global_args);
            used.extend(
                names
                    .into_iter()
                    .flat_map(|e| e.found.into_iter().chain(e.missing)),
            );
        }
    }
    let is_from = |i: &&Instruction| !matches!(i.kind, InstructionKind::From(_));
    for instruction in front.boxfile.instructions.iter().take_while(is_from) {
        for arg in declarations(instruction) {
            if used.contains(&arg.name.value) {
                let value = graph.global_args.get(&arg.name.value).cloned();
                outline.args.push(described(instruction, arg, value));
            }
        }
    }
}

fn stage_args(front: &Front<'_>, graph: &StageGraph, stage: &Stage, outline: &mut Outline) {
    let mut values = BTreeMap::new();
    for instruction in &stage.instructions {
        for arg in declarations(instruction) {
            let name = &arg.name.value;
            let default = default_of(arg, graph.directives.escape, &values);
            let value = arg_value(name, default.as_deref(), front.build_args(), &graph.global_args);
            values.extend(value.clone().map(|value| (name.clone(), value)));
            outline.args.push(described(instruction, arg, value));
        }
    }
}

/// A default, expanded; as it is written where it can't be.
fn default_of(arg: &ArgDeclaration, escape: Escape, values: &BTreeMap<String, String>) -> Option<String> {
    let default = arg.default.as_ref()?;
    Some(expand_word(&default.text, escape, values).unwrap_or_else(|_| default.text.clone()))
}

fn declarations(instruction: &Instruction) -> &[ArgDeclaration] {
    match &instruction.kind {
        InstructionKind::Arg(declarations) => declarations,
        _ => &[],
    }
}

fn described(instruction: &Instruction, arg: &ArgDeclaration, value: Option<String>) -> OutlineArg {
    OutlineArg {
        name: arg.name.value.clone(),
        description: description(instruction, &arg.name.value),
        value,
        span: arg.name.span,
    }
}

fn mounts(instruction: &Instruction, outline: &mut Outline) {
    let InstructionKind::Run(run) = &instruction.kind else {
        return;
    };
    let Run { mounts, .. } = run.as_ref();
    for mount in mounts {
        // Variables stay as they are written: what they will be is known when the step is.
        let Ok(resolved) = resolve_mount(mount, |word| Ok(word.text.clone())) else {
            continue;
        };
        let target = resolved.target;
        let last = |path: &Option<String>| {
            let path = path.as_deref().unwrap_or_default();
            path.rsplit('/').next().unwrap_or_default().to_owned()
        };
        let (list, id, required) = match resolved.kind {
            MountKind::Secret { id, required, .. } => (
                &mut outline.secrets,
                id.unwrap_or_else(|| last(&target)),
                required,
            ),
            MountKind::Ssh { id, required, .. } => (
                &mut outline.ssh,
                id.unwrap_or_else(|| "default".to_owned()),
                required,
            ),
            MountKind::Cache { id, .. } => (&mut outline.caches, id.or(target).unwrap_or_default(), false),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => continue,
        };
        list.push(OutlineMount {
            id,
            required,
            span: mount.span,
        });
    }
}
